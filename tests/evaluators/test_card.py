"""The generated card: what a reader must know of an evaluator."""

from __future__ import annotations

from typing import Any

from aspire_guard.evaluators.card import render_card
from aspire_guard.selection.calibration import Calibration, Guarantee, Threshold
from aspire_guard.selection.calibrators import PlattCalibrator

ACCEPT = Threshold(confidence=0.6254, objective="accuracy", target=0.8, coverage=0.5, risk=0.2)
CALIBRATION = Calibration(
    calibrator=PlattCalibrator(slope=1.0, intercept=0.0),
    thresholds=(ACCEPT,),
    n=120,
    date="2024-01-31",
)
PROMISED = Threshold(
    confidence=0.9,
    objective="risk",
    target=0.1,
    coverage=0.3,
    risk=0.05,
    risk_bound=0.1,
    guarantee=Guarantee(
        target_risk=0.1, delta=0.05, n=120, method="exact binomial", date="2024-01-31"
    ),
)
MANIFEST: dict[str, Any] = {
    "base_model": {"name": "smollm2-135m", "fingerprint": "0123456789abcdef" * 4},
    "methods": {"task": "soft_prompt", "self_eval": "lora"},
    "correctness": {"method": "token_f1", "threshold": 0.6},
    "alpha": 0.25,
    "likelihood": "own",
    "provenance": {
        "datasets": ["squad_train (CC BY-SA 4.0)", "handbook:train"],
        "config": {"seed": 0, "text": "line\nbreak | bar"},
    },
    "metrics": {},
}


def _render_thresholds(*thresholds: Threshold) -> str:
    return render_card(MANIFEST, CALIBRATION.model_copy(update={"thresholds": thresholds}))


def test_a_card_names_base_model_alpha_and_threshold() -> None:
    """One table has the figures of manifest and calibration."""
    card = render_card(MANIFEST, CALIBRATION)
    assert "| base model | smollm2-135m (fingerprint `0123456789ab`) |" in card
    assert "| θp | soft prompt |" in card
    assert "| θs | LoRA |" in card
    assert "| right means | token F1 ≥ 0.6 |" in card
    assert "| selection score | α = 0.25 |" in card
    assert "| threshold | confidence ≥ 0.625 |" in card


def test_a_card_says_whose_likelihood_alpha_is_for() -> None:
    """A reader learns that the chain's model has to report its log-probabilities."""
    row = "| selection score | α = 0.25, on the log-probabilities that the chain's model reports |"
    assert row in render_card(MANIFEST | {"likelihood": "chain"}, CALIBRATION)


def test_a_card_lists_the_provenance_in_one_line_each() -> None:
    """Lists and nested settings fit a table's cell, with line breaks and bars escaped."""
    card = render_card(MANIFEST, CALIBRATION)
    assert "| datasets | squad_train (CC BY-SA 4.0)<br>handbook:train |" in card
    assert r"| config | seed: 0; text: line\nbreak \| bar |" in card


def test_a_card_promises_no_more_than_the_threshold_does() -> None:
    """An estimate is called an estimate, an unreached target is named, and a guarantee is quoted."""
    assert (
        "no guarantee: on 120 validation answers the released ones reached an accuracy of 0.8"
        in render_card(MANIFEST, CALIBRATION)
    )
    unreached = ACCEPT.model_copy(update={"confidence": 1.0})
    assert (
        "nothing: no threshold reached the target on 120 validation answers"
        in _render_thresholds(unreached)
    )
    assert (
        "nothing: no threshold reached the target on 120 validation answers" in _render_thresholds()
    )
    covering = ACCEPT.model_copy(update={"objective": "coverage", "target": 0.5})
    assert (
        "| what it promises | no guarantee: it was chosen for a coverage of 0.5 on 120 validation"
        in _render_thresholds(covering)
    )
    assert (
        "| what it promises | with probability 95 % over the calibration answers, at most 10 % of"
        in _render_thresholds(PROMISED)
    )


def test_a_card_has_a_row_for_every_other_band_and_group() -> None:
    """Each row has the threshold and its promise, and a bar in a group's name doesn't break the table."""
    tax = PROMISED.model_copy(update={"group": "tax|law"})
    fallback = ACCEPT.model_copy(update={"name": "fallback", "confidence": 0.25})
    card = _render_thresholds(tax, PROMISED, fallback)
    assert "| threshold | confidence ≥ 0.900 |" in card
    assert (
        "| accept of group tax\\|law | confidence ≥ 0.900: with probability 95 % over the calibration"
        in card
    )
    assert "| fallback | confidence ≥ 0.250: no guarantee |" in card


def test_a_card_of_groups_alone_does_not_say_that_nothing_is_released() -> None:
    """Answers of these groups are released, and others aren't."""
    card = _render_thresholds(PROMISED.model_copy(update={"group": "tax"}))
    assert "nothing of answers without a group, which are not released" in card
    assert "no threshold reached" not in card


def test_a_card_without_metrics_has_no_results() -> None:
    """No heading stands over an empty table."""
    assert "Held-out results" not in render_card(MANIFEST, CALIBRATION)


def test_a_card_shows_every_score_on_every_dataset() -> None:
    """Each score has a row in % with its interval, and the evaluator's own score also has what is released."""
    estimate = {"value": 0.8025, "low": 0.781, "high": 0.822}
    scores = {
        name: {"auroc": estimate, "auacc": estimate} for name in ("aspire", "perplexity", "p_true")
    }
    shared = {"n": 500, "accuracy": {"value": 0.613, "low": 0.57, "high": 0.655}, "scores": scores}
    metrics = {
        "squad_dev": shared | {"coverage": 0.25, "selective_accuracy": 0.904},
        "handbook:test": shared | {"coverage": 0.0, "selective_accuracy": None},
    }
    card = render_card(MANIFEST | {"metrics": metrics}, CALIBRATION)
    rows = [
        line for line in card.splitlines() if line.startswith(("| squad_dev", "| handbook:test"))
    ]
    assert len(rows) == 6
    assert (
        rows[0]
        == "| squad_dev | 500 | 61.3 [57.0, 65.5] | 25.0 (90.4) | aspire | 80.2 [78.1, 82.2] | 80.2 [78.1, 82.2] |"
    )
    assert rows[1].startswith("| squad_dev | 500 | 61.3 [57.0, 65.5] |  | perplexity |")
    assert rows[3].startswith("| handbook:test | 500 | 61.3 [57.0, 65.5] | 0.0 (–) | aspire |")
