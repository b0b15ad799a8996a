"""A recorder of the passages, and of the probabilities of tokens, that appear inside a run of a chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from aspire_guard.errors import ExchangeError
from aspire_guard.exchange.conversation import get_message_text
from aspire_guard.exchange.exchange import Exchange
from aspire_guard.exchange.extraction import find_answer, read_log_likelihood
from aspire_guard.exchange.passage_record import PassageRecord

Extract = Callable[[Any, Any, Sequence[Document]], Exchange]

# The keys under which LangChain's loaders keep the name of a document.
_NAME_KEYS = ("source", "file_path", "url", "title")


class _Reply(NamedTuple):
    """A chat model's message, and the messages that it replied to, if they are known."""

    message: BaseMessage
    asked: Sequence[BaseMessage]


class RunRecorder(BaseCallbackHandler):
    """A record of the passages that the steps of a chain return, and of the replies of its chat models.

    A recorder belongs to one call of the guard and may be called from several threads.

    Attributes:
        has_asked_model: True once a model has been asked.
        has_model_output: True once a model has given output, be it one token. Clearing the record keeps it.
    """

    run_inline = True

    def __init__(self) -> None:
        self._lock = Lock()
        self._passages = PassageRecord()
        self._tools: dict[UUID, str | None] = {}
        self._asked: dict[UUID, list[list[BaseMessage]]] = {}
        self._replies: list[_Reply] = []
        # The texts that retrievers returned, and the names of their documents.
        self._retrieved: dict[str, str | None] = {}
        self._abstentions: set[str] = set()
        self.has_asked_model = False
        self.has_model_output = False

    def clear(self) -> None:
        """Drop the record before another run begins.

        A retriever that has started already is forgotten too, so documents that it still returns
        are not recorded.
        """
        with self._lock:
            self._passages.clear()
            self._tools.clear()
            self._asked.clear()
            self._replies.clear()
            self._retrieved.clear()
            self._abstentions.clear()

    @property
    def documents(self) -> list[Document]:
        """The passages that the answering model read, as far as the steps tell, in the order in which they came."""
        with self._lock:
            passages, _ = self._passages.find()
        return [Document(passage) for passage in passages]

    @property
    def retrieved_passages(self) -> tuple[str, ...]:
        """The texts that retrievers returned. No model of the chain can have written them."""
        with self._lock:
            return tuple(self._retrieved)

    @property
    def sources(self) -> tuple[tuple[str, str | None], ...]:
        """The texts that retrievers returned, each with the name of its document, or None if it has no name."""
        with self._lock:
            return tuple(self._retrieved.items())

    def record_abstention(self, text: str) -> None:
        """Record that a guard inside the run has abstained with this text."""
        with self._lock:
            self._abstentions.add(text.strip())

    def is_abstention(self, text: str, *, may_go_on: bool = False) -> bool:
        """Tell whether a text is the abstention of a guard inside the run.

        Args:
            text: an answer that the run gave.
            may_go_on: tells whether the text may be the beginning of an abstention.
        """
        if not self._abstentions:  # saves most answers the lock
            return False
        with self._lock:
            abstentions = list(self._abstentions)
        begun = text.strip()
        if may_go_on and begun:
            return any(abstention.startswith(begun) for abstention in abstentions)
        return begun in abstentions

    def read_exchange(self, extract: Extract, input: Any, output: Any) -> Exchange:
        """Extract the exchange from a chain's input and output and from what was recorded inside the chain.

        Raises:
            ExchangeError: no question or answer can be read.
        """
        documents = self.documents
        exchange = extract(input, output, documents)
        if not documents:
            return exchange
        read = self._select_read(documents, exchange)
        if len(read) < len(documents):
            exchange = extract(input, output, read)
        if exchange.context_source != "retriever":
            return exchange
        with self._lock:
            _, source = self._passages.find()
        return exchange.model_copy(update={"context_source": source})

    def _select_read(self, documents: list[Document], exchange: Exchange) -> list[Document]:
        """Select the documents that are in the messages that the answering model replied to, if any are."""
        reply = self._find_reply(exchange)
        if reply is None:
            return documents
        asked = [get_message_text(message) for message in reply.asked]
        read: list[Document] = []
        for document in documents:
            passage = document.page_content.strip()
            if any(passage in text for text in asked):
                read.append(document)
        return read or documents

    def add_reported_likelihood(self, exchange: Exchange, output: object) -> Exchange:
        """Return the exchange with the log-likelihood that the answering model reported, if it did.

        The output message itself may carry it, or else the last message with the same text from inside the chain.
        A message that replied to the very question goes before a message that replied to another.
        """
        log_likelihood = self._find_log_likelihood(exchange, output)
        if log_likelihood is None:
            return exchange
        return exchange.model_copy(update={"log_likelihood": log_likelihood})

    def _find_log_likelihood(self, exchange: Exchange, output: object) -> float | None:
        answer = find_answer(output)
        if isinstance(answer, BaseMessage) and _has_text(answer, exchange.answer):
            log_likelihood = read_log_likelihood(answer)
            if log_likelihood is not None:
                return log_likelihood
        with self._lock:
            reports = any("logprobs" in reply.message.response_metadata for reply in self._replies)
        # Most models report none, and then the texts need not be compared.
        reply = self._find_reply(exchange) if reports else None
        return None if reply is None else read_log_likelihood(reply.message)

    def _find_reply(self, exchange: Exchange) -> _Reply | None:
        """Find the reply that is the answer, the last one if there are several."""
        with self._lock:
            replies = list(self._replies)
        replies = [reply for reply in replies if _has_text(reply.message, exchange.answer)]
        to_the_question = [reply for reply in replies if _was_asked(reply, exchange.question)]
        return next(reversed(to_the_question or replies), None)

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        run_type: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the step, and the values of a prompt."""
        with self._lock:
            self._passages.begin(run_id, parent_run_id)
            if run_type == "prompt":
                self._passages.add_prompt(inputs)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Record the documents that a step returned or handed on."""
        if not isinstance(outputs, list | tuple | dict):  # saves most steps the lock
            return
        with self._lock:
            self._passages.add_step_output(run_id, outputs)

    def on_retriever_start(
        self,
        serialized: dict[str, Any],
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the retriever."""
        with self._lock:
            self._passages.begin(run_id, parent_run_id)

    def on_retriever_end(
        self, documents: Sequence[Document], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Record the documents that a retriever returned."""
        with self._lock:
            self._passages.add_documents(run_id, documents)
            for document in documents:
                self._retrieved[document.page_content] = _find_name(document)

    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the tool."""
        with self._lock:
            self._tools[run_id] = name or (serialized or {}).get("name")
            self._passages.begin(run_id, parent_run_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Record what a tool returned."""
        with self._lock:
            self._passages.add_tool_output(run_id, output, self._tools.pop(run_id, None))

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        """Note the messages that a chat model is asked.

        Without this method LangChain would render the whole prompt for `on_llm_start`.
        """
        self.has_asked_model = True
        with self._lock:
            self._asked[run_id] = messages

    def on_llm_start(
        self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Note that a model is asked."""
        self.has_asked_model = True

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note that a model has given output."""
        self.has_model_output = True

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Note the output that a model has given before it failed."""
        response = kwargs.get("response")
        if isinstance(response, LLMResult) and any(response.generations):
            self.has_model_output = True

    def on_llm_end(self, response: LLMResult, *, run_id: UUID | None = None, **kwargs: Any) -> None:
        """Record the replies of a chat model."""
        self.has_model_output = True
        with self._lock:
            asked = self._asked.pop(run_id, []) if run_id is not None else []
            for index, generations in enumerate(response.generations):
                prompt = asked[index] if index < len(asked) else []
                for generation in generations:
                    if isinstance(generation, ChatGeneration):
                        self._replies.append(_Reply(generation.message, prompt))


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
        exchange = recorder.read_exchange(extract, input, output)
    except ExchangeError:
        if tool_message is None:
            raise
        return None
    # The caller may have named another text of the output as the answer. That text is judged.
    if tool_message is not None and exchange.answer == get_message_text(tool_message):
        return None
    return recorder.add_reported_likelihood(exchange, output)


def _has_text(message: BaseMessage, text: str) -> bool:
    return get_message_text(message).strip() == text.strip()


def _was_asked(reply: _Reply, question: str) -> bool:
    return any(question in get_message_text(message) for message in reply.asked)


def _find_name(document: Document) -> str | None:
    """Return the file, the address or the title of a document, or None if its metadata has no such entry."""
    for key in _NAME_KEYS:
        name = document.metadata.get(key)
        if isinstance(name, str) and name:
            return name
    return document.id
