"""The fit of a selection rule to rated answers, on made-up signals."""

from __future__ import annotations

import random

import pytest

from aspire_guard.errors import InputError
from aspire_guard.evaluators.selection_rule import SignalWeights
from aspire_guard.selection.metrics import auroc
from aspire_trainers.stages.rule_fitting import FittedRule, MeasuredAnswer, fit_rule
from aspire_trainers.stages.rule_reports import report_files

DEFAULT = SignalWeights(weights={"log_likelihood": 2.0}, intercept=1.0)


def make_answers(file: str, n: int = 200, *, seed: int = 0) -> list[MeasuredAnswer]:
    """Make answers whose support tells right from wrong, whose lead tells nothing, and whose `explained` misleads."""
    rng = random.Random(f"{file}/{seed}")
    answers: list[MeasuredAnswer] = []
    for number in range(n):
        correct = rng.random() < 0.7
        signals = {
            "support": rng.gauss(0.8 if correct else 0.6, 0.1),
            "explained": rng.gauss(0.2 if correct else 0.3, 0.1),
            "lead": rng.gauss(-2, 1),
            "log_likelihood": rng.gauss(-1, 0.3),
            "log_p_correct": -0.7,
        }
        answers.append(MeasuredAnswer("An answer.", signals, correct, file, f"g{number // 2}"))
    return answers


@pytest.fixture(scope="module")
def answers() -> list[MeasuredAnswer]:
    return [*make_answers("first"), *make_answers("second")]


@pytest.fixture(scope="module")
def fitted(answers: list[MeasuredAnswer]) -> FittedRule:
    return fit_rule(answers, DEFAULT, target_accuracy=0.9)


def test_no_weight_is_negative(fitted: FittedRule) -> None:
    """A signal that misleads gets no weight, and one that tells something a positive one."""
    weights = fitted.rule.over_context.weights
    assert weights["support"] > 0
    assert weights["explained"] == 0
    assert list(weights) == ["support", "explained", "lead"]


def test_the_held_out_scores_rank_and_reach_the_target(
    answers: list[MeasuredAnswer], fitted: FittedRule
) -> None:
    """The threshold's released answers reach the wanted accuracy on scores of weights fitted on other groups."""
    correct = [answer.correct for answer in answers]
    assert auroc(fitted.held_out_scores, correct) > 0.85
    threshold = fitted.calibration.threshold_for()
    assert threshold is not None
    assert threshold.risk is not None
    assert threshold.risk <= 0.1 + 1e-9
    reports = report_files(answers, fitted, alpha=0.25)
    assert [report.file for report in reports] == ["first", "second"]
    assert set(reports[0].scores) == {
        "aspire",
        "one alpha",
        "log-likelihood",
        "P(z_c)",
        "words found",
    }
    assert all(report.coverage > 0.3 for report in reports)


def test_an_answer_is_scored_by_weights_that_have_not_seen_its_group() -> None:
    """Labels of a group that are turned round don't change the scores of its own answers, but those of others."""
    answers = make_answers("only")
    turned = list(answers)
    for number in range(2):
        each = answers[number]
        turned[number] = MeasuredAnswer(
            each.text, each.signals, not each.correct, each.file, each.group
        )
    scores = fit_rule(answers, DEFAULT, target_accuracy=0.6).held_out_scores.tolist()
    again = fit_rule(turned, DEFAULT, target_accuracy=0.6).held_out_scores.tolist()
    assert scores[:2] == again[:2]
    assert scores[2:4] != again[2:4]


def test_a_kind_without_labels_keeps_its_confidence(fitted: FittedRule) -> None:
    """Answers without a context have the confidence that the default weights stand for."""
    signals = {"log_likelihood": -0.25, "log_p_correct": -0.7}
    confidence = fitted.calibration.confidence(fitted.rule.score(signals))
    assert confidence == pytest.approx(0.6225, abs=1e-3)  # the logistic function of 0.5


def test_the_threshold_may_rest_on_some_files_alone(answers: list[MeasuredAnswer]) -> None:
    """The number of answers behind the confidence tells."""
    fitted = fit_rule(answers, DEFAULT, target_accuracy=0.9, calibrate_on=["second"])
    assert fitted.calibration.n == 200


def test_too_few_labels_are_refused() -> None:
    """A rule needs twenty right and twenty wrong answers."""
    with pytest.raises(InputError, match="expected at least 20 right and as many wrong answers"):
        fit_rule(make_answers("few", 30), DEFAULT, target_accuracy=0.9)


def test_signals_that_tell_nothing_are_refused() -> None:
    """Labels at random leave nothing to calibrate."""
    rng = random.Random(1)
    answers = [
        MeasuredAnswer(each.text, each.signals, rng.random() < 0.5, each.file, each.group)
        for each in make_answers("first", 60)
    ]
    with pytest.raises(InputError, match="expected signals that tell right from wrong answers"):
        fit_rule(answers, DEFAULT, target_accuracy=0.9)
