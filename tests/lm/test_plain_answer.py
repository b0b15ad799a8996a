"""The plain text of answers: what is left out, what stays, and where each sentence is in the answer."""

from __future__ import annotations

import pytest

from aspire_guard.lm.plain_answer import Sentence, split_answer, strip_markup


@pytest.mark.parametrize(
    "shown",
    [
        "The limit is 300.",
        "**The limit** is `300`.",
        "The limit is *300*.",
        "- The limit is 300. [1]",
        "2. The limit is 300 [^3].",
        "> The limit is 300 【4†source】.",
        "### The limit is 300.",
        "| The limit | is 300. |",
        "The [limit](https://example.org/a) is 300 (source: page 4).",
        "Based on the provided context, The limit is 300.",
        "Sure! According to the passage: The limit is 300.",
        "The document states that The limit is 300.",
        "The answer is: The limit is 300.",
        "The limit\nis 300.",
    ],
)
def test_a_fact_reads_the_same_in_every_dress(shown: str) -> None:
    """Markdown, citations and openings are left out, and a line break is a space."""
    assert strip_markup(shown).replace(" .", ".") == "The limit is 300."


@pytest.mark.parametrize(
    "shown",
    [
        "|---|:--:|",
        "```python",
        "I hope this helps!",
        "Let me know if you need anything else.",
        "Certainly!",
        "Here is what the document says:",
        "Thank you for your question!",
    ],
)
def test_a_sentence_that_says_nothing_is_empty(shown: str) -> None:
    """Rules of tables, fences of code and pleasantries make no claim."""
    assert strip_markup(shown) == ""


@pytest.mark.parametrize(
    "text",
    [
        "2 ** 3 is 8.",
        "In the context of war, it was lost.",
        "The area is 1.5 m².",
        "Call __init__ first.",
        "From Paris, trains leave at 8.",
        "Yes.",
        "1999",
        "Let me know the time of the train, he said to the guard, and the guard told him that it left at nine.",
    ],
)
def test_content_stays(text: str) -> None:
    """What only looks like markup or a set phrase is left alone, but for the last: it begins like a pleasantry."""
    expected = "" if text.startswith("Let me know") else text
    assert strip_markup(text) == expected


def test_sentences_keep_their_places_in_the_answer() -> None:
    """Each sentence's offsets select it in the answer as users see it, without the white space around it."""
    answer = "Sure!\n\n- **Ada** keeps the key [1].\n- Bob has a copy.\n\nI hope this helps!"
    sentences = split_answer(answer)
    assert [each.text for each in sentences] == ["Ada keeps the key.", "Bob has a copy."]
    shown = [answer[each.start : each.end] for each in sentences]
    assert shown == ["- **Ada** keeps the key [1].", "- Bob has a copy."]


def test_a_repeated_sentence_counts_once() -> None:
    """Saying a thing ten times makes no other answer of it."""
    assert split_answer("Ada has it. " * 10)[0] == split_answer("Ada has it.")[0]
    assert len(split_answer("Ada has it. " * 10)) == 1


def test_an_answer_that_says_nothing_is_judged_as_it_is() -> None:
    """Something must be judged. Only an empty answer has no sentences."""
    assert split_answer("Let me know!\n") == [Sentence(0, 13, "Let me know!")]
    assert split_answer(" \n") == []
