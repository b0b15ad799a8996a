"""Errors of random shape around an answer, raised at random places of a chain: no answer leaves with them."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import StringIO
from traceback import TracebackException
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel

from aspire_guard.errors import AspireGuardError, InputError
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel

MODES: Any = ["values", "updates", "custom", "checkpoints", "tasks", "debug"]


class Reply(BaseModel):
    """A reply that a parser expects."""

    number: int


class TalkativeError(Exception):
    """An error that keeps the text in attributes, and prints it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.retryable = text

    def __str__(self) -> str:
        return self.text


class TextualError(AspireGuardError):
    """A user's subclass of our errors."""


class RateLimitError(Exception):
    """An error as the client of a model raises it."""

    status_code = 429


class StubbornError(ValueError):
    """An error that refuses to be changed."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


def catch(call: Callable[[], Any]) -> BaseException | None:
    """Return what a call raises."""
    try:
        call()
    except BaseException as error:
        return error
    return None


EMPTY: dict[str, Any] = {}
# The kinds of errors that parsers, functions and clients raise about a text.
MAKERS: dict[str, Callable[[str], Any]] = {
    "int": lambda text: catch(partial(int, text)),
    "json": lambda text: catch(partial(json.loads, text)),
    "validation": lambda text: catch(partial(Reply.model_validate_json, text)),
    "key": lambda text: catch(partial(EMPTY.__getitem__, text)),
    "decode": lambda text: catch(partial((text + "\xff").encode("latin-1").decode, "utf-8")),
    "parser": lambda text: OutputParserException(text, observation=text, llm_output=text),
    "file": lambda text: FileNotFoundError(2, "No such file", text),
    "connection": lambda text: ConnectionError(text),
    "ratelimit": lambda text: RateLimitError({"body": [text]}),
    "attributes": lambda text: TalkativeError(text),
    "stubborn": lambda text: StubbornError(text),
    "ours": lambda text: InputError(text),
    "subclass": lambda text: TextualError(text),
    "type": lambda text: type(text, (RuntimeError,), {"__doc__": text})(),
    "bytes": lambda text: RuntimeError(text.encode(), (text,)),
    "stop": lambda text: StopIteration(text),
    "interruption": lambda text: KeyboardInterrupt(text),
    "exit": lambda text: SystemExit(text),
    "cancellation": lambda text: asyncio.CancelledError(text),
}
KINDS = sorted(MAKERS)


@dataclass(frozen=True)
class Shape:
    """The shape of an error around a text."""

    kind: str
    noted: bool = False
    cause: Shape | None = None
    context: Shape | None = None
    parts: tuple[Shape, ...] = ()

    def make(self, text: str) -> BaseException:
        """Make an error of this shape."""
        error: BaseException = MAKERS[self.kind](text)
        if self.parts:
            parts = [error, *(part.make(text) for part in self.parts)]
            error = BaseExceptionGroup(text, parts)
        if self.noted and not isinstance(error, StubbornError):
            error.add_note(f"about {text}")
        for name, shape in (("__cause__", self.cause), ("__context__", self.context)):
            if shape is not None:
                getattr(BaseException, name).__set__(error, shape.make(text))
        return error


bare_shapes = st.builds(Shape, st.sampled_from(KINDS), st.booleans())
shapes = st.recursive(
    bare_shapes,
    lambda inner: st.builds(
        Shape,
        st.sampled_from(KINDS),
        st.booleans(),
        st.none() | inner,
        st.none() | inner,
        st.lists(inner, max_size=2).map(tuple),
    ),
    max_leaves=4,
)
answers = st.text("abcdefghij ", min_size=4, max_size=12).map(lambda text: f"zq{text}wx")


@dataclass
class Case:
    """The answer of the model, and the error that the chain raises about it."""

    answer: str = ""
    shape: Shape = Shape("int")


CASE = Case()


def fail(value: Any) -> Any:
    """Raise the error of the case, with the answer among the variables of the frame."""
    answer = CASE.answer
    error = CASE.shape.make(answer)
    raise error


def fail_while_handling(value: Any) -> Any:
    """Raise the error of the case while an error about the answer is handled."""
    try:
        return EMPTY[CASE.answer]
    except KeyError:
        fail(value)


def fail_in_stream(chunks: Iterator[Any]) -> Iterator[Any]:
    """Pass the answer on, and raise the error of the case after its first chunk."""
    for chunk in chunks:
        yield chunk
        fail(chunk)


@tool
def look_up(topic: str) -> Any:
    """Look a topic up."""
    fail(topic)


def answer_again(message: AIMessage) -> Any:
    """Raise the error of the case from a chain inside a chain."""
    return (MODEL | RunnableLambda(fail)).invoke("Once more?")


MODEL = ScriptedChatModel(lambda messages: CASE.answer)
# A model that LangChain knows nothing about.
HIDDEN: Runnable[Any, Any] = RunnableLambda(lambda question: CASE.answer)
CHAINS: dict[str, Runnable[Any, Any]] = {
    "parser": MODEL | RunnableLambda(fail),
    "handler": MODEL | RunnableLambda(fail_while_handling),
    "retried": MODEL
    | RunnableLambda(fail).with_retry(stop_after_attempt=2, wait_exponential_jitter=False),
    "parallel": MODEL | RunnableParallel(answer=RunnableLambda(fail), other=RunnableLambda(str)),
    "tool": MODEL | RunnableLambda(lambda message: {"topic": message.text}) | look_up,
    "inner": MODEL | RunnableLambda(answer_again),
    "stream": MODEL | RunnableGenerator(fail_in_stream),
    "fallbacks": (MODEL | RunnableLambda(fail)).with_fallbacks([MODEL | RunnableLambda(fail)]),
    "hidden": HIDDEN | RunnableLambda(fail),
}
EVALUATOR = ConstantEvaluator(confidence=0.9)


def fail_to_score(exchange: Any) -> float:
    """Raise the error of the case about an answer."""
    fail(exchange)
    return 0.0


GUARDS: dict[str, list[AspireGuard]] = {
    place: [
        AspireGuard(chain, evaluator=EVALUATOR),
        AspireGuard(chain, evaluator=EVALUATOR, release="sentence"),
    ]
    for place, chain in CHAINS.items()
}
RAISING = RoutingPolicy(on_error="raise")
GUARDS["evaluator"] = [
    AspireGuard(MODEL, evaluator=ConstantEvaluator(fail_to_score), policy=RAISING, release=release)
    for release in ("answer", "sentence")
]


class OutsideView(BaseCallbackHandler):
    """A record of the errors of runs that have no run around them."""

    run_inline = True

    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def on_chain_error(
        self, error: BaseException, *, parent_run_id: Any = None, **kwargs: Any
    ) -> None:
        """Keep the error of an outermost run."""
        if parent_run_id is None:
            self.errors.append(error)


async def collect(chunks: Any) -> None:
    """Read an async stream to its end."""
    async for _ in chunks:
        pass


def make_graph(guard: AspireGuard) -> Any:
    """Make a graph of one guarded node."""
    node = RunnableLambda(lambda state: state["messages"][-1].text) | guard
    builder: Any = StateGraph(MessagesState).add_node("guarded", node)
    return builder.add_edge(START, "guarded").compile(checkpointer=SAVER)


SAVER = InMemorySaver()
GRAPHS = {place: make_graph(guards[0]) for place, guards in GUARDS.items()}


def call_graph(place: str, config: Any, shown: list[str]) -> None:
    """Stream a graph, and show its chunks and its stored state."""
    config = {**config, "configurable": {"thread_id": "1"}}
    try:
        for chunk in GRAPHS[place].stream({"messages": ["Where?"]}, config, stream_mode=MODES):
            shown.append(repr(chunk))
    finally:
        shown += [repr(SAVER.storage), repr(SAVER.writes), repr(SAVER.blobs)]
        SAVER.delete_thread("1")


def call_guard(
    way: str, place: str, view: OutsideView, shown: list[str], runner: asyncio.Runner
) -> None:
    """Call a guard in one of the ways that there are."""
    whole, by_sentence = GUARDS[place]
    config: Any = {"callbacks": [view]}
    if way in ("invoke", "judge"):
        getattr(whole, way)("Where?", config)
    elif way == "batch":
        whole.batch(["Where?", "Who?"], config)
    elif way == "ainvoke":
        runner.run(whole.ainvoke("Where?", config))
    elif way == "abatch":
        runner.run(whole.abatch(["Where?", "Who?"], config))
    elif way == "graph":
        call_graph(place, config, shown)
    elif way == "stream":
        list(by_sentence.stream("Where?", config))
    else:
        runner.run(collect(by_sentence.astream("Where?", config)))


def reveal(error: BaseException | None) -> str:
    """Return everything that can be read from an error: its words, data, links, frames and log lines."""
    if error is None:
        return ""
    log = StringIO()
    logger = logging.Logger("outside", logging.DEBUG)
    logger.addHandler(logging.StreamHandler(log))
    logger.debug("failed", exc_info=error)
    frames = TracebackException.from_exception(error, capture_locals=True)
    parts = [
        repr(error),
        str(error),
        repr(vars(error)),
        repr(error.args),
        repr(pickle.dumps((error, vars(error)))),
        "".join(frames.format()),
        log.getvalue(),
        reveal(error.__cause__),
        reveal(error.__context__),
    ]
    if isinstance(error, BaseExceptionGroup):
        parts += [reveal(part) for part in error.exceptions]
    return "\n".join(parts)


WAYS = ["invoke", "judge", "batch", "ainvoke", "abatch", "stream", "astream", "graph"]


@settings(
    max_examples=2000,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(answers, shapes, st.sampled_from(sorted(GUARDS)), st.sampled_from(WAYS))
def test_no_error_carries_an_answer_out(answer: str, shape: Shape, place: str, way: str) -> None:
    """The answer is nowhere in the error that the caller and the callbacks outside the guard see."""
    # asyncio raises these two past every task, and so past the guard.
    assume(way[0] != "a" or shape.parts or shape.kind not in ("interruption", "exit"))
    # A function that can't reach its model says so, and it is the only witness.
    assume(place != "hidden" or shape.kind not in ("connection", "ratelimit"))
    CASE.answer, CASE.shape = answer, shape
    view = OutsideView()
    log = StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    shown: list[str] = []
    try:
        with asyncio.Runner() as runner:
            error = catch(partial(call_guard, way, place, view, shown, runner))
    finally:
        logging.getLogger().removeHandler(handler)
    seen = {id(seen): seen for seen in [error, *view.errors]}
    shown += [log.getvalue(), *(reveal(error) for error in seen.values())]
    assert view.errors
    assert answer not in "".join(shown)
