"""The thread that scores what waits, in batches of what has gathered, and tells what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from queue import Queue
from threading import Lock, Thread
from typing import Any, Self
from uuid import UUID

from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange
from aspire_guard.observe.open_runs import OpenRun
from aspire_guard.routing.scoring import ScoringResult, score_exchanges
from aspire_guard.verdict import Score

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Observation:
    """What an answer was scored as.

    Attributes:
        run_id: of the chain's run.
        exchange: what was judged.
        score: what the evaluator said; None where it failed.
        error: why it failed; None where it did not.
        tags: of the run.
        metadata: of the run.
    """

    run_id: UUID
    exchange: Exchange
    score: Score | None
    error: Exception | None
    tags: tuple[str, ...]
    metadata: dict[str, Any]

    @classmethod
    def of(cls, one: Waiting, evaluated: ScoringResult) -> Self:
        """What became of an answer that waited."""
        run = one.run
        return cls(
            run.run_id, one.exchange, evaluated.score, evaluated.error, run.tags, run.metadata
        )


@dataclass(frozen=True)
class Waiting:
    """An answer that waits to be scored.

    Attributes:
        run: the chain's run.
        exchange: what is to be judged.
        carried: the score that it came with; None where it is to be scored.
    """

    run: OpenRun
    exchange: Exchange
    carried: Score | None


class BackgroundScoring:
    """Scores answers in a thread of its own; where that cannot keep up, answers are dropped and counted.

    Args:
        evaluator: what scores.
        on_score: hears every observation, in the thread; its errors are logged.
        capacity: the most answers that wait.
        batch: the most answers that are scored in one call of the evaluator.

    Attributes:
        scored: how many answers were scored.
        dropped: how many came when too many waited, or after the end.
        failed: for how many the evaluator or `on_score` failed.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        on_score: Callable[[Observation], None] | None,
        capacity: int,
        batch: int,
    ) -> None:
        self.scored = self.dropped = self.failed = 0
        self._evaluator, self._on_score, self._batch = evaluator, on_score, batch
        self._capacity = capacity
        self._waiting: Queue[Waiting | None] = Queue()
        self._lock = Lock()
        self._closed = False
        self._worker = Thread(target=self._work, name="aspire-guard-observe", daemon=True)
        self._worker.start()

    def put(self, waiting: Waiting) -> None:
        """Hand an answer over, without waiting for anything."""
        with self._lock:
            if self._closed or self._waiting.qsize() >= self._capacity:
                self.dropped += 1
            else:
                self._waiting.put(waiting)

    def flush(self, timeout: float | None) -> bool:
        """Wait until nothing waits; False where that took longer than `timeout` seconds."""
        done = self._waiting.all_tasks_done
        with done:
            return done.wait_for(lambda: not self._waiting.unfinished_tasks, timeout)

    def close(self, timeout: float | None) -> bool:
        """Score what waits and end the thread; False where that took longer than `timeout` seconds."""
        with self._lock:
            first, self._closed = not self._closed, True
        if first:
            self._waiting.put(None)
        self._worker.join(timeout)
        return not self._worker.is_alive()

    def _work(self) -> None:
        going = True
        while going:
            waiting = [self._waiting.get()]
            while len(waiting) < self._batch and not self._waiting.empty():
                waiting.append(self._waiting.get())
            going = None not in waiting
            try:
                self._score([one for one in waiting if one is not None])
            except (
                Exception
            ):  # an interrupt of a graph, say: the next answers are scored all the same
                logger.exception("scoring failed")
                with self._lock:
                    self.failed += sum(one is not None for one in waiting)
            finally:
                for _ in waiting:
                    self._waiting.task_done()

    def _score(self, waiting: list[Waiting]) -> None:
        unscored = [one for one in waiting if one.carried is None]
        results = iter(
            score_exchanges(self._evaluator, [one.exchange for one in unscored]) if unscored else []
        )
        for one in waiting:
            evaluated = next(results) if one.carried is None else ScoringResult(one.carried)
            self._tell(Observation.of(one, evaluated))

    def _tell(self, observation: Observation) -> None:
        failed = observation.score is None
        try:
            if self._on_score is not None:
                self._on_score(observation)
        except Exception:
            logger.exception("on_score failed")
            failed = True
        with self._lock:
            self.failed += failed
            self.scored += observation.score is not None
