"""Abstentions in the types of chains' outputs."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from pydantic import BaseModel

from aspire_guard.clearing import KnownValues, take_snapshot
from aspire_guard.errors import ExchangeError
from aspire_guard.routing.abstain import AbstentionCheck, abstain
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Custom

MESSAGE = "I can't say."


def test_a_string_becomes_the_abstention() -> None:
    """A string in gives a string out."""
    assert abstain("zanzibar", MESSAGE) == MESSAGE


def test_a_message_keeps_its_id_and_nothing_of_its_text() -> None:
    """Id, name and token counts stay, while content, keyword arguments, tool calls and metadata go."""
    usage: UsageMetadata = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    rejected = AIMessage(
        "zanzibar",
        id="m1",
        name="bot",
        usage_metadata=usage,
        additional_kwargs={"reasoning_content": "zanzibar?"},
        response_metadata={"raw": "zanzibar"},
        invalid_tool_calls=[
            {"name": "f", "args": "zanzibar", "id": "1", "error": None, "type": "invalid_tool_call"}
        ],
    )
    assert abstain(rejected, MESSAGE) == AIMessage(
        MESSAGE, id="m1", name="bot", usage_metadata=usage
    )
    assert rejected.content == "zanzibar"


def test_a_dict_loses_its_answer_only() -> None:
    """All other keys stay as they are, and the dict that was given is not changed."""
    document = Document("It is zanzibar.")
    known = KnownValues((take_snapshot({"question": "zanzibar?"}),), (document.page_content,))
    output = {
        "question": "zanzibar?",
        "context": [document],
        "source_documents": [document],
        "result": "zanzibar",
        "n": 3,
    }
    assert abstain(output, MESSAGE, known=known) == {**output, "result": MESSAGE}
    assert output["result"] == "zanzibar"


def test_the_rejected_answer_leaves_by_no_other_key() -> None:
    """A state of messages, a raw message or a second answer key would give the answer away."""
    earlier = [
        HumanMessage("Where?"),
        AIMessage("Not in zanzibar.", id="m1"),
        HumanMessage("So where?"),
    ]
    known = KnownValues((take_snapshot({"messages": earlier}),))
    output = {
        "answer": "zanzibar",
        "result": " zanzibar\n",
        "raw": AIMessage("Answer: zanzibar", id="m2"),
        "messages": [*earlier, AIMessage("zanzibar", id="m2")],
    }
    assert abstain(output, MESSAGE, known=known) == {
        "answer": MESSAGE,
        "result": MESSAGE,
        "raw": AIMessage(MESSAGE, id="m2"),
        "messages": [*earlier, AIMessage(MESSAGE, id="m2")],
    }


def test_an_earlier_message_of_the_turn_keeps_its_tool_calls() -> None:
    """The calls stay because their results follow them, but the words about the answer go."""
    calls = [ToolCall(name="look", args={"place": "x"}, id="1")]
    output = {
        "messages": [
            HumanMessage("Where?"),
            AIMessage("zanzibar? I look it up.", id="m1", tool_calls=calls),
            ToolMessage("page 4", tool_call_id="1"),
            AIMessage("zanzibar", id="m2"),
        ]
    }
    assert abstain(output, MESSAGE)["messages"][1:] == [
        AIMessage(MESSAGE, id="m1", tool_calls=calls),
        ToolMessage("page 4", tool_call_id="1"),
        AIMessage(MESSAGE, id="m2"),
    ]


def test_an_empty_answer_is_nowhere_else() -> None:
    """Every text contains the empty text, but is not the rejected answer for that."""
    output = {"answer": "", "note": "", "raw": ToolMessage("Hello", tool_call_id="1")}
    assert abstain(output, MESSAGE) == {**output, "answer": MESSAGE}


def test_the_answer_of_a_state_is_its_last_message() -> None:
    """The message keeps its id, and earlier turns stay, as agents expect it."""
    state = {"messages": [HumanMessage("Where?"), AIMessage("zanzibar", id="m2")], "step": 2}
    replaced = [HumanMessage("Where?"), AIMessage(MESSAGE, id="m2")]
    assert abstain(state, MESSAGE) == {"messages": replaced, "step": 2}


class Place(BaseModel):
    """A structured output."""

    name: str
    sure: bool = True


@pytest.mark.parametrize("output", [{"name": "zanzibar", "sure": True}, Place(name="zanzibar")])
def test_structured_output_has_the_abstention_in_place_of_the_answer(
    output: dict[str, Any] | Place,
) -> None:
    """A text of the output that is the answer becomes the abstention."""
    abstained = abstain(output, MESSAGE, "zanzibar")
    assert dict(abstained) == {"name": MESSAGE, "sure": True}
    assert type(abstained) is type(output)
    assert dict(output)["name"] == "zanzibar"


@pytest.mark.parametrize("output", [{"n": 7}, 7])
def test_the_abstention_itself_is_returned_if_the_output_has_no_place_for_it(output: Any) -> None:
    """An answer that is nowhere in the output was computed from it, so nothing of the output leaves."""
    assert abstain(output, MESSAGE, "zanzibar") is MESSAGE


def test_a_type_without_a_place_for_an_abstention_is_reported_once() -> None:
    """The warning comes with the first accepted output, unless a custom route makes the outputs."""
    check = AbstentionCheck()
    custom = RoutingPolicy(otherwise=Custom(lambda input, output, verdict: output))
    AbstentionCheck().check(7, "7", custom)
    check.check(Place(name="zanzibar"), "zanzibar", RoutingPolicy())
    with pytest.warns(UserWarning, match="found int without one; in place of a rejected output"):
        check.check(7, "7", RoutingPolicy())
    check.check(8, "8", RoutingPolicy())


def test_an_output_without_an_answer_is_an_error() -> None:
    """There is no answer that the abstention could replace."""
    with pytest.raises(ExchangeError, match="no answer found"):
        abstain({"text": "zanzibar"}, MESSAGE)
