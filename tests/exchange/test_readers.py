"""Reading an exchange from the places that the caller names."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from aspire_guard.errors import ExchangeError
from aspire_guard.exchange import Exchange, ExchangeReader
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Custom
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel

TRUSTING = ConstantEvaluator(confidence=1.0)
REFUSING = ConstantEvaluator(confidence=0.0)


class Keeper(BaseModel):
    """The keeper of the key."""

    name: str
    since: int


KEEPER = Keeper(name="Zanq", since=1990)
INPUT = {"asked": "Who?", "notes": [Document("Ada keeps it."), "So?"]}


@pytest.mark.parametrize(
    ("reading", "output", "exchange"),
    [
        (
            ExchangeReader("asked", "notes"),
            "Ada",
            Exchange(question="Who?", context="Ada keeps it.\n\nSo?", answer="Ada"),
        ),
        (
            ExchangeReader("asked", "seen"),
            {"answer": "Ada", "seen": "x"},
            Exchange(question="Who?", context="x", answer="Ada"),
        ),
        (ExchangeReader("asked", answer="name"), KEEPER, Exchange(question="Who?", answer="Zanq")),
        (
            ExchangeReader("asked", answer="said"),
            {"said": AIMessage("Ada")},
            Exchange(question="Who?", answer="Ada"),
        ),
        (
            ExchangeReader(lambda i: i["asked"] * 2, lambda i, o: i["notes"][1], lambda i, o: o),
            KEEPER,
            Exchange(question="Who?Who?", context="So?", answer='{"name": "Zanq", "since": 1990}'),
        ),
        (
            ExchangeReader("asked", answer="parsed"),
            {"parsed": {"é": [1]}},
            Exchange(question="Who?", answer='{"é": [1]}'),
        ),
    ],
)
def test_keys_and_functions(reading: ExchangeReader, output: Any, exchange: Exchange) -> None:
    """A reader can be a key, a field of an object or a function, and other values than text become JSON."""
    assert reading.read(INPUT, output) == exchange


@pytest.mark.parametrize(
    ("reading", "error"),
    [
        (
            ExchangeReader("question"),
            "no question found in the chain's input: expected it under the key 'question'; found a ",
        ),
        (
            ExchangeReader("asked", answer="nmae"),
            "no answer found in the chain's output: expected it under the key 'nmae'; ",
        ),
        (
            ExchangeReader("asked", answer=lambda i, o: o["name"]),
            "expected the function given as answer= to find the answer",
        ),
    ],
)
def test_what_is_not_there_is_an_error_that_quotes_nothing(
    reading: ExchangeReader, error: str
) -> None:
    """The error names the expected place and the shape of the value, and never quotes it."""
    with pytest.raises(ExchangeError) as raised:
        reading.read(INPUT, KEEPER)
    assert str(raised.value).startswith(error)
    assert "Zanq" not in str(raised.value)


def test_structured_output_passes_unharmed() -> None:
    """A pydantic object comes out as it went in, judged by the field that was named."""
    chain: RunnableLambda[Any, Any] = RunnableLambda(lambda question: KEEPER)
    guard = AspireGuard(chain, evaluator=TRUSTING, answer="name")
    assert guard.invoke("Who?") is KEEPER
    assert asyncio.run(guard.ainvoke("Who?")) is KEEPER


def test_structured_output_from_a_real_parser() -> None:
    """`with_structured_output` calls a tool and parses it. The guard around it sees the object."""
    call = {"name": "Keeper", "args": {"name": "Zanq", "since": 1990}, "id": "1"}
    chain = ScriptedChatModel(AIMessage("", tool_calls=[call])).with_structured_output(Keeper)
    guard = AspireGuard(chain, evaluator=TRUSTING, answer=lambda i, o: o)
    with pytest.warns(UserWarning, match="found Keeper without one; in place of a rejected output"):
        assert guard.invoke("Who?") == KEEPER


def test_structured_output_without_a_reader_is_an_error() -> None:
    """The first call raises an error that says what was found and the way out."""
    guard = AspireGuard(RunnableLambda(lambda question: KEEPER), evaluator=TRUSTING)
    with pytest.raises(
        ExchangeError, match=r"found a value of type Keeper; .*answer='\.\.\.', a key or a function"
    ):
        guard.invoke("Who?")


def test_a_rejected_object_has_the_abstention_in_its_field() -> None:
    """The abstention replaces the judged field, or the whole object if no field is judged."""
    chain: RunnableLambda[Any, Any] = RunnableLambda(lambda question: KEEPER)
    assert (
        AspireGuard(chain, evaluator=REFUSING, answer="name").invoke("Who?").name
        == "I can't answer this question."
    )

    whole = AspireGuard(chain, evaluator=REFUSING, answer=lambda i, o: o)
    assert whole.invoke("Who?") == "I can't answer this question."

    nobody = RoutingPolicy(
        otherwise=Custom(lambda input, output, verdict: Keeper(name="nobody", since=0))
    )
    guard = AspireGuard(chain, evaluator=REFUSING, policy=nobody, answer=lambda i, o: o)
    assert guard.invoke("Who?") == Keeper(name="nobody", since=0)
