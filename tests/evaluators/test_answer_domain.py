"""The domain of a calibration: answers like those it was fitted on, and answers unlike them."""

from __future__ import annotations

import pytest

from aspire_guard.evaluators.answer_domain import AnswerDomain, fit_domain

TEXT = "the yard at Lund keeps every boat dry through winter and nobody pays for it before May"
WORDS = TEXT.split()
ANSWERS = [" ".join(WORDS[start:end]) for start in range(5) for end in range(start + 3, 17)]


@pytest.fixture(scope="module")
def domain() -> AnswerDomain:
    return fit_domain(ANSWERS)


def test_the_answers_it_was_fitted_on_are_inside(domain: AnswerDomain) -> None:
    """So are answers that are a little longer than these."""
    assert all(map(domain.contains, ANSWERS))
    assert domain.contains(f"{ANSWERS[-1]}, says the harbour office, whose word is final there")


@pytest.mark.parametrize(
    "answer",
    [
        " ".join(WORDS * 5),
        "word " * 30,
        "Методика не описана в этом документе",
        "donaudampfschifffahrtsgesellschaftskapitän rindfleischetikettierungsaufgaben und mehr",
        "",
    ],
)
def test_other_answers_are_outside(domain: AnswerDomain, answer: str) -> None:
    """Much longer texts, repetitions, another script, very long words, and no words at all."""
    assert not domain.contains(answer)
