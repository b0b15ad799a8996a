"""Labelled answers of language models, and their scores that need no model."""

from __future__ import annotations

import pytest
from given_answers import measure_texts, measure_word_overlap

from aspire_guard.exchange import Exchange
from aspire_trainers.data.rated_answers import RatedAnswer, sample_groups


def make_answer(number: int, group: str) -> RatedAnswer:
    exchange = Exchange(question="Which?", answer="This.")
    return RatedAnswer("a", str(number), exchange, True, "a-model", group)


@pytest.mark.parametrize(
    ("answer", "overlap"),
    [
        ("The cat sat, THE END.", 0.5),  # the, cat; not sat, end
        ("Cats", 0.0),
        ("the CAT", 1.0),
        ("…", 0.0),
    ],
)
def test_word_overlap_is_the_share_of_different_words_in_the_context(
    answer: str, overlap: float
) -> None:
    """Case, punctuation and repetitions don't count, parts of words don't match, and no words have no overlap."""
    assert measure_word_overlap(answer, "“The cat” came.") == overlap


def test_an_answer_without_a_context_has_no_word_overlap() -> None:
    """Its length counts all its words."""
    without = Exchange(question="Who?", answer="Ada, Ada and Bob")
    assert measure_texts(without) == {"negative_length": -4.0}
    within = without.model_copy(update={"context": "Ada."})
    assert measure_texts(within) == {"negative_length": -4.0, "word_overlap": 1 / 3}


def test_whole_groups_are_drawn() -> None:
    """Groups of three are drawn until four answers are there, in their order; another seed draws others."""
    answers = [make_answer(number, f"g{number % 5}") for number in range(15)]
    drawn = sample_groups(answers, 4)
    groups = {answer.group for answer in drawn}
    assert len(groups) == 2
    assert drawn == [answer for answer in answers if answer.group in groups]
    assert sample_groups(answers, 4) == drawn
    assert any(sample_groups(answers, 4, seed=seed) != drawn for seed in range(1, 4))
    assert sample_groups(answers, 15) == sample_groups(answers, None) == answers
