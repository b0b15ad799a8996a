"""No rejected answer leaves in an output, an error or a memory, and with each cure taken out one does.

A cure is one rule of the clearing. The matrix has a row for each cure, and counts the ways on which the answer leaves
without this cure. So every rule is needed, and none hides that another one has stopped working.
"""

from __future__ import annotations

import asyncio
import enum
import gc
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from traceback import TracebackException
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.documents import Document
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Interrupt
from pydantic import BaseModel, ConfigDict, PrivateAttr

from aspire_guard.clearing import memories, rejected_texts, walker
from aspire_guard.clearing.known_values import Snapshot
from aspire_guard.clearing.memories import MemoryBefore, MemoryClearing
from aspire_guard.clearing.rejected_texts import RejectedTexts
from aspire_guard.clearing.walker import Clearing
from aspire_guard.errors import UnguardedWriteError
from aspire_guard.execution import sanitized_errors
from aspire_guard.guard import AspireGuard
from aspire_guard.routing import flow
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel

ANSWER = "zanq ziwx barq keeps the key"
NEEDLE = "zanq"
ABSTENTION = "I can't answer this question."
THREAD: RunnableConfig = {"configurable": {"thread_id": "1", "session_id": "1"}}
REFUSING = ConstantEvaluator(confidence=0.0)
TRUSTING = ConstantEvaluator(confidence=1.0)
DOUBTFUL = ConstantEvaluator(lambda exchange: 0.1 if NEEDLE in exchange.answer else 0.9)
CALL = {"name": "look", "args": {"place": ANSWER}, "id": "1"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated"),
    pytest.mark.filterwarnings("ignore:The class `InMemoryChatMessageHistory` was deprecated"),
]


class Model(BaseModel):
    """An object of pydantic with places that no field shows."""

    model_config = ConfigDict(extra="allow")

    text: str = "x"
    _draft: str = PrivateAttr(default="")


class Stubborn(BaseModel):
    """An output that puts the answer back whenever it is made anew."""

    final: str

    def model_post_init(self, context: Any) -> None:
        """Keep the answer where no field is compared."""
        self.__dict__["copy_of_answer"] = ANSWER


@dataclass(frozen=True)
class Frozen:
    text: str


class Pair(NamedTuple):
    text: str
    n: int = 3


class Slots:
    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Name(enum.Enum):
    KEEPER = ANSWER


def make_private() -> Model:
    model = Model()
    model._draft = ANSWER
    return model


# Values beside the rejected answer, each of which says it again.
BESIDE: dict[str, Callable[[], Any]] = {
    "text": lambda: ANSWER,
    "longer text": lambda: f"Thought: I know. Final Answer: {ANSWER}!",
    "piece": lambda: "zanq ziwx barq",
    "other case": lambda: "zanq   ZIWX **barq** keeps the key",
    "escapes": lambda: "so: zanq\\tziwx\\u0020barq keeps the key",
    "tokens": lambda: ["zanq ziwx", " barq keeps", " the key"],
    "split content": lambda: HumanMessage(
        [{"type": "text", "text": "zanq ziwx"}, {"type": "text", "text": " barq keeps"}]
    ),
    "dict": lambda: {"n": 1, "a": ANSWER},
    "key": lambda: {ANSWER: 1},
    "list": lambda: ["x", ANSWER],
    "tuple": lambda: ("x", ANSWER),
    "set": lambda: {"x", ANSWER},
    "bytes": ANSWER.encode,
    "enum": lambda: Name.KEEPER,
    "path": lambda: pathlib.PurePosixPath(f"{ANSWER}.txt"),
    "error beside": lambda: OutputParserException("no JSON", llm_output=ANSWER),
    "function": lambda: lambda answer=ANSWER: answer,
    "named tuple": lambda: Pair(ANSWER),
    "dataclass": lambda: Frozen(ANSWER),
    "slots": lambda: Slots(ANSWER),
    "namespace": lambda: SimpleNamespace(text=ANSWER),
    "pydantic": lambda: Model(text=ANSWER),
    "extra attribute": lambda: Model.model_validate({"more": ANSWER}),
    "private attribute": make_private,
    "document": lambda: Document(f"So: {ANSWER}", metadata={"by": ANSWER}),
    "message": lambda: HumanMessage(ANSWER, name="worker"),
    "arguments of a tool": lambda: AIMessage("", tool_calls=[CALL]),
    "artifact": lambda: ToolMessage("x", tool_call_id="1", artifact=[ANSWER]),
    "provider's part": lambda: AIMessage(ANSWER, additional_kwargs={"raw": "zanq"}),
    "draft": lambda: AIMessage("Perhaps zanq."),
    "part in an object": lambda: Model(text="zanq"),
}


def reject(make_output: Callable[[], Any], **options: Any) -> Any:
    """Return what leaves the guard of a chain that gives a rejected output."""
    chain = RunnableLambda(lambda question: make_output())
    return AspireGuard(chain, evaluator=REFUSING, **options).invoke("Where?")


def reject_beside(name: str) -> Callable[[], Any]:
    return lambda: reject(lambda: {"answer": ANSWER, "other": BESIDE[name]()})


def reject_number() -> Any:
    """Reject a number, which leaves as a text would."""
    left = reject(lambda: {"answer": "4711.5", "other": 4711.5})
    return str(left["other"]).replace("4711", NEEDLE)


def reject_rare_letter() -> Any:
    """Reject an answer that JSON writes in two escapes a letter."""
    return reject(
        lambda: {"answer": "𐐷 zanq 𐐷", "other": '{"a": "\\ud801\\udc37 zanq \\ud801\\udc37"}'}
    )


def reject_json() -> Any:
    """Reject an answer in JSON, which was parsed too."""
    return reject(lambda: {"answer": '{"zanq": true, "n": 7}', "other": {"zanq": True, "n": 7}})


def reject_object() -> Any:
    return reject(lambda: Stubborn(final=ANSWER), answer=lambda _, output: output.final)


def reject_parsed() -> Any:
    return reject(lambda: {"answer": ANSWER, "parsed": {"keeper": "zanq"}})


def change_the_input() -> Any:
    """Reject the output of a chain that writes its answer into its input."""

    def answer(input: dict[str, Any]) -> Any:
        input["notes"].append(ANSWER)
        return {**input, "answer": ANSWER}

    guard = AspireGuard(RunnableLambda(answer), evaluator=REFUSING)
    return guard.invoke({"question": "Where?", "notes": ["x"]})


class Talk:
    """A chat model that gives a rejected answer first, and keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[list[BaseMessage]] = []
        self.chat = ScriptedChatModel(self._answer)

    def _answer(self, messages: list[BaseMessage]) -> str:
        self.shown.append(messages)
        return ANSWER if messages[-1].text == "first?" else "Ada."

    def make_graph(self, after: Callable[[MessagesState], str] = lambda state: END) -> Any:
        """Make a graph that remembers, with a condition after its answer."""

        def answer(state: MessagesState) -> dict[str, Any]:
            return {"messages": [self.chat.invoke(state["messages"])]}

        builder = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer")
        builder.add_conditional_edges("answer", after)
        return builder.compile(checkpointer=InMemorySaver())


def ask(question: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(question)]}


def remember_in_a_graph() -> Any:
    talk = Talk()
    guard = AspireGuard(talk.make_graph(), evaluator=DOUBTFUL)
    return [guard.invoke(ask(question), THREAD) for question in ("first?", "second?")], talk.shown


def remember_asynchronously() -> Any:
    async def converse() -> Any:
        guard = AspireGuard(talk.make_graph(), evaluator=DOUBTFUL)
        return [await guard.ainvoke(ask(question), THREAD) for question in ("first?", "second?")]

    talk = Talk()
    return asyncio.run(converse()), talk.shown


def remember_in_a_history() -> Any:
    talk = Talk()
    history = InMemoryChatMessageHistory()
    chain = RunnableWithMessageHistory(talk.chat, lambda session_id: history)
    guard = AspireGuard(chain, evaluator=DOUBTFUL)
    return [guard.invoke(question, THREAD) for question in ("first?", "second?")], talk.shown


def remember_in_a_state_that_can_not_be_written() -> Any:
    """Talk with a graph whose condition fails if the abstention is written into its state."""

    def refuse_abstentions(state: MessagesState) -> str:
        assert all(message.text != ABSTENTION for message in state["messages"])
        return END

    graph = Talk().make_graph(refuse_abstentions)
    guard = AspireGuard(graph, evaluator=DOUBTFUL)
    return [guard.invoke(ask(question), THREAD) for question in ("first?", "second?")]


def remember_behind_a_function() -> Any:
    """Talk with a function that calls a graph on a thread of its own, which the guard can't find."""

    def call(question: str) -> str:
        return str(graph.invoke(ask(question), THREAD)["messages"][-1].text)

    talk = Talk()
    graph = talk.make_graph()
    guard = AspireGuard(RunnableLambda(call), evaluator=DOUBTFUL)
    try:
        return [guard.invoke(question) for question in ("first?", "second?")], talk.shown
    except UnguardedWriteError:
        return talk.shown


def fail(step: Callable[[AIMessage], Any]) -> Callable[[], Any]:
    """Return a function that prints the error of a chain, whose step fails after the model has answered."""

    def print_error() -> Any:
        model = ScriptedChatModel(lambda messages: ANSWER)
        guard = AspireGuard(model | RunnableLambda(step), evaluator=TRUSTING)
        try:
            guard.invoke("Where?")
        except BaseException as error:
            printed = TracebackException.from_exception(error, capture_locals=True)
            return "".join(printed.format()) + str(vars(error))
        raise AssertionError("expected an error, found none")

    return print_error


def parse_number(message: AIMessage) -> Any:
    return int(message.text)


def raise_over(error: BaseException) -> Callable[[AIMessage], Any]:
    """Return a step that raises an error while it handles another about the answer."""

    def step(message: AIMessage) -> Any:
        try:
            int(message.text)
        except ValueError as cause:
            raise error from cause

    return step


def interrupt(message: AIMessage) -> Any:
    return raise_over(GraphInterrupt([Interrupt("Which key?")]))(message)


def exit_with_answer(message: AIMessage) -> Any:
    raise SystemExit(message.text)


# The ways on which a rejected answer could leave. Each returns everything that leaves.
WAYS: dict[str, Callable[[], Any]] = {
    **{name: reject_beside(name) for name in BESIDE},
    "number": reject_number,
    "rare letter in JSON": reject_rare_letter,
    "content of JSON": reject_json,
    "parsed": reject_parsed,
    "object": reject_object,
    "changed input": change_the_input,
    "graph": remember_in_a_graph,
    "graph, async": remember_asynchronously,
    "history": remember_in_a_history,
    "unwritable state": remember_in_a_state_that_can_not_be_written,
    "hidden thread": remember_behind_a_function,
    "error": fail(parse_number),
    "cause": fail(raise_over(KeyError("place"))),
    "interrupt": fail(interrupt),
    "exit": fail(exit_with_answer),
}

Patch = pytest.MonkeyPatch
Cure = Callable[[Patch], None]


def set_to(owner: Any, name: str, value: Any) -> Cure:
    """Return a function that takes a cure out by another value in its place."""
    return lambda patch: patch.setattr(owner, name, value)


def return_first(*arguments: Any) -> Any:
    """Return what a method was given, as if there were nothing to do."""
    return arguments[1]


def let_pass(is_of_kind: Callable[[Any], bool]) -> Cure:
    """Return a function that makes the walker pass values of a kind as they are."""
    clear_by_kind = Clearing._clear_by_kind

    def clear(self: Clearing, value: Any, places: Any, depth: int) -> Any:
        return value if is_of_kind(value) else clear_by_kind(self, value, places, depth)

    return set_to(Clearing, "_clear_by_kind", clear)


def is_a(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def is_exactly(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


def is_inner_dict(value: Any) -> bool:
    """Tell whether a value is a dict inside the output."""
    return isinstance(value, dict) and "answer" not in value


def take_shallow_snapshot(value: Any) -> Any:
    """Take a snapshot that holds the parts of a dict themselves, and so sees their changes."""
    return Snapshot(value, dict(value)) if isinstance(value, dict) else value


def copy_message(message: BaseMessage, text: str, cleared: Any) -> BaseMessage:
    """Replace the text of a message alone."""
    return message.model_copy(update={"content": text})


def iterate_steps_as_findable(*arguments: Any) -> Iterator[Any]:
    """Take every step that remembers for one that the guard's config names the thread of."""
    for step in memories_search(*arguments):
        yield replace(step, is_called_by_function=False)


memories_search = memories._iterate_remembering_steps


def forget_nothing(self: Any) -> None:
    """Leave a memory as it is."""


async def forget_nothing_asynchronously(self: Any) -> None:
    """Leave a memory as it is."""


def never(*arguments: Any) -> bool:
    return False


# Each cure, and what takes it out. The leaks that the matrix counts then have to be the ways named last, at least.
CURES: dict[str, tuple[Cure, set[str]]] = {
    "walk": (set_to(Clearing, "clear", return_first), {"text", "dict", "draft"}),
    "texts": (set_to(Clearing, "_clear_text", return_first), {"text", "longer text", "piece"}),
    "numbers": (set_to(Clearing, "_clear_number", return_first), {"number"}),
    "enums": (let_pass(is_a(enum.Enum)), {"enum"}),
    "bytes": (let_pass(is_a(bytes)), {"bytes"}),
    "paths": (let_pass(is_a(pathlib.PurePath)), {"path"}),
    "errors in outputs": (let_pass(is_a(BaseException)), {"error beside"}),
    "mappings": (let_pass(is_inner_dict), {"dict", "key", "arguments of a tool", "document"}),
    "keys": (set_to(Clearing, "_clear_key", return_first), {"key"}),
    "lists": (let_pass(is_exactly(list)), {"list", "tokens", "artifact"}),
    "tuples": (let_pass(is_exactly(tuple)), {"tuple"}),
    "sets": (let_pass(is_a(set)), {"set"}),
    "tokens in a list": (set_to(Clearing, "_spell_answer", never), {"tokens"}),
    "named tuples": (let_pass(is_exactly(Pair)), {"named tuple"}),
    "dataclasses": (let_pass(is_exactly(Frozen)), {"dataclass"}),
    "slots": (let_pass(is_exactly(Slots)), {"slots"}),
    "namespaces": (let_pass(is_exactly(SimpleNamespace)), {"namespace"}),
    "functions": (let_pass(is_exactly(FunctionType)), {"function"}),
    "pydantic objects": (
        let_pass(is_exactly(Model)),
        {"pydantic", "extra attribute", "private attribute", "part in an object"},
    ),
    "hidden attributes": (
        set_to(walker, "read_attributes", vars),
        {"extra attribute", "private attribute"},
    ),
    "check of what was made anew": (
        set_to(Clearing, "has_clean_parts", lambda self, value: True),
        {"object"},
    ),
    "documents": (let_pass(is_a(Document)), {"document"}),
    "messages": (
        let_pass(is_a(BaseMessage)),
        {"message", "split content", "arguments of a tool", "artifact", "draft"},
    ),
    "stand-ins of messages": (set_to(walker, "make_stand_in", copy_message), {"provider's part"}),
    "drafts": (set_to(Clearing, "_is_draft", never), {"draft"}),
    "parsed keys": (set_to(walker, "_PARSED_KEYS", ()), {"parsed"}),
    "parts in objects": (set_to(Clearing, "_is_parsed", never), {"part in an object"}),
    "content of JSON": (set_to(RejectedTexts, "is_parsed_answer", never), {"content of JSON"}),
    "JSON in texts": (set_to(Clearing, "_is_json_with_answer", never), {"rare letter in JSON"}),
    "statements in texts": (set_to(RejectedTexts, "_states", never), {"longer text", "path"}),
    "pieces of the answer": (set_to(RejectedTexts, "_is_piece", never), {"piece"}),
    "case and punctuation": (set_to(rejected_texts, "normalize", str.strip), {"other case"}),
    "escapes": (set_to(rejected_texts, "_list_readings", lambda text: [text]), {"escapes"}),
    "snapshot of the input": (
        set_to(flow, "take_snapshot", take_shallow_snapshot),
        {"changed input"},
    ),
    "memories": (
        set_to(MemoryClearing, "run", forget_nothing),
        {"graph", "history", "unwritable state"},
    ),
    "memories, async": (
        set_to(MemoryClearing, "arun", forget_nothing_asynchronously),
        {"graph, async"},
    ),
    "rejected answers kept in mind": (
        set_to(MemoryBefore, "rejected", frozenset()),
        {"unwritable state"},
    ),
    "refusal of hidden threads": (
        set_to(memories, "_iterate_remembering_steps", iterate_steps_as_findable),
        {"hidden thread"},
    ),
    "stand-ins of errors": (
        set_to(sanitized_errors, "_make_stand_in", lambda error: error),
        {"error", "cause"},
    ),
    "proof that no model has answered": (
        set_to(sanitized_errors, "_is_before_answer", lambda *arguments: True),
        {"error", "cause"},
    ),
    "bare interrupts": (set_to(sanitized_errors, "_strip", lambda error: error), {"interrupt"}),
    "bare exits": (set_to(sanitized_errors, "_sanitize_control", lambda error: error), {"exit"}),
}


def list_texts(value: Any) -> str:
    """List all texts that a value leads to, in whatever place."""
    texts: list[str] = []
    seen: dict[int, Any] = {}
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type | ModuleType):
            continue
        seen[id(item)] = item
        if isinstance(item, FunctionType):
            waiting += [item.__defaults__, item.__closure__]
        elif isinstance(item, str | bytes | enum.Enum):
            texts.append(repr(item))
        else:
            waiting += gc.get_referents(item)
        if isinstance(item, dict):  # the collector of garbage does not follow keys that are texts
            waiting += list(item)
    return "\n".join(texts)


@cache
def find_leaks(cure: str | None) -> dict[str, bool]:
    """Tell of each way whether the rejected answer leaves on it if a cure, or None, is taken out."""
    with pytest.MonkeyPatch.context() as patch:
        if cure is not None:
            CURES[cure][0](patch)
        return {name: NEEDLE in list_texts(way()) for name, way in WAYS.items()}


@pytest.mark.parametrize("way", WAYS)
def test_the_answer_leaves_on_no_way(way: str) -> None:
    """With all cures, nothing that leaves the guard leads to a text of the rejected answer."""
    assert not find_leaks(None)[way]


@pytest.mark.parametrize("cure", CURES)
def test_without_the_cure_the_answer_leaves(cure: str) -> None:
    """With this cure taken out, the answer leaves on the ways that the cure is for."""
    leaks = find_leaks(cure)
    assert {way for way in CURES[cure][1] if leaks[way]} == CURES[cure][1]


def test_every_way_has_a_cure() -> None:
    """No way is clean by chance: a cure that is taken out opens it."""
    opened = {way for cure in CURES for way, leaks in find_leaks(cure).items() if leaks}
    assert opened == set(WAYS)


def test_the_matrix() -> None:
    """With `pytest -s`, print on how many ways the answer leaves without each cure: with all cures, on no way."""
    counts = {cure: sum(find_leaks(cure).values()) for cure in CURES}
    print(f"\nways on which the answer leaves, of {len(WAYS)}:")
    print(f"{'all cures':36}{sum(find_leaks(None).values()):4}")
    for cure, count in counts.items():
        print(f"without {cure:28}{count:4}")
    assert sum(find_leaks(None).values()) == 0 < min(counts.values())
