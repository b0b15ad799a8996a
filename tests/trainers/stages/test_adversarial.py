"""Twins of answers that argue for themselves, and the measurement of what arguing gains."""

from __future__ import annotations

import runpy
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest

from aspire_guard.exchange import Exchange
from aspire_guard.testing import tiny_evaluator
from aspire_trainers.evaluation.judged_answer import JudgedAnswer
from aspire_trainers.record import QARecord
from aspire_trainers.stages.adversarial import (
    ANSWER,
    HELD_OUT,
    NEUTRAL,
    TRAINING,
    Phrases,
    add_adversarial_variants,
)
from aspire_trainers.stages.labelling import LabelledAnswers

# The numbers of a score.
NUMBERS = {"selection_score", "confidence", "log_likelihood", "p_correct"}


ITEMS = [
    LabelledAnswers(
        f"Which {i}?",
        "A passage.",
        ("Ada", "Bob", "", "Eve"),
        (True, False, False, False),
        (1, 1 / 3, 1 / 3, 1 / 3),
    )
    for i in range(40)
]
BATCHES = [ITEMS[i : i + 2] for i in range(0, 40, 2)]
PHRASES = list(chain.from_iterable(TRAINING.values()))


@pytest.fixture(scope="module")
def persuasion() -> dict[str, Any]:
    return runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "persuasion.py"))


def _strip_answers(phrases: Phrases) -> list[str]:
    all_phrases = chain.from_iterable(phrases.values())
    return [phrase.replace(ANSWER, "").strip(" .").casefold() for phrase in all_phrases]


def _add_twins(share: float, seed: int = 0) -> list[LabelledAnswers]:
    return list(chain.from_iterable(add_adversarial_variants(BATCHES, share, seed=seed)))


def test_held_out_phrases_are_never_trained_on() -> None:
    """No held-out phrase is in a training phrase or contains one of several words, and the families are the same."""
    for held_out, trained in product(_strip_answers(HELD_OUT), _strip_answers(TRAINING)):
        assert held_out not in trained
        assert " " not in trained or trained not in held_out
    assert list(HELD_OUT) == list(TRAINING)


def test_every_phrase_has_a_place_for_the_answer() -> None:
    """Held-out phrases have exactly one, so that the text around it can be compared with neutral text."""
    assert all(ANSWER in phrase and phrase != ANSWER for phrase in PHRASES)
    assert all(phrase.count(ANSWER) == 1 for phrase in chain(*HELD_OUT.values()))


def test_every_answer_but_a_blank_one_can_have_twins() -> None:
    """At a share of 1 every answer has a neutral twin, and every wrong answer also has a twin that argues."""
    neutral = set(TRAINING[NEUTRAL])
    arguing = set(PHRASES) - neutral
    twins = [
        ("Ada", True, neutral),
        *((text, False, kind) for text in ("Bob", "Eve") for kind in (neutral, arguing)),
    ]
    for before, after in zip(ITEMS, _add_twins(1.0), strict=True):
        assert (after.question, after.context) == (before.question, before.context)
        assert (after.texts[:4], after.is_right[:4]) == (before.texts, before.is_right)
        for text, label, (answer, right, phrases) in zip(
            after.texts[4:], after.is_right[4:], twins, strict=True
        ):
            assert label is right
            assert text in {phrase.replace(ANSWER, answer) for phrase in phrases}


def test_the_two_expectations_hold_the_twins() -> None:
    """Right answers with their twins weigh as much as before, and so do wrong answers."""
    assert _add_twins(1.0)[0].weights == pytest.approx(
        (1 / 2, 1 / 7, 1 / 7, 1 / 7, 1 / 2, *[1 / 7] * 4)
    )


def test_without_a_share_nothing_changes() -> None:
    """A share of 0 adds no twin."""
    assert add_adversarial_variants(BATCHES, 0.0, seed=0) == BATCHES


def test_a_share_of_right_and_of_wrong_answers_has_twins() -> None:
    """About a quarter of right and of wrong answers has twins, and many answers have phrases of every family."""
    twins = [label for item in _add_twins(0.25) for label in item.is_right[4:]]
    assert 0.1 < sum(twins) / 40 < 0.4
    assert 0.1 < twins.count(False) / 160 < 0.4
    texts = {text for item in _add_twins(1.0) for text in item.texts[4:]}
    for family in TRAINING.values():
        assert texts & {
            phrase.replace(ANSWER, answer) for phrase in family for answer in ("Ada", "Bob", "Eve")
        }


def test_the_seed_decides_which_twins_there_are() -> None:
    """Equal seeds give equal twins, and another seed gives others."""
    assert _add_twins(0.5, seed=3) == _add_twins(0.5, seed=3)
    assert _add_twins(0.5, seed=3) != _add_twins(0.5, seed=4)


def test_a_neutral_twin_is_as_long_and_says_nothing(persuasion: dict[str, Any]) -> None:
    """The words before and after the answer become as many tokens of filler, and repetitions stay repetitions."""
    lm = tiny_evaluator().aspire.lm
    make_twin, filler = persuasion["make_twin"], "one and"  # each letter is a token
    assert make_twin("{answer}. It is right!", filler, lm) == "{answer}. one and one!"
    assert make_twin("Yes: {answer}", filler, lm) == "one: {answer}"
    assert make_twin("{answer}" + 3 * ". Yes yes", filler, lm) == "{answer}" + 3 * ". one and"
    assert make_twin("(Yes) {answer} it is", filler, lm) == "(one) {answer} one a"


def test_the_benchmark_scores_an_answer_as_the_evaluator_does(persuasion: dict[str, Any]) -> None:
    """The measurement's scores are the evaluator's own, to 1e-4: alone, with a phrase, and with its neutral twin."""
    evaluator = tiny_evaluator()
    record = QARecord("1", "Who?", "Ada keeps the key.", ("Ada",))
    alone, scores = persuasion["score_phrases"](
        evaluator, JudgedAnswer(record, "Bob", ("Bob",), -1.0, -1.0, False)
    )
    phrase = HELD_OUT["assertion"][1]
    twin = persuasion["make_twin"](phrase, persuasion["FILLERS"][0], evaluator.aspire.lm)
    texts = ["Bob", phrase.replace(ANSWER, "Bob"), twin.replace(ANSWER, "Bob")]
    expected = evaluator.score(
        [Exchange(question="Who?", context="Ada keeps the key.", answer=text) for text in texts]
    )
    for found, score in zip((alone, *scores["assertion"][1][:2]), expected, strict=True):
        assert found.model_dump(include=NUMBERS) == pytest.approx(
            score.model_dump(include=NUMBERS), abs=1e-4
        )
    assert [len(row) for row in scores[NEUTRAL]] == [3, 3, 3]
