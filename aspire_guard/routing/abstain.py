"""Abstention, in an output of the chain's own type with nothing left of the rejected answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage

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


def abstain(output: Any, message: str) -> Any:
    """`message` in the type of `output`; `output` itself is not changed.

    A message keeps its id, name and token counts. A dict keeps all but the answer: wherever else the answer
    stands (as a text of its own, or as this turn's AIMessage), the abstention takes its place.

    Raises:
        ExchangeError: the output holds no answer.
    """
    answer = answer_text(output).strip()
    if isinstance(output, AIMessage):
        return _abstained(output, message)
    if isinstance(output, Mapping):
        key = answer_key(output)
        return {
            name: abstain(value, message)
            if name == key
            else value
            if name in _KEPT_KEYS
            else _without(value, answer, message)
            for name, value in output.items()
        }
    return message


def attach(output: Any, verdict: Verdict) -> Any:
    """`output` with the verdict in its AIMessage's `response_metadata`; an output without one as it is."""
    if isinstance(output, AIMessage):
        metadata = {**output.response_metadata, VERDICT_KEY: verdict.model_dump(mode="json")}
        return output.model_copy(update={"response_metadata": metadata})
    if isinstance(output, Mapping) and isinstance(answer_in(output), AIMessage):
        return {**output, answer_key(output): attach(answer_in(output), verdict)}
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
