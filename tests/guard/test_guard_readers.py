"""Answers in places that the user names are judged, replaced and hidden like any other answer."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Generator
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from pydantic import BaseModel

from aspire_guard.errors import ChainError, EvaluationError, ExchangeError
from aspire_guard.exchange import Exchange, FieldReader
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Custom
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel, tiny_evaluator
from aspire_integrations import AspireChatModel

LOW, HIGH = ConstantEvaluator(confidence=0.1), ConstantEvaluator(confidence=0.9)
# Not as one word: a traceback quotes the lines of this file.
PLACE = "Zanzi" + "bar"
ABSTENTION = RoutingPolicy().abstention
CALL = ToolCall(name="look", args={"thing": "key"}, id="1")


class Keeper(BaseModel):
    """The keeper of the key."""

    name: str


class Report(BaseModel):
    """An answer inside, and a text next to it."""

    keeper: Keeper
    summary: str


def make_chain(output: Any) -> RunnableLambda[Any, Any]:
    """Make a chain that always returns this output."""
    return RunnableLambda(lambda _: output)


def test_the_named_answer_is_replaced_and_the_usual_key_too() -> None:
    """Both answers are replaced, whichever of them was judged."""
    guard = AspireGuard(
        make_chain({"final": "Bob", "output": "log", "n": 1}), evaluator=LOW, answer="final"
    )
    assert guard.invoke("Who?") == {"final": ABSTENTION, "output": ABSTENTION, "n": 1}


@pytest.mark.parametrize("answer", [None, "structured_response"])
def test_nothing_parsed_from_a_rejected_answer_leaves(answer: FieldReader | None) -> None:
    """An agent's structured response repeats its last message, so both are removed."""
    agent = create_agent(
        ScriptedChatModel('{"name": "Bob"}'), [], response_format=ProviderStrategy(Keeper)
    )
    state = AspireGuard(agent, evaluator=LOW, answer=answer).invoke(
        {"messages": [HumanMessage("Who?")]}
    )
    assert state["messages"][-1].text == ABSTENTION
    assert state["structured_response"] is None


def test_every_object_that_holds_the_answer_holds_the_abstention() -> None:
    """The fields of an object inside the output are replaced as well."""
    output = Report(keeper=Keeper(name="Bob"), summary="Bob")
    guard = AspireGuard(
        make_chain(output), evaluator=LOW, answer=lambda input, output: output.keeper.name
    )
    assert guard.invoke("Who?") == Report(keeper=Keeper(name=ABSTENTION), summary=ABSTENTION)


def test_an_answer_that_cannot_be_replaced_is_not_released() -> None:
    """If the answer is made of parts that are clean on their own, the abstention replaces the whole output."""
    output = {"first": "B", "rest": "ob"}
    guard = AspireGuard(
        make_chain(output),
        evaluator=LOW,
        answer=lambda input, output: output["first"] + output["rest"],
    )
    assert guard.invoke("Who?") == ABSTENTION


def test_a_named_answer_is_judged_next_to_a_message_that_calls_tools() -> None:
    """A message that calls tools passes only if it is the answer, not if the named text is."""
    output = {"final": "Bob", "messages": [HumanMessage("Who?"), AIMessage("", tool_calls=[CALL])]}
    assert (
        AspireGuard(make_chain(output), evaluator=LOW, answer="final").invoke("Who?")["final"]
        == ABSTENTION
    )
    calling = {"messages": output["messages"]}
    assert AspireGuard(make_chain(calling), evaluator=LOW, answer="final").invoke("Who?") == calling


def test_a_named_answer_has_its_own_score() -> None:
    """A score that a model gave to another text of the same output is not used."""
    evaluator = tiny_evaluator()
    other = make_chain("zzz other text")
    beside = AspireGuard(
        {"answer": AspireChatModel(evaluator), "final": other}, evaluator=evaluator, answer="final"
    )
    alone = AspireGuard({"final": other}, evaluator=evaluator, answer="final")
    assert beside.judge("Who?").score == alone.judge("Who?").score


def test_what_reads_an_answer_shows_it_to_no_stream() -> None:
    """The events of a parser that the function calls stay inside the guard."""
    parser = StrOutputParser()
    guard = AspireGuard(
        ScriptedChatModel("Bob keeps it."),
        evaluator=LOW,
        answer=lambda input, output: parser.invoke(output),
    )

    async def events() -> list[Any]:
        return [
            event
            async for event in (RunnablePassthrough() | guard).astream_events("Who?", version="v2")
        ]

    told = asyncio.run(events())
    assert told
    assert "Bob" not in str(told)


class _Later:
    """The result of calling an async function."""

    def __await__(self) -> Generator[None, None, str]:
        yield
        return "Bob"


def _call_async(*values: Any) -> _Later:
    return _Later()


def test_an_async_function_reads_no_answer() -> None:
    """An async function returns an awaitable instead of a text."""
    guard = AspireGuard(make_chain("Bob"), evaluator=HIGH, answer=_call_async)
    with pytest.raises(
        ExchangeError, match="from the function given as answer=, found an awaitable"
    ):
        guard.invoke("Who?")


def test_an_async_custom_route_is_passed_over() -> None:
    """The next route is taken, and the verdict tells why."""
    guard = AspireGuard(
        make_chain("Bob"), evaluator=LOW, policy=RoutingPolicy(otherwise=Custom(_call_async))
    )
    verdict = guard.judge("Who?")
    assert (verdict.route, verdict.error) == (
        "abstain",
        "expected an output from the custom route's function, found an awaitable; make the function sync",
    )


def _raise(exchange: Exchange) -> float:
    raise ValueError(f"cannot score {exchange.answer!r}")


def _print_error(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_an_error_of_the_evaluator_prints_no_answer() -> None:
    """Neither the error nor its cause, which is printed with it, quotes the answer."""
    policy = RoutingPolicy(on_error="raise")
    with pytest.raises(EvaluationError) as raised:
        AspireGuard(make_chain(PLACE), evaluator=ConstantEvaluator(_raise), policy=policy).invoke(
            "Where?"
        )
    assert PLACE not in _print_error(raised.value)


def test_an_error_of_a_reader_prints_no_answer() -> None:
    """The function's own error may quote what it could not read."""
    guard = AspireGuard(make_chain(PLACE), evaluator=HIGH, answer=lambda input, output: {}[output])
    with pytest.raises(ExchangeError, match="raised KeyError") as raised:
        guard.invoke("Where?")
    assert PLACE not in _print_error(raised.value)


def test_an_error_named_after_the_answer_prints_no_answer() -> None:
    """A type that was made at run time may have the answer as its name, so the type that it derives from is named."""

    def read(input: str, output: str) -> str:
        raise type(PLACE, (KeyError,), {})

    guard = AspireGuard(make_chain(PLACE), evaluator=HIGH, answer=read)
    with pytest.raises(ExchangeError, match="raised KeyError") as raised:
        guard.invoke("Where?")
    assert PLACE not in _print_error(raised.value)


def _raise_parser_error(message: AIMessage) -> Any:
    raise OutputParserException(f"Invalid: {message.text}", llm_output=message.text)


@pytest.mark.parametrize("release", ["answer", "sentence"])
def test_an_error_of_a_parser_prints_no_answer(release: Literal["answer", "sentence"]) -> None:
    """A stand-in names the type of the parser's error, so that a chain around the guard can handle it."""
    guard = AspireGuard(
        ScriptedChatModel(PLACE) | _raise_parser_error, evaluator=HIGH, release=release
    )
    with pytest.raises(ChainError, match="it raised OutputParserException, whose words") as raised:
        list(guard.stream("Where?"))
    assert PLACE not in _print_error(raised.value)
    assert vars(raised.value) == {"error_type": "OutputParserException", "retryable": True}
