"""Abstention in an output of the chain's own type, with nothing left of the rejected answer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.messages import AIMessage

from aspire_guard.clearing import Clearing, KnownValues
from aspire_guard.errors import name_error_type
from aspire_guard.exchange import find_answer, find_answer_key, read_answer
from aspire_guard.langgraph_compat import is_interrupt
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Custom
from aspire_guard.verdict import Verdict

VERDICT_KEY = "aspire_guard"

_NOTHING_KNOWN = KnownValues()


def abstain(
    output: Any, message: str, answer: str | None = None, known: KnownValues = _NOTHING_KNOWN
) -> Any:
    """Return `message` in the type of `output`, which itself is not changed.

    A message keeps its id, name and token counts. Any other output keeps what is shown to be clean: the abstention
    replaces the answer in every place, and a value that was parsed out of the answer, or that can't be looked into,
    becomes None. If the type of the output has no place for the abstention, `message` itself is returned.

    Args:
        output: a chain's output with its answer.
        message: the text that replaces the answer.
        answer: the answer, if it may be outside the usual places. The answer in a usual place is replaced too.
        known: the values that were there before the chain answered, which stay as they are.

    Raises:
        ExchangeError: no answer is given, and the output has none in a usual place.
    """
    answers = _list_answers(output, answer)
    if isinstance(output, AIMessage):
        return _replace_message(output, message)
    if isinstance(output, str):
        return message
    key = find_answer_key(output) if isinstance(output, Mapping) else None
    clearing = Clearing(answers, message, known, keeps_objects=key is None)
    cleared = clearing.clear(output)
    if not isinstance(output, Mapping):
        return cleared if clearing.has_found_answer and cleared is not None else message
    if not isinstance(cleared, dict):
        return message
    if key is not None:
        return {**cleared, key: _replace_answer(output[key], cleared[key], message)}
    if not clearing.has_placed_message:
        # A value of another type that was the answer leaves its place to the message.
        for name, value in output.items():
            was_taken_out = value is not None and cleared.get(name, value) is None
            if was_taken_out and clearing.states_answer(value):
                cleared[name] = message
    return cleared if clearing.has_found_answer and cleared is not output else message


def write_abstention(
    message: str | Callable[[Verdict], str], verdict: Verdict, default: str
) -> tuple[str, str | None]:
    """Return the text of an abstention, and the error of its function in a sentence, or None without an error.

    Args:
        message: the text, or a function that writes it.
        verdict: the verdict that the function is given.
        default: the text that takes its place if the function raises.
    """
    if isinstance(message, str):
        return message, None
    try:
        return message(verdict), None
    except Exception as error:
        if is_interrupt(error):
            raise
        return default, f"the abstention's function raised {name_error_type(error)}"


class AbstentionCheck:
    """A warning at the first accepted output of a type in which an abstention would have no place.

    Without it, a user would find out at the first rejected answer.
    """

    def __init__(self) -> None:
        self._checked: set[type] = {str, AIMessage}

    def __reduce__(self) -> Any:
        # Classes inside functions can't be pickled, and another process may warn again.
        return AbstentionCheck, ()

    def check(self, output: Any, answer: str, policy: RoutingPolicy) -> None:
        """Warn if an abstention has no place in an output. Each type of outputs is checked once.

        Args:
            output: an accepted output.
            answer: its answer.
            policy: the policy. Its custom routes make outputs of the right type themselves.
        """
        if type(output) in self._checked:
            return
        self._checked.add(type(output))
        if isinstance(output, Mapping) and find_answer_key(output) is not None:
            return
        if any(isinstance(route, Custom) for route in policy.routes):
            return
        if abstain(output, _PROBE, answer) is _PROBE and not isinstance(output, str):
            warnings.warn(
                f"expected outputs with a text that the abstention can replace, found {type(output).__name__} without "
                "one; in place of a rejected output the guard returns the text of the abstention; give the policy a "
                "Custom route if the next step needs an output of that type",
                stacklevel=2,
            )


_PROBE = "abstention"


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


def _list_answers(output: Any, answer: str | None) -> list[str]:
    """List the answer that was given and the answer in the usual place."""
    answers = [] if answer is None else [answer]
    if answer is None or find_answer(output) is not None:
        answers.append(read_answer(output))
    return answers


def _replace_answer(answer: Any, cleared: Any, message: str) -> Any:
    """Put the message into the place of the answer, which is a text, a message or a list that ends with one."""
    if isinstance(answer, AIMessage):
        return _replace_message(answer, message)
    if isinstance(answer, str):
        return message
    # The answer of a state is the last of its messages.
    return [*cleared[:-1], _replace_message(answer[-1], message)]


def _replace_message(rejected: AIMessage, message: str) -> AIMessage:
    # The id stays, so that a graph's state replaces the rejected message instead of keeping both.
    return AIMessage(
        message, id=rejected.id, name=rejected.name, usage_metadata=rejected.usage_metadata
    )
