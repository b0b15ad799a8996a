"""The handbook: enough passages and questions, well formed, and split without leaks."""

from __future__ import annotations

from collections import Counter

import pytest

from aspire_guard.errors import DatasetError
from aspire_trainers.correctness import RougeL
from aspire_trainers.data.handbook import SPLITS, load_passages, load_questions
from aspire_trainers.record import QARecord

QUESTIONS = [question for split in SPLITS for question in load_questions(split)]


def test_there_are_sixty_four_passages_of_sixty_to_hundred_and_twenty_words() -> None:
    """Passages are long enough to hold several facts and short enough for a small model."""
    lengths = [len(passage.text.split()) for passage in load_passages()]
    assert len(lengths) == 64
    assert min(lengths) >= 60
    assert max(lengths) <= 120


def test_passages_have_ids_and_titles_of_their_own() -> None:
    """No two passages share an id, a title or a text."""
    for values in zip(*((p.id, p.title, p.text) for p in load_passages()), strict=True):
        assert len(set(values)) == 64


def test_every_section_has_four_passages_one_of_them_for_test() -> None:
    """Each section has a passage for test, and twelve of sixteen also have one for calibration."""
    passages = load_passages()
    assert set(Counter(p.section for p in passages).values()) == {4}
    assert len({p.section for p in passages if p.split == "test"}) == 16
    assert len({p.section for p in passages if p.split == "calibration"}) == 12
    assert Counter(p.split for p in passages) == {"train": 36, "calibration": 12, "test": 16}


def test_splits_share_no_passage() -> None:
    """The context of a question appears in one split only."""
    contexts = []
    for split in SPLITS:
        contexts.append({question.context for question in load_questions(split)})
    assert [len(texts) for texts in contexts] == [36, 12, 16]
    assert len(set().union(*contexts)) == 64


def test_every_passage_has_eight_questions_named_after_it() -> None:
    """`harbours-port-anselm-3` is the third question on `harbours-port-anselm`."""
    texts = {passage.text: passage.id for passage in load_passages()}
    expected = [f"{id_}-{number}" for id_ in texts.values() for number in range(1, 9)]
    assert sorted(question.id for question in QUESTIONS) == sorted(expected)
    assert all(
        question.id.rpartition("-")[0] == texts[question.context or ""] for question in QUESTIONS
    )


def test_one_question_in_five_has_no_reference() -> None:
    """Each split holds about the same share of questions that the handbook does not answer."""
    assert len(QUESTIONS) == 512
    assert sum(not question.answerable for question in QUESTIONS) == 104
    for split in SPLITS:
        questions = load_questions(split)
        assert 0.19 < sum(not question.answerable for question in questions) / len(questions) < 0.23


def test_the_first_reference_is_in_its_passage() -> None:
    """The reference differs from the passage only in case, so an extractive model can give it."""
    answerable = [question for question in QUESTIONS if question.answerable]
    assert [
        q.id for q in answerable if q.references[0].lower() not in (q.context or "").lower()
    ] == []


def test_references_are_short_and_differ() -> None:
    """A reference has at most eight words, and a question has no reference twice."""
    for question in QUESTIONS:
        assert all(len(reference.split()) <= 8 for reference in question.references), question
        assert len({reference.casefold() for reference in question.references}) == len(
            question.references
        ), question


def test_every_reference_is_correct_and_a_refusal_is_not() -> None:
    """References are correct, and declining is correct only if there is no reference."""
    rouge = RougeL(threshold=0.7)
    for question in QUESTIONS:
        assert all(rouge.grade([(question, reference) for reference in question.references]))
        assert rouge.grade([(question, "I can't answer this question.")]) == [
            not question.answerable
        ]


def test_no_question_repeats() -> None:
    """Questions differ in more than capitals and punctuation."""
    assert (
        len({"".join(filter(str.isalnum, question.question.lower())) for question in QUESTIONS})
        == 512
    )


def test_questions_open_in_varied_ways() -> None:
    """No pair of opening words starts more than one question in seven, and there are many pairs."""
    openers = Counter(" ".join(question.question.lower().split()[:2]) for question in QUESTIONS)
    assert len(openers) >= 150
    assert openers.most_common(1)[0][1] <= 512 // 7


def test_an_unknown_split_is_an_error() -> None:
    """The message lists the splits."""
    with pytest.raises(DatasetError) as caught:
        load_questions("dev")
    assert (
        str(caught.value)
        == "handbook: expected the split train or calibration or test, found 'dev'; pick one."
    )


def test_questions_carry_their_passage() -> None:
    """A question of the handbook is a QARecord whose context is the passage's text."""
    (question,) = [question for question in QUESTIONS if question.id == "harbours-oxna-slip-5"]
    context = next(
        passage.text for passage in load_passages() if passage.id == "harbours-oxna-slip"
    )
    assert question == QARecord(
        "harbours-oxna-slip-5", "How long is the ramp at Oxna Slip?", context, ("46 metres", "46 m")
    )
