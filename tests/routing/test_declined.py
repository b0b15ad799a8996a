"""Refusals, which are told apart from wrong answers and may have routes of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Abstain, Accept, Fallback
from aspire_guard.testing import ConstantEvaluator
from aspire_guard.verdict import Score, Verdict

REFUSAL = "Das steht nicht in den Unterlagen."
ABSTENTION = RoutingPolicy().abstention
LARGE: RunnableLambda[Any, Any] = RunnableLambda(lambda question: "Ada")
PROMISE = "at most 10 % of what is released is wrong"


@dataclass(frozen=True)
class RefusalEvaluator(ConstantEvaluator):
    """An evaluator that can tell a refusal, with a probability that the test chooses."""

    declined: float = 0.9

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        probabilities = [self.declined * (one.answer == REFUSAL) for one in exchanges]
        return [
            score.model_copy(update={"declined": probability})
            for score, probability in zip(super().score(exchanges), probabilities, strict=True)
        ]


def make_guard(
    answer: str = REFUSAL, policy: RoutingPolicy | None = None, **options: Any
) -> AspireGuard:
    settings = {"confidence": lambda one: 0.1 if one.answer == REFUSAL else 0.9, **options}
    evaluator = RefusalEvaluator(guarantee=PROMISE, **settings)
    chain: RunnableLambda[Any, Any] = RunnableLambda(lambda question: answer)
    return AspireGuard(chain, evaluator=evaluator, policy=policy or RoutingPolicy())


def decide(guard: AspireGuard) -> tuple[str, Verdict]:
    verdict = guard.judge("Who?")
    assert asyncio.run(guard.ajudge("Who?")).route == verdict.route
    return guard.invoke("Who?"), verdict


def test_without_routes_of_its_own_a_refusal_is_marked() -> None:
    """A refusal takes the routes of its confidence, and the verdict says that it is a refusal."""
    output, verdict = decide(make_guard())
    assert output == ABSTENTION
    assert verdict.declined
    assert verdict.reason == (
        "confidence 0.100 is below the threshold 0.500; the answer declines to answer"
    )
    assert not decide(make_guard("Ada"))[1].declined


@pytest.mark.parametrize(("probability", "declined"), [(0.5, True), (0.49, False)])
def test_a_refusal_is_what_declines_more_likely_than_not(
    probability: float, declined: bool
) -> None:
    """The evaluator gives a probability, and from one half on the answer is a refusal."""
    policy = RoutingPolicy(declined=Accept())
    output, verdict = decide(make_guard(policy=policy, declined=probability))
    assert verdict.declined == declined
    assert output == (REFUSAL if declined else ABSTENTION)


def test_an_evaluator_that_can_t_tell_marks_nothing() -> None:
    """Without a probability an answer is not taken for a refusal."""
    guard = AspireGuard(RunnableLambda(lambda _: REFUSAL), evaluator=ConstantEvaluator(0.1))
    assert not guard.judge("Who?").declined


def test_a_refusal_may_be_shown() -> None:
    """`Accept` shows the model's own words. The promise is about answers, and does not cover them."""
    output, verdict = decide(make_guard(policy=RoutingPolicy(declined=Accept())))
    assert output == REFUSAL
    assert (verdict.accepted, verdict.route, verdict.declined) == (True, "accept", True)
    assert verdict.guarantee is None
    assert (
        verdict.reason
        == "the answer declines to answer, for which the policy has routes of its own"
    )


@pytest.mark.parametrize("confidence", [0.1, 0.9])
def test_a_refusal_takes_its_routes_at_any_confidence(confidence: float) -> None:
    """Another model is asked, also if the refusal is right to a high confidence."""
    policy = RoutingPolicy(declined=[Fallback(LARGE), Abstain("Ask the desk.")])
    output, verdict = decide(
        make_guard(
            policy=policy, confidence=lambda one: confidence if one.answer == REFUSAL else 0.9
        )
    )
    assert (output, verdict.route, verdict.declined) == ("Ada", "fallback", False)


def test_a_fallback_that_declines_too_is_not_released() -> None:
    """The next route of a refusal follows."""
    fallback = Fallback(RunnableLambda(lambda question: REFUSAL))
    policy = RoutingPolicy(declined=[fallback, Abstain("Ask the desk.")])
    output, verdict = decide(make_guard(policy=policy, confidence=0.9))
    assert (output, verdict.route, verdict.declined) == ("Ask the desk.", "abstain", True)


@pytest.mark.parametrize(
    ("declined", "shown"), [(None, ABSTENTION), (Accept(), REFUSAL), (Abstain("Pass."), "Pass.")]
)
def test_a_streamed_refusal_takes_its_routes_too(declined: Any, shown: str) -> None:
    """Sentence release shows a refusal, or abstains in the words of its route."""
    guard = make_guard(policy=RoutingPolicy(declined=declined)).model_copy(
        update={"release": "sentence"}
    )
    assert "".join(guard.stream("Who?")) == shown


def test_a_policy_file_may_have_routes_for_refusals(tmp_path: Path) -> None:
    """The key `declined` takes routes, and its fallbacks are among the policy's."""
    file = tmp_path / "policy.yaml"
    file.write_text("declined: [{fallback: large}, accept]\n", "utf-8")
    policy = RoutingPolicy.load(file, {"large": LARGE})
    assert policy.declined == (Fallback(LARGE), Accept())
    assert policy.fallbacks == (LARGE,)


@pytest.mark.parametrize("declined", [float("nan"), 2.0, "yes"])
def test_a_probability_of_declining_that_is_none_fails_the_score(declined: Any) -> None:
    """An evaluator that gives anything but a probability has failed, so its answer is not released."""

    class Broken(ConstantEvaluator):
        def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
            return [
                Score.model_construct(selection_score=0.0, confidence=0.9, declined=declined)
                for _ in exchanges
            ]

    verdict = AspireGuard(LARGE, evaluator=Broken(0.9)).judge("Who?")
    assert not verdict.released
    assert "fix the evaluator" in str(verdict.error)
