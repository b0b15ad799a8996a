"""Abstention, in an output of the chain's own type with nothing left of the rejected answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
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

# What was asked and read may well contain the answer; it is not the chain's own saying.
_KEPT_KEYS = {*QUESTION_KEYS, *INPUT_CONTEXT_KEYS, *OUTPUT_CONTEXT_KEYS} - {"messages"}


def abstain(output: Any, message: str, answer: str | None = None) -> Any:
    """`message` in the type of `output`; `output` itself is not changed.

    A message keeps its id, name and token counts. A dict or a pydantic object keeps all but the answer: wherever
    else the answer stands (as a text of its own, or in this turn's AIMessages), the abstention takes its place; a value
    that was parsed out of it becomes None.

    Args:
        output: a chain's output with its answer.
        message: what is said instead.
        answer: the answer, where it may stand elsewhere than at the usual places, which lose theirs too.

    Raises:
        ExchangeError: the output has no place for the abstention.
    """
    usual = read_answer(output) if answer is None or find_answer(output) is not None else ""
    rejected = {text.strip() for text in (answer or "", usual)} - {""}
    if isinstance(output, AIMessage):
        return _abstained(output, message)
    if isinstance(output, str):
        return message
    if isinstance(output, Mapping):
        key = find_answer_key(output)
        if key is not None:
            cleared = _cleared(output, rejected, message)
            # A state's answer is the last of its messages.
            put = (
                [*cleared[key][:-1], _abstained(output[key][-1], message)]
                if isinstance(output[key], list)
                else None
            )
            return cleared | {key: put or abstain(output[key], message)}
        cleared = _cleared(output, rejected, message)
        if _says(cleared, output):
            return cleared
    elif isinstance(output, BaseModel):
        cleared = _cleared(dict(output), rejected, message)
        if _says(cleared, dict(output)):
            return output.model_copy(update=cleared)
    raise ExchangeError(
        f"expected an output with a text that the abstention can replace, found a value of type "
        f"{type(output).__name__} without one; give the policy a Custom route, which makes an output of that type"
    )


def _cleared(output: Mapping[Any, Any], rejected: AbstractSet[str], message: str) -> dict[Any, Any]:
    """All values, with the abstention in those that hold the answer."""
    return {
        name: value if name in _KEPT_KEYS else _without(value, rejected, message)
        for name, value in output.items()
    }


def _says(cleared: Mapping[Any, Any], output: Mapping[Any, Any]) -> bool:
    """Whether the abstention stands in one of the values."""
    return any(value is not None and value != output[name] for name, value in cleared.items())


def attach(output: Any, verdict: Verdict) -> Any:
    """`output` with the verdict in its AIMessage's `response_metadata`; an output without one as it is."""
    if isinstance(output, AIMessage):
        metadata = {**output.response_metadata, VERDICT_KEY: verdict.model_dump(mode="json")}
        return output.model_copy(update={"response_metadata": metadata})
    if isinstance(output, Mapping) and isinstance(find_answer(output), AIMessage):
        key = find_answer_key(output)
        message = attach(find_answer(output), verdict)
        return {
            **output,
            key: [*output[key][:-1], message] if isinstance(output[key], list) else message,
        }
    return output


def _abstained(rejected: AIMessage, message: str) -> AIMessage:
    # The id stays, so that a graph's state replaces the rejected message instead of keeping both.
    return AIMessage(
        message, id=rejected.id, name=rejected.name, usage_metadata=rejected.usage_metadata
    )


def _without(value: Any, rejected: AbstractSet[str], message: str) -> Any:
    """`value` with the abstention where it held a rejected text."""
    if isinstance(value, str):
        return message if value.strip() in rejected else value
    if isinstance(value, AIMessage):
        if not any(text in get_message_text(value) for text in rejected):
            return value
        # Its tools were called: without the calls their results, further on, would belong to nothing.
        return _abstained(value, message).model_copy(update={"tool_calls": value.tool_calls})
    if isinstance(value, list):
        asked = max(
            (place for place, item in enumerate(value) if isinstance(item, HumanMessage)),
            default=-1,
        )
        # Earlier turns were released already, whatever words they share with this answer.
        return [
            _without(item, rejected, message)
            if place > asked and isinstance(item, AIMessage)
            else item
            for place, item in enumerate(value)
        ]
    return None if any(_is_parsed(value, text) for text in rejected) else value


def _is_parsed(value: Any, text: str) -> bool:
    """Whether a dict or an object is what a parser made of a text."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    try:
        return isinstance(plain, Mapping) and plain == json.loads(text)
    except ValueError:
        return False
