"""Extraction of question, context and answer from the usual places in a chain's input and output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.prompt_values import PromptValue

from aspire_guard.errors import ExchangeError
from aspire_guard.exchange.conversation import (
    find_last_question,
    find_tool_results,
    get_message_text,
    parse_messages,
)
from aspire_guard.exchange.given_context import get_given_context
from aspire_guard.exchange.labelled_prompt import LabelledPrompt, split_prompt
from aspire_guard.exchange.passages import join_passages, parse_passages
from aspire_guard.verdict import ContextSource

QUESTION_KEYS = ("question", "query", "input", "messages")
ANSWER_KEYS = ("answer", "output", "result", "messages")
INPUT_CONTEXT_KEYS = ("context", "documents", "docs")
OUTPUT_CONTEXT_KEYS = ("context", "documents", "source_documents", "docs")


class FoundContext(NamedTuple):
    """A context, and the place where it was found."""

    text: str
    source: ContextSource


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
        labelled = _find_labelled_prompt(value)
        return find_last_question(value.to_messages()) if labelled is None else labelled.question
    if isinstance(value, BaseMessage):
        return find_last_question([value])
    return find_last_question(parse_messages(value))


def _find_question_under_keys(input: Mapping[Any, Any]) -> str | None:
    for key in QUESTION_KEYS:
        question = _find_question(input.get(key))
        if question is not None:
            return question
    return None


def _find_labelled_prompt(prompt: PromptValue) -> LabelledPrompt | None:
    """Find the prompt's question and context, if one message holds both under labels."""
    question = find_last_question(prompt.to_messages())
    return None if question is None else split_prompt(question)


def find_context(
    input: object, output: object, documents: Sequence[Document]
) -> FoundContext | None:
    """Find the context in the usual places; `Exchange.from_run` lists them in their order.

    Raises:
        ExchangeError: a value under one of the usual keys can't be read as passages.
    """
    return (
        find_context_under_keys(input, "input", INPUT_CONTEXT_KEYS)
        or find_context_under_keys(output, "output", OUTPUT_CONTEXT_KEYS)
        or _find_context_seen(input, output, documents)
        or _find_context_around(input)
    )


def find_context_under_keys(
    value: object, side: ContextSource, keys: Sequence[str] = INPUT_CONTEXT_KEYS
) -> FoundContext | None:
    """Find the context under the first of these keys that holds any passages.

    Args:
        value: the input or the output of a chain, or the state of a graph.
        side: the source of that context.
        keys: the keys to look under.

    Raises:
        ExchangeError: a value under one of the keys can't be read as passages.
    """
    if not isinstance(value, Mapping):
        return None
    for key in keys:
        context = join_passages(
            read_passages(value.get(key), f"under {key!r} in the chain's {side}")
        )
        if context is not None:
            return FoundContext(context, side)
    return None


def read_passages(value: object, place: str) -> list[str]:
    """Return the passages of a value.

    Args:
        value: texts, documents, or dicts with a text.
        place: the place of the value, for the error.

    Raises:
        ExchangeError: the value has another shape.
    """
    passages = parse_passages(value)
    if passages is None:
        raise ExchangeError(
            f"no context can be read {place}: expected texts, documents, or dicts with 'page_content', 'text' or "
            f"'content'; found {describe_shape(value)}; give it one of these shapes, or tell the guard where the "
            "context is: context='...', a key or a function, which returns [] if there is no context"
        )
    return passages


def _find_context_seen(
    input: object, output: object, documents: Sequence[Document]
) -> FoundContext | None:
    """Find what tools returned in this turn, and what was retrieved besides."""
    results = _find_tool_results(input, output)
    others: list[str] = []
    for document in documents:
        passage = document.page_content
        if not any(passage.strip() in result for result in results):
            others.append(passage)
    context = join_passages(parse_passages([*results, *others]) or [])
    if context is None:
        return None
    return FoundContext(context, "tool" if results else "retriever")


def _find_tool_results(input: object, output: object) -> list[str]:
    for value in (output, input):
        messages = value.get("messages") if isinstance(value, Mapping) else value
        if not isinstance(messages, list | tuple):
            continue
        results = find_tool_results(parse_messages(messages), _find_question(input))
        if results:
            return results
    return []


def _find_context_around(input: object) -> FoundContext | None:
    """Find the context in a step around the guard: a graph's state, or the prompt that the guard gets."""
    given = get_given_context()
    if given is not None:
        return FoundContext(given, "input")
    labelled = _find_labelled_prompt(input) if isinstance(input, PromptValue) else None
    return FoundContext(labelled.context, "prompt") if labelled and labelled.context else None


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
