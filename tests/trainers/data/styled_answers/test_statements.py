"""Statements: rules make a sentence from a question and its answer, or leave it alone."""

from __future__ import annotations

import pytest

from aspire_trainers.data.styled_answers.statements import make_statement


@pytest.mark.parametrize(
    ("question", "answer", "statement"),
    [
        ("Who wrote the letter?", "Ada Berg", "Ada Berg wrote the letter."),
        ("Who was awarded the prize?", "Ada Berg", "Ada Berg was awarded the prize."),
        ("Which company bought the yard?", "Lund", "Lund bought the yard."),
        ("What is the name of the ship?", "Petrel", "The name of the ship is Petrel."),
        ("When was the yard founded?", "1904", "The yard was founded in 1904."),
        ("When did Lund close the yard?", "May 2, 1931", "Lund closed the yard on May 2, 1931."),
        ("In what year did the ship leave Oslo?", "1931", "The ship left Oslo in 1931."),
        ("What did Lund build in 1904?", "Petrel", "Lund built Petrel in 1904."),
        ("How many decks does the ship have?", "four", "The ship has four decks."),
        ("How many sailors died in the storm?", "12", "12 sailors died in the storm."),
    ],
)
def test_a_question_and_its_answer_become_a_sentence(
    question: str, answer: str, statement: str
) -> None:
    """Each kind of question has its rule."""
    assert make_statement(question, answer) == statement


def test_a_place_takes_its_preposition_from_the_passage() -> None:
    """Without a preposition there is no statement, since "on" and "in" are not to be guessed."""
    question = "Where was the ship built?"
    assert make_statement(question, "Oslo", "in") == "The ship was built in Oslo."
    assert make_statement(question, "Oslo") is None


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who was the ship named after?", "Ada Berg"),
        ("Who was Ada dating in 1931?", "Jon Lund"),
        ("Why did the yard close?", "a strike"),
        ("What is the ship like?", "fast"),
        ("Is it a ship or a boat?", "a ship"),
        ("Who wrote it? And when?", "Ada Berg"),
    ],
)
def test_a_question_that_no_rule_turns_into_good_english_is_left_alone(
    question: str, answer: str
) -> None:
    """Wrong English would be worse than no statement."""
    assert make_statement(question, answer, "in") is None
