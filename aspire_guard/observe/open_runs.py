"""The runs that go on: of each the outermost one that it belongs to, with its input and what was seen inside it."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any
from uuid import UUID

from aspire_guard.exchange.run_recorder import RunRecorder

# Runs that began and never ended, of a process that lost their threads, must not stay for ever.
_MOST_OPEN_RUNS = 10_000


class OpenRun:
    """An outermost run that goes on: its input, the runs inside it, and what was seen in them."""

    def __init__(
        self, run_id: UUID, input: Any, tags: Sequence[str] | None, metadata: dict[str, Any] | None
    ) -> None:
        self.run_id, self.input, self.tags, self.metadata = (
            run_id,
            input,
            tuple(tags or ()),
            dict(metadata or {}),
        )
        self.watch = RunRecorder()
        self.inner: set[UUID] = set()


class OpenRuns:
    """Every run that goes on, by its id; safe to be called from several threads.

    Attributes:
        lost: how many outermost runs were forgotten because too many went on.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._lock = Lock()
        self._outermost: dict[UUID, OpenRun] = {}

    def __len__(self) -> int:
        return len(self._outermost)

    def get(self, run_id: UUID) -> OpenRun | None:
        """The outermost run that a run belongs to; None where it is not known."""
        return self._outermost.get(run_id)

    def began(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        input: Any = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> OpenRun | None:
        """Note a run; the outermost one that it belongs to, or None where its parent is not known."""
        with self._lock:
            if parent_run_id is None:
                run: OpenRun | None = OpenRun(run_id, input, tags, metadata)
            else:
                run = self._outermost.get(parent_run_id)
            if run is not None:
                run.inner.add(run_id)
                self._outermost[run_id] = run
            if len(self._outermost) > _MOST_OPEN_RUNS:
                self._forget(next(iter(self._outermost)))
                self.lost += 1
        return run

    def ended(self, run_id: UUID) -> OpenRun | None:
        """Forget a run, and with an outermost one all inside it; None where it is not known."""
        with self._lock:
            return self._forget(run_id)

    def _forget(self, run_id: UUID) -> OpenRun | None:
        run = self._outermost.pop(run_id, None)
        if run is not None and run_id == run.run_id:
            for inner in run.inner:
                self._outermost.pop(inner, None)
        return run
