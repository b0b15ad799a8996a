"""The errors of a guarded chain: what leaves after a model has answered, and what leaves before."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import pickle
from collections.abc import Callable
from time import sleep
from traceback import TracebackException
from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import PydanticToolsParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Interrupt
from pydantic import BaseModel, ValidationError

from aspire_guard.errors import ChainError, InputError, RouteTimeoutError
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Fallback, Timeouts
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel

ANSWER = "zanq ziwx barq"
TRUSTING = ConstantEvaluator(confidence=1.0)


class Place(BaseModel):
    """The place of a key, as a model writes it in a call."""

    room: int


def say(messages: Any) -> str:
    """Return the answer, which no repr of a chain shows."""
    return ANSWER


def call_place(messages: Any) -> AIMessage:
    """Return a call of the tool `Place` with the answer in the place of a number."""
    return AIMessage("", tool_calls=[{"name": "Place", "args": {"room": ANSWER}, "id": "1"}])


def index(message: AIMessage) -> Any:
    """Look the answer up."""
    empty: dict[str, Any] = {}
    return empty[message.text]


def chain_errors(message: AIMessage) -> Any:
    """Raise an error whose cause quotes the answer."""
    raise ValueError("no place") from OutputParserException(message.text)


def group_errors(message: AIMessage) -> Any:
    """Raise errors about the answer in a group."""
    raise ExceptionGroup("no place", [KeyError(message.text)])


MODEL = ScriptedChatModel(say)
FAILING: dict[str, tuple[Runnable[Any, Any], str]] = {
    "tools parser": (
        ScriptedChatModel(call_place) | PydanticToolsParser(tools=[Place]),
        "ValidationError",
    ),
    "model_validate_json": (
        MODEL | RunnableLambda(lambda message: Place.model_validate_json(message.text)),
        "ValidationError",
    ),
    "json.loads": (
        MODEL | RunnableLambda(lambda message: json.loads(message.text)),
        "JSONDecodeError",
    ),
    "int": (MODEL | RunnableLambda(lambda message: int(message.text)), "ValueError"),
    "key": (MODEL | RunnableLambda(index), "KeyError"),
    "cause": (MODEL | RunnableLambda(chain_errors), "ValueError"),
    "group": (MODEL | RunnableLambda(group_errors), "ExceptionGroup"),
}
each_failure = pytest.mark.parametrize("name", sorted(FAILING))


def make_guard(name: str, **options: Any) -> AspireGuard:
    """Make a guard around a chain that fails after its model has answered."""
    return AspireGuard(FAILING[name][0], evaluator=TRUSTING, **options)


def catch(call: Callable[..., Any], *arguments: Any) -> BaseException:
    """Return the exception that a call raises."""
    try:
        call(*arguments)
    except BaseException as error:
        return error
    raise AssertionError("expected an exception, found none")


def print_with_variables(error: BaseException) -> str:
    """Print an error with its links and its frames' variables, as error trackers do."""
    return "".join(TracebackException.from_exception(error, capture_locals=True).format())


@each_failure
def test_only_the_type_of_an_error_leaves(name: str) -> None:
    """The stand-in has the type's name, and no cause, context, note or attribute of the original."""
    guard = make_guard(name)
    returned = guard.batch(["Where?"], return_exceptions=True)
    for error in (
        catch(guard.invoke, "Where?"),
        catch(lambda: asyncio.run(guard.ainvoke("Where?"))),
        catch(guard.judge, "Where?"),
        *returned,
    ):
        assert type(error) is ChainError
        assert vars(error) == {"error_type": FAILING[name][1], "retryable": True}
        assert f"it raised {FAILING[name][1]}, whose words" in str(error)
        assert (error.__cause__, error.__context__) == (None, None)
        assert "zanq" not in print_with_variables(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


@each_failure
def test_the_original_leaves_on_request(name: str) -> None:
    """`original_errors=True` shows a developer what the chain raised."""
    error = catch(make_guard(name, original_errors=True).invoke, "Where?")
    assert type(error).__name__ == FAILING[name][1]


@each_failure
@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_graph_shows_and_stores_the_stand_in_alone(name: str, way: str) -> None:
    """The text is in no stream and no checkpoint of a graph around the guard."""
    saver = InMemorySaver()
    node: Any = RunnableLambda(lambda state: state["messages"]) | make_guard(name)
    builder: Any = StateGraph(MessagesState).add_node("guarded", node)
    graph = builder.add_edge(START, "guarded").compile(checkpointer=saver)
    shown: list[str] = []
    modes: Any = ["values", "updates", "messages", "custom", "checkpoints", "tasks", "debug"]
    asked: Any = {"messages": ["Where?"]}, {"configurable": {"thread_id": "1"}}

    def read() -> None:
        shown.extend(repr(chunk) for chunk in graph.stream(*asked, stream_mode=modes))

    async def aread() -> None:
        async for chunk in graph.astream(*asked, stream_mode=modes):
            shown.append(repr(chunk))

    error = catch(read if way == "sync" else lambda: asyncio.run(aread()))
    assert type(error) is ChainError
    shown += [repr(saver.storage), repr(saver.writes), repr(saver.blobs)]
    assert "ChainError" in "".join(shown)
    assert "zanq" not in "".join(shown)


def test_a_chain_around_the_guard_can_handle_the_stand_in() -> None:
    """`with_fallbacks` takes `ChainError`, and hands the stand-in to its fallback."""
    fallback: Runnable[Any, Any] = RunnableLambda(lambda asked: asked["error"])
    guarded: Runnable[Any, Any] = RunnableLambda(lambda asked: "Where?") | make_guard("int")
    chain = guarded.with_fallbacks(
        [fallback], exceptions_to_handle=(ChainError,), exception_key="error"
    )
    error = chain.invoke({"question": "Where?"})
    assert (type(error), error.error_type) == (ChainError, "ValueError")
    assert "zanq" not in print_with_variables(error)


def test_the_routes_after_a_failed_chain_name_its_error() -> None:
    """The steps name the original's type, and the error after the last route is the stand-in."""
    broken: Runnable[Any, Any] = RunnableLambda(index)
    policy = RoutingPolicy(on_chain_error="fallback", otherwise=Fallback(MODEL | broken))
    error = catch(make_guard("json.loads", policy=policy).invoke, "Where?")
    assert (type(error), vars(error)["error_type"]) == (ChainError, "JSONDecodeError")
    fallback = Fallback(lambda question: "Ada", accept_from=0.5)
    policy = RoutingPolicy(on_chain_error="fallback", otherwise=fallback)
    steps = make_guard("json.loads", policy=policy).judge("Where?").steps
    assert steps[0].error == "the chain raised JSONDecodeError"


class RateLimited(Exception):
    """An error of a client that has the status of an HTTP response."""

    status_code = 429


def raise_before(error: Exception) -> Callable[[Any], str]:
    """Make a script of a model that fails before its first word."""

    def script(messages: Any) -> str:
        raise error

    return script


@pytest.mark.parametrize(
    "error",
    [ConnectionError("refused"), RateLimited("slow down"), RuntimeError("no key for the model")],
)
def test_an_error_before_the_first_word_stays(error: Exception) -> None:
    """Nothing has been said yet, so the caller gets the original."""
    chain = ChatPromptTemplate.from_template("{x}") | ScriptedChatModel(raise_before(error))
    for release in ("answer", "sentence"):
        guard = AspireGuard(chain, evaluator=TRUSTING, release=release)
        assert catch(guard.invoke, {"x": "Where?"}) is error
        assert catch(lambda guard=guard: list(guard.stream({"x": "Where?"}))) is error


def test_an_input_that_does_not_fit_the_prompt_is_named() -> None:
    """The prompt's error comes before the chain's model, so its words stay."""
    chain = ChatPromptTemplate.from_template("{topic}") | MODEL
    error = catch(AspireGuard(chain, evaluator=TRUSTING).invoke, {"question": "Where?"})
    assert type(error) is KeyError
    assert "missing variables {'topic'}" in str(error)


def test_a_model_that_fails_to_read_its_own_reply_gets_a_stand_in() -> None:
    """Clients that parse a reply themselves raise before LangChain sees any output."""

    class Parsed(RuntimeError):
        completion = ANSWER

    for error in (ValueError(ANSWER), Parsed("too long")):
        guard = AspireGuard(ScriptedChatModel(raise_before(error)), evaluator=TRUSTING)
        assert type(catch(guard.invoke, "Where?")) is ChainError


def test_a_model_that_fails_after_a_token_gets_a_stand_in() -> None:
    """An error in the middle of a stream may quote the beginning of the answer."""

    class Stalling(ScriptedChatModel):
        def _stream(self, *arguments: Any, **options: Any) -> Any:
            yield next(super()._stream(*arguments, **options))
            raise ConnectionError(f"lost after {ANSWER}")

    model = Stalling(says=say, streaming=True)
    guard = AspireGuard(model, evaluator=TRUSTING, release="sentence")
    error = catch(lambda: list(guard.stream("Where?")))
    assert (type(error), vars(error)["error_type"]) == (ChainError, "ConnectionError")


def test_a_function_that_calls_a_model_itself_gets_a_stand_in() -> None:
    """LangChain sees no model in a function, so only a failed request is shown to come before the answer."""
    refused = ConnectionError("refused")
    guard = AspireGuard(raise_before(refused), evaluator=TRUSTING)
    assert catch(guard.invoke, "Where?") is refused
    guard = AspireGuard(raise_before(ValueError(ANSWER)), evaluator=TRUSTING)
    assert type(catch(guard.invoke, "Where?")) is ChainError


def raise_after(error: BaseException) -> Runnable[Any, Any]:
    """Make a chain that raises while it handles an error about its model's answer."""

    def step(message: AIMessage) -> Any:
        try:
            int(message.text)
        except ValueError as parse_error:
            error.add_note(message.text)
            raise error from parse_error

    return MODEL | RunnableLambda(step)


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (KeyboardInterrupt(), ()),
        (KeyboardInterrupt(ANSWER), ()),
        (SystemExit(3), (3,)),
        (SystemExit(ANSWER), (1,)),
        (asyncio.CancelledError(ANSWER), ()),
    ],
)
def test_an_exception_that_ends_the_program_keeps_its_type(
    error: BaseException, arguments: tuple[Any, ...]
) -> None:
    """It passes without the errors that it was raised over, and without a text."""
    left = catch(AspireGuard(raise_after(error), evaluator=TRUSTING).invoke, "Where?")
    assert (type(left), left.args) == (type(error), arguments)
    assert "zanq" not in print_with_variables(left)


def test_an_interrupt_passes_with_its_value_alone() -> None:
    """A step of the chain asks a person on purpose. The error that it was raised over stays inside."""
    interrupt = GraphInterrupt([Interrupt("Which key?")])
    guard = AspireGuard(raise_after(interrupt), evaluator=TRUSTING)
    assert catch(guard.invoke, "Where?") is interrupt
    assert interrupt.args[0][0].value == "Which key?"
    assert "zanq" not in print_with_variables(interrupt)


def test_a_cancelled_call_keeps_the_message_of_its_sender() -> None:
    """Libraries such as anyio find their own cancellations by the message."""

    async def hang(message: AIMessage) -> None:
        try:
            int(message.text)
        except ValueError:
            await asyncio.sleep(60)

    async def cancel() -> BaseException:
        guard = AspireGuard(MODEL | RunnableLambda(hang), evaluator=TRUSTING)
        task = asyncio.create_task(guard.ainvoke("Where?"))
        await asyncio.sleep(0.05)
        task.cancel("scope 7")
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        return raised.value

    error = asyncio.run(cancel())
    assert error.args == ("scope 7",)
    assert "zanq" not in print_with_variables(error)


@pytest.mark.parametrize("slow", ["chain", "evaluator"])
def test_asyncio_logs_nothing_of_work_that_fails_after_its_time(
    slow: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The error of abandoned work is never raised, and asyncio must not log it either."""

    async def fail_late(message: AIMessage) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            int(message.text)
        return ""

    class Stopped(BaseException):
        """An exception that no result of a scoring stands for."""

    def fail_to_score(exchange: Any) -> float:
        sleep(0.1)
        raise Stopped(exchange.answer)

    async def call() -> None:
        if slow == "chain":
            timeouts, chain = Timeouts(chain=0.05), MODEL | RunnableLambda(fail_late)
            guard = AspireGuard(chain, evaluator=TRUSTING, policy=RoutingPolicy(timeouts=timeouts))
            with pytest.raises(RouteTimeoutError):
                await guard.ainvoke("Where?")
        else:
            policy = RoutingPolicy(timeouts=Timeouts(evaluator=0.02))
            guard = AspireGuard(MODEL, evaluator=ConstantEvaluator(fail_to_score), policy=policy)
            await guard.ainvoke("Where?")
        await asyncio.sleep(0.15)
        gc.collect()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(call())
        gc.collect()
    assert "never retrieved" not in caplog.text
    assert "zanq" not in caplog.text


def test_an_error_of_a_user_that_looks_like_ours_gets_a_stand_in() -> None:
    """Words are trusted by what raised them, and a chain may raise any class."""
    guard = AspireGuard(raise_after(InputError(ANSWER)), evaluator=TRUSTING)
    error = catch(guard.invoke, "Where?")
    assert (type(error), vars(error)["error_type"]) == (ChainError, "InputError")


def test_the_validation_error_of_an_original_can_be_asked_for_in_a_batch() -> None:
    """The option holds for all ways of calling the guard."""
    guard = make_guard("model_validate_json", original_errors=True)
    (error,) = guard.batch(["Where?"], return_exceptions=True)
    assert isinstance(error, ValidationError)
    assert isinstance(catch(lambda: list(guard.stream("Where?"))), ValidationError)
