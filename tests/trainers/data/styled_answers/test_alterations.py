"""Altered sentences: denials and opposites read as well as the sentence that they are made from."""

from __future__ import annotations

import random

import pytest

from aspire_trainers.data.styled_answers.alterations import flip_relation, negate_sentence


@pytest.mark.parametrize(
    ("sentence", "denial"),
    [
        ("The yard was founded in 1904.", "The yard was not founded in 1904."),
        ("The ship can carry 40 cars.", "The ship cannot carry 40 cars."),
        ("The yard has built two ships.", "The yard has not built two ships."),
        ("The yard has two docks.", None),
        ("Many ships were lost.", None),
        ("The yard was never sold.", None),
        ("The man who was lost returned.", None),
    ],
)
def test_a_sentence_is_denied_only_where_the_denial_is_false_and_good_english(
    sentence: str, denial: str | None
) -> None:
    """ "Many were not lost" may be true, and a side clause is not the claim."""
    assert negate_sentence(sentence, random.Random(0)) == denial


@pytest.mark.parametrize(
    ("sentence", "opposite"),
    [
        ("It sank before the war.", "It sank after the war."),
        ("It was the largest ship.", "It was the smallest ship."),
        ("It carried more than 40 cars.", "It carried less than 40 cars."),
        ("It was named after a bird.", None),
        ("At first it was slow.", None),
        ("It was slow.", None),
    ],
)
def test_a_word_is_turned_into_its_opposite_outside_fixed_phrases(
    sentence: str, opposite: str | None
) -> None:
    """ "Named before a bird" would give the error away."""
    assert flip_relation(sentence, random.Random(0)) == opposite
