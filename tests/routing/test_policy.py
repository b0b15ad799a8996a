"""The settings that a policy accepts and refuses."""

from __future__ import annotations

import pytest
from langchain_core.runnables import RunnableLambda
from pydantic import ValidationError

from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import (
    Abstain,
    Accept,
    Band,
    Fallback,
    HumanReview,
)

LARGE: RunnableLambda[str, str] = RunnableLambda(lambda question: "Ada")


def test_all_fallbacks_are_known() -> None:
    """Each runnable is listed once, also behind a review, so that the guard can configure it."""
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
    """Every confidence has a band."""
    with pytest.raises(ValidationError, match=message):
        RoutingPolicy(bands=bands)


BANDS = (Band(0.8, Accept()), Band(0, Abstain()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"bands": BANDS, "threshold": 0.5},
            'expected a band with at_least="accept" for the threshold',
        ),
        ({"bands": BANDS, "otherwise": Abstain()}, "expected bands or otherwise, found both"),
        ({"thresholds": {"acme": 0.9}}, "expected group_by with thresholds"),
        ({"otherwise": ()}, "at least 1 item"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(
    settings: dict[str, object], message: str
) -> None:
    """Someone who writes such a setting expects it to work."""
    with pytest.raises(ValidationError, match=message):
        RoutingPolicy(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"threshold": 1.1}, {"treshold": 0.5}])
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    """A typing error in an option must not silently leave the default in place."""
    with pytest.raises(ValidationError):
        RoutingPolicy(**wrong)  # type: ignore[arg-type]
