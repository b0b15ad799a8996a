"""Abstention in an output of the chain's own type, with nothing left of the rejected answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel

from aspire_guard.errors import ExchangeError
from aspire_guard.exchange import (
    INPUT_CONTEXT_KEYS,
    OUTPUT_CONTEXT_KEYS,
    QUESTION_KEYS,
    find_answer,
    find_answer_key,
    get_message_text,
    read_answer,
)
from aspire_guard.verdict import Verdict

VERDICT_KEY = "aspire_guard"

# The question and the passages may contain the words of the answer without stating it, so they stay.
_UNTOUCHED_KEYS = {*QUESTION_KEYS, *INPUT_CONTEXT_KEYS, *OUTPUT_CONTEXT_KEYS} - {"messages"}


def abstain(output: Any, message: str, answer: str | None = None) -> Any:
    """Return `message` in the type of `output`, which itself is not changed.

    A message keeps its id, name and token counts. A dict or a pydantic object keeps all but the answer: the
    abstention also replaces it in any other place, as a text of its own or in this turn's AIMessages. A value that
    was parsed out of the answer becomes None.

    Args:
        output: a chain's output with its answer.
        message: the text that replaces the answer.
        answer: the answer, if it may be outside the usual places. The answer in a usual place is replaced too.

    Raises:
        ExchangeError: the output has no place for the abstention.
    """
    rejected = _find_rejected_texts(output, answer)
    if isinstance(output, AIMessage):
        return _replace_message(output, message)
    if isinstance(output, str):
        return message
    if isinstance(output, Mapping):
        key = find_answer_key(output)
        if key is not None:
            return _abstain_under_key(output, key, rejected, message)
        replaced = _replace_values(output, rejected, message)
        if _has_abstention(replaced, output):
            return replaced
    elif isinstance(output, BaseModel):
        values = dict(output)
        replaced = _replace_values(values, rejected, message)
        if _has_abstention(replaced, values):
            return output.model_copy(update=replaced)
    raise ExchangeError(
        f"expected an output with a text that the abstention can replace, found a value of type "
        f"{type(output).__name__} without one; give the policy a Custom route, which makes an output of that type"
    )


def attach_verdict(output: Any, verdict: Verdict) -> Any:
    """Return `output` with the verdict in its AIMessage's `response_metadata`, or unchanged if it has no AIMessage."""
    if isinstance(output, AIMessage):
        metadata = {**output.response_metadata, VERDICT_KEY: verdict.model_dump(mode="json")}
        return output.model_copy(update={"response_metadata": metadata})
    answer = find_answer(output) if isinstance(output, Mapping) else None
    if not isinstance(answer, AIMessage):
        return output
    key = find_answer_key(output)
    value = attach_verdict(answer, verdict)
    if isinstance(output[key], list):
        value = [*output[key][:-1], value]
    return {**output, key: value}


def _find_rejected_texts(output: Any, answer: str | None) -> set[str]:
    """Return the answer that was given and the answer in the usual place, stripped, without empty texts."""
    texts = {"" if answer is None else answer.strip()}
    if answer is None or find_answer(output) is not None:
        texts.add(read_answer(output).strip())
    # Every text contains the empty one.
    return texts - {""}


def _abstain_under_key(
    output: Mapping[Any, Any], key: str, rejected: AbstractSet[str], message: str
) -> dict[Any, Any]:
    """Put the abstention under the key of the answer, and wherever else the answer appears."""
    replaced = _replace_values(output, rejected, message)
    answer = output[key]
    if isinstance(answer, list):
        # The answer of a state is the last of its messages.
        replaced[key] = [*replaced[key][:-1], _replace_message(answer[-1], message)]
    else:
        replaced[key] = abstain(answer, message)
    return replaced


def _replace_values(
    values: Mapping[Any, Any], rejected: AbstractSet[str], message: str
) -> dict[Any, Any]:
    """Return all values, with the abstention in those that hold the answer."""
    replaced = dict(values)
    for name, value in values.items():
        if name not in _UNTOUCHED_KEYS:
            replaced[name] = _replace_value(value, rejected, message)
    return replaced


def _has_abstention(replaced: Mapping[Any, Any], values: Mapping[Any, Any]) -> bool:
    """Tell whether the abstention has replaced one of the values."""
    return any(value is not None and value != values[name] for name, value in replaced.items())


def _replace_value(value: Any, rejected: AbstractSet[str], message: str) -> Any:
    """Return a value with the abstention in place of a rejected text."""
    if isinstance(value, str):
        return message if value.strip() in rejected else value
    if isinstance(value, AIMessage):
        text = get_message_text(value)
        if not any(rejected_text in text for rejected_text in rejected):
            return value
        # Its tools were called. Without the calls, the results that follow would belong to no call.
        return _replace_message(value, message).model_copy(update={"tool_calls": value.tool_calls})
    if isinstance(value, list):
        return _replace_in_last_turn(value, rejected, message)
    return None if any(_is_parsed(value, text) for text in rejected) else value


def _replace_in_last_turn(
    messages: Sequence[Any], rejected: AbstractSet[str], message: str
) -> list[Any]:
    """Replace the rejected texts in the AIMessages after the last human message.

    Earlier turns were released already, whatever words they share with this answer.
    """
    starts = [i for i, item in enumerate(messages) if isinstance(item, HumanMessage)]
    last_turn = starts[-1] if starts else 0
    replaced = list(messages)
    for i, item in enumerate(messages):
        if i >= last_turn and isinstance(item, AIMessage):
            replaced[i] = _replace_value(item, rejected, message)
    return replaced


def _replace_message(rejected: AIMessage, message: str) -> AIMessage:
    # The id stays, so that a graph's state replaces the rejected message instead of keeping both.
    return AIMessage(
        message, id=rejected.id, name=rejected.name, usage_metadata=rejected.usage_metadata
    )


def _is_parsed(value: Any, text: str) -> bool:
    """Tell whether a dict or an object is what a parser made of a text."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    try:
        return isinstance(plain, Mapping) and plain == json.loads(text)
    except ValueError:
        return False
