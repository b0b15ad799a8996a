"""The loss of a judge: labels of sentences and of answers, and the likelihood of right answers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from aspire_guard.lm.answer_reading import AnswerReading, read_answers
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.lora import Lora
from aspire_guard.lm.template import PromptTemplate
from aspire_guard.testing import tiny_lm
from aspire_trainers.data.judged_passages import JudgedAnswer, JudgedPassage
from aspire_trainers.stages.judge_tuning import judge_loss

CONTEXT = "Ada keeps the key. Bob keeps the box."
LABELLED = JudgedAnswer("Who keeps it?", "Ada keeps it. Bob lost it.", False, (True, False))
RIGHT = JudgedAnswer("Who keeps it?", "Ada. She keeps the key.", True, ())
WRONG = JudgedAnswer("And the box?", "Ada keeps the box. And more.", False, ())


@pytest.fixture(scope="module")
def aspire() -> AspireLM:
    """A tiny model with an untrained judge that changes something."""
    lm = tiny_lm()
    judge = Lora.from_text(lm, " Right?", rank=2, seed=0, target_modules="all-linear")
    generator = torch.Generator().manual_seed(1)
    for _, matrix in judge.named_parameters():
        matrix.data = 0.3 * torch.randn(matrix.shape, generator=generator)
    judge.requires_grad_(False)
    return AspireLM(lm, self_eval=judge, template=PromptTemplate(plain_answers=True), reach="all")


def compute_loss(aspire: AspireLM, *answers: JudgedAnswer, weight: float = 0.0) -> float:
    return float(judge_loss(aspire, JudgedPassage(CONTEXT, answers), weight))


def read(aspire: AspireLM, answer: JudgedAnswer) -> AnswerReading:
    (reading,) = read_answers(aspire, [(answer.question, CONTEXT, answer.text)])
    return reading


def list_log_p(aspire: AspireLM, answer: JudgedAnswer) -> list[float]:
    """List log P(z_c) after each sentence, as the evaluator reads them."""
    return [sentence.log_p_correct for sentence in read(aspire, answer).sentences]


def log_1m_exp(value: float) -> float:
    return math.log1p(-math.exp(value))


def test_a_labelled_sentence_counts_by_its_own_label(aspire: AspireLM) -> None:
    """The loss is the cross-entropy of the judgements that the evaluator gives."""
    first, second = list_log_p(aspire, LABELLED)
    expected = -(first + log_1m_exp(second)) / 2
    assert compute_loss(aspire, LABELLED) == pytest.approx(expected, abs=1e-4)


def test_an_answer_is_right_if_each_sentence_is(aspire: AspireLM) -> None:
    """An answer whose sentences have no labels is judged by their product."""
    right = -sum(list_log_p(aspire, RIGHT))
    wrong = -log_1m_exp(sum(list_log_p(aspire, WRONG)))
    assert compute_loss(aspire, RIGHT) == pytest.approx(right, abs=1e-4)
    assert compute_loss(aspire, WRONG) == pytest.approx(wrong, abs=1e-4)


def test_answers_to_several_questions_are_read_as_if_alone(aspire: AspireLM) -> None:
    """The loss of a passage is the mean over its labels, whatever else is read with them."""
    alone = [compute_loss(aspire, answer) for answer in (LABELLED, RIGHT, WRONG)]
    together = compute_loss(aspire, LABELLED, RIGHT, WRONG)
    assert together == pytest.approx((2 * alone[0] + alone[1] + alone[2]) / 4, abs=1e-4)


def test_the_likelihood_of_right_answers_joins_the_loss(aspire: AspireLM) -> None:
    """It is the mean over their tokens with the end token. Wrong answers have no such part."""
    judged = compute_loss(aspire, RIGHT, WRONG)
    found = compute_loss(aspire, RIGHT, WRONG, weight=0.5)
    assert found - judged == pytest.approx(-0.5 * read(aspire, RIGHT).log_likelihood, abs=1e-4)
    assert compute_loss(aspire, WRONG, weight=0.5) == compute_loss(aspire, WRONG)


def test_gradients_reach_every_matrix_and_not_the_base_model(aspire: AspireLM) -> None:
    """The judge changes how the context is read, too."""
    assert isinstance(aspire.self_eval, Lora)
    judge = aspire.self_eval.copy_onto(aspire.lm).requires_grad_()
    loss = judge_loss(replace(aspire, self_eval=judge), JudgedPassage(CONTEXT, (LABELLED,)), 0.3)
    loss.backward()  # type: ignore[no-untyped-call]
    for name, matrix in judge.named_parameters():
        assert matrix.grad is not None, name
    assert all(weight.grad is None for weight in aspire.lm.model.parameters())
