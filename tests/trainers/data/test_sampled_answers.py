"""The sampled answers to a question: without repetitions, and split into right and wrong."""

from __future__ import annotations

import pytest

from aspire_guard.lm.aspire_lm import Answer
from aspire_trainers.correctness import RougeL
from aspire_trainers.data.sampled_answers import SampledAnswers, drop_repetitions
from aspire_trainers.record import QARecord


def _split(texts: list[str], *references: str) -> tuple[list[str], list[str]]:
    record = QARecord("id", "Who?", "A passage.", references)
    grades = RougeL(0.9).grade([(record, text) for text in texts])
    return SampledAnswers(record, tuple(texts), (0.0,) * len(texts)).split_right_from_wrong(
        grades, next(iter(references), None)
    )


def test_of_equal_answers_the_best_stays() -> None:
    """Beams that decode to one text are one answer, with the likelihood of the first."""
    beams = [Answer("a", -0.1, 1), Answer("b", -0.2, 1), Answer("a", -0.3, 1)]
    assert drop_repetitions(beams) == {"a": -0.1, "b": -0.2}


@pytest.mark.parametrize(
    ("texts", "references", "right", "wrong"),
    [
        (["Ada", "Bob", "Eve"], ["Ada"], ["Ada"], ["Bob", "Eve"]),
        (["Bob", "ada.", "Eve"], ["Ada"], ["Ada", "ada."], ["Bob", "Eve"]),
        (["Bob", "Eve"], ["Ada"], ["Ada"], ["Bob", "Eve"]),
        (["Bob", "Lovelace"], ["Ada", "Lovelace"], ["Ada", "Lovelace"], ["Bob"]),
        (["Ada"], ["Ada"], ["Ada"], [""]),
        (["Ada", ""], ["Ada"], ["Ada"], [""]),
        ([""], [], [""], []),
        (["", "Bob"], [], [""], ["Bob"]),
        (["I don't know.", "Bob"], [], ["I don't know."], ["Bob"]),
        (["Bob", "Eve"], [], [], ["Bob", "Eve"]),
        (["I don't know."], [], ["I don't know."], []),
    ],
    ids=[
        "the reference is among them",
        "another spelling is right too",
        "none is right: the reference itself is",
        "any reference makes right, the first is added",
        "none is wrong: the default wrong answer is",
        "an empty answer is wrong already",
        "declining is right without references",
        "answering is wrong without references",
        "a phrase that declines",
        "nothing right without references",
        "an empty answer is not wrong without references",
    ],
)
def test_answers_are_parted_into_right_and_wrong(
    texts: list[str], references: list[str], right: list[str], wrong: list[str]
) -> None:
    """S_c and S_w of the paper, by Rouge-L with γ̂ = 0.9."""
    assert _split(texts, *references) == (right, wrong)


def test_a_reference_is_not_wrong_too() -> None:
    """A reference that a judge or a person graded as wrong is still only among the right answers."""
    sampled = SampledAnswers(
        QARecord("q", "Who?", references=("Ada",)), ("Ada", "Bob"), (None, None)
    )
    assert sampled.split_right_from_wrong([False, False], "Ada") == (["Ada"], ["Bob"])
