"""A watch on the database for changes of tickets, which one thread keeps for all who wait in this process.

PostgreSQL tells of changes by NOTIFY. SQLite counts the changes of its file, and the thread looks at the count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event as Flag
from threading import Lock, Thread
from typing import Any

from aspire_guard.review.database import CHANNEL, Database
from aspire_guard.review.forking import reset_in_children

Wake = Callable[[], object]

# In seconds: how often the thread looks at SQLite's count, and how long it listens to PostgreSQL at a stretch.
_SQLITE_PAUSE = 0.05
_LISTEN_SECONDS = 0.5


class ChangeWatcher:
    """The watch of one process on one database.

    Args:
        database: the database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.reset_after_fork()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Start without the thread and without those who wait."""
        self._lock = Lock()
        self._waiting: dict[Wake, str | None] = {}
        self._is_running = False

    @contextmanager
    def watch(self, ticket_id: str | None) -> Iterator[Flag]:
        """Return a flag that is set when a ticket, or any ticket if it is None, may have changed."""
        flag = Flag()
        with self._register(ticket_id, flag.set):
            yield flag

    @contextmanager
    def awatch(self, ticket_id: str | None) -> Iterator[asyncio.Event]:
        """Watch from an event loop; see `watch`."""
        loop = asyncio.get_running_loop()
        flag = asyncio.Event()
        with self._register(ticket_id, lambda: loop.call_soon_threadsafe(flag.set)):
            yield flag

    def start(self) -> None:
        """Start the thread unless it is running. It ends by itself when nobody waits, or if the database fails."""
        with self._lock:
            if self._is_running or not self._waiting:
                return
            self._is_running = True
        Thread(target=self._run, name="aspire-guard-review-watch", daemon=True).start()

    @contextmanager
    def _register(self, ticket_id: str | None, wake: Wake) -> Iterator[None]:
        with self._lock:
            self._waiting[wake] = ticket_id
        self.start()
        try:
            yield
        finally:
            with self._lock:
                self._waiting.pop(wake, None)

    def _run(self) -> None:
        try:
            with self._database.connect() as connection:
                generate = _poll_sqlite if self._database.is_sqlite else _listen_to_postgresql
                for changed in generate(connection):
                    if not self._wake(changed):
                        return
        except Exception:
            # Whoever waits looks from time to time, meets the same error, and starts the thread anew.
            with self._lock:
                self._is_running = False

    def _wake(self, changed: set[str] | None) -> bool:
        """Wake those who wait for a change of these tickets, or of any if None. Tell whether anybody waits."""
        with self._lock:
            if not self._waiting:
                self._is_running = False
                return False
            awake: list[Wake] = []
            for wake, ticket_id in self._waiting.items():
                if changed is None or (changed and (ticket_id is None or ticket_id in changed)):
                    awake.append(wake)
        for wake in awake:
            try:
                wake()
            except RuntimeError:
                continue  # the event loop has ended meanwhile
        return True


def _poll_sqlite(connection: Any) -> Iterator[set[str] | None]:
    """Yield None whenever another connection has changed the file, and an empty set between that."""
    version: int | None = None
    while True:
        (found,) = connection.execute("PRAGMA data_version").fetchone()
        # The first look may be too late for a change, so that it counts as one.
        yield set() if found == version else None
        version = found
        time.sleep(_SQLITE_PAUSE)


def _listen_to_postgresql(connection: Any) -> Iterator[set[str] | None]:
    """Yield the ids of the tickets that have changed, or None if they are unknown, or an empty set between that."""
    connection.autocommit = True
    connection.execute(f"LISTEN {CHANNEL}")
    yield None
    while True:
        for notice in connection.notifies(timeout=_LISTEN_SECONDS):
            yield set(notice.payload.split(",")) if notice.payload else None
        yield set()
