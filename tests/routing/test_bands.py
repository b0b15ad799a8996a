"""Bands of confidence, with the thresholds of policy, evaluator and group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from aspire_guard.errors import PolicyError
from aspire_guard.evaluators.protocol import NamedThreshold
from aspire_guard.routing.decision_log import decide_by_score
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import (
    Abstain,
    Accept,
    Band,
    Fallback,
)
from aspire_guard.routing.scoring import ScoringResult
from aspire_guard.selection.calibration import Guarantee, Threshold
from aspire_guard.testing import ConstantEvaluator
from aspire_guard.verdict import Score

LARGE: RunnableLambda[str, str] = RunnableLambda(lambda question: "Ada")
BIGGER = Fallback(LARGE)


def score(confidence: float) -> Score:
    return Score(selection_score=0.0, confidence=confidence)


def threshold(confidence: float, name: str = "accept", group: str | None = None) -> Threshold:
    promised = Guarantee(target_risk=0.1, delta=0.05, n=100, method="exact", date="2026-01-01")
    return Threshold(
        name=name,
        group=group,
        confidence=confidence,
        objective="risk",
        target=0.1,
        coverage=0.5,
        guarantee=promised,
    )


@dataclass(frozen=True)
class Calibrated(ConstantEvaluator):
    """An evaluator with thresholds of several names and groups."""

    thresholds: tuple[Threshold, ...] = ()

    def threshold_for(self, group: str | None, name: str = "accept") -> NamedThreshold | None:
        thresholds = {item.group: item for item in self.thresholds if item.name == name}
        found = thresholds.get(group) or thresholds.get(None)
        if found is None:
            return None
        sentence = None if found.guarantee is None else found.guarantee.sentence
        return NamedThreshold(found.confidence, sentence)


@pytest.mark.parametrize(
    ("confidence", "route"),
    [(0.8, Accept()), (0.79, BIGGER), (0.0, Abstain("No."))],
)
def test_each_confidence_has_one_band(confidence: float, route: object) -> None:
    """A band begins at its own number and ends below the next."""
    policy = RoutingPolicy(bands=(Band(0.8, Accept()), Band(0.4, BIGGER), Band(0, Abstain("No."))))
    assert policy.resolve_bands(ConstantEvaluator(1.0)).find_routes(score(confidence)) == (route,)


def test_without_bands_there_are_two() -> None:
    """Answers are accepted from the threshold on, and take the routes of `otherwise` below it."""
    bands = RoutingPolicy(otherwise=[BIGGER, Abstain("No.")]).resolve_bands(
        ConstantEvaluator(1.0, threshold=0.7)
    )
    assert bands.find_routes(score(0.7)) == (Accept(),)
    assert bands.find_routes(score(0.69)) == (BIGGER, Abstain("No."))


def test_an_answer_without_a_score_is_of_the_lowest_band_and_not_accepted() -> None:
    """A lowest band that accepts loses that route for such an answer."""
    assert RoutingPolicy(threshold=0.0, otherwise=BIGGER).resolve_bands(
        ConstantEvaluator(1.0)
    ).find_routes(None) == (BIGGER,)
    everything = RoutingPolicy(bands=(Band(0, (Accept(), BIGGER)),))
    assert everything.resolve_bands(ConstantEvaluator(1.0)).find_routes(None) == (BIGGER,)


def test_a_band_may_begin_at_a_threshold_of_the_evaluator() -> None:
    """The policy names the threshold, and its guarantee comes along."""
    evaluator = Calibrated(1.0, thresholds=(threshold(0.9), threshold(0.6, name="check")))
    policy = RoutingPolicy(bands=(Band("check", Accept()), Band(0, Abstain())))
    bands = policy.resolve_bands(evaluator)
    verdict = decide_by_score(bands, ScoringResult(score(0.6)))
    assert (verdict.accepted, verdict.threshold) == (True, 0.6)
    assert verdict.guarantee is not None
    assert verdict.guarantee.startswith("with probability 95 %")
    assert not decide_by_score(bands, ScoringResult(score(0.59))).accepted


def test_a_threshold_that_is_not_there_is_an_error() -> None:
    """The error holds the name in question."""
    policy = RoutingPolicy(bands=(Band("chek", Accept()), Band(0, Abstain())))
    with pytest.raises(
        PolicyError, match=r"expected a threshold named 'chek' in the evaluator's calibration"
    ):
        policy.resolve_bands(Calibrated(1.0, thresholds=(threshold(0.9),)))


@pytest.mark.parametrize(
    ("tenant", "expected"), [("acme", 0.9), ("beta", 0.8), ("other", 0.5), (None, 0.5)]
)
def test_a_group_has_its_own_threshold(tenant: object, expected: float) -> None:
    """The policy's threshold for the group comes first, then the evaluator's, then the general one."""
    evaluator = Calibrated(
        1.0, threshold=0.5, thresholds=(threshold(0.8, group="beta"), threshold(0.7, group="acme"))
    )
    policy = RoutingPolicy(group_by="tenant", thresholds={"acme": 0.9})
    assert (
        policy.resolve_bands(evaluator, policy.find_group({"tenant": tenant})).threshold == expected
    )


def test_the_policys_own_threshold_goes_before_the_evaluators() -> None:
    """A number in the policy holds for every group without a number of its own there."""
    evaluator = Calibrated(1.0, thresholds=(threshold(0.8, group="beta"),))
    assert (
        RoutingPolicy(group_by="tenant", threshold=0.6).resolve_bands(evaluator, "beta").threshold
        == 0.6
    )


def test_an_evaluator_that_wraps_another_keeps_its_groups() -> None:
    """The thresholds are found behind `__getattr__`, which isinstance() ignores from Python 3.12 on."""

    class Wrapper:
        def __init__(self, evaluator: Any) -> None:
            self._evaluator = evaluator

        def __getattr__(self, name: str) -> Any:
            return getattr(self._evaluator, name)

    careful = Calibrated(confidence=0.9, thresholds=(threshold(0.95, group="acme"),))
    wrapper: Any = Wrapper(careful)
    bands = RoutingPolicy(group_by="tenant").resolve_bands(wrapper, "acme")
    assert not bands.accepts(score(0.9))
    assert bands.accepts(score(0.95))


def test_a_groups_threshold_has_its_own_guarantee() -> None:
    """The guarantee is lost if the policy has another number."""
    evaluator = Calibrated(1.0, thresholds=(threshold(0.8, group="beta"),))
    bands = RoutingPolicy(group_by="t").resolve_bands(evaluator, "beta")
    assert decide_by_score(bands, ScoringResult(score(0.9))).guarantee is not None
    own = RoutingPolicy(group_by="t", thresholds={"beta": 0.85}).resolve_bands(evaluator, "beta")
    assert decide_by_score(own, ScoringResult(score(0.9))).guarantee is None


def test_no_band_that_accepts_means_a_threshold_of_one() -> None:
    """Every answer takes its route, and no score releases it."""
    bands = RoutingPolicy(bands=(Band(0, BIGGER),)).resolve_bands(ConstantEvaluator(1.0))
    assert bands.threshold == 1.0
    assert not bands.accepts(score(1.0))


def test_a_changed_copy_has_its_own_bands() -> None:
    """Nothing of the first policy is kept, even after it was used."""
    policy = RoutingPolicy(otherwise=BIGGER)
    assert policy.resolve_bands(ConstantEvaluator(1.0)).find_routes(score(0.0)) == (BIGGER,)
    copy = policy.model_copy(update={"otherwise": None, "abstention": "No."})
    assert copy.resolve_bands(ConstantEvaluator(1.0)).find_routes(score(0.0)) == (Abstain("No."),)
