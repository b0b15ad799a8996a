"""What is seen inside one run of a chain: retrieved documents, and answers that carry their own score."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from pydantic import ValidationError

from aspire_guard.exchange.places import answer_in, answer_text, message_text
from aspire_guard.verdict import Score, is_number

SELF_SCORE_KEY = "aspire_score"


class ChainWatch(BaseCallbackHandler):
    """What is seen inside one run of a chain: retrieved documents, and answers that carry their own score.

    Safe to be called from several threads; belongs to one call of the guard.
    """

    run_inline = True
    # Chains' events tell nothing, and each would cost every call some microseconds.
    ignore_chain = True
    ignore_llm, ignore_chat_model = False, False

    def __init__(self, *, self_scores: bool = True) -> None:
        # Nor do models' events, where the evaluator has no fingerprint that a score could come from.
        self.ignore_llm = self.ignore_chat_model = not self_scores
        self._lock = Lock()
        self._retrievers: set[UUID] = set()
        self._documents: dict[str, Document] = {}
        self._scored: list[BaseMessage] = []

    @property
    def documents(self) -> list[Document]:
        """What the retrievers returned, in the order of their ends, each text once."""
        with self._lock:
            return list(self._documents.values())

    def self_score(self, output: object, fingerprint: str | None) -> Score | None:
        """The score that the answering model gave `output` as it wrote it; None where there is none to be used.

        It is used when it comes from the evaluator with this `fingerprint`, and either stands on the output
        message itself or on a message from inside the chain with the same text.
        """
        answer = answer_in(output)
        if fingerprint is None or answer is None:
            return None
        text = answer_text(output).strip()
        with self._lock:
            seen = [message for message in reversed(self._scored) if message_text(message).strip() == text]
        carriers = [answer, *seen] if isinstance(answer, BaseMessage) else seen
        return next((score for carrier in carriers if (score := _carried_score(carrier, fingerprint))), None)

    def on_retriever_start(self, serialized: dict[str, Any], query: str, *, run_id: UUID, **kwargs: Any) -> None:
        """Notes the retriever, so that those inside it are known as such."""
        with self._lock:
            self._retrievers.add(run_id)

    def on_retriever_end(
        self, documents: Sequence[Document], *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Keeps what an outermost retriever returned."""
        with self._lock:
            # A retriever inside another (reranking, fusion) gives candidates, not what the model reads.
            if parent_run_id not in self._retrievers:
                self._documents.update({document.page_content: document for document in documents})

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Nothing to see; without this method LangChain would render the whole prompt for `on_llm_start`."""

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Keeps the messages that carry their own score."""
        chats = [chat for chats in response.generations for chat in chats if isinstance(chat, ChatGeneration)]
        with self._lock:
            self._scored.extend(chat.message for chat in chats if SELF_SCORE_KEY in chat.message.response_metadata)


def _carried_score(message: BaseMessage, fingerprint: str) -> Score | None:
    carried = message.response_metadata.get(SELF_SCORE_KEY)
    if not isinstance(carried, dict) or carried.get("evaluator") != fingerprint:
        return None
    try:
        score = Score.model_validate(carried.get("score"))
    except ValidationError:
        return None
    return score if is_number(score) else None
