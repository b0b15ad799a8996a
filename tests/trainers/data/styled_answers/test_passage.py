"""Passages: names, dates and numbers are found in a text."""

from __future__ import annotations

import pytest

from aspire_trainers.data.styled_answers.passage import (
    classify,
    find_article,
    find_entities,
)


def test_names_dates_and_numbers_are_found_with_their_kinds() -> None:
    """A sentence's first word is no name for its capital alone, and an adjective of a country is no name."""
    text = "Sailors of the Norwegian ship Petrel met Ada Berg on May 2, 1931, with $3 million, 12% and 40 cats."
    found = [(entity.text, entity.kind) for entity in find_entities(text)]
    assert found == [
        ("Petrel", "name"),
        ("Ada Berg", "name"),
        ("May 2, 1931", "date"),
        ("$3 million", "money"),
        ("12%", "percent"),
        ("40", "number"),
    ]
    assert all(text[entity.start : entity.end] == entity.text for entity in find_entities(text))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("the Petrel", "name"),
        ("about 1904", "year"),
        ("over 2,000", "number"),
        ("a broken mast", "phrase"),
        ("Norwegian", "phrase"),
    ],
)
def test_an_answer_has_the_kind_of_what_it_names(answer: str, kind: str) -> None:
    """An article or "about" makes no difference."""
    assert classify(answer) == kind


def test_an_article_belongs_to_a_name_but_not_to_the_noun_after_it() -> None:
    """In "the Lund company" the article is the company's."""
    assert find_article("They left the Petrel in May.", "Petrel") == "the "
    assert find_article("They left the Lund company in May.", "Lund") == ""
