"""Extraction of question, context and answer from the usual places in a chain's input and output."""

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


def read_question(input: object) -> str:
    """Return the question that a chain's input holds.

    Raises:
        ExchangeError: the input holds no question.
    """
    question = _find_question(input)
    if question is None:
        raise ExchangeError(
            "no question found in the chain's input: expected a string, messages with a human one, a prompt, or a "
            f"dict with one of the keys {_list_keys(QUESTION_KEYS)}; found {describe_shape(input)}; put the question "
            "under 'question' in what you pass to the guard, or tell the guard where it is: question='...', a key or "
            "a function"
        )
    return question


def _find_question(value: object) -> str | None:
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, Mapping):
        return _find_question_under_keys(value)
    if isinstance(value, PromptValue):
        return _find_last_human_text(value.to_messages())
    if isinstance(value, BaseMessage):
        return _find_last_human_text([value])
    return _find_last_human_text(parse_messages(value))


def _find_question_under_keys(input: Mapping[Any, Any]) -> str | None:
    for key in QUESTION_KEYS:
        question = _find_question(input.get(key))
        if question is not None:
            return question
    return None


def _find_last_human_text(messages: Sequence[BaseMessage]) -> str | None:
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return _find_question(get_message_text(message))
    return None


def parse_messages(value: object) -> list[BaseMessage]:
    """Parse a list of messages, in any notation that chat models take.

    Returns:
        The messages, or an empty list if `value` is anything else.
    """
    if not isinstance(value, list | tuple):
        return []
    try:
        return convert_to_messages(value)
    except (ValueError, NotImplementedError):  # either is raised for an item that is not a message
        return []


def find_context(input: object, output: object, documents: Sequence[Document]) -> str | None:
    """Find the context in the input, else in the output, else in the documents."""
    return (
        _find_context_under_keys(input, INPUT_CONTEXT_KEYS)
        or _find_context_under_keys(output, OUTPUT_CONTEXT_KEYS)
        or join_passages(documents)
    )


def _find_context_under_keys(value: object, keys: Sequence[str]) -> str | None:
    if not isinstance(value, Mapping):
        return None
    for key in keys:
        context = join_passages(value.get(key))
        if context:
            return context
    return None


def join_passages(value: object) -> str | None:
    """Join documents or strings into a text, with a blank line between passages.

    Args:
        value: a document or a string, or a list or tuple of them. Other items are ignored.

    Returns:
        The text, or None if all passages are blank or missing.
    """
    items: Iterable[object] = value if isinstance(value, list | tuple) else [value]
    passages = [item.page_content if isinstance(item, Document) else item for item in items]
    texts = [passage for passage in passages if isinstance(passage, str)]
    return "\n\n".join(text for text in texts if text.strip()) or None


def read_answer(output: object) -> str:
    """Return the text of the answer that a chain's output holds.

    Raises:
        ExchangeError: the output holds no answer.
    """
    answer = find_answer(output)
    if answer is None:
        raise ExchangeError(
            "no answer found in the chain's output: expected a string, an AIMessage, or a dict with one of them under "
            f"{_list_keys(ANSWER_KEYS)}; found {describe_shape(output)}; end the chain with one of these, for "
            "example with StrOutputParser(), or tell the guard where the answer is: answer='...', a key or a function"
        )
    return get_message_text(answer) if isinstance(answer, AIMessage) else answer


def find_answer(output: object) -> str | AIMessage | None:
    """Find the answer in a chain's output, as a string or a message.

    Agents return a state with messages. Its answer is the last message, if the model wrote it.

    Returns:
        The answer, or None if the output holds no answer.
    """
    if isinstance(output, Mapping):
        key = find_answer_key(output)
        return None if key is None else _find_answer_in_value(output[key])
    return output if isinstance(output, str | AIMessage) else None


def find_answer_key(output: Mapping[Any, Any]) -> str | None:
    """Find the key that holds the answer of a dict output, or None if no key does."""
    for key in ANSWER_KEYS:
        if _find_answer_in_value(output.get(key)) is not None:
            return key
    return None


def _find_answer_in_value(value: object) -> str | AIMessage | None:
    if isinstance(value, list):
        value = value[-1] if value else None
        return value if isinstance(value, AIMessage) else None
    return value if isinstance(value, str | AIMessage) else None


def get_message_text(message: BaseMessage) -> str:
    """Return the text of a message, without its images, reasoning and tool calls."""
    return str(message.text)


def read_log_likelihood(message: BaseMessage) -> float | None:
    """Read the mean log-probability of a message's tokens, in nats, that its model reported.

    Models of OpenAI-compatible servers put it under `response_metadata["logprobs"]["content"]`.

    Returns:
        The mean, or None if the message carries no finite log-probabilities.
    """
    reported = message.response_metadata.get("logprobs")
    tokens = reported.get("content") if isinstance(reported, Mapping) else None
    try:
        log_probabilities = [float(token["logprob"]) for token in tokens or ()]
    except (KeyError, TypeError, ValueError):  # another server's notation
        return None
    if not log_probabilities:
        return None
    mean = sum(log_probabilities) / len(log_probabilities)
    return mean if math.isfinite(mean) else None


def describe_shape(value: object) -> str:
    """Describe the shape of a value, never its content.

    An error must not carry an answer that has not been judged.
    """
    kind = type(value).__name__
    if isinstance(value, Mapping):
        keys = _list_keys([str(key) for key in value])
        return f"a {kind} with the keys {keys or '(none)'}"
    if isinstance(value, list | tuple):
        item_kinds = {type(item).__name__ for item in value}
        return f"a {kind} of {', '.join(sorted(item_kinds)) or 'nothing'}"
    return f"a value of type {kind}"


def _list_keys(keys: Sequence[str]) -> str:
    return ", ".join(repr(key) for key in keys)
