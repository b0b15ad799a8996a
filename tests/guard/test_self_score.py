"""Answers whose model scored itself in the pass that wrote them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, messages_from_dict, messages_to_dict
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda

from aspire_guard.evaluators import own_scores
from aspire_guard.evaluators.own_scores import find_own_score, keep_own_score
from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.observe import AspireCallbackHandler, Observation
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel
from aspire_guard.verdict import Score

OWN = Score(selection_score=-0.5, confidence=0.875, log_likelihood=-0.25, p_correct=0.75)
ASKED = {"question": "Who?", "context": "Ada keeps the key."}


@dataclass(frozen=True)
class FingerprintedEvaluator(ConstantEvaluator):
    """An evaluator that can tell whose score was kept."""

    fingerprint: str = "evaluator-1"


class NeverAsked(FingerprintedEvaluator):
    """An evaluator that must not be asked."""

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        raise AssertionError("scored again")


@pytest.fixture(autouse=True)
def forget_scores() -> Iterator[None]:
    """Let each test begin without scores of others."""
    own_scores._scores.clear()
    yield
    own_scores._scores.clear()


def make_model(
    question: str = "Who?", context: str | None = "Ada keeps the key.", answer: str = "Ada\n"
) -> Runnable[Any, AIMessage]:
    """Make a model that gives an answer, and keeps its own score of it."""

    def write(_: Any) -> AIMessage:
        exchange = Exchange(question=question, context=context, answer=answer)
        keep_own_score(FingerprintedEvaluator(0.0), exchange, OWN)
        return AIMessage(answer)

    return RunnableLambda(write)


@pytest.mark.parametrize("chain", [make_model(), make_model() | StrOutputParser() | str.strip])
def test_a_model_s_own_score_is_used(chain: Runnable[Any, Any]) -> None:
    """The score of the very exchange is used, also if a parser has stripped the answer."""
    guard = AspireGuard(chain, evaluator=NeverAsked(0.0))
    assert guard.judge(ASKED).score == OWN
    verdict = asyncio.run(guard.ajudge(ASKED))
    assert verdict.score == OWN
    assert verdict.timings.score is None


@pytest.mark.parametrize(
    "model",
    [
        make_model(question="Is the door open?", answer="Yes."),
        make_model(context="Bob keeps the key.", answer="Yes."),
        make_model(context=None, answer="Yes."),
        make_model(answer="No."),
    ],
    ids=["another question", "another context", "no context", "another answer"],
)
def test_the_score_of_another_exchange_is_not_used(model: Runnable[Any, Any]) -> None:
    """A sub-question's "Yes." does not decide about the "Yes." to the question."""

    def answer(asked: dict[str, str]) -> str:
        model.invoke("the sub-question")
        return "Yes."

    guard = AspireGuard(RunnableLambda(answer), evaluator=FingerprintedEvaluator(0.125))
    assert guard.judge(ASKED).confidence == 0.125


def test_a_score_in_a_message_is_not_believed() -> None:
    """Anyone who knows the fingerprint can write a message with a score, so the evaluator is asked."""
    carried = {"evaluator": "evaluator-1", "score": OWN.model_dump()}
    message = AIMessage("Ada", response_metadata={"aspire_score": carried})
    (arrived,) = messages_from_dict(messages_to_dict([message]))
    guard = AspireGuard(RunnableLambda(lambda _: arrived), evaluator=FingerprintedEvaluator(0.125))
    assert guard.judge(ASKED).confidence == 0.125


@pytest.mark.parametrize(
    "evaluator",
    [FingerprintedEvaluator(0.125, fingerprint="evaluator-2"), ConstantEvaluator(0.125)],
)
def test_the_score_of_another_evaluator_is_not_used(evaluator: Any) -> None:
    """An evaluator with another fingerprint, or with no fingerprint, is asked."""
    assert AspireGuard(make_model(), evaluator=evaluator).judge(ASKED).confidence == 0.125


def test_the_oldest_score_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory does not grow without bound. The evaluator is asked again for what was dropped."""
    monkeypatch.setattr(own_scores, "_CAPACITY", 2)
    exchanges = [Exchange(question=f"{i}?", answer="Ada") for i in range(3)]
    evaluator = FingerprintedEvaluator(0.0)
    for exchange in exchanges:
        keep_own_score(evaluator, exchange, OWN)
    assert [find_own_score(evaluator, exchange) for exchange in exchanges] == [None, OWN, OWN]


def test_the_observer_uses_it_too() -> None:
    """The observer takes the model's own score of the very exchange, and asks the evaluator for any other."""
    seen: list[Observation] = []
    chain = make_model() | StrOutputParser()
    with AspireCallbackHandler(FingerprintedEvaluator(0.125), on_score=seen.append) as handler:
        chain.invoke(ASKED, {"callbacks": [handler]})
        chain.invoke({"question": "Where?"}, {"callbacks": [handler]})
    assert {one.exchange.question: one.score and one.score.confidence for one in seen} == {
        "Who?": 0.875,
        "Where?": 0.125,
    }


LOGPROBS = {"logprobs": {"content": [{"token": "x", "logprob": -0.5}]}}


def test_the_likelihood_of_another_question_is_not_used() -> None:
    """If the same text answered a sub-question, its likelihood is not that of the answer."""
    models = {
        "Is the door open?": ScriptedChatModel(AIMessage("Yes.", response_metadata=LOGPROBS)),
        "Who?": ScriptedChatModel("Yes."),
    }

    def answer(question: str) -> str:
        return [str(model.invoke(asked).text) for asked, model in models.items()][-1]

    def reverse(question: str) -> str:
        return [str(models[asked].invoke(asked).text) for asked in reversed(models)][-1]

    seen: list[float | None] = []

    def note(exchange: Exchange) -> float:
        seen.append(exchange.log_likelihood)
        return 1.0

    for function in (answer, reverse):
        AspireGuard(RunnableLambda(function), evaluator=ConstantEvaluator(note)).invoke("Who?")
    assert seen == [None, None]


EXCHANGES = st.builds(
    Exchange,
    question=st.sampled_from(["Who?", "Where?", " Who?", ""]),
    context=st.sampled_from([None, "Ada.", "Bob.", "Who?"]),
    answer=st.sampled_from(["Ada.", "Ada.\n", "Bob.", ""]),
)


@given(EXCHANGES, EXCHANGES)
def test_a_score_is_found_for_its_own_exchange_alone(one: Exchange, other: Exchange) -> None:
    """No other question, context or answer has the score, up to the white space around them."""
    own_scores._scores.clear()
    evaluator = FingerprintedEvaluator(0.0)
    keep_own_score(evaluator, one, OWN)
    parts = [
        [exchange.question.strip(), exchange.context, exchange.answer.strip()]
        for exchange in (one, other)
    ]
    assert (find_own_score(evaluator, other) == OWN) == (parts[0] == parts[1])
