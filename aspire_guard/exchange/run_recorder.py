"""A recorder of the documents, scores and probabilities that appear inside a run of a chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from pydantic import ValidationError

from aspire_guard.errors import ExchangeError
from aspire_guard.exchange.exchange import Exchange
from aspire_guard.exchange.extraction import find_answer, get_message_text, read_log_likelihood
from aspire_guard.verdict import Score, is_comparable

Extract = Callable[[Any, Any, Sequence[Document]], Exchange]

SELF_SCORE_KEY = "aspire_score"
_RECORDED_METADATA = {SELF_SCORE_KEY, "logprobs"}


class RunRecorder(BaseCallbackHandler):
    """A record of the retrieved documents, and of the answers that carry a score or probabilities.

    A recorder belongs to one call of the guard and may be called from several threads.
    """

    run_inline = True
    # The events of chains hold nothing to record, and each would cost every call some microseconds.
    ignore_chain = True

    def __init__(self) -> None:
        self._lock = Lock()
        self._retrievers: set[UUID] = set()
        self._documents: dict[str, Document] = {}
        self._messages: list[BaseMessage] = []

    def clear(self) -> None:
        """Drop the record before another run begins.

        A retriever that has started already is forgotten too, so documents that it still returns
        are not recorded.
        """
        with self._lock:
            self._retrievers.clear()
            self._documents.clear()
            self._messages.clear()

    @property
    def documents(self) -> list[Document]:
        """The retrieved documents, in the order in which the retrievers ended, each text once."""
        with self._lock:
            return list(self._documents.values())

    def find_self_score(
        self, exchange: Exchange, output: object, fingerprint: str | None
    ) -> Score | None:
        """Find the score that the answering model gave its answer while writing it.

        The output message itself may carry the score, or a message from inside the chain whose
        text is the answer.

        Args:
            exchange: the exchange to score, as read from `output`.
            output: the chain's output.
            fingerprint: the evaluator's fingerprint. Scores of other evaluators are ignored.

        Returns:
            The score, or None if no message carries a usable score.
        """
        if fingerprint is None:
            return None
        for message in self._find_messages_with_text(exchange.answer, output):
            score = _read_self_score(message, fingerprint)
            if score is not None:
                return score
        return None

    def add_reported_likelihood(self, exchange: Exchange, output: object) -> Exchange:
        """Return the exchange with the log-likelihood that the answering model reported, if it did.

        As in `find_self_score`, the output message itself may carry it, or a message from inside
        the chain with the same text.
        """
        for message in self._find_messages_with_text(exchange.answer, output):
            log_likelihood = read_log_likelihood(message)
            if log_likelihood is not None:
                return exchange.model_copy(update={"log_likelihood": log_likelihood})
        return exchange

    def _find_messages_with_text(self, text: str, output: object) -> list[BaseMessage]:
        """Find the messages with this text: the output's own, then those from inside the chain, the last first."""
        with self._lock:
            messages = list(reversed(self._messages))
        answer = find_answer(output)
        if isinstance(answer, BaseMessage):
            messages.insert(0, answer)
        return [
            message for message in messages if get_message_text(message).strip() == text.strip()
        ]

    def on_retriever_start(
        self, serialized: dict[str, Any], query: str, *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Note the retriever, so that retrievers inside it are not taken for outermost retrievers."""
        with self._lock:
            self._retrievers.add(run_id)

    def on_retriever_end(
        self,
        documents: Sequence[Document],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Record the documents that an outermost retriever returned."""
        with self._lock:
            # A retriever inside another (reranking, fusion) returns candidates, which the model does not read.
            if run_id in self._retrievers and parent_run_id not in self._retrievers:
                self._documents.update({document.page_content: document for document in documents})

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        """Do nothing. Without this method LangChain would render the whole prompt for `on_llm_start`."""

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Record the messages that carry their own score or the probabilities of their tokens."""
        with self._lock:
            for generations in response.generations:
                for generation in generations:
                    if isinstance(generation, ChatGeneration):
                        self._record_message(generation.message)

    def _record_message(self, message: BaseMessage) -> None:
        if _RECORDED_METADATA & message.response_metadata.keys():
            self._messages.append(message)


def extract_judged_exchange(
    extract: Extract, input: Any, output: Any, recorder: RunRecorder
) -> Exchange | None:
    """Extract the exchange to judge from a chain's input and output.

    Args:
        extract: reads the exchange from input, output and retrieved documents.
        input: the chain's input.
        output: the chain's output.
        recorder: the record of the chain's run.

    Returns:
        The exchange, or None if the answer is a message that calls tools.

    Raises:
        ExchangeError: no question or answer can be read from the chain's input and output.
    """
    answer = find_answer(output)
    tool_message = answer if isinstance(answer, AIMessage) and answer.tool_calls else None
    try:
        exchange = extract(input, output, recorder.documents)
    except ExchangeError:
        if tool_message is None:
            raise
        return None
    # The caller may have named another text of the output as the answer. That text is judged.
    if tool_message is not None and exchange.answer == get_message_text(tool_message):
        return None
    return recorder.add_reported_likelihood(exchange, output)


def _read_self_score(message: BaseMessage, fingerprint: str) -> Score | None:
    carried = message.response_metadata.get(SELF_SCORE_KEY)
    if not isinstance(carried, dict) or carried.get("evaluator") != fingerprint:
        return None
    try:
        score = Score.model_validate(carried.get("score"))
    except ValidationError:
        return None
    return score if is_comparable(score) else None
