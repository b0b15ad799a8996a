"""Abstention, in an output of the chain's own type with nothing left of the rejected answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel

from aspire_guard.errors import ExchangeError
from aspire_guard.exchange import (
    INPUT_CONTEXT_KEYS,
    OUTPUT_CONTEXT_KEYS,
    QUESTION_KEYS,
    answer_in,
    answer_key,
    answer_text,
    message_text,
)
from aspire_guard.verdict import Verdict

VERDICT_KEY = "aspire_guard"

# What was asked and read may well contain the answer; it is not the chain's own saying.
_KEPT_KEYS = {*QUESTION_KEYS, *INPUT_CONTEXT_KEYS, *OUTPUT_CONTEXT_KEYS} - {"messages"}


def abstain(output: Any, message: str, answer: str | None = None) -> Any:
    """`message` in the type of `output`; `output` itself is not changed.

    A message keeps its id, name and token counts. A dict or a pydantic object keeps all but the answer: wherever
    else the answer stands (as a text of its own, or as this turn's AIMessage), the abstention takes its place.

    Args:
        output: a chain's output with its answer.
        message: what is said instead.
        answer: the answer, where it isn't read from the usual places.

    Raises:
        ExchangeError: the output has no place for the abstention.
    """
    if answer is None or answer_in(output) is not None:
        answer = answer_text(output)
    answer = answer.strip()
    if isinstance(output, AIMessage):
        return _abstained(output, message)
    if isinstance(output, str):
        return message
    if isinstance(output, Mapping):
        key = answer_key(output)
        if key is not None:
            cleared = _cleared(output, answer, message)
            # A state's answer is the last of its messages.
            put = [*cleared[key][:-1], _abstained(output[key][-1], message)] if isinstance(output[key], list) else None
            return cleared | {key: put or abstain(output[key], message)}
        cleared = _cleared(output, answer, message)
        if cleared != output:
            return cleared
    elif isinstance(output, BaseModel):
        cleared = _cleared(dict(output), answer, message)
        if cleared != dict(output):
            return output.model_copy(update=cleared)
    raise ExchangeError(
        f"expected an output with a text that the abstention can replace, found a value of type "
        f"{type(output).__name__} without one; give the policy a Custom route, which makes an output of that type"
    )


def _cleared(output: Mapping[Any, Any], answer: str, message: str) -> dict[Any, Any]:
    """All values, with the abstention in those that hold the answer."""
    return {name: value if name in _KEPT_KEYS else _without(value, answer, message) for name, value in output.items()}


def attach(output: Any, verdict: Verdict) -> Any:
    """`output` with the verdict in its AIMessage's `response_metadata`; an output without one as it is."""
    if isinstance(output, AIMessage):
        metadata = {**output.response_metadata, VERDICT_KEY: verdict.model_dump(mode="json")}
        return output.model_copy(update={"response_metadata": metadata})
    if isinstance(output, Mapping) and isinstance(answer_in(output), AIMessage):
        key = answer_key(output)
        message = attach(answer_in(output), verdict)
        return {**output, key: [*output[key][:-1], message] if isinstance(output[key], list) else message}
    return output


def _abstained(rejected: AIMessage, message: str) -> AIMessage:
    # The id stays, so that a graph's state replaces the rejected message instead of keeping both.
    return AIMessage(message, id=rejected.id, name=rejected.name, usage_metadata=rejected.usage_metadata)


def _without(value: Any, answer: str, message: str) -> Any:
    """`value` with the abstention where it held the rejected answer."""
    if not answer:
        return value
    if isinstance(value, str):
        return message if value.strip() == answer else value
    if isinstance(value, AIMessage):
        return _abstained(value, message) if answer in message_text(value) else value
    if isinstance(value, list):
        asked = max((place for place, item in enumerate(value) if isinstance(item, HumanMessage)), default=-1)
        # Earlier turns were released already, whatever words they share with this answer.
        return [
            _without(item, answer, message) if place > asked and isinstance(item, AIMessage) else item
            for place, item in enumerate(value)
        ]
    return value
