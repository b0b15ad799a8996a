"""The runs that have begun and not ended, grouped under their outermost runs."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any
from uuid import UUID

from aspire_guard.exchange.run_recorder import RunRecorder

# The end of a run may never be reported, for example because its thread died. The run must not stay forever.
_MAX_OPEN_RUNS = 10_000


class OpenRun:
    """An outermost run that has not ended.

    Attributes:
        run_id: the id of the run.
        input: the input of the run.
        tags: the tags of the run.
        metadata: the metadata of the run.
        recorder: the documents and messages that were seen in the run and inside it.
        run_ids: the ids of the run and of all runs inside it.
    """

    def __init__(
        self, run_id: UUID, input: Any, tags: Sequence[str] | None, metadata: dict[str, Any] | None
    ) -> None:
        self.run_id = run_id
        self.input = input
        self.tags = tuple(tags or ())
        self.metadata = dict(metadata or {})
        self.recorder = RunRecorder()
        self.run_ids: set[UUID] = set()


class OpenRuns:
    """All open runs by their ids. Safe to use from several threads.

    Attributes:
        lost: the number of outermost runs that were forgotten because too many were open.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._lock = Lock()
        self._outermost: dict[UUID, OpenRun] = {}

    def __len__(self) -> int:
        return len(self._outermost)

    def get(self, run_id: UUID) -> OpenRun | None:
        """Return the outermost run that a run belongs to, or None if it is unknown."""
        return self._outermost.get(run_id)

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
            if parent_run_id is None:
                run: OpenRun | None = OpenRun(run_id, input, tags, metadata)
            else:
                run = self._outermost.get(parent_run_id)
            if run is not None:
                run.run_ids.add(run_id)
                self._outermost[run_id] = run
            if len(self._outermost) > _MAX_OPEN_RUNS:
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

    def _forget(self, run_id: UUID) -> OpenRun | None:
        run = self._outermost.pop(run_id, None)
        if run is not None and run_id == run.run_id:
            for known_id in run.run_ids:
                self._outermost.pop(known_id, None)
        return run
