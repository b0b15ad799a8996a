"""Sentences: where they end, which pieces never stand alone, and which are finished as a text grows."""

from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspire_guard.sentences import find_finished_end, split_sentences

PIECES = st.lists(
    st.sampled_from(
        [
            *(
                "Dr. ",
                "U.S. ",
                "Navy ",
                "He ",
                "left",
                ". ",
                ".",
                "! ",
                "? ",
                "A. ",
                "no. ",
                "3",
                "It is.",
            ),
            *(
                "\n",
                "\n\n",
                "- ",
                "1. ",
                "# ",
                "| a ",
                "```\n",
                "> ",
                " ",
                "\xa0",
                "\r\n",
                "\u2028",
            ),
            *(
                '"',
                "“",
                "”",
                "(",
                ")",
                "*",
                "[1]",
                "[",
                "@",
                "'s ",
                "。",
                "「",
                "」",
                "他来了",
                "他",
            ),
            *("그는 ", "왔다. ", "نعم؟ ", "है। ", "é", "😀", "\ud800", "\x00", "e.g. ", "approx. "),
        ]
    ),
    max_size=30,
).map("".join)


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["Dr. Lund wrote it. ", "He left."],
        ["It belongs to the U.S. Navy and to nobody else. ", "Yes."],
        ["It lies in the U.S. ", "He left."],
        ["It lies at St. Mary's pier."],
        [
            "J. R. R. Tolkien lived at approx. 3.5 km, i.e. near. ",
            "See Vol. III of no. 5. ",
            "No. ",
            "It is.",
        ],
        ["Acme Inc. opens at 5 p.m. on Jan. 5, see Fig. 3. ", "Visit a.com."],
        ["Yes [1]. ", "It is so.[2] ", "Next. [3, 4] ", "More."],
        ['He said "Go. ', 'Now." ', "(See it. ", "Yes.) ", "**Out.** ", "End."],
        ["Really?! ", "Yes... maybe. ", "Ok"],
        ["他来了。", "她走了！", "『真的吗？』", "是的。"],
        ["그는 왔다. ", "그녀는 갔다. ", "정말입니까? ", "네."],
        ["ذهب الولد؟ ", "نعم. ", "ثم عاد۔ ", "انتهى."],
        ["वह आया। ", "वह गया॥ ", "ठीक है।"],
    ],
    ids=lambda sentences: sentences[0],
)
def test_sentences_of_prose(sentences: list[str]) -> None:
    """Abbreviations, initials, numbers and citations end no sentence, and the marks of each script do."""
    assert cut("".join(sentences)) == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        [
            "1. First point.\n",
            "2. Second point. ",
            "And more.\n\n",
            "- a bee\n",
            "  * a cat\n",
            "(a) a dog",
        ],
        ["The points:\n", "1) one\n", "2) two\n"],
        ["# Place\n\nAt the pier. ", "Near it.\n\n", "## Time\nNow."],
        ["| place | time |\n|---|---|\n", "| pier. Two | now |\n", "After. ", "All."],
        ["Call it:\n", "```py\nx. y()\n\n# Z\n```\n", "Done. ", "Now."],
        ["A line\nthat is wrapped. ", "And\nanother."],
    ],
    ids=lambda sentences: sentences[0],
)
def test_sentences_of_markdown(sentences: list[str]) -> None:
    """Items, rows and blocks of code stand alone, a heading opens a sentence, and wrapped lines join."""
    assert cut("".join(sentences)) == sentences


@pytest.mark.parametrize(
    "text",
    [
        "Dr.",
        "1.",
        "  \n",
        "#",
        "[1]",
        "A.",
        "1.\nFirst",
        "Is it so?\n\n[1]",
        "It is so.\n\n***",
        "How many? 42.",
    ],
)
def test_a_piece_without_a_word_never_stands_alone(text: str) -> None:
    """A number, an abbreviation or a mark is part of its neighbour, and of the whole text if alone."""
    assert cut(text) == [text]


def test_an_empty_text_has_no_sentences() -> None:
    """No text, no sentences."""
    assert split_sentences("") == []


@given(PIECES)
def test_sentences_cover_any_text(text: str) -> None:
    """The sentences of any text follow one another without gaps, and all but one say something."""
    sentences = split_sentences(text)
    assert "".join(text[start:end] for start, end in sentences) == text
    assert all(start < end for start, end in sentences)
    assert len(sentences) < 2 or all(
        any(map(str.isalpha, text[slice(*span)])) for span in sentences
    )


@given(PIECES, st.integers(0))
def test_a_finished_sentence_stays_as_it_is(text: str, cut_at: int) -> None:
    """The sentences that are finished in a text that grows are sentences of the text at its end."""
    growing = text[: cut_at % (len(text) + 1)]
    assert find_finished_end(growing) in {0, *(end for _, end in split_sentences(text))}


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ("It belongs to the U.S. ", ""),
        ("It is in the U.S. He", ""),
        ("It is in the U.S. He ", "It is in the U.S. "),
        ("It is so. ", ""),
        ("It is so. [1", ""),
        ("It is so. [1] Th", ""),
        ("It is so. [1] The ", "It is so. [1] "),
        ("It is so. Dr. ", ""),
        ("It is so. Dr. Lund ", "It is so. "),
        ("One. Two. 1", "One. "),
        ("他来了。", ""),
        ("他来了。她", "他来了。"),
        ("- a bee\n- ", ""),
        ("- a bee\n- the ", "- a bee\n"),
        ("# Place\n", ""),
        ("", ""),
    ],
)
def test_a_sentence_is_finished_once_the_next_says_a_word(text: str, finished: str) -> None:
    """Only a complete word of the next sentence tells an abbreviation or a mark from an end."""
    assert text[: find_finished_end(text)] == finished


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        ".",
        "a. ",
        "U.S. ",
        "「。",
        '"a. ',
        "(",
        "[1]",
        "[",
        " ",
        "\n",
        "1.\n",
        "- a\n",
        "|a|\n",
        "```\n",
        "#",
        ">",
    ],
)
def test_time_is_linear(unit: str) -> None:
    """A hostile text takes a moment, while a search that is quadratic in its length takes a minute."""
    text = (unit * 200_000)[:200_000]
    started = perf_counter()
    assert split_sentences(text)[-1][1] == len(text)
    assert perf_counter() - started < 10
