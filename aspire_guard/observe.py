"""AspireCallbackHandler: scores what chains answer without touching it, off the request path.

handler = AspireCallbackHandler(evaluator, on_score=log)
chain.invoke(question, {"callbacks": [handler]})    # answers as ever; `log` hears what the guard would have said
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Full, Queue
from threading import Lock, Thread
from typing import Any, Self
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from aspire_guard.chain_callbacks import ChainWatch
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange, answer_in
from aspire_guard.reading import Reader, Reading
from aspire_guard.routing.evaluation import Evaluated, evaluate
from aspire_guard.verdict import Score

logger = logging.getLogger(__name__)

# Runs that began and never ended, of a process that lost their threads, must not stay for ever.
_MOST_OPEN_RUNS = 10_000


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
    def _of(cls, one: _Waiting, evaluated: Evaluated) -> Self:
        run = one.run
        return cls(run.run_id, one.exchange, evaluated.score, evaluated.error, run.tags, run.metadata)


class _OpenRun:
    """An outermost run that goes on: its input, the runs inside it, and what was seen in them."""

    def __init__(self, run_id: UUID, input: Any, tags: Sequence[str] | None, metadata: dict[str, Any] | None) -> None:
        self.run_id, self.input, self.tags, self.metadata = run_id, input, tuple(tags or ()), dict(metadata or {})
        self.watch = ChainWatch()
        self.inner: set[UUID] = set()


@dataclass(frozen=True)
class _Waiting:
    """An answer that waits to be scored."""

    run: _OpenRun
    exchange: Exchange
    carried: Score | None


class AspireCallbackHandler(BaseCallbackHandler):
    """Scores the answer of every outermost chain run that it sees; the answer itself leaves as ever.

    Scoring happens in one thread of its own, in batches of what has gathered. Where it cannot keep up, answers are
    left unscored and counted. A chain never waits for it, and no error of it reaches a chain. Runs without a
    question or an answer are not counted: a handler sees every chain that it is given to.

    Args:
        evaluator: what scores.
        on_score: hears every observation, in the handler's thread; its errors are logged.
        capacity: the most answers that wait; of further ones none is kept.
        batch: the most answers that are scored in one call of the evaluator.
        question: where the question is, as for AspireGuard.
        context: where the context is, as for AspireGuard.
        answer: where the answer is, as for AspireGuard.

    Attributes:
        scored: how many answers were scored.
        dropped: how many were left unscored because too many waited, or the handler was closed.
        failed: for how many the evaluator or `on_score` failed.
    """

    # Its methods only take notes, which is quicker than handing them to a thread, and keeps their order.
    run_inline = True

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        on_score: Callable[[Observation], None] | None = None,
        capacity: int = 1000,
        batch: int = 16,
        question: Reader | None = None,
        context: Reader | None = None,
        answer: Reader | None = None,
    ) -> None:
        self.scored = self.dropped = self.failed = 0
        self._evaluator, self._on_score, self._batch = evaluator, on_score, batch
        self._reading = Reading(question, context, answer)
        self._waiting: Queue[_Waiting | None] = Queue(capacity)
        self._lock = Lock()
        # Every run that goes on, by its id, with the outermost one that it belongs to.
        self._open: dict[UUID, _OpenRun] = {}
        self._closed = False
        self._worker = Thread(target=self._work, name="aspire-guard-observe", daemon=True)
        self._worker.start()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all answers that wait are scored; False where that took longer than `timeout` seconds."""
        done = self._waiting.all_tasks_done
        with done:
            return done.wait_for(lambda: not self._waiting.unfinished_tasks, timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Score what waits and end the thread; False where that took longer than `timeout` seconds.

        Later answers are dropped, and counted as such.
        """
        with self._lock:
            first, self._closed = not self._closed, True
        if first:
            self._waiting.put(None)
        self._worker.join(timeout)
        return not self._worker.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Notes the run."""
        self._began(run_id, parent_run_id, inputs, tags, metadata)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Notes the run; a chat model may be all that there is of a chain."""
        self._began(run_id, parent_run_id, messages[0], tags, metadata)

    def on_retriever_start(
        self, serialized: dict[str, Any], query: str, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Notes the retriever, so that those inside it are known as such."""
        if parent_run_id is not None and (run := self._began(run_id, parent_run_id)) is not None:
            run.watch.on_retriever_start(serialized, query, run_id=run_id)

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Notes the run, in which documents may be retrieved."""
        if parent_run_id is not None:
            self._began(run_id, parent_run_id)

    def on_retriever_end(
        self, documents: Sequence[Document], *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Keeps what an outermost retriever of a chain returned."""
        if (run := self._open.get(run_id)) is not None:
            run.watch.on_retriever_end(documents, run_id=run_id, parent_run_id=parent_run_id)

    def on_llm_end(
        self, response: LLMResult, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Keeps a message that carries its own score; of a chat model that stands alone it is the answer."""
        if (run := self._open.get(run_id)) is None:
            return
        run.watch.on_llm_end(response, run_id=run_id)
        if parent_run_id is None and isinstance(chat := response.generations[0][0], ChatGeneration):
            self._ended(run_id, chat.message)

    def on_chain_end(
        self, outputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, inputs: Any = None, **kwargs: Any
    ) -> None:
        """Hands an outermost chain's answer over to be scored."""
        if parent_run_id is None:
            # A chain that is streamed has its input only now.
            self._ended(run_id, outputs, inputs)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forgets the run."""
        self._forgotten(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forgets the run."""
        self._forgotten(run_id)

    def _began(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        input: Any = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> _OpenRun | None:
        with self._lock:
            run = _OpenRun(run_id, input, tags, metadata) if parent_run_id is None else self._open.get(parent_run_id)
            if run is not None:
                run.inner.add(run_id)
                self._open[run_id] = run
            if len(self._open) > _MOST_OPEN_RUNS:
                self._forget(next(iter(self._open)))
                self.dropped += 1
        return run

    def _forgotten(self, run_id: UUID) -> _OpenRun | None:
        with self._lock:
            return self._forget(run_id)

    def _forget(self, run_id: UUID) -> _OpenRun | None:
        run = self._open.pop(run_id, None)
        if run is not None and run_id == run.run_id:
            for inner in run.inner:
                self._open.pop(inner, None)
        return run

    def _ended(self, run_id: UUID, output: Any, input: Any = None) -> None:
        run = self._forgotten(run_id)
        answer = answer_in(output)
        if run is None or (isinstance(answer, AIMessage) and answer.tool_calls):
            return
        try:
            exchange = self._reading.exchange(run.input if input is None else input, output, run.watch.documents)
            exchange = run.watch.measured(exchange, output)
        except Exception:
            return
        carried = run.watch.self_score(output, getattr(self._evaluator, "fingerprint", None))
        with self._lock:
            try:
                if self._closed:
                    raise Full
                self._waiting.put_nowait(_Waiting(run, exchange, carried))
            except Full:
                self.dropped += 1

    def _work(self) -> None:
        going = True
        while going:
            waiting = [self._waiting.get()]
            while len(waiting) < self._batch and not self._waiting.empty():
                waiting.append(self._waiting.get())
            going = None not in waiting
            try:
                self._score([one for one in waiting if one is not None])
            finally:
                for _ in waiting:
                    self._waiting.task_done()

    def _score(self, waiting: list[_Waiting]) -> None:
        unscored = [one for one in waiting if one.carried is None]
        results = iter(evaluate(self._evaluator, [one.exchange for one in unscored]) if unscored else [])
        for one in waiting:
            evaluated = next(results) if one.carried is None else Evaluated(one.carried)
            self._tell(Observation._of(one, evaluated))

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
