"""Made answers: every right one has a wrong twin in its style, and every sentence its label."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from aspire_guard.sentences import split_sentences
from aspire_trainers.data.styled_answers import (
    ERROR_KINDS,
    STYLES,
    StyledAnswer,
    make_answers,
)
from aspire_trainers.record import QARecord

PETREL = (
    "The ferry Petrel was built in Bergen by the Lund yard in 1904. Ada Berg designed the ferry before the war. The "
    "ferry carried 240 passengers and 18 cars between Bergen and Stavanger. In 1931 the captain Jon Moe steered the "
    "ferry through a storm near Haugesund. The Norse Line bought the ferry for 900 crowns after the storm. The museum "
    "in Oslo shows the first bell of the ferry."
)
HERON = (
    "The ferry Heron was built in Molde by the Vik yard in 1911. Ingrid Dahl designed the engine of the ferry in "
    "Trondheim. The ferry carried 95 passengers between Molde and Vestnes. Captain Olav Rud lost the ferry in a storm "
    "in 1940. The Fjord Company paid 300 crowns for the wreck."
)
_ROWS = (
    ("designer", "Who designed the ferry?", PETREL, "Ada Berg"),
    ("captain", "Who steered the ferry through a storm?", PETREL, "Jon Moe"),
    ("year", "When was the ferry Petrel built?", PETREL, "1904"),
    ("storm", "In what year was the storm near Haugesund?", PETREL, "1931"),
    ("passengers", "How many passengers were carried on the ferry?", PETREL, "240"),
    ("buyer", "Who bought the ferry after the storm?", PETREL, "Norse Line"),
    ("engine", "Who designed the engine of the Heron?", HERON, "Ingrid Dahl"),
    ("loser", "Who lost the ferry in a storm?", HERON, "Olav Rud"),
)
RECORDS = [
    *(QARecord(name, question, context, (answer,)) for name, question, context, answer in _ROWS),
    QARecord("unanswerable", "Who sold the Heron to the museum?", HERON, ()),
]
MANY = 10


@pytest.fixture(scope="module")
def answers() -> list[StyledAnswer]:
    """All pairs that ten seeds make from the records."""
    made: list[StyledAnswer] = []
    for seed in range(MANY):
        made += make_answers(RECORDS, seed=seed, per_record=MANY).answers
    return made


def _pair(answers: list[StyledAnswer]) -> list[tuple[StyledAnswer, StyledAnswer]]:
    return list(zip(answers[::2], answers[1::2], strict=True))


def test_every_kind_of_error_and_every_style_is_made(answers: list[StyledAnswer]) -> None:
    """The records allow all of them."""
    assert {answer.error for answer in answers} == {None, *ERROR_KINDS}
    assert {answer.style for answer in answers} == set(STYLES)


def test_twins_share_all_but_the_error(answers: list[StyledAnswer]) -> None:
    """The first of a pair is right. The other has the same question, context, style and number of sentences."""
    for right, wrong in _pair(answers):
        assert (right.correct, right.error) == (True, None)
        assert not wrong.correct
        assert wrong.error in ERROR_KINDS
        assert right.answer != wrong.answer
        shared = [
            (twin.question, twin.context, twin.style, twin.group, twin.pair)
            for twin in (right, wrong)
        ]
        assert shared[0] == shared[1]
        if wrong.error not in {"refusal", "unanswerable"}:
            assert len(right.sentences) == len(wrong.sentences)


def test_the_sentences_of_a_wrong_answer_that_differ_from_its_twin_are_wrong(
    answers: list[StyledAnswer],
) -> None:
    """All others stand in the right twin, word for word."""
    for right, wrong in _pair(answers):
        assert all(sentence.correct for sentence in right.sentences)
        assert not all(sentence.correct for sentence in wrong.sentences)
        for sentence in wrong.sentences:
            text = wrong.answer[sentence.start : sentence.end]
            assert (text.strip() in right.answer) == sentence.correct


def test_the_sentences_are_those_that_answers_are_judged_by(answers: list[StyledAnswer]) -> None:
    """They cover an answer without gaps."""
    for answer in answers:
        offsets = [(sentence.start, sentence.end) for sentence in answer.sentences]
        assert offsets == split_sentences(answer.answer)


def test_most_wrong_values_stand_in_the_passage(answers: list[StyledAnswer]) -> None:
    """Counting words of the answer in the passage must not find the error."""
    pairs = [
        pair
        for pair in _pair(answers)
        if pair[1].error in {"entity", "number", "date", "other_answer"}
    ]
    words = [set(wrong.answer.split()) - set(right.answer.split()) for right, wrong in pairs]
    in_passage = sum(
        all(word.strip(".*_,") in right.context for word in new)
        for (right, _), new in zip(pairs, words, strict=True)
    )
    assert in_passage > 0.7 * len(pairs)


def test_an_answer_to_an_unanswerable_question_is_wrong(answers: list[StyledAnswer]) -> None:
    """The right answer declines."""
    of_record = [answer for answer in answers if answer.pair.startswith("unanswerable-")]
    assert of_record
    for right, wrong in _pair(of_record):
        assert wrong.error == "unanswerable"
        assert any(
            name in wrong.answer
            for name in ("Dahl", "Rud", "Company", "Vik", "Molde", "Vestnes", "Trondheim", "Heron")
        )
        assert "Dahl" not in right.answer.removeprefix(HERON)


def test_the_same_seed_makes_the_same_answers_whatever_other_topics_there_are() -> None:
    """Another seed makes others."""
    other = QARecord(
        "moon",
        "Who saw the moon?",
        "Luna Park saw the moon in 1969 with two friends.",
        ("Luna Park",),
    )
    alone = make_answers(RECORDS, seed=3).answers
    assert make_answers(RECORDS, seed=3).answers == alone
    beside = make_answers([other, *RECORDS], seed=3).answers
    assert [answer for answer in beside if not answer.pair.startswith("moon")] == alone
    assert make_answers(RECORDS, seed=4).answers != alone


def test_held_out_styles_and_errors_are_set_apart() -> None:
    """The other answers are those that are made without holding out."""
    everything = make_answers(RECORDS, per_record=4)
    made = make_answers(
        RECORDS, per_record=4, hold_out_styles=["bold", "table"], hold_out_errors=["negation"]
    )
    assert sorted([*made.answers, *made.held_out], key=str) == sorted(everything.answers, key=str)
    assert not {answer.style for answer in made.answers} & {"bold", "table"}
    assert "negation" not in {answer.error for answer in made.answers}
    for right, wrong in _pair(made.held_out):
        assert right.style in {"bold", "table"} or wrong.error == "negation"


def test_a_record_without_a_good_answer_is_skipped_and_named() -> None:
    """So is a record without a context. The answers to the others are half right."""
    records = [
        *RECORDS,
        QARecord("closed-book", "Who designed the ferry?", None, ("Ada Berg",)),
        QARecord("elsewhere", "Who is the king?", "It rained.", ("Harald",)),
    ]
    made = make_answers(records)
    assert made.skipped == ["closed-book", "elsewhere"]
    assert Counter(answer.correct for answer in made.answers) == {
        True: len(made.answers) / 2,
        False: len(made.answers) / 2,
    }


def test_a_repeated_record_gives_no_repeated_answer() -> None:
    """The copy has other draws, and what both would say is said once."""
    copies = [
        QARecord(f"copy-{record.id}", record.question, record.context, record.references)
        for record in RECORDS
    ]
    made = make_answers([*RECORDS, *copies], per_record=MANY).answers
    texts = [(answer.question, answer.context, answer.answer) for answer in made]
    assert len(texts) == len(set(texts))


def test_a_line_holds_all_fields(answers: list[StyledAnswer]) -> None:
    """The labels of the sentences are objects."""
    fields = json.loads(answers[1].to_line())
    keys = [
        "id",
        "question",
        "context",
        "answer",
        "correct",
        "style",
        "error",
        "group",
        "pair",
        "sentences",
    ]
    assert list(fields) == keys
    assert fields["sentences"][0].keys() == {"start", "end", "correct"}
