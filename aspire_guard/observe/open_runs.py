"""The runs that have begun and not ended, grouped under their outermost runs."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any
from uuid import UUID

from aspire_guard.exchange.run_recorder import RunRecorder

# The end of a run may never be reported, for example because its thread died. The run must not stay forever.
_MAX_OUTERMOST_RUNS = 10_000


class OpenRun:
    """An outermost run that has not ended.

    Attributes:
        run_id: the id of the run.
        input: the input of the run.
        tags: the tags of the run.
        metadata: the metadata of the run.
        recorder: the documents and messages that were seen in the run and inside it.
        inner_ids: the ids of the runs inside it that have not ended.
    """

    def __init__(
        self, run_id: UUID, input: Any, tags: Sequence[str] | None, metadata: dict[str, Any] | None
    ) -> None:
        self.run_id = run_id
        self.input = input
        self.tags = tuple(tags or ())
        self.metadata = dict(metadata or {})
        self.recorder = RunRecorder()
        self.inner_ids: set[UUID] = set()


class OpenRuns:
    """All open runs by their ids. Safe to use from several threads.

    Attributes:
        lost: the number of outermost runs that were forgotten because too many were open.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._lock = Lock()
        self._outermost: dict[UUID, OpenRun] = {}
        # The outermost run of each inner run.
        self._inner: dict[UUID, OpenRun] = {}

    def __len__(self) -> int:
        return len(self._outermost) + len(self._inner)

    def get(self, run_id: UUID) -> OpenRun | None:
        """Return the outermost run that a run belongs to, or None if it is unknown."""
        return self._outermost.get(run_id) or self._inner.get(run_id)

    def begin(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        input: Any = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> OpenRun | None:
        """Note a run, and return the outermost run that it belongs to, or None if its parent is unknown."""
        with self._lock:
            if parent_run_id is not None:
                return self._begin_inner(run_id, parent_run_id)
            run = self._outermost[run_id] = OpenRun(run_id, input, tags, metadata)
            if len(self._outermost) > _MAX_OUTERMOST_RUNS:
                oldest = next(iter(self._outermost))
                self._forget(oldest)
                self.lost += 1
            return run

    def end(self, run_id: UUID) -> OpenRun | None:
        """Forget a run, and all runs inside an outermost run.

        Returns:
            The outermost run that the run belonged to, or None if it is unknown.
        """
        with self._lock:
            return self._forget(run_id)

    def _begin_inner(self, run_id: UUID, parent_run_id: UUID) -> OpenRun | None:
        run = self.get(parent_run_id)
        if run is not None:
            run.inner_ids.add(run_id)
            self._inner[run_id] = run
        return run

    def _forget(self, run_id: UUID) -> OpenRun | None:
        run = self._inner.pop(run_id, None)
        if run is not None:
            run.inner_ids.discard(run_id)
            return run
        run = self._outermost.pop(run_id, None)
        if run is not None:
            for inner_id in run.inner_ids:
                del self._inner[inner_id]
        return run
