"""Bands of confidence, groups, and what a policy refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from langchain_core.runnables import RunnableLambda
from pydantic import ValidationError

from aspire_guard.errors import PolicyError
from aspire_guard.evaluators.protocol import NamedThreshold
from aspire_guard.routing.decision_log import decide_by_score
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import (
    Abstain,
    Accept,
    Band,
    Budget,
    Custom,
    Fallback,
    HumanReview,
    Timeouts,
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
        named = {one.group: one for one in self.thresholds if one.name == name}
        found = named.get(group) or named.get(None)
        if found is None:
            return None
        sentence = None if found.guarantee is None else found.guarantee.sentence
        return NamedThreshold(found.confidence, sentence)


@pytest.mark.parametrize(
    ("confidence", "route"),
    [(1.0, Accept()), (0.8, Accept()), (0.79, BIGGER), (0.4, BIGGER), (0.0, Abstain("No."))],
)
def test_each_confidence_has_one_band(confidence: float, route: object) -> None:
    """A band begins at its own number and ends below the next."""
    policy = RoutingPolicy(bands=(Band(0.8, Accept()), Band(0.4, BIGGER), Band(0, Abstain("No."))))
    assert policy.cuts(ConstantEvaluator(1.0)).routes(score(confidence)) == (route,)


def test_without_bands_there_are_two() -> None:
    """Acceptance from the threshold on, and below it what `otherwise` says."""
    cuts = RoutingPolicy(otherwise=[BIGGER, Abstain("No.")]).cuts(
        ConstantEvaluator(1.0, threshold=0.7)
    )
    assert cuts.routes(score(0.7)) == (Accept(),)
    assert cuts.routes(score(0.69)) == (BIGGER, Abstain("No."))


def test_an_answer_without_a_score_is_of_the_lowest_band_and_not_accepted() -> None:
    """Also where the lowest band accepts."""
    assert RoutingPolicy(threshold=0.0, otherwise=BIGGER).cuts(ConstantEvaluator(1.0)).routes(
        None
    ) == (BIGGER,)
    everything = RoutingPolicy(bands=(Band(0, (Accept(), BIGGER)),))
    assert everything.cuts(ConstantEvaluator(1.0)).routes(None) == (BIGGER,)


def test_a_band_may_begin_at_a_threshold_of_the_evaluator() -> None:
    """By the name that it has in the calibration, and its guarantee comes along."""
    evaluator = Calibrated(1.0, thresholds=(threshold(0.9), threshold(0.6, name="check")))
    policy = RoutingPolicy(bands=(Band("check", Accept()), Band(0, Abstain())))
    bands = policy.cuts(evaluator)
    verdict = decide_by_score(bands, ScoringResult(score(0.6)))
    assert (verdict.accepted, verdict.threshold) == (True, 0.6)
    assert verdict.guarantee is not None
    assert verdict.guarantee.startswith("with probability 95 %")
    assert not decide_by_score(bands, ScoringResult(score(0.59))).accepted


def test_a_threshold_that_is_not_there_is_an_error() -> None:
    """With the name that was looked for."""
    policy = RoutingPolicy(bands=(Band("chek", Accept()), Band(0, Abstain())))
    with pytest.raises(
        PolicyError, match=r"expected a threshold named 'chek' in the evaluator's calibration"
    ):
        policy.cuts(Calibrated(1.0, thresholds=(threshold(0.9),)))


@pytest.mark.parametrize(
    ("tenant", "expected"), [("acme", 0.9), ("beta", 0.8), ("other", 0.5), (None, 0.5), (7, 0.5)]
)
def test_a_group_has_its_own_threshold(tenant: object, expected: float) -> None:
    """First the policy's for the group, then the evaluator's for the group, then the general one."""
    evaluator = Calibrated(
        1.0, threshold=0.5, thresholds=(threshold(0.8, group="beta"), threshold(0.7, group="acme"))
    )
    policy = RoutingPolicy(group_by="tenant", thresholds={"acme": 0.9})
    assert policy.cuts(evaluator, policy.group({"tenant": tenant})).threshold == expected


def test_the_policys_own_threshold_goes_before_the_evaluators() -> None:
    """Whoever writes a number into the policy means it, for every group that has none there."""
    evaluator = Calibrated(1.0, thresholds=(threshold(0.8, group="beta"),))
    assert RoutingPolicy(group_by="tenant", threshold=0.6).cuts(evaluator, "beta").threshold == 0.6


def test_a_groups_threshold_has_its_own_guarantee() -> None:
    """And none where the policy has another number."""
    evaluator = Calibrated(1.0, thresholds=(threshold(0.8, group="beta"),))
    bands = RoutingPolicy(group_by="t").cuts(evaluator, "beta")
    assert decide_by_score(bands, ScoringResult(score(0.9))).guarantee is not None
    own = RoutingPolicy(group_by="t", thresholds={"beta": 0.85}).cuts(evaluator, "beta")
    assert decide_by_score(own, ScoringResult(score(0.9))).guarantee is None


def test_no_band_that_accepts_means_a_threshold_of_one() -> None:
    """Every answer takes its route, and none is released by its score."""
    cuts = RoutingPolicy(bands=(Band(0, BIGGER),)).cuts(ConstantEvaluator(1.0))
    assert cuts.threshold == 1.0
    assert not cuts.accepts(score(1.0))


def test_a_changed_copy_has_its_own_bands() -> None:
    """Nothing of the first policy is kept, though it was used already."""
    policy = RoutingPolicy(otherwise=BIGGER)
    assert policy.cuts(ConstantEvaluator(1.0)).routes(score(0.0)) == (BIGGER,)
    copy = policy.model_copy(update={"otherwise": None, "abstention": "No."})
    assert copy.cuts(ConstantEvaluator(1.0)).routes(score(0.0)) == (Abstain("No."),)


def test_all_fallbacks_are_known() -> None:
    """Each once, also one behind a review, so that their settings can be configured through the guard."""
    other: RunnableLambda[str, str] = RunnableLambda(lambda question: "Bob")
    review = HumanReview("sqlite:///reviews.db", otherwise=Fallback(other))
    policy = RoutingPolicy(bands=(Band(0.5, (Fallback(LARGE), Fallback(LARGE))), Band(0, review)))
    assert policy.fallbacks == (LARGE, other)
    assert RoutingPolicy().fallbacks == ()


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ((Band(0.4, Accept()), Band(0.8, Accept()), Band(0, Abstain())), "found 0.4, 0.8, 0"),
        ((Band(0.8, Accept()),), "let the last one have at_least=0"),
        (
            (Band(0.5, Accept()), Band(0.5, Abstain()), Band(0, Abstain())),
            "expected bands from the highest",
        ),
    ],
)
def test_bands_are_sorted_and_reach_zero(bands: tuple[Band, ...], message: str) -> None:
    """So that every confidence has one."""
    with pytest.raises(ValidationError, match=message):
        RoutingPolicy(bands=bands)


BANDS = (Band(0.8, Accept()), Band(0, Abstain()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"bands": BANDS, "threshold": 0.5},
            'expected a band with at_least="accept" beside a threshold',
        ),
        ({"bands": BANDS, "otherwise": Abstain()}, "expected bands or otherwise, found both"),
        ({"thresholds": {"acme": 0.9}}, "expected group_by beside thresholds"),
        ({"otherwise": ()}, "at least 1 item"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(
    settings: dict[str, object], message: str
) -> None:
    """Whoever writes them expects them to work."""
    with pytest.raises(ValidationError, match=message):
        RoutingPolicy(**settings)  # type: ignore[arg-type]


def test_routes_refuse_what_they_cannot_use() -> None:
    """Numbers out of range, unknown settings, a queue that is none."""
    wrong: list[Callable[[], object]] = [
        lambda: Budget(hops=-1),
        lambda: Timeouts(chain=0.0),
        lambda: Timeouts(chian=1.0),  # type: ignore[call-arg]
        lambda: Fallback(LARGE, retries=-1),
        lambda: Band(1.1, Accept()),
        lambda: Custom("no function"),  # type: ignore[arg-type]
        lambda: HumanReview(42),
    ]
    for make in wrong:
        with pytest.raises(ValidationError):
            make()
