"""Where chains keep the question, the context and the answer: the usual places in their input and output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue

from aspire_guard.errors import ExchangeError

QUESTION_KEYS = ("question", "query", "input", "messages")
ANSWER_KEYS = ("answer", "output", "result", "messages")
INPUT_CONTEXT_KEYS = ("context", "documents")
OUTPUT_CONTEXT_KEYS = ("context", "source_documents")


def question_text(input: object) -> str:
    """The question that a chain's input holds.

    Raises:
        ExchangeError: the input holds no question.
    """
    question = _question_in(input)
    if question is None:
        raise ExchangeError(
            "no question found in the chain's input: expected a string, messages with a human one, a prompt, or a "
            f"dict with one of the keys {_listed(QUESTION_KEYS)}; found {describe_shape(input)}; put the question "
            "under 'question' in what you pass to the guard, or tell the guard where it is: question='...', a key or "
            "a function"
        )
    return question


def find_context(input: object, output: object, documents: Sequence[Document]) -> str | None:
    """The context in the input, or else in the output, or else in the documents; None where there is none."""
    return (
        _context_in(input, INPUT_CONTEXT_KEYS)
        or _context_in(output, OUTPUT_CONTEXT_KEYS)
        or context_text(documents)
    )


def answer_key(output: Mapping[Any, Any]) -> str | None:
    """The key that holds the answer of a dict output; None where there is none."""
    return next((key for key in ANSWER_KEYS if _answer_of(output.get(key)) is not None), None)


def answer_in(output: object) -> str | AIMessage | None:
    """The answer that a chain's output holds, in the type it has there; None where there is none.

    Of a state with messages, as agents give it, the answer is the last one, if the model wrote it.
    """
    if isinstance(output, Mapping):
        key = answer_key(output)
        return None if key is None else _answer_of(output[key])
    return output if isinstance(output, str | AIMessage) else None


def _answer_of(value: object) -> str | AIMessage | None:
    """The answer under an answer key."""
    if isinstance(value, list):
        return value[-1] if value and isinstance(value[-1], AIMessage) else None
    return value if isinstance(value, str | AIMessage) else None


def answer_text(output: object) -> str:
    """The text of the answer that a chain's output holds.

    Raises:
        ExchangeError: the output holds no answer.
    """
    answer = answer_in(output)
    if answer is None:
        raise ExchangeError(
            "no answer found in the chain's output: expected a string, an AIMessage, or a dict with one of them under "
            f"{_listed(ANSWER_KEYS)}; found {describe_shape(output)}; end the chain with one of these, for "
            "example with StrOutputParser(), or tell the guard where the answer is: answer='...', a key or a function"
        )
    return message_text(answer) if isinstance(answer, AIMessage) else answer


def message_text(message: BaseMessage) -> str:
    """The text of a message, without its images, reasoning and tool calls."""
    return str(message.text)


def reported_log_likelihood(message: BaseMessage) -> float | None:
    """The mean log-probability of a message's tokens, in nats, as its model reported it; None where it did not.

    Read from `response_metadata["logprobs"]["content"]`, where OpenAI-compatible servers' models put it.
    """
    reported = message.response_metadata.get("logprobs")
    tokens = reported.get("content") if isinstance(reported, Mapping) else None
    try:
        values = [float(token["logprob"]) for token in tokens or ()]
    except (KeyError, TypeError, ValueError):  # another notation
        return None
    mean = sum(values) / len(values) if values else math.nan
    return mean if math.isfinite(mean) else None


def _question_in(value: object) -> str | None:
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, Mapping):
        found = (_question_in(value.get(key)) for key in QUESTION_KEYS)
        return next((question for question in found if question is not None), None)
    if isinstance(value, PromptValue):
        return _last_human(value.to_messages())
    if isinstance(value, BaseMessage):
        return _last_human([value])
    return _last_human(messages_in(value))


def messages_in(value: object) -> list[BaseMessage]:
    """Messages in a list, in any notation that chat models take; none where it is something else."""
    try:
        return convert_to_messages(value) if isinstance(value, list | tuple) else []
    except (
        ValueError,
        NotImplementedError,
    ):  # convert_to_messages raises either for what is no message
        return []


def _last_human(messages: Sequence[BaseMessage]) -> str | None:
    human = next(
        (message for message in reversed(messages) if isinstance(message, HumanMessage)), None
    )
    return None if human is None else _question_in(message_text(human))


def _context_in(value: object, keys: Sequence[str]) -> str | None:
    if not isinstance(value, Mapping):
        return None
    return next((context for key in keys if (context := context_text(value.get(key)))), None)


def context_text(value: object) -> str | None:
    """Documents or strings as one text, with a blank line between them; None where there is no text."""
    values: Iterable[object] = value if isinstance(value, list | tuple) else [value]
    texts = [item.page_content if isinstance(item, Document) else item for item in values]
    return "\n\n".join(text for text in texts if isinstance(text, str) and text.strip()) or None


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(repr(key) for key in keys)


def describe_shape(value: object) -> str:
    """The shape of a value, never its content: an error must not carry an answer that was not judged."""
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with the keys {_listed([str(key) for key in value]) or '(none)'}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {', '.join(sorted({type(item).__name__ for item in value})) or 'nothing'}"
    return f"a value of type {type(value).__name__}"
