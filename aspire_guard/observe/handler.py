"""AspireCallbackHandler, which scores the answers of chains without touching them, off the request path.

handler = AspireCallbackHandler(evaluator, on_score=log)
chain.invoke(question, {"callbacks": [handler]})    # the answer is unchanged, and `log` receives its score
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self
from uuid import UUID
from weakref import WeakSet

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from aspire_guard.evaluators.own_scores import find_own_score
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import ExchangeReader, FieldReader
from aspire_guard.exchange.run_recorder import extract_judged_exchange
from aspire_guard.observe.background import BackgroundScoring, Observation, WaitingAnswer
from aspire_guard.observe.open_runs import OpenRuns


class AspireCallbackHandler(BaseCallbackHandler):
    """A callback handler that scores the answer of every outermost chain run, and leaves the answer unchanged.

    Scoring happens in a thread of the handler, in batches of the answers that have gathered. If it cannot keep up,
    answers are left unscored and counted. A chain never waits for it, and no error of it reaches a chain. Runs
    without a question or an answer are not counted, because a handler sees every chain that it is given to. In a
    forked child a handler begins anew: the parent scores the answers that wait, and each counts its own.

    Args:
        evaluator: the evaluator that scores.
        on_score: receives every observation, in the handler's thread. Its errors are logged.
        capacity: the largest number of answers that may wait. Further answers are dropped.
        batch: the largest number of answers that are scored in one call of the evaluator.
        question: the place of the question, as for AspireGuard.
        context: the place of the context, as for AspireGuard.
        answer: the place of the answer, as for AspireGuard.
    """

    # The methods only take notes. That is quicker than handing them to a thread, and keeps their order.
    run_inline = True

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        on_score: Callable[[Observation], None] | None = None,
        capacity: int = 1000,
        batch: int = 16,
        question: FieldReader | None = None,
        context: FieldReader | None = None,
        answer: FieldReader | None = None,
    ) -> None:
        self._evaluator = evaluator
        self._reader = ExchangeReader(question, context, answer)
        self._begin = partial(BackgroundScoring, evaluator, on_score, capacity, batch)
        self._begin_anew()
        _handlers.add(self)

    def _begin_anew(self) -> None:
        """Begin with no runs and no thread, as a forked child must, which has no thread of its parent's."""
        self._runs = OpenRuns()
        self._scoring = self._begin()

    @property
    def scored(self) -> int:
        """The number of answers that were scored."""
        return self._scoring.scored

    @property
    def dropped(self) -> int:
        """The number of answers left unscored because too many waited, or the handler was closed."""
        return self._scoring.dropped + self._runs.lost

    @property
    def failed(self) -> int:
        """The number of answers for which the evaluator or `on_score` failed."""
        return self._scoring.failed

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all waiting answers are scored, and return False if that takes longer than `timeout` seconds."""
        return self._scoring.flush(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Score the waiting answers and end the thread.

        Later answers are dropped, and counted as such.

        Returns:
            False if that takes longer than `timeout` seconds.
        """
        return self._scoring.close(timeout)

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
        """Note the run."""
        run = self._runs.begin(run_id, parent_run_id, inputs, tags, metadata)
        if run is not None:
            run.recorder.on_chain_start(
                serialized, inputs, run_id=run_id, parent_run_id=parent_run_id, **kwargs
            )

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
        """Note the run. A chat model may be the whole chain."""
        run = self._runs.begin(run_id, parent_run_id, messages[0], tags, metadata)
        if run is not None:
            run.recorder.on_chat_model_start(serialized, messages, run_id=run_id)

    def on_retriever_start(
        self,
        serialized: dict[str, Any],
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the retriever, so that retrievers inside it are known to be inside."""
        if parent_run_id is None:
            return
        run = self._runs.begin(run_id, parent_run_id)
        if run is not None:
            run.recorder.on_retriever_start(
                serialized, query, run_id=run_id, parent_run_id=parent_run_id
            )

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the run, inside which documents may be retrieved."""
        if parent_run_id is None:
            return
        run = self._runs.begin(run_id, parent_run_id)
        if run is not None:
            run.recorder.on_tool_start(
                serialized, input_str, run_id=run_id, parent_run_id=parent_run_id, **kwargs
            )

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Keep what a tool returned."""
        run = self._runs.get(run_id)
        if run is not None:
            run.recorder.on_tool_end(output, run_id=run_id)
            self._runs.end(run_id)

    def on_retriever_end(
        self,
        documents: Sequence[Document],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the documents of a retriever."""
        run = self._runs.get(run_id)
        if run is not None:
            run.recorder.on_retriever_end(documents, run_id=run_id)
            self._runs.end(run_id)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the run."""
        self._runs.end(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the run."""
        self._runs.end(run_id)

    def on_llm_end(
        self, response: LLMResult, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Keep a message, which may report its probabilities.

        If a chat model is the whole chain, its message is the answer to score.
        """
        run = self._runs.get(run_id)
        if run is None:
            return
        run.recorder.on_llm_end(response, run_id=run_id)
        if parent_run_id is not None:
            self._runs.end(run_id)
            return
        generation = response.generations[0][0]
        if isinstance(generation, ChatGeneration):
            self._end_outermost(run_id, generation.message)

    def on_chain_end(
        self,
        outputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        inputs: Any = None,
        **kwargs: Any,
    ) -> None:
        """Have an outermost chain's answer scored, and keep the documents of a step inside it."""
        if parent_run_id is None:
            # A chain that is streamed reports its input only now.
            self._end_outermost(run_id, outputs, inputs)
            return
        run = self._runs.get(run_id)
        if run is not None:
            run.recorder.on_chain_end(outputs, run_id=run_id)
            self._runs.end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the run."""
        self._runs.end(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the run."""
        self._runs.end(run_id)

    def _end_outermost(self, run_id: UUID, output: Any, input: Any = None) -> None:
        """Have the answer of an outermost run scored, if it has one."""
        run = self._runs.end(run_id)
        if run is None:
            return
        if input is None:
            input = run.input
        try:
            exchange = extract_judged_exchange(self._reader.read, input, output, run.recorder)
        except Exception:
            return
        if exchange is not None:
            known_score = find_own_score(self._evaluator, exchange)
            self._scoring.put(WaitingAnswer(run, exchange, known_score))


_handlers: WeakSet[AspireCallbackHandler] = WeakSet()


def _begin_anew_after_fork() -> None:
    for handler in list(_handlers):
        handler._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_after_fork)
