"""The generated card: what a reader must know of an evaluator."""

from __future__ import annotations

from typing import Any

from aspire_guard.evaluators.card import render_card
from aspire_guard.selection.calibration import Calibration

CALIBRATION = Calibration(slope=1.0, intercept=0.0, threshold=0.6254, target_accuracy=0.8, n=120, date="2024-01-31")
MANIFEST: dict[str, Any] = {
    "base_model": {"name": "smollm2-135m", "fingerprint": "0123456789abcdef" * 4},
    "method": "soft_prompt",
    "alpha": 0.25,
    "provenance": {
        "datasets": ["squad_train (CC BY-SA 4.0)", "handbook:train"],
        "config": {"seed": 0, "init_text": "line\nbreak | bar"},
    },
    "metrics": {},
}


def test_a_card_names_base_model_alpha_and_threshold() -> None:
    """The figures of manifest and calibration stand in one table."""
    card = render_card(MANIFEST, CALIBRATION)
    assert "| base model | smollm2-135m (fingerprint `0123456789ab`) |" in card
    assert "| selection score | α = 0.25 |" in card
    assert "| threshold | confidence ≥ 0.625 |" in card


def test_a_card_lists_the_provenance_in_one_line_each() -> None:
    """Lists and nested settings fit a table's cell, with line breaks and bars escaped."""
    card = render_card(MANIFEST, CALIBRATION)
    assert "| datasets | squad_train (CC BY-SA 4.0)<br>handbook:train |" in card
    assert r"| config | seed: 0; init_text: line\nbreak \| bar |" in card


def test_a_card_promises_no_more_than_the_threshold_does() -> None:
    """An estimate is called one; a threshold that nothing reached says so; a guarantee is quoted."""
    assert "no guarantee: on 120 validation answers the released ones reached an accuracy of 0.8" in render_card(
        MANIFEST, CALIBRATION
    )
    unreached = CALIBRATION.model_copy(update={"threshold": 1.0, "target_accuracy": None})
    assert "nothing: no threshold reached the target on 120 validation answers" in render_card(MANIFEST, unreached)
    promised = CALIBRATION.model_copy(update={"guarantee": "at most 10 % wrong"})
    assert "| what it promises | at most 10 % wrong |" in render_card(MANIFEST, promised)


def test_a_card_without_metrics_has_no_results() -> None:
    """No heading stands over an empty table."""
    assert "Held-out results" not in render_card(MANIFEST, CALIBRATION)


def test_a_card_shows_every_score_on_every_dataset() -> None:
    """One row a score, in %, with its interval."""
    estimate = {"value": 0.8025, "low": 0.781, "high": 0.822}
    scores = {name: {"auroc": estimate, "auacc": estimate} for name in ("aspire", "perplexity", "p_true")}
    metrics = {name: {"n": 500, "accuracy": 0.613, "scores": scores} for name in ("squad_dev", "handbook:test")}
    card = render_card(MANIFEST | {"metrics": metrics}, CALIBRATION)
    rows = [line for line in card.splitlines() if line.startswith(("| squad_dev", "| handbook:test"))]
    assert len(rows) == 6
    assert rows[0] == "| squad_dev | 500 | 61.3 | aspire | 80.2 [78.1, 82.2] | 80.2 [78.1, 82.2] |"
