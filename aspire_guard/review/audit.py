"""The audit trail: entries that are only ever appended, each with a hash over itself and the entry before it.

The personal data of an entry, its actor and its details, enters the hash as a salted digest. If the data is erased,
the digest stays, and so does the chain. Without the salt, the digest tells nothing.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import Connection, Row, insert, select, update

from aspire_guard.review.tables import audit, audit_head, escape_text, tickets
from aspire_guard.review.ticket import AuditEntry, AuditReport, Event
from aspire_guard.review.transaction import Transaction

_BATCH = 1_000
# Many problems are one problem: a database that was tampered with or lost its end.
_MAX_PROBLEMS = 20
# The fields that a reviewer is shown, and those that make a decision.
_ITEM_COLUMNS = (
    "key", "question", "context", "answer", "confidence", "reason", "group", "metadata",
    "thread_id", "is_released", "details",
)  # fmt: skip
_DECISION_COLUMNS = ("action", "text", "reviewer", "comment")


def append_entry(
    transaction: Transaction,
    ticket_id: str,
    event: Event,
    actor: str | None = None,
    details: dict[str, JsonValue] | None = None,
) -> None:
    """Append an entry. No row of a ticket may be locked after that: whoever appends holds the head until the end."""
    query = select(audit_head.c.number, audit_head.c.hash).with_for_update()
    number, last_hash = transaction.connection.execute(query).one()
    number += 1
    salt = secrets.token_hex(16)
    details_text = json.dumps(details or {}, sort_keys=True)
    digest = _digest([salt, actor, details_text])
    new_hash = _hash_entry(last_hash, number, ticket_id, event, transaction.now, digest)
    entry = {
        "number": number,
        "ticket": ticket_id,
        "event": event,
        "time": transaction.now,
        "actor": actor,
        "details": details_text,
        "salt": salt,
        "digest": digest,
        "hash": new_hash,
    }
    transaction.connection.execute(insert(audit).values(entry))
    transaction.connection.execute(update(audit_head).values(number=number, hash=new_hash))
    transaction.changed.append(ticket_id)


def digest_item(values: Any) -> str:
    """Return the digest (hex) of what was submitted.

    Args:
        values: the ticket's columns by their names.
    """
    return _digest([values[name] for name in _ITEM_COLUMNS])


def digest_decision(values: Any) -> str:
    """Return the digest (hex) of a decision.

    Args:
        values: the columns of a ticket or an opinion by their names.
    """
    return _digest([values[name] for name in _DECISION_COLUMNS])


def import_tickets(transaction: Transaction) -> None:
    """Append an entry for each ticket of an earlier version, and complete its columns."""
    query = select(tickets).order_by(tickets.c.created, tickets.c.id)
    for row in transaction.connection.execute(query).all():
        values = row._mapping
        search_text = make_search_text(values["question"], values["answer"])
        change = update(tickets).where(tickets.c.id == values["id"])
        transaction.connection.execute(change.values(search_text=search_text))
        details: dict[str, JsonValue] = {"item": digest_item(values)}
        if values["action"] is not None:
            details["decision"] = digest_decision(values)
        append_entry(transaction, values["id"], "imported", details=details)


def make_search_text(question: str, answer: str) -> str:
    """Return the text that the filter by text looks in."""
    return escape_text(f"{question}\n{answer}".casefold())


def erase_entries(transaction: Transaction, ticket_ids: Collection[str]) -> None:
    """Erase the personal data of tickets from their entries."""
    change = update(audit).where(audit.c.ticket.in_(ticket_ids))
    transaction.connection.execute(change.values(actor=None, details=None, salt=None))


def read_entries(
    connection: Connection, *, ticket_id: str | None = None, after: int = 0, limit: int = _BATCH
) -> list[AuditEntry]:
    """Read entries in their order.

    Args:
        connection: the connection to the database.
        ticket_id: the ticket whose entries to read, or None for all tickets.
        after: the number of the last entry to leave out.
        limit: the greatest number of entries to return.
    """
    query = select(audit).where(audit.c.number > after).order_by(audit.c.number).limit(limit)
    if ticket_id is not None:
        query = query.where(audit.c.ticket == ticket_id)
    entries: list[AuditEntry] = []
    for row in connection.execute(query):
        entry = AuditEntry(
            number=row.number,
            ticket=row.ticket,
            event=row.event,
            time=row.time,
            actor=row.actor,
            details=json.loads(row.details or "{}"),
            is_erased=row.salt is None,
        )
        entries.append(entry)
    return entries


def count_entries(connection: Connection) -> int:
    """Return the number of the last entry."""
    return int(connection.execute(select(audit_head.c.number)).scalar_one())


def verify_trail(connection: Connection, *, head: str | None = None) -> AuditReport:
    """Check that no entry was changed, removed or added, and that the tickets are as the entries tell.

    Args:
        connection: the connection to the database, with one snapshot for all reads.
        head: the head that an earlier check has reported. It must still be in the chain.
    """
    check = _Check(head)
    for row in _generate_rows(connection):
        check.check_entry(row)
    number, last_hash = connection.execute(select(audit_head.c.number, audit_head.c.hash)).one()
    check.check_end(number, last_hash)
    columns = [tickets.c[name] for name in ("id", *_ITEM_COLUMNS, *_DECISION_COLUMNS)]
    for row in connection.execution_options(yield_per=_BATCH).execute(select(*columns)):
        check.check_ticket(row)
    check.check_missing_tickets()
    return AuditReport(n_entries=number, head=last_hash, problems=tuple(check.problems))


class _Check:
    """A walk along the chain, and then over the tickets.

    Attributes:
        problems: what is wrong so far, a sentence each.
    """

    def __init__(self, head: str | None) -> None:
        self.problems: list[str] = []
        self._number = 0
        self._hash = ""
        self._expected_head = head
        self._items: dict[str, str] = {}
        self._decisions: dict[str, str] = {}
        self._present: set[str] = set()
        self._erased: set[str] = set()

    def check_entry(self, row: Row[Any]) -> None:
        """Check an entry against the entry before it, and note what it tells about its ticket."""
        self._number += 1
        if row.number != self._number:
            self._report(f"entries {self._number} to {row.number - 1} are missing")
            self._number = row.number
        expected = _hash_entry(self._hash, row.number, row.ticket, row.event, row.time, row.digest)
        if row.hash != expected:
            self._report(f"the hash of entry {row.number} does not fit the entries before it")
        self._hash = row.hash
        if self._hash == self._expected_head:
            self._expected_head = None
        if row.salt is None:
            self._erased.add(row.ticket)
        elif row.digest != _digest([row.salt, row.actor, row.details]):
            self._report(f"the actor or the details of entry {row.number} were changed")
        else:
            self._note(row.ticket, row.event, json.loads(row.details))

    def _note(self, ticket: str, event: str, details: dict[str, Any]) -> None:
        self._present.add(ticket)
        if "item" in details:
            self._items[ticket] = details["item"]
        if "decision" in details:
            self._decisions[ticket] = details["decision"]
        if event == "undone":
            self._decisions.pop(ticket, None)
        if event == "purged":
            self._forget(ticket)

    def _forget(self, ticket: str) -> None:
        self._present.discard(ticket)
        self._erased.discard(ticket)
        self._items.pop(ticket, None)
        self._decisions.pop(ticket, None)

    def check_end(self, number: int, last_hash: str) -> None:
        """Check that the chain ends where the head says, and holds the earlier head."""
        if (number, last_hash) != (self._number, self._hash):
            self._report(f"the trail ends at entry {self._number}, but its head is entry {number}")
        if self._expected_head is not None:
            self._report("the head of the earlier check is not in the trail")
        for ticket in sorted(self._erased):
            self._report(f"entries of ticket {ticket} are erased, but it was never purged")

    def check_ticket(self, row: Row[Any]) -> None:
        """Check that a ticket is as its entries tell."""
        values = row._mapping
        ticket = values["id"]
        if ticket not in self._present:
            self._report(f"ticket {ticket} has no entry")
            return
        self._present.discard(ticket)
        if self._items.get(ticket) != digest_item(values):
            self._report(f"the answer of ticket {ticket} was changed")
        has_decision = values["action"] is not None
        if self._decisions.get(ticket) != (digest_decision(values) if has_decision else None):
            self._report(f"the decision on ticket {ticket} was changed")

    def check_missing_tickets(self) -> None:
        """Report the tickets that have entries and no row."""
        for ticket in sorted(self._present):
            self._report(f"ticket {ticket} was removed, but it was never purged")

    def _report(self, problem: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(problem)


def _generate_rows(connection: Connection) -> Iterator[Row[Any]]:
    last = 0
    while True:
        query = select(audit).where(audit.c.number > last).order_by(audit.c.number).limit(_BATCH)
        rows = connection.execute(query).all()
        if not rows:
            return
        yield from rows
        last = rows[-1].number


def _hash_entry(
    last_hash: str, number: int, ticket: str, event: str, time: datetime, digest: str
) -> str:
    time_text = time.isoformat() if isinstance(time, datetime) else str(time)
    return _digest([last_hash, number, ticket, event, time_text, digest])


def _digest(value: Any) -> str:
    # As ASCII, so that lone surrogates have a digest too.
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
