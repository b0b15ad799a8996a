"""The choice of α by the ranking it gives, and the calibration of its scores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aspire_guard.evaluators.self_evaluator import selection_score
from aspire_guard.selection.metrics import auroc
from aspire_trainers.evaluation.judged_answer import JudgedAnswer
from aspire_trainers.record import QARecord
from aspire_trainers.stages.alpha_selection import calibrate, choose_alpha


def _make_judged(*rows: tuple[float, float, bool]) -> list[JudgedAnswer]:
    """Make an answer to a question for each row."""
    return [JudgedAnswer(QARecord(f"{i}", "Who?"), "x", ("x",), *row) for i, row in enumerate(rows)]


def test_alpha_is_chosen_by_the_ranking_it_gives() -> None:
    """α is high if only the self-evaluation ranks well, and low if only the likelihood does."""
    knowing = [(-0.1 * i, i < 10) for i in range(20)]
    noise = [-0.1 * (7 * i % 20) - (i % 2) for i in range(20)]
    by_judgement = _make_judged(
        *((n, k, right) for n, (k, right) in zip(noise, knowing, strict=True))
    )
    by_likelihood = _make_judged(
        *((k, n, right) for n, (k, right) in zip(noise, knowing, strict=True))
    )
    assert choose_alpha(by_judgement) > 0.5
    assert choose_alpha(by_likelihood) < 0.5


def test_alpha_stays_the_paper_s_if_another_is_better_by_chance() -> None:
    """A single pair of twelve answers that the likelihood ranks the wrong way does not decide."""
    judged = _make_judged(*((-0.1 * i, -0.1 * i, i < 6) for i in range(12)))
    judged[5], judged[6] = (
        replace(judged[5], log_likelihood=-0.9),
        replace(judged[6], log_likelihood=-0.1),
    )
    correct = [answer.correct for answer in judged]
    blended = [selection_score(a.log_likelihood, a.log_p_correct, 0.25) for a in judged]
    assert auroc(blended, correct) < auroc([a.log_p_correct for a in judged], correct) == 1
    assert choose_alpha(judged) == 0.25


def test_alpha_does_not_mistake_answers_to_one_question_for_questions() -> None:
    """Ten answers to each of twelve questions do not make a difference significant that twelve answers do not."""
    judged = _make_judged(*((-0.1 * i, -0.1 * i, i < 6) for i in range(12)))
    judged[5], judged[6] = (
        replace(judged[5], log_likelihood=-0.9),
        replace(judged[6], log_likelihood=-0.1),
    )
    assert choose_alpha([answer for answer in judged for _ in range(10)]) == 0.25
    others = [
        replace(a, record=QARecord(f"{a.record.id}/{i}", "Who?")) for a in judged for i in range(10)
    ]
    assert choose_alpha(others) != 0.25


def test_the_paper_s_alpha_wins_a_tie() -> None:
    """If every α gives the same ranking, 0.25 is chosen, and the calibration uses its scores."""
    judged = _make_judged(*((-0.1 * i, -0.2 * i, i < 12) for i in range(24)))
    alpha, calibration = choose_alpha(judged), calibrate(judged, choose_alpha(judged), 0.8)
    assert alpha == 0.25
    assert calibration.n == 24
    assert calibration.target_accuracy == 0.8
    scores = [selection_score(-0.1 * i, -0.2 * i, 0.25) for i in range(24)]
    released = [score for score in scores if calibration.confidence(score) >= calibration.threshold]
    assert len(released) == 15


@pytest.mark.parametrize("right", [True, False])
def test_alpha_is_the_paper_s_if_no_ranking_can_be_measured(right: bool) -> None:
    """No ranking can be measured if all answers are right, or all are wrong."""
    assert choose_alpha(_make_judged(*((-0.1 * i, -0.2, right) for i in range(12)))) == 0.25
