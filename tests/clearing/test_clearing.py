"""Outputs that are cleared of a rejected answer, in every place where a chain can keep it."""

from __future__ import annotations

import enum
import pickle
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import pytest
from langchain_core.agents import AgentAction
from langchain_core.documents import Document
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.prompt_values import ChatPromptValue
from pydantic import BaseModel, PrivateAttr

from aspire_guard.clearing import KnownValues, take_snapshot
from aspire_guard.routing.abstain import abstain

ANSWER = "The zanq keeps the barq."
MESSAGE = "I can't say."
CALL = ToolCall(name="Ans", args={"answer": ANSWER}, id="1")


class Ans(BaseModel):
    """A structured answer with places that no field shows."""

    answer: str
    sure: bool = True
    _draft: str = PrivateAttr(default="")

    @cached_property
    def shout(self) -> str:
        """The answer in capitals, kept once it was read."""
        return self.answer.upper()


def make_answer_with_draft() -> Ans:
    parsed = Ans(answer="something else")
    parsed._draft = ANSWER
    return parsed


def make_answer_with_cache() -> Ans:
    parsed = Ans(answer=ANSWER)
    assert parsed.shout
    parsed.__dict__["answer"] = "something else"
    return parsed


@dataclass(frozen=True)
class Frozen:
    text: str
    n: int = 3


class Pair(NamedTuple):
    text: str
    n: int = 3


class Slots:
    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text


class Label(enum.Enum):
    YES = "yes"
    NO = "no"


class Choice(BaseModel):
    """An answer that allows no other text."""

    label: Literal["yes", "no"]


class Colour(BaseModel):
    """An answer of an enumeration."""

    label: Label | None
    note: str = ""


def clear(output: Any, input: Any = None, answer: str = ANSWER, passages: Any = ()) -> Any:
    known = KnownValues((take_snapshot(input),), tuple(passages))
    return abstain(output, MESSAGE, answer, known)


REPEATED: dict[str, tuple[Any, Any]] = {
    "candidates": ([ANSWER, "no"], [MESSAGE, "no"]),
    "a longer text": (f"Thought: I know. Final Answer: {ANSWER}", MESSAGE),
    "other case and Markdown": ("the **zanq**  keeps\nthe BARQ", MESSAGE),
    "JSON in a text": ('{"a": "The z\\u0061nq keeps the barq."}', MESSAGE),
    "a piece": ("zanq keeps the barq", MESSAGE),
    "chunks": (["The zanq", " keeps", " the barq."], None),
    "tokens": ([{"token": word, "p": 0.5} for word in ANSWER.split()], None),
    "split content": (
        HumanMessage(
            [{"type": "text", "text": "The zanq"}, {"type": "text", "text": " keeps the barq"}]
        ),
        HumanMessage(MESSAGE),
    ),
    "bytes": (ANSWER.encode(), None),
    "bytes that are no text": (b"\xff\x00", None),
    "a key": ({ANSWER: 0.9, "n": 1}, {"n": 1}),
    "a set": ({ANSWER, "no"}, {MESSAGE, "no"}),
    "a tuple": ((1, ANSWER), (1, MESSAGE)),
    "an ordered dict": (OrderedDict(a=ANSWER, b="x"), OrderedDict(a=MESSAGE, b="x")),
    "a model": (Ans(answer=ANSWER), None),
    "a part in a model": (Ans(answer="zanq"), None),
    "a private attribute": (make_answer_with_draft(), None),
    "a cached property": (make_answer_with_cache(), None),
    "a frozen dataclass": (Frozen(ANSWER), None),
    "a named tuple": (Pair(ANSWER), None),
    "a plain object": (SimpleNamespace(text=ANSWER), None),
    "private slots": (Slots(ANSWER), None),
    "an error": (OutputParserException("no JSON", llm_output=ANSWER), None),
    "a function": (lambda: ANSWER, None),
    "an iterator": (iter([ANSWER]), None),
    "a prompt": (ChatPromptValue(messages=[AIMessage(ANSWER)]), None),
    "intermediate steps": ([(AgentAction("look", ANSWER, "log"), ANSWER)], [(None, MESSAGE)]),
    "a tuple of messages": (
        (HumanMessage("q"), AIMessage(ANSWER)),
        (HumanMessage("q"), AIMessage(MESSAGE)),
    ),
    "content blocks": (
        AIMessage([{"type": "text", "text": "x"}, {"type": "reasoning", "reasoning": ANSWER}]),
        AIMessage(MESSAGE),
    ),
    "arguments of a tool": (
        AIMessage("", tool_calls=[CALL]),
        AIMessage(MESSAGE, tool_calls=[{**CALL, "args": {}}]),
    ),
    "keyword arguments of a message": (
        AIMessage("", additional_kwargs={"reasoning_content": ANSWER}),
        AIMessage(MESSAGE),
    ),
    "metadata of a message": (AIMessage("", response_metadata={"raw": ANSWER}), AIMessage(MESSAGE)),
    "an artifact": (
        ToolMessage("page 4", tool_call_id="1", artifact={"draft": ANSWER}),
        ToolMessage(MESSAGE, tool_call_id="1"),
    ),
    "a worker's report": (
        HumanMessage(ANSWER, name="worker"),
        HumanMessage(MESSAGE, name="worker"),
    ),
    "a draft that nobody accepted": (AIMessage("Perhaps Bob."), AIMessage(MESSAGE)),
    "a document": (
        Document(f"So: {ANSWER}", metadata={"by": ANSWER, "page": 4}),
        Document(MESSAGE, metadata={"by": MESSAGE, "page": 4}),
    ),
}


@pytest.mark.parametrize("place", REPEATED)
def test_the_answer_leaves_by_no_other_place(place: str) -> None:
    """A value beside the answer that repeats it is replaced, or becomes None if it can't be made anew."""
    repeated, expected = REPEATED[place]
    assert clear({"answer": ANSWER, "other": repeated, "n": 7}) == {
        "answer": MESSAGE,
        "other": expected,
        "n": 7,
    }


def test_a_parsed_answer_goes_even_if_it_shares_no_text() -> None:
    """LangChain puts what was parsed out of an answer under known keys. The caller's own value there stays."""
    output = {
        "answer": "It is right.",
        "parsed": {"sure": True},
        "structured_response": Ans(answer="b"),
    }
    given = output["structured_response"]
    cleared = clear(output, {"structured_response": given}, "It is right.")
    assert cleared == {"answer": MESSAGE, "parsed": None, "structured_response": given}


def test_raw_and_parsed_output_of_a_structured_model() -> None:
    """If the parsed object is judged, it holds the abstention, and the raw message repeats nothing."""
    output = {
        "raw": AIMessage("", id="m", tool_calls=[CALL]),
        "parsed": Ans(answer=ANSWER),
        "parsing_error": None,
    }
    cleared = clear(output, answer='{"answer": "The zanq keeps the barq.", "sure": true}')
    assert cleared["parsed"] == Ans(answer=MESSAGE)
    assert cleared["raw"].content == MESSAGE
    assert cleared["raw"].id == "m"
    assert "zanq" not in str(cleared)


class TestValuesThatWereThereBefore:
    """The caller's input, an earlier conversation and retrieved passages stay byte for byte."""

    def test_an_earlier_turn_that_shares_words_stays(self) -> None:
        """The chain of a conversation returns the history that it got."""
        history = [HumanMessage("Who?"), AIMessage("Ada. She sits in the office.")]
        input = {"input": "Sure?", "chat_history": history}
        output = {**input, "context": [Document("Ada. Room 4.")], "answer": "Ada."}
        cleared = clear(output, input, "Ada.", ["Ada. Room 4."])
        assert cleared == {**output, "answer": MESSAGE}

    def test_a_field_that_equals_a_short_answer_stays(self) -> None:
        """The language of the user is not the answer, although it reads like it."""
        input = {"question": "Which code?", "user_language": "en", "limits": {"k": 3, "lang": "en"}}
        output = {**input, "answer": "en", "guess": "en", "path": "docs/en.md"}
        assert clear(output, input, "en") == {**output, "answer": MESSAGE, "guess": MESSAGE}

    def test_a_draft_before_a_critique_goes_and_the_history_stays(self) -> None:
        """A turn begins after the caller's last message, not after the last human message."""
        history = [HumanMessage("Hi"), AIMessage(ANSWER), HumanMessage("Who?")]
        added = [AIMessage(ANSWER), HumanMessage("Shorter, please."), AIMessage(ANSWER, id="m")]
        cleared = clear({"messages": [*history, *added]}, {"messages": history})
        assert cleared["messages"] == [
            *history,
            AIMessage(MESSAGE),
            HumanMessage("Shorter, please."),
            AIMessage(MESSAGE, id="m"),
        ]

    def test_messages_in_another_notation_stay(self) -> None:
        """A graph turns tuples into messages with ids, and may drop the first of them."""
        given = {"messages": [("human", "Hi"), ("ai", ANSWER), {"role": "user", "content": "Who?"}]}
        history = [AIMessage(ANSWER, id="a"), HumanMessage("Who?", id="b")]
        cleared = clear({"messages": [*history, AIMessage(ANSWER, id="c")]}, given)
        assert cleared["messages"] == [*history, AIMessage(MESSAGE, id="c")]

    def test_a_bare_list_of_messages_is_known_in_a_state(self) -> None:
        """A chain that takes messages may return them under a key."""
        history = [HumanMessage("Hi"), AIMessage(ANSWER), HumanMessage("Who?")]
        output = {"answer": ANSWER, "messages": [*history, AIMessage(ANSWER)]}
        cleared = clear(output, history)
        assert cleared == {"answer": MESSAGE, "messages": [*history, AIMessage(MESSAGE)]}

    def test_an_input_that_was_changed_in_place_is_not_known(self) -> None:
        """A chain that writes the answer into its input does not get it past the guard."""
        input: dict[str, Any] = {"question": "Who?", "log": ["started"]}
        known = KnownValues((take_snapshot(input),))
        input["log"].append(ANSWER)
        cleared = abstain({**input, "answer": ANSWER}, MESSAGE, ANSWER, known)
        assert cleared == {"question": "Who?", "log": ["started", MESSAGE], "answer": MESSAGE}

    def test_the_callers_objects_stay_wherever_they_are(self) -> None:
        """An object of the caller may hold the words of the answer, and move to another key."""
        given = SimpleNamespace(text=ANSWER, call=print)
        cleared = clear({"answer": ANSWER, "under": {"other": given}}, {"client": given})
        assert cleared["under"]["other"] is given

    def test_a_quotation_of_a_passage_is_not_the_answer(self) -> None:
        """A context of retrieved passages stays, and a text that states the answer beside it goes."""
        passages = ["In 1888 the zanq keeps the barq. Nobody else may."]
        context = f"Passages:\n\n{passages[0]}"
        output = {"answer": ANSWER, "context": context, "log": f"{context}\nFinal Answer: {ANSWER}"}
        cleared = clear(output, "Who?", passages=passages)
        assert cleared == {"answer": MESSAGE, "context": context, "log": MESSAGE}


class TestObjects:
    """An output of any type holds the abstention if its type allows a text in place of the answer."""

    @pytest.mark.parametrize(
        ("output", "expected"),
        [
            (Frozen(ANSWER), Frozen(MESSAGE)),
            (Pair(ANSWER), Pair(MESSAGE)),
            (Ans(answer=ANSWER, sure=False), Ans(answer=MESSAGE, sure=False)),
            (SimpleNamespace(text=ANSWER, n=3), SimpleNamespace(text=MESSAGE, n=3)),
            ([ANSWER, 7], [MESSAGE, 7]),
            ({"answer": Ans(answer=ANSWER)}, {"answer": Ans(answer=MESSAGE)}),
            ({"answer": Frozen(ANSWER)}, {"answer": Frozen(MESSAGE)}),
        ],
    )
    def test_an_object_keeps_its_type(self, output: Any, expected: Any) -> None:
        """All other fields stay, and the object that was given is not changed."""
        before = repr(output)
        cleared = clear(output)
        assert cleared == expected
        assert type(cleared) is type(expected)
        assert repr(output) == before

    def test_private_attributes_and_caches_are_made_anew(self) -> None:
        """Nothing that the old object kept of the answer is in the new one."""
        output = Ans(answer=ANSWER)
        output._draft = ANSWER
        assert output.shout
        cleared = clear(output)
        assert cleared.shout == MESSAGE.upper()
        assert b"zanq" not in pickle.dumps(vars(cleared)).lower()
        assert cleared._draft != ANSWER

    @pytest.mark.parametrize(
        ("output", "answer", "expected"),
        [
            (Choice(label="yes"), "yes", MESSAGE),
            ({"answer": Choice(label="yes")}, "yes", {"answer": MESSAGE}),
            ({"answer": Label.YES}, "yes", {"answer": MESSAGE}),
            (Colour(label=Label.YES), "yes", Colour(label=None)),
            (Label.YES, "yes", MESSAGE),
            ({"n": 7}, "7", {"n": MESSAGE}),
            ({"n": 7}, "computed", MESSAGE),
            (7, "7", MESSAGE),
        ],
    )
    def test_an_answer_whose_place_takes_no_text(
        self, output: Any, answer: str, expected: Any
    ) -> None:
        """A field that may be empty becomes None. If nothing fits, the abstention takes the place of the whole."""
        assert clear(output, answer=answer) == expected

    def test_all_of_an_object_that_is_the_answer_goes(self) -> None:
        """If an object is judged as JSON, its other fields are a part of the rejected answer too."""
        answer = '{"answer": "zanq", "sure": false}'
        assert clear(Ans(answer="zanq", sure=False), answer=answer) == Ans(answer=MESSAGE)
        assert clear({"name": "zanq", "n": 7}, answer='{"name": "zanq", "n": 7}') == {
            "name": MESSAGE,
            "n": None,
        }

    def test_a_type_that_puts_the_answer_back_is_not_used(self) -> None:
        """A constructor with a memory of its own can't get the answer past the guard."""

        @dataclass
        class Stubborn:
            text: str
            kept: str = field(default=ANSWER, init=False)

        assert clear(Stubborn(ANSWER)) == MESSAGE


class TestValuesThatResist:
    """Values that can't be looked into, or only for ever, become None."""

    def test_a_value_that_raises(self) -> None:
        """Its error is not raised, since it may quote the answer."""

        class Broken(dict[str, Any]):
            def items(self) -> Any:
                raise ValueError(ANSWER)

        assert clear({"answer": ANSWER, "other": Broken(a=1)})["other"] is None

    def test_a_value_that_contains_itself(self) -> None:
        """A cycle is cut where it closes."""
        ring: list[Any] = [ANSWER]
        ring.append(ring)
        assert clear({"answer": ANSWER, "ring": ring})["ring"] == [MESSAGE, None]

    def test_a_value_that_is_too_deep(self) -> None:
        """The walk ends at a depth that no usual output has."""
        deep: Any = ANSWER
        for _ in range(5000):
            deep = [deep]
        assert "zanq" not in _flatten(clear({"answer": ANSWER, "deep": deep})["deep"])

    def test_shared_values_are_walked_once(self) -> None:
        """A value with 2**60 paths takes no time."""
        shared: Any = [ANSWER]
        for _ in range(55):
            shared = [shared, shared]
        cleared = clear({"answer": ANSWER, "shared": shared})["shared"]
        for _ in range(55):
            cleared = cleared[1]
        assert cleared == [MESSAGE]


def _flatten(value: Any) -> str:
    while isinstance(value, list) and value:
        value = value[0]
    return str(value)


def test_a_clean_output_keeps_its_values() -> None:
    """Values beside the answer that do not repeat it are the same objects as before."""

    class Usage(BaseModel):
        tokens: int

    output: dict[str, Any] = {"answer": ANSWER, "usage": Usage(tokens=9), "tags": ("a", {"b"})}
    cleared = clear(output)
    assert all(cleared[name] is output[name] for name in ("usage", "tags"))


@pytest.mark.parametrize(
    ("text", "is_repeated"),
    [
        ("z\u200banq keeps the b\u00adarq: the zanq keeps the barq", True),
        ("the zanq k\u200beeps the barq", True),
        ("the ｚａｎｑ keeps the barq", True),
        ("the zanq kept the barq", False),
        ("zanq barq", False),
    ],
)
def test_which_texts_repeat_an_answer(text: str, is_repeated: bool) -> None:
    """Invisible characters and other widths of letters make no difference, and other words do."""
    assert (clear({"answer": ANSWER, "text": text})["text"] == MESSAGE) is is_repeated


@pytest.mark.parametrize(
    ("answer", "text", "is_repeated"),
    [
        ("北京", "中国的首都是北京。", True),
        ("서울", "수도는 서울입니다", True),
        ("Oslo", "the capital (Oslo)", True),
        ("Oslo", "the Oslovians", False),
        ("zanzibar", "xzanzibary", True),
        ("42", "it is 42.", True),
        ("42", "p42.md", False),
        ("?!", "so?!", True),
    ],
)
def test_short_answers_are_found_as_whole_words(answer: str, text: str, is_repeated: bool) -> None:
    """Scripts without spaces have no whole words, and a long word is found inside others."""
    cleared = clear({"answer": answer, "text": text}, answer=answer)
    assert (cleared["text"] == MESSAGE) is is_repeated


def test_bytes_in_another_encoding_do_not_pass() -> None:
    """UTF-16 of plain letters is valid UTF-8 with zeros in between."""
    assert clear({"answer": ANSWER, "other": ANSWER.encode("utf-16-le")})["other"] is None


def test_a_stand_in_of_a_message_is_valid_whatever_the_answer_is() -> None:
    """The answer may read like a token count, a status or a role."""
    usage = {"input_tokens": 42, "output_tokens": 1, "total_tokens": 43}
    said = AIMessage("42", id="42", usage_metadata=usage)
    output = {"answer": "42", "messages": [ToolMessage("42", tool_call_id="42"), said, "x"]}
    assert clear(output, answer="42")["messages"] == [
        ToolMessage(MESSAGE, tool_call_id=""),
        AIMessage(MESSAGE, usage_metadata=usage),
        "x",
    ]
