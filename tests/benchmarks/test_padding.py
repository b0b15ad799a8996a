"""Wrong answers that are padded without being made right."""

from __future__ import annotations

import pytest
from padding import FORMS, Material, make_padded, split_sentences, summarise
from twin_answers import TwinQuestion, make_twins, read_questions


@pytest.fixture(scope="module")
def questions() -> list[TwinQuestion]:
    return read_questions()


def test_sixty_wrong_answers_are_padded_in_every_form(questions: list[TwinQuestion]) -> None:
    """Each is one of the twins, bare or a sentence, and keeps its passage and its question."""
    padded = make_padded(questions)
    twins = {pair.wrong.key: pair.wrong for pair in make_twins(questions)}
    plain = {each.plain.key: each.plain for each in padded}
    assert len(plain) == 60
    assert len(padded) == 60 * len(FORMS)
    assert len({each.padded.key for each in padded} | twins.keys()) == len(padded) + len(twins)
    assert all(twins[key] == answer for key, answer in plain.items())
    assert [answer.model for answer in plain.values()] == ["bare", "sentence"] * 30
    for each in padded:
        assert not each.padded.correct
        assert each.padded.group == each.plain.group
        assert each.padded.exchange.context == each.plain.exchange.context
        assert each.padded.exchange.question == each.plain.exchange.question


def test_a_padded_answer_holds_the_answer_and_is_longer(questions: list[TwinQuestion]) -> None:
    """The forms of one answer all differ."""
    padded = make_padded(questions[:17])
    for each in padded:
        plain, longer = each.plain.exchange.answer, each.padded.exchange.answer
        assert plain.removesuffix(".") in longer
        assert len(longer) > len(plain)
    assert len({each.padded.exchange.answer for each in padded}) == 10 * len(FORMS)


def test_the_forms_repeat_as_often_as_they_say(questions: list[TwinQuestion]) -> None:
    """The answer, a word, the passage and the citation marks are counted in the padded text."""
    question = questions[0]
    material = Material(question, "A summary.")
    text = {form: pad(material, "Ten") for form, pad in FORMS.items()}
    assert [
        text[f"passage behind{ending}"].count(question.context) for ending in ("", ", twice")
    ] == [1, 2]
    assert [text[f"answer {n} times"].split() for n in (3, 10)] == [["Ten."] * 3, ["Ten."] * 10]
    assert [text[f"a word {n} times"].split() for n in (100, 600)] == [
        ["Ten.", *["word"] * 100],
        ["Ten.", *["word"] * 600],
    ]
    assert text["30 citation marks"].startswith("Ten [1][2]")
    assert text["30 citation marks"].endswith("[29][30]")
    assert text["question repeated"].count(question.question) == 2
    assert text["true summary before"] == "A summary.\n\nTen"
    assert text["true summary behind"] == "Ten\n\nA summary."
    listed = text["list of the passage's sentences"]
    assert listed.count("\n- ") == len(split_sentences(question.context)) == 9


def test_a_summary_leaves_the_asked_fact_to_the_passage(questions: list[TwinQuestion]) -> None:
    """It has the right sentences of the passage's other questions, and no sentence with the wrong twin."""
    for question in questions:
        summary = summarise(question, questions)
        others = [
            each for each in questions if each.passage == question.passage and each is not question
        ]
        assert all(each.fill(each.short) in summary for each in others)
        assert question.fill(question.short) not in summary
        assert question.fill(question.wrong) not in summary
