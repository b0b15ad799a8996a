"""What is seen inside one run of a chain: retrieved documents, and answers that carry a score or probabilities."""

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
from aspire_guard.exchange.extraction import answer_in, message_text, reported_log_likelihood
from aspire_guard.verdict import Score, is_number

Extract = Callable[[Any, Any, Sequence[Document]], Exchange]

SELF_SCORE_KEY = "aspire_score"
_CARRIED = {SELF_SCORE_KEY, "logprobs"}


class RunRecorder(BaseCallbackHandler):
    """What is seen inside one run of a chain: retrieved documents, and answers that carry a score or probabilities.

    Safe to be called from several threads; belongs to one call of the guard.
    """

    run_inline = True
    # Chains' events tell nothing, and each would cost every call some microseconds.
    ignore_chain = True

    def __init__(self) -> None:
        self._lock = Lock()
        self._retrievers: set[UUID] = set()
        self._documents: dict[str, Document] = {}
        self._messages: list[BaseMessage] = []

    def forget(self) -> None:
        """Forget all that was seen, and what a retriever that has begun may still return: another run begins."""
        with self._lock:
            self._retrievers.clear()
            self._documents.clear()
            self._messages.clear()

    @property
    def documents(self) -> list[Document]:
        """What the retrievers returned, in the order of their ends, each text once."""
        with self._lock:
            return list(self._documents.values())

    def self_score(
        self, exchange: Exchange, output: object, fingerprint: str | None
    ) -> Score | None:
        """The score that the answering model gave the answer as it wrote it; None where there is none to be used.

        It is used when it comes from the evaluator with this `fingerprint`, and either stands on the output
        message itself or on a message from inside the chain, whose text is the answer that is judged.
        """
        if fingerprint is None:
            return None
        carriers = self._carriers(output, exchange.answer)
        return next(
            (score for carrier in carriers if (score := _carried_score(carrier, fingerprint))), None
        )

    def with_reported_likelihood(self, exchange: Exchange, output: object) -> Exchange:
        """`exchange`, read out of `output`, with the log-likelihood that the answering model reported, if it did.

        As with `self_score`, the output message itself may carry it, or one inside the chain with the same text.
        """
        reported = (
            reported_log_likelihood(carrier) for carrier in self._carriers(output, exchange.answer)
        )
        found = next((value for value in reported if value is not None), None)
        return exchange if found is None else exchange.model_copy(update={"log_likelihood": found})

    def _carriers(self, output: object, text: str) -> list[BaseMessage]:
        """The messages that say `text`: the output's own, and those from inside the chain, the last one first."""
        answer = answer_in(output)
        with self._lock:
            seen = list(reversed(self._messages))
        messages = [answer, *seen] if isinstance(answer, BaseMessage) else seen
        return [message for message in messages if message_text(message).strip() == text.strip()]

    def on_retriever_start(
        self, serialized: dict[str, Any], query: str, *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Notes the retriever, so that those inside it are known as such."""
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
        """Keeps what an outermost retriever returned."""
        with self._lock:
            # A retriever inside another (reranking, fusion) gives candidates, not what the model reads.
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
        """Nothing to see; without this method LangChain would render the whole prompt for `on_llm_start`."""

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Keeps the messages that carry their own score or the probabilities of their tokens."""
        chats = [
            chat
            for chats in response.generations
            for chat in chats
            if isinstance(chat, ChatGeneration)
        ]
        with self._lock:
            self._messages.extend(
                chat.message for chat in chats if _CARRIED & chat.message.response_metadata.keys()
            )


def extract_judged_exchange(
    extract: Extract, input: Any, output: Any, watch: RunRecorder
) -> Exchange | None:
    """What is to be judged in a chain's output; None where its answer is a message that calls tools.

    Raises:
        ExchangeError: no question or answer can be read from the chain's input and output.
    """
    answer = answer_in(output)
    calling = answer if isinstance(answer, AIMessage) and answer.tool_calls else None
    try:
        exchange = extract(input, output, watch.documents)
    except ExchangeError:
        if calling is None:
            raise
        return None
    if calling is not None and exchange.answer == message_text(calling):
        return None
    return watch.with_reported_likelihood(exchange, output)


def _carried_score(message: BaseMessage, fingerprint: str) -> Score | None:
    carried = message.response_metadata.get(SELF_SCORE_KEY)
    if not isinstance(carried, dict) or carried.get("evaluator") != fingerprint:
        return None
    try:
        score = Score.model_validate(carried.get("score"))
    except ValidationError:
        return None
    return score if is_number(score) else None
