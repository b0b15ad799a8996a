"""Webhooks: an address is told of each step of a ticket, in order and at least once.

The audit trail is the list of what is to be sent, and each webhook remembers how far it has come. Nothing is lost if
a process is killed: another process with the same webhook goes on. The messages follow the Standard Webhooks
specification, so that its libraries can check their signatures.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock, Thread
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, TypeAdapter, field_validator
from sqlalchemy import insert, select, update
from tenacity import Retrying, retry_if_result, stop_never, wait_random_exponential

from aspire_guard.errors import ReviewQueueError
from aspire_guard.review.audit import count_entries, read_entries
from aspire_guard.review.database import Database
from aspire_guard.review.forking import reset_in_children
from aspire_guard.review.tables import tickets, webhooks
from aspire_guard.review.ticket import AuditEntry, Event
from aspire_guard.review.transaction import Transaction
from aspire_guard.review.watching import ChangeWatcher

_log = logging.getLogger(__name__)

_BATCH = 50
_SECRET_PREFIX = "whsec_"
_MIN_SECRET = 24
# In seconds. A webhook's lease is longer than the sending of a message can take.
_LONGEST_PAUSE = 60.0
_LEASE = 60.0
_LOOK_SECONDS = 30.0


class Webhook(BaseModel):
    """An address to be told of tickets.

    It is sent the ids of the ticket, not its texts: those are for whoever may read the queue.

    Attributes:
        url: the address, which is sent a POST for each event. It answers with a status from 200 to 299.
        secret: the key of the signature, `whsec_` and at least 24 random bytes in base64, or None for messages
            without a signature.
        events: the events to send.
        timeout: the seconds that the address may take to answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    secret: SecretStr | None = None
    events: tuple[Event, ...] = ("submitted", "decided")
    timeout: Annotated[float, Field(gt=0, lt=_LEASE)] = 10.0

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        TypeAdapter(HttpUrl).validate_python(url)
        return url

    @field_validator("secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(_decode_secret(secret.get_secret_value())) < _MIN_SECRET:
            raise ValueError(
                f"expected a secret of at least {_MIN_SECRET} bytes, found a shorter one"
            )
        return secret

    @property
    def name(self) -> str:
        """The name under which the database keeps how far the webhook has come."""
        return hashlib.sha256(self.url.encode()).hexdigest()


class WebhookSender:
    """The thread of a process that sends the messages of its webhooks.

    Args:
        database: the database of the queue.
        watcher: tells of changes, also of those that other processes make.
        hooks: the webhooks.
    """

    def __init__(
        self, database: Database, watcher: ChangeWatcher, hooks: tuple[Webhook, ...]
    ) -> None:
        self._database = database
        self._watcher = watcher
        self._hooks = hooks
        self.reset_after_fork()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Start without the thread."""
        self._lock = Lock()
        self._is_running = False

    def prepare(self) -> None:
        """Start the thread, unless it is running or there are no webhooks.

        A webhook that the database does not know yet is told of what happens from now on.
        """
        if self._is_running or not self._hooks:
            return
        with self._lock:
            if self._is_running:
                return
            self._database.write(self._register)
            self._is_running = True
        Thread(target=self._run, name="aspire-guard-review-webhooks", daemon=True).start()

    def send_pending(self) -> bool:
        """Send what is still to be sent. Tell whether nothing is left."""
        # One webhook that fails does not keep the others waiting.
        results = [self._send_for(hook) for hook in self._hooks]
        return all(results)

    def _run(self) -> None:
        retrying = Retrying(
            wait=wait_random_exponential(max=_LONGEST_PAUSE),
            stop=stop_never,
            retry=retry_if_result(_is_unfinished),
        )
        with self._watcher.watch(None) as flag:
            while True:
                flag.clear()
                retrying(self.send_pending)
                flag.wait(_LOOK_SECONDS)
                self._watcher.start()

    def _send_for(self, hook: Webhook) -> bool:
        """Send the messages of a webhook. Tell whether nothing is left, or another process sends it."""
        try:
            while self._database.read(partial(_has_pending, hook)):
                messages, _ = self._database.write(partial(_lease, hook))
                if messages is None:
                    return True
                for message in messages:
                    if message.body is not None and not _post(hook, message):
                        self._database.write(partial(_advance, hook, None))
                        return False
                    self._database.write(partial(_advance, hook, message.number))
                self._database.write(partial(_advance, hook, None))
        except ReviewQueueError as error:
            _log.warning("a webhook of the review queue waits for its database: %s", error)
            return False
        return True

    def _register(self, transaction: Transaction) -> None:
        known = set(transaction.connection.execute(select(webhooks.c.name)).scalars())
        number = count_entries(transaction.connection)
        for hook in self._hooks:
            if hook.name not in known:
                row = {"name": hook.name, "sent": number}
                transaction.connection.execute(insert(webhooks).values(row))
                known.add(hook.name)


@dataclass(frozen=True)
class _Message:
    """A message for an entry of the audit trail. The body is None if the webhook leaves such entries out."""

    number: int
    time: datetime
    body: bytes | None


def sign(secret: str, message_id: str, time: int, body: bytes) -> str:
    """Return the signature of a message, as the header `webhook-signature` holds it.

    Args:
        secret: the key in base64, after `whsec_`.
        message_id: the header `webhook-id`.
        time: the header `webhook-timestamp`, in seconds since 1970.
        body: the body of the message.
    """
    signed = b".".join((message_id.encode(), str(time).encode(), body))
    digest = hmac.new(_decode_secret(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _decode_secret(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)


def _has_pending(hook: Webhook, transaction: Transaction) -> bool:
    query = select(webhooks.c.sent).where(webhooks.c.name == hook.name)
    sent = transaction.connection.execute(query).scalar()
    return sent is not None and sent < count_entries(transaction.connection)


def _lease(hook: Webhook, transaction: Transaction) -> list[_Message] | None:
    """Take the webhook for this process and return its next messages, or None if another process has it."""
    query = select(webhooks).where(webhooks.c.name == hook.name).with_for_update(skip_locked=True)
    row = transaction.connection.execute(query).one_or_none()
    if row is None or (row.leased_until is not None and row.leased_until > transaction.now):
        return None
    _extend_lease(hook, transaction)
    entries = read_entries(transaction.connection, after=row.sent, limit=_BATCH)
    return [_make_message(hook, entry, transaction) for entry in entries]


def _advance(hook: Webhook, sent: int | None, transaction: Transaction) -> None:
    """Note that a message was sent, or give the webhook back if `sent` is None."""
    is_hook = webhooks.c.name == hook.name
    if sent is None:
        transaction.connection.execute(update(webhooks).where(is_hook).values(leased_until=None))
        return
    _extend_lease(hook, transaction)
    transaction.connection.execute(update(webhooks).where(is_hook).values(sent=sent))


def _extend_lease(hook: Webhook, transaction: Transaction) -> None:
    until = transaction.now + timedelta(seconds=_LEASE)
    is_hook = webhooks.c.name == hook.name
    transaction.connection.execute(update(webhooks).where(is_hook).values(leased_until=until))


def _make_message(hook: Webhook, entry: AuditEntry, transaction: Transaction) -> _Message:
    if entry.event not in hook.events:
        return _Message(entry.number, entry.time, None)
    columns = (tickets.c.key, tickets.c.group, tickets.c.status, tickets.c.action)
    query = select(*columns).where(tickets.c.id == entry.ticket)
    row = transaction.connection.execute(query).one_or_none()
    ticket = {"id": entry.ticket} | ({} if row is None else dict(row._mapping))
    body = {
        "type": f"review.{entry.event}",
        "timestamp": entry.time.isoformat(),
        "data": {"number": entry.number, "ticket": ticket},
    }
    return _Message(entry.number, entry.time, json.dumps(body).encode())


def _post(hook: Webhook, message: _Message) -> bool:
    """Send a message, and tell whether the address took it."""
    # Imported here, because most queues have no webhook.
    import httpx

    body = message.body or b""
    # The id is the same if a message is sent twice, and the time is that of the sending.
    message_id, time = f"review-{message.number}", int(datetime.now(UTC).timestamp())
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(time),
    }
    if hook.secret is not None:
        secret = hook.secret.get_secret_value()
        headers["webhook-signature"] = sign(secret, message_id, time, body)
    try:
        response = httpx.post(hook.url, content=body, headers=headers, timeout=hook.timeout)
    except httpx.HTTPError as error:
        _log.warning(
            "a webhook of the review queue failed, and is tried again: %s", type(error).__name__
        )
        return False
    if not response.is_success:
        found = response.status_code
        _log.warning("a webhook of the review queue answered %s, and is tried again", found)
    return response.is_success


def _is_unfinished(is_done: bool) -> bool:
    return not is_done
