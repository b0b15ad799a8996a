"""The questions with right and wrong twins, and the styles of their answers."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from given_answers import measure_word_overlap
from twin_answers import (
    DATA,
    HELD_OUT,
    KINDS,
    STYLES,
    TwinQuestion,
    export_answers,
    list_answers,
    make_twins,
    read_questions,
)

from aspire_guard.records.reading import read_numbered_records
from aspire_trainers.data.rated_answers import read_rated_answers

# No text has this character.
SLOT = "\N{WHITE SQUARE}"


@pytest.fixture(scope="module")
def questions() -> list[TwinQuestion]:
    return read_questions()


def test_there_are_a_hundred_questions_of_every_kind(questions: list[TwinQuestion]) -> None:
    """Every passage has questions, and every kind of error has about as many as the others."""
    passages = {
        passage["id"]: passage["text"]
        for _, passage in read_numbered_records(DATA / "passages.jsonl")
    }
    assert len({question.id for question in questions}) == 100
    assert len(passages) == 34
    assert {question.passage for question in questions} == set(passages)
    kinds = Counter(question.kind for question in questions)
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) >= 16
    assert all(90 <= len(text.split()) <= 260 for text in passages.values())


def test_the_parts_of_a_question_fit_each_other(questions: list[TwinQuestion]) -> None:
    """The sentence has one slot, the quotation stands in the passage, and the further sentence gives nothing away."""
    for question in questions:
        assert question.sentence.count("{}") == 1, question.id
        assert question.sentence.endswith("."), question.id
        assert question.more.endswith("."), question.id
        assert question.quote in question.context, question.id
        assert question.more not in question.context, question.id
        for value in (question.short, question.wrong):
            assert 1 <= len(value.split()) <= 8, question.id
            assert not re.search(rf"\b{re.escape(value)}\b", question.more), question.id


def test_a_wrong_twin_differs_from_the_right_one(questions: list[TwinQuestion]) -> None:
    """Letters and spaces alone don't make the difference."""
    for question in questions:
        assert question.short.casefold().split() != question.wrong.casefold().split(), question.id


def test_word_overlap_sees_few_wrong_twins(questions: list[TwinQuestion]) -> None:
    """At least 70 wrong values stand in their passage, and as many right ones."""
    for value in ("short", "wrong"):
        found = [getattr(each, value).casefold() in each.context.casefold() for each in questions]
        assert sum(found) >= 70
    overlaps = [measure_word_overlap(each.wrong, each.context) for each in questions]
    assert sum(overlap == 1.0 for overlap in overlaps) >= 85


@pytest.mark.parametrize("style", STYLES)
def test_a_style_differs_in_the_slot_only(style: str, questions: list[TwinQuestion]) -> None:
    """The value stands once in the answer, and the text around it is the same for any value."""
    write = STYLES[style]
    for question in questions:
        frame = write(question, SLOT)
        assert frame.count(SLOT) == 1, question.id
        for value in (question.short, question.wrong):
            assert write(question, value) == frame.replace(SLOT, value), question.id


def test_styles_don_t_write_the_same(questions: list[TwinQuestion]) -> None:
    """The ten answers to a question differ, and three of the styles are held out."""
    assert len(STYLES) == 10
    assert len(set(HELD_OUT) & set(STYLES)) == 3
    for question in questions:
        texts = {write(question, question.short) for write in STYLES.values()}
        assert len(texts) == 10, question.id


def test_a_style_has_several_phrasings(questions: list[TwinQuestion]) -> None:
    """Only the styles that consist of the sentences alone have a single one."""
    parts = {"question": "Q", "short": "S", "sentence": "The {}.", "more": "M.", "quote": "C."}
    same = [TwinQuestion(n, "", "", "", "name", wrong="W", **parts) for n in range(12)]
    variants = {name: len({write(each, "S") for each in same}) for name, write in STYLES.items()}
    single = {"sentence", "two sentences"}
    assert {name for name, n in variants.items() if n == 1} == single
    assert all(n >= 3 for name, n in variants.items() if name not in {*single, "bare"})
    assert questions[1].number == 1


def test_exported_answers_are_read_as_they_were(
    questions: list[TwinQuestion], tmp_path: Path
) -> None:
    """The file holds a right and a wrong answer per question and style, with an id of their own each."""
    answers = list(list_answers(make_twins(questions)))
    path = tmp_path / "twins.jsonl"
    export_answers(answers, path)
    assert read_rated_answers(path) == answers
    assert len(answers) == 2000
    assert sum(answer.correct for answer in answers) == 1000
    assert {answer.model for answer in answers} == set(STYLES)
    assert len({answer.group for answer in answers}) == 34
