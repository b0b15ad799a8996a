"""The review queue under load: what is lost or decided twice under kills, and how long its calls take.

    python benchmarks/review_queue.py kills --url sqlite:///reviews.db
    python benchmarks/review_queue.py kills --url postgresql://host/name
    python benchmarks/review_queue.py speed --url sqlite:///reviews.db

`kills` has writers submit and reviewers claim and decide, in processes of their own, and ends a random one of them by
SIGKILL again and again. It needs an empty database. `speed` measures a page of the list, and what a submission adds to
the guard.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from uuid import uuid4

import numpy as np
from sqlalchemy import insert

from aspire_guard import Abstain, AspireGuard, HumanReview, RoutingPolicy
from aspire_guard.errors import ReviewConflictError, ReviewQueueError
from aspire_guard.review import AuditReport, Decision, ReviewItem, ReviewQueue, TicketFilter
from aspire_guard.review.item import Action
from aspire_guard.review.rows import make_item_values
from aspire_guard.review.tables import tickets
from aspire_guard.review.transaction import Transaction
from aspire_guard.testing import ConstantEvaluator

# In seconds.
_LEASE = 2.0
_IDLE_PAUSE = 0.2
_ACTIONS: tuple[Action, ...] = ("approve", "reject")


@dataclass(frozen=True)
class Load:
    """The load of a test with kills.

    Attributes:
        url: the URL of an empty database.
        n_tickets: the number of tickets to submit.
        n_writers: the number of processes that submit.
        n_reviewers: the number of processes that decide.
        pause: the mean time between two kills, in seconds.
        folder: the folder of the files in which each process notes what it was told.
    """

    url: str
    n_tickets: int
    n_writers: int
    n_reviewers: int
    pause: float
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """The content of the database after a test with kills.

    Attributes:
        n_kills: the number of processes that were killed.
        n_submitted: the number of tickets in the database.
        n_lost: the number of tickets, and of decisions, that a process was told of and that are not there.
        n_decided: the number of tickets with a decision.
        n_decided_twice: the number of tickets on which more than one decision was made.
        report: the check of the audit trail.
        seconds: the time from the first submission to the last decision.
    """

    n_kills: int
    n_submitted: int
    n_lost: int
    n_decided: int
    n_decided_twice: int
    report: AuditReport
    seconds: float


def run_with_kills(load: Load, seed: int = 0) -> Outcome:
    """Submit and decide under kills, and compare the database with what the processes were told."""
    chooser = random.Random(seed)
    queue = ReviewQueue(load.url)
    queue.count()
    context = get_context("fork")
    jobs: dict[str, Callable[[], None]] = {}
    for index in range(load.n_writers):
        jobs[f"writer-{index}"] = _Writer(load, index)
    for index in range(load.n_reviewers):
        jobs[f"reviewer-{index}"] = _Reviewer(load, index)
    started = time.monotonic()
    processes: dict[str, Any] = {}
    for name, job in jobs.items():
        processes[name] = _start(context, job)
    n_kills = 0
    while any(process.is_alive() for process in processes.values()):
        time.sleep(chooser.expovariate(1 / load.pause))
        alive = [name for name, process in processes.items() if process.is_alive()]
        if not alive:
            break
        name = chooser.choice(alive)
        os.kill(processes[name].pid, signal.SIGKILL)
        processes[name].join()
        n_kills += processes[name].exitcode == -signal.SIGKILL
        processes[name] = _start(context, jobs[name])
    seconds = time.monotonic() - started
    failed = [name for name, process in processes.items() if process.exitcode != 0]
    assert not failed, failed
    return _compare(load, queue, n_kills, seconds)


def _start(context: Any, job: Callable[[], None]) -> Any:
    process = context.Process(target=job)
    process.start()
    return process


class _Writer:
    """A process that submits its share of the tickets, and begins after the last one that it was told of."""

    def __init__(self, load: Load, index: int) -> None:
        self._load = load
        self._index = index
        self._log = load.folder / f"writer-{index}"

    def __call__(self) -> None:
        queue = ReviewQueue(self._load.url, lock_timeout=30)
        share = range(self._index, self._load.n_tickets, self._load.n_writers)
        for number in share[len(_read_log(self._log)) :]:
            item = ReviewItem(question=f"Question {number}?", answer="Ada", key=f"ticket {number}")
            _append(self._log, f"{number} {_insist(partial(queue.submit, item)).id}")


class _Reviewer:
    """A process that claims and decides until every ticket has a decision."""

    def __init__(self, load: Load, index: int) -> None:
        self._load = load
        self._name = f"reviewer-{index}"
        self._log = load.folder / self._name

    def __call__(self) -> None:
        queue = ReviewQueue(self._load.url, lease=_LEASE, lock_timeout=30)
        chooser = random.Random(f"{self._name} {os.getpid()}")
        while True:
            ticket = _insist(partial(queue.claim, self._name))
            if ticket is None:
                if _insist(queue.count).decided == self._load.n_tickets:
                    return
                time.sleep(_IDLE_PAUSE)
                continue
            action: Action = chooser.choice(_ACTIONS)
            decision = Decision(action=action, reviewer=self._name)
            try:
                _insist(partial(queue.decide, ticket.id, decision))
            except ReviewConflictError:
                continue  # the lease was over, and somebody else has decided
            _append(self._log, f"{ticket.id} {action}")


def _insist(call: Callable[[], Any]) -> Any:
    """Call until the database answers: on a busy machine a writer may wait longer than its time-out."""
    while True:
        try:
            return call()
        except ReviewQueueError:
            time.sleep(_IDLE_PAUSE)


def _append(path: Path, line: str) -> None:
    """Note a line in one write, which a kill cannot divide."""
    with path.open("ab", buffering=0) as log:
        log.write(f"{line}\n".encode())


def _read_log(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def _compare(load: Load, queue: ReviewQueue, n_kills: int, seconds: float) -> Outcome:
    """Compare the tickets with what the processes have noted."""
    found: dict[str, Any] = {}
    after: str | None = None
    while True:
        page = queue.list(limit=1_000, after=after)
        found |= {ticket.id: ticket for ticket in page}
        after = page.next
        if after is None:
            break
    keys = {ticket.item.key for ticket in found.values()}
    n_lost = load.n_tickets - len(keys)
    told: Counter[str] = Counter()
    for index in range(load.n_writers):
        lines = _read_log(load.folder / f"writer-{index}")
        n_lost += sum(ticket_id not in found for _, ticket_id in lines)
    for index in range(load.n_reviewers):
        name = f"reviewer-{index}"
        for ticket_id, action in _read_log(load.folder / name):
            told[ticket_id] += 1
            decision = found[ticket_id].decision
            n_lost += decision is None or (decision.action, decision.reviewer) != (action, name)
    in_trail: Counter[str] = Counter()
    for entry in queue.events(after=0, timeout=0):
        in_trail[entry.ticket] += entry.event == "decided"
    twice = {ticket_id for ticket_id in found if told[ticket_id] > 1 or in_trail[ticket_id] > 1}
    return Outcome(
        n_kills=n_kills,
        n_submitted=len(found),
        n_lost=n_lost,
        n_decided=sum(ticket.status == "decided" for ticket in found.values()),
        n_decided_twice=len(twice),
        report=queue.verify(),
        seconds=seconds,
    )


def fill(queue: ReviewQueue, n_tickets: int) -> None:
    """Insert tickets in bulk, past the audit trail. Half of them are decided."""
    start = datetime.now(UTC) - timedelta(days=30)
    rows: list[dict[str, Any]] = []
    for number in range(n_tickets):
        item = ReviewItem(
            question=f"Question {number}: who keeps the key of room {number % 977}?",
            context="The key of each room is kept by the warden of its floor. " * 20,
            answer=f"The warden of floor {number % 13} keeps the key, and answers to the office.",
            confidence=number % 1_000 / 1_000,
            group=f"tenant {number % 20}",
        )
        is_decided = number % 2 == 0
        created = start + timedelta(seconds=20 * number)
        rows.append(
            make_item_values(item)
            | {
                "id": uuid4().hex,
                "created": created,
                "status": "decided" if is_decided else "open",
                "action": "approve" if is_decided else None,
                "reviewer": f"reviewer {number % 8}" if is_decided else None,
                "decided": created if is_decided else None,
                "n_opinions": int(is_decided),
            }
        )

    def insert_rows(transaction: Transaction) -> None:
        transaction.connection.execute(insert(tickets), rows)

    queue._database.write(insert_rows)


def measure_pages(queue: ReviewQueue, repeats: int) -> dict[str, float]:
    """Return the 95th percentile of the milliseconds of a page of 50 tickets with its counts, by filter."""
    is_open = TicketFilter(status="open")
    middle = queue.list(is_open, limit=20_000).next
    filters: dict[str, tuple[TicketFilter, str | None]] = {
        "open tickets": (is_open, None),
        "open tickets, in the middle": (is_open, middle),
        "one group": (TicketFilter(status="open", group="tenant 7"), None),
        "low confidence": (TicketFilter(status="open", max_confidence=0.1), None),
        "one reviewer": (TicketFilter(reviewer="reviewer 4"), None),
        "a text": (TicketFilter(text="room 333?"), None),
    }
    found: dict[str, float] = {}
    for name, (where, after) in filters.items():
        seconds: list[float] = []
        for _ in range(repeats):
            started = time.perf_counter()
            queue.list(where, limit=50, after=after)
            queue.count()
            seconds.append(time.perf_counter() - started)
        found[name] = 1_000 * float(np.percentile(seconds, 95))
    return found


def measure_submission(url: str, n_calls: int) -> tuple[float, float]:
    """Return the median and the 95th percentile of the milliseconds that a submission adds to a call of the guard."""
    evaluator = ConstantEvaluator(0.1)

    def answer(question: str) -> str:
        return f"An answer to {question}"

    policies = [RoutingPolicy(otherwise=Abstain()), RoutingPolicy(otherwise=HumanReview(url))]
    guards = [AspireGuard(answer, evaluator=evaluator, policy=policy) for policy in policies]
    added: list[float] = []
    for number in range(n_calls):
        seconds: list[float] = []
        for guard in guards:
            started = time.perf_counter()
            guard.invoke(f"question {number} of {url}?")
            seconds.append(time.perf_counter() - started)
        added.append(seconds[1] - seconds[0])
    # The first call opens the database.
    return 1_000 * float(np.median(added[1:])), 1_000 * float(np.percentile(added[1:], 95))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("benchmark", choices=("kills", "speed"))
    parser.add_argument("--url", default=f"sqlite:///{mkdtemp()}/reviews.db")
    parser.add_argument(
        "--tickets", type=int, help="by default 10,000 for kills, 100,000 for speed"
    )
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--reviewers", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.2, help="mean seconds between two kills")
    options = parser.parse_args(arguments)
    if options.benchmark == "kills":
        _print_kills(options)
    else:
        _print_speed(options)


def _print_kills(options: argparse.Namespace) -> None:
    load = Load(
        options.url,
        options.tickets or 10_000,
        options.writers,
        options.reviewers,
        options.pause,
        Path(mkdtemp()),
    )
    outcome = run_with_kills(load)
    print(
        f"{load.n_tickets:,} tickets, {load.n_writers} writers, {load.n_reviewers} reviewers, "
        f"{outcome.n_kills:,} kills, {outcome.seconds:.0f} s"
    )
    print(f"in the database {outcome.n_submitted:,}, lost {outcome.n_lost:,}")
    print(f"decided {outcome.n_decided:,}, decided twice {outcome.n_decided_twice:,}")
    print(
        f"audit trail: {outcome.report.n_entries:,} entries, {len(outcome.report.problems)} problems"
    )


def _print_speed(options: argparse.Namespace) -> None:
    queue = ReviewQueue(options.url)
    median, high = measure_submission(options.url, 300)
    print(
        f"a submission adds {median:.1f} ms to the guard (median), {high:.1f} ms (95th percentile)"
    )
    n_tickets = options.tickets or 100_000
    fill(queue, n_tickets)
    for name, milliseconds in measure_pages(queue, 40).items():
        print(f"a page of {n_tickets:,} tickets, {name}: {milliseconds:.0f} ms (95th percentile)")


if __name__ == "__main__":
    main()
