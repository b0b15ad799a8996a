"""The thread that scores waiting answers in batches, and reports the scores."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from queue import Queue
from threading import Lock, Thread
from typing import Any
from uuid import UUID

from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange
from aspire_guard.observe.open_runs import OpenRun
from aspire_guard.routing.scoring import ScoringResult, score_exchanges
from aspire_guard.verdict import Score

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Observation:
    """The score of an answer that a chain gave.

    Attributes:
        run_id: the id of the chain's run.
        exchange: the exchange that was judged.
        score: the evaluator's score, or None if it failed.
        error: the reason for the failure, or None if there is a score.
        tags: the tags of the run.
        metadata: the metadata of the run.
    """

    run_id: UUID
    exchange: Exchange
    score: Score | None
    error: Exception | None
    tags: tuple[str, ...]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class WaitingAnswer:
    """An answer that waits to be scored.

    Attributes:
        run: the chain's run.
        exchange: the exchange to judge.
        known_score: the score that the answering model itself gave, or None if the evaluator has to score it.
    """

    run: OpenRun
    exchange: Exchange
    known_score: Score | None


class BackgroundScoring:
    """A thread that scores answers. If it cannot keep up, answers are dropped and counted.

    Args:
        evaluator: the evaluator that scores.
        on_score: receives every observation, in the thread. Its errors are logged.
        capacity: the largest number of answers that may wait.
        batch: the largest number of answers that are scored in one call of the evaluator.

    Attributes:
        scored: the number of answers that were scored.
        dropped: the number of answers that came when too many waited, or after the end.
        failed: the number of answers for which the evaluator or `on_score` failed.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        on_score: Callable[[Observation], None] | None,
        capacity: int,
        batch: int,
    ) -> None:
        self.scored = 0
        self.dropped = 0
        self.failed = 0
        self._evaluator = evaluator
        self._on_score = on_score
        self._capacity = capacity
        self._batch = batch
        # None is the signal to end.
        self._waiting: Queue[WaitingAnswer | None] = Queue()
        self._lock = Lock()
        self._is_closed = False
        self._thread: Thread | None = None

    def put(self, answer: WaitingAnswer) -> None:
        """Add an answer, without waiting for anything."""
        with self._lock:
            if self._is_closed or self._waiting.qsize() >= self._capacity:
                self.dropped += 1
                return
            self._waiting.put(answer)
            if self._thread is None:
                self._thread = Thread(target=self._work, name="aspire-guard-observe", daemon=True)
                self._thread.start()

    def flush(self, timeout: float | None) -> bool:
        """Wait until no answer waits, and return False if that takes longer than `timeout` seconds."""
        done = self._waiting.all_tasks_done
        with done:
            return done.wait_for(lambda: not self._waiting.unfinished_tasks, timeout)

    def close(self, timeout: float | None) -> bool:
        """Score the waiting answers and end the thread.

        Returns:
            False if that takes longer than `timeout` seconds.
        """
        with self._lock:
            was_closed = self._is_closed
            self._is_closed = True
        if self._thread is None:
            return True
        if not was_closed:
            self._waiting.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        """Score one batch after another until the signal to end."""
        is_ending = False
        while not is_ending:
            batch = self._take_batch()
            is_ending = None in batch
            answers = [answer for answer in batch if answer is not None]
            try:
                self._score(answers)
            except BaseException:
                # For example an interrupt of a graph, or an evaluator that ends its program. The
                # next answers are scored all the same.
                logger.exception("scoring failed")
                with self._lock:
                    self.failed += len(answers)
            finally:
                for _ in batch:
                    self._waiting.task_done()

    def _take_batch(self) -> list[WaitingAnswer | None]:
        """Wait for an answer, and return it with those that have gathered behind it."""
        batch = [self._waiting.get()]
        while len(batch) < self._batch and not self._waiting.empty():
            batch.append(self._waiting.get())
        return batch

    def _score(self, answers: list[WaitingAnswer]) -> None:
        unscored = [answer.exchange for answer in answers if answer.known_score is None]
        results = iter(score_exchanges(self._evaluator, unscored) if unscored else ())
        for answer in answers:
            if answer.known_score is None:
                self._report(answer, next(results))
            else:
                self._report(answer, ScoringResult(answer.known_score))

    def _report(self, answer: WaitingAnswer, result: ScoringResult) -> None:
        """Count an answer, and hand its observation to `on_score`."""
        run = answer.run
        observation = Observation(
            run.run_id, answer.exchange, result.score, result.error, run.tags, run.metadata
        )
        has_failed = result.score is None
        try:
            if self._on_score is not None:
                self._on_score(observation)
        except BaseException:
            logger.exception("on_score failed")
            has_failed = True
        with self._lock:
            self.failed += has_failed
            self.scored += result.score is not None
