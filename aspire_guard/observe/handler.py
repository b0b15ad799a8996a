"""AspireCallbackHandler: scores what chains answer without touching it, off the request path.

handler = AspireCallbackHandler(evaluator, on_score=log)
chain.invoke(question, {"callbacks": [handler]})    # answers as ever; `log` hears what the guard would have said
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from aspire_guard.evaluators.protocol import Evaluator, find_fingerprint
from aspire_guard.exchange import ExchangeReader, FieldReader
from aspire_guard.exchange.run_recorder import extract_judged_exchange
from aspire_guard.observe.background import BackgroundScoring, Observation, Waiting
from aspire_guard.observe.open_runs import OpenRuns


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
        question: FieldReader | None = None,
        context: FieldReader | None = None,
        answer: FieldReader | None = None,
    ) -> None:
        self._evaluator = evaluator
        self._reading = ExchangeReader(question, context, answer)
        self._runs = OpenRuns()
        self._scoring = BackgroundScoring(evaluator, on_score, capacity, batch)

    @property
    def scored(self) -> int:
        """How many answers were scored."""
        return self._scoring.scored

    @property
    def dropped(self) -> int:
        """How many answers were left unscored because too many waited, or the handler was closed."""
        return self._scoring.dropped + self._runs.lost

    @property
    def failed(self) -> int:
        """For how many answers the evaluator or `on_score` failed."""
        return self._scoring.failed

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all answers that wait are scored; False where that took longer than `timeout` seconds."""
        return self._scoring.flush(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Score what waits and end the thread; False where that took longer than `timeout` seconds.

        Later answers are dropped, and counted as such.
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
        """Notes the run."""
        self._runs.began(run_id, parent_run_id, inputs, tags, metadata)

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
        self._runs.began(run_id, parent_run_id, messages[0], tags, metadata)

    def on_retriever_start(
        self,
        serialized: dict[str, Any],
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Notes the retriever, so that those inside it are known as such."""
        if (
            parent_run_id is not None
            and (run := self._runs.began(run_id, parent_run_id)) is not None
        ):
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
            self._runs.began(run_id, parent_run_id)

    def on_retriever_end(
        self,
        documents: Sequence[Document],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Keeps what an outermost retriever of a chain returned."""
        if (run := self._runs.get(run_id)) is not None:
            run.watch.on_retriever_end(documents, run_id=run_id, parent_run_id=parent_run_id)

    def on_llm_end(
        self, response: LLMResult, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Keeps a message that carries its own score; of a chat model that stands alone it is the answer."""
        if (run := self._runs.get(run_id)) is None:
            return
        run.watch.on_llm_end(response, run_id=run_id)
        if parent_run_id is None and isinstance(chat := response.generations[0][0], ChatGeneration):
            self._ended(run_id, chat.message)

    def on_chain_end(
        self,
        outputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        inputs: Any = None,
        **kwargs: Any,
    ) -> None:
        """Hands an outermost chain's answer over to be scored."""
        if parent_run_id is None:
            # A chain that is streamed has its input only now.
            self._ended(run_id, outputs, inputs)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forgets the run."""
        self._runs.ended(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forgets the run."""
        self._runs.ended(run_id)

    def _ended(self, run_id: UUID, output: Any, input: Any = None) -> None:
        if (run := self._runs.ended(run_id)) is None:
            return
        try:
            exchange = extract_judged_exchange(
                self._reading.read, run.input if input is None else input, output, run.watch
            )
        except Exception:
            return
        if exchange is not None:
            carried = run.watch.find_self_score(exchange, output, find_fingerprint(self._evaluator))
            self._scoring.put(Waiting(run, exchange, carried))
