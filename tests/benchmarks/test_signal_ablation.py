"""The ablation of signals: the sets, and figures of answers that the weights were not fitted on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from signal_ablation import format_weights, list_signal_sets, measure_held_out, read_measured

from aspire_guard.evaluators.selection_rule import SignalWeights
from aspire_trainers.stages.rule_fitting import MeasuredAnswer


def make_answers(file: str, *, helps: bool) -> list[MeasuredAnswer]:
    """Make answers of a file in which `support` tells right from wrong, or wrong from right."""
    answers: list[MeasuredAnswer] = []
    for number in range(40):
        correct = number % 2 == 0
        signals = {"support": 0.9 if correct == helps else 0.1, "explained": 0.5}
        answers.append(MeasuredAnswer("Yes.", signals, correct, file, str(number)))
    return answers


def test_every_signal_is_tried_alone_and_beside_the_shipped_ones() -> None:
    """No set comes twice."""
    sets = list(list_signal_sets())
    assert len(sets) == len(set(map(frozenset, sets))) == 19
    assert ("support", "explained", "lead") in sets
    assert ("support", "explained", "claims_correct") in sets


def test_a_file_is_measured_under_the_weights_of_the_others() -> None:
    """A signal that misleads on its own file alone ranks that file the wrong way round."""
    answers = [*make_answers("first", helps=True), *make_answers("second", helps=False)]
    assert measure_held_out(answers, ("support", "explained"), "second") == 0.0
    answers = [*make_answers("first", helps=True), *make_answers("second", helps=True)]
    assert measure_held_out(answers, ("support", "explained"), "second") == 1.0


def test_the_signals_of_a_fit_are_read_with_their_labels(tmp_path: Path) -> None:
    """Answers without a context have no signals to compare, and are left out."""
    data, signals = tmp_path / "rated.jsonl", tmp_path / "signals.jsonl"
    line = {"id": "1", "question": "Who?", "context": "Ada.", "answer": "Ada.", "correct": True}
    lines = [line, {**line, "id": "2", "context": None}]
    data.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    measured = [
        {"file": "rated", "id": "1", "text": "Ada.", "signals": {"support": 1.0}},
        {"file": "rated", "id": "2", "text": "Ada.", "signals": {"log_likelihood": -1.0}},
    ]
    signals.write_text("".join(json.dumps(row) + "\n" for row in measured), encoding="utf-8")
    (found,) = read_measured([data], signals, None)
    assert (found.signals, found.correct) == ({"support": 1.0}, True)


def test_weights_are_one_cell() -> None:
    """With two digits."""
    weights = SignalWeights(weights={"support": 5.123, "lead": 0.1}, intercept=-1)
    assert format_weights(weights) == "support 5.12, lead 0.10"


@pytest.mark.parametrize("file", ["first", "second"])
def test_a_file_may_be_any_of_them(file: str) -> None:
    """The figure does not depend on the order of the files."""
    answers = [*make_answers("first", helps=True), *make_answers("second", helps=True)]
    assert measure_held_out(answers, ("support",), file) == 1.0
