"""Outputs of random shape around a secret text: the secret is in nothing that leaves, and the input stays."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.agents import AgentAction
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolCall, ToolMessage
from pydantic import BaseModel, ConfigDict, PrivateAttr

from aspire_guard.clearing import KnownValues, take_snapshot
from aspire_guard.routing.abstain import abstain

MESSAGE = "I can't say."
EXAMPLES = 2_000


class Model(BaseModel):
    """An object with all the places of a pydantic model."""

    model_config = ConfigDict(extra="allow")

    value: Any
    _private: Any = PrivateAttr(default=None)


class Root(BaseModel):
    """An output that holds its answer in a field."""

    final: str
    other: Any = None


@dataclass(frozen=True)
class Frozen:
    value: Any


class Pair(NamedTuple):
    first: Any
    second: Any


class Slots:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def make_private(value: Any) -> Model:
    model = Model(value=1)
    model._private = value
    return model


def make_raised(value: Any) -> ValueError:
    error = ValueError("no")
    error.args = (value,)
    return error


# Every way to put one value inside another.
WRAPPERS: list[Any] = [
    lambda value: [1, value],
    lambda value: (value, "b"),
    lambda value: {"key": value, "n": 2},
    lambda value: {"parsed": value},
    lambda value: Pair("a", value),
    lambda value: Model(value=value),
    lambda value: Model.model_validate({"value": 1, "more": value}),
    make_private,
    make_raised,
    Frozen,
    Slots,
    lambda value: SimpleNamespace(value=value),
    lambda value: AIMessage("", additional_kwargs={"a": value}),
    lambda value: AIMessage("a", response_metadata={"a": value}),
    lambda value: AIMessage("", tool_calls=[ToolCall(name="f", args={"a": value}, id="1")]),
    lambda value: AIMessage([{"type": "custom", "a": value}]),
    lambda value: ToolMessage("a", tool_call_id="1", artifact=value),
    lambda value: HumanMessage("a", additional_kwargs={"a": value}),
    lambda value: Document("a", metadata={"a": value}),
    lambda value: lambda: value,
]
# Every way to put a text into a value.
TEXT_WRAPPERS: list[Any] = [
    lambda text: text,
    lambda text: f"Thought: it is known.\nFinal Answer: {text}",
    lambda text: f"**{text}**",
    lambda text: text.upper(),
    lambda text: f"x{text}y",
    lambda text: json.dumps({"answer": text}),
    str.encode,
    lambda text: {text: 1},
    lambda text: {text},
    lambda text: frozenset([text, "b"]),
    AIMessage,
    HumanMessage,
    SystemMessage,
    lambda text: ToolMessage(text, tool_call_id="1"),
    lambda text: AIMessage([{"type": "text", "text": text}]),
    lambda text: AIMessage([{"type": "reasoning", "reasoning": text}]),
    lambda text: AIMessage(
        "",
        invalid_tool_calls=[
            {"name": "f", "args": text, "id": "1", "error": None, "type": "invalid_tool_call"}
        ],
    ),
    Document,
    lambda text: AgentAction("look", text, text),
]


def shapes(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Make values of random shape around texts."""

    def wrap(text: str, first: int, more: list[int]) -> Any:
        value = TEXT_WRAPPERS[first](text)
        for index in more:
            value = WRAPPERS[index](value)
        return value

    layers = st.lists(st.integers(0, len(WRAPPERS) - 1), max_size=4)
    return st.builds(wrap, texts, st.integers(0, len(TEXT_WRAPPERS) - 1), layers)


words = st.text("zqxwj", min_size=4, max_size=7)
secrets = st.lists(words, min_size=2, max_size=4).map(" ".join)
plain_texts = st.sampled_from(["Who keeps the key?", "en", "a b", ""])
fields = st.dictionaries(st.sampled_from("abcd"), shapes(plain_texts), max_size=2)


def print_all(value: Any) -> str:
    """Print a value in every way in which it may leave."""
    prints = [repr(value), pickle.dumps(value).decode("latin-1")]
    if isinstance(value, BaseModel):
        prints += [str(value), str(value.model_dump())]
    return "\n".join(prints).casefold()


def is_picklable(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True


@settings(max_examples=EXAMPLES, database=None)
@given(st.data(), secrets)
def test_the_secret_leaves_in_no_shape(data: st.DataObject, secret: str) -> None:
    """It is in no print of the cleared output, whether the answer is in a usual place or in an object."""
    others = data.draw(st.lists(shapes(st.just(secret)), min_size=1, max_size=3))
    input = data.draw(fields)
    added = {f"other{index}": value for index, value in enumerate(others)}
    kind = data.draw(st.sampled_from(["text", "message", "state", "named", "object", "list"]))
    output: Any = {**input, **added, "final" if kind == "named" else "answer": secret}
    if kind == "message":
        output["answer"] = AIMessage(secret)
    elif kind == "state":
        del output["answer"]
        output["messages"] = [
            HumanMessage("q"),
            AIMessage(secret),
            HumanMessage("r"),
            AIMessage(secret),
        ]
    elif kind == "object":
        output = Root(final=secret, other=others)
    elif kind == "list":
        output = [secret, *others]
    cleared = abstain(output, MESSAGE, secret, KnownValues((take_snapshot(input),)))
    left = {name: value for name, value in input.items() if not is_picklable(value)}
    if isinstance(cleared, dict):
        assert all(cleared[name] is value for name, value in input.items())
        cleared = {name: value for name, value in cleared.items() if name not in left}
    assert secret not in print_all(cleared)
    assert MESSAGE in str(cleared)


@settings(max_examples=EXAMPLES, database=None)
@given(secrets, st.data())
def test_the_input_stays_byte_for_byte(secret: str, data: st.DataObject) -> None:
    """What the caller passed in stays, even if it holds the words of the rejected answer."""
    texts = st.one_of(plain_texts, st.just(secret), st.just(f"{secret} and more"))
    values = shapes(texts).filter(is_picklable)
    input = data.draw(st.dictionaries(st.sampled_from("abcd"), values, max_size=3))
    turns = data.draw(st.lists(st.sampled_from([HumanMessage, AIMessage]), max_size=3))
    history = [turn(data.draw(texts)) for turn in turns]
    input["messages"] = [*history, HumanMessage("Who?")]
    before = pickle.dumps(input)
    output = {**input, "messages": [*input["messages"], AIMessage(secret)], "copy": secret}
    cleared = abstain(output, MESSAGE, secret, KnownValues((take_snapshot(input),)))
    *kept, last = cleared.pop("messages")
    assert (last, cleared.pop("copy")) == (AIMessage(MESSAGE), MESSAGE)
    assert pickle.dumps({**cleared, "messages": kept}) == before
    assert pickle.dumps(input) == before
