"""Styles of answers: the same sentences bare, in a list, in bold, with citations, quotations and pleasantries."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from aspire_trainers.data.styled_answers import phrases
from aspire_trainers.data.styled_answers.claims import Sentence, capitalise
from aspire_trainers.data.styled_answers.source import Passage

Piece = str | Sentence

_MAY_LOSE_CAPITAL = re.compile(
    r"(?:The|A|An|In|On|At|By|For|From|As|It|He|She|They|We|This|These|That|Those|There|His|Her|Its|Their|After|Before"
    r"|During|When|While|Although|Though|Since|Until|Under|Over|With|Some|Many|Most|Both|Several|All|Each|One|Two|Three"
    r"|Four|Five|Six|Seven|Eight|Nine|Ten|Between|Among|Through|About|Around|Nearly|Over|More|Because|If|Once|To|According"
    r"|Along|Despite|Due|Today|Other|Another|Unlike|Following) "
)
_TERMINATOR = re.compile(r"[.!?][\"'”’)]*$")


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer before it has a style.

    Attributes:
        question: the question.
        sentences: the sentences of the answer.
        passage: the passage that the answer is about.
        background: a sentence of the passage that does not answer the question, if there is one.
        declines: True if the answer or its twin is a refusal.
    """

    question: str
    sentences: tuple[Sentence, ...]
    passage: Passage
    background: str | None = None
    declines: bool = False

    @property
    def is_value(self) -> bool:
        """True if the answer is a value without a sentence around it."""
        return len(self.sentences) == 1 and self.sentences[0].text == self.sentences[0].fact


Style = Callable[[Draft, random.Random], Sequence[Piece]]


def _write_bare(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    first = draft.sentences[0]
    ends = rng.random() < 0.3 and draft.is_value
    text = first.text if not ends else end_sentence(first.text)
    return _separate((replace(first, text=text), *draft.sentences[1:]), " ")


def _write_plain(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    return _separate(draft.sentences, " " if rng.random() < 0.85 else "\n\n")


def _write_with_context_opening(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    return _separate(
        open_with(rng.choice(phrases.CONTEXT_OPENINGS), draft.sentences, draft.passage), " "
    )


def _write_with_hedge(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    return _separate(open_with(rng.choice(phrases.HEDGES), draft.sentences, draft.passage), " ")


def _write_bold(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    marks = rng.choice(("**", "**", "**", "__", "*"))
    whole = rng.random() < 0.25
    first = draft.sentences[0]
    if whole or first.fact is None:
        return _separate((_wrap(first, marks), *draft.sentences[1:]), " ")
    text = first.text.replace(first.fact, f"{marks}{first.fact}{marks}", 1)
    return _separate((replace(first, text=text), *draft.sentences[1:]), " ")


def _write_bullets(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    mark = rng.choice(("- ", "- ", "* ", "• "))
    lines = _list_lines(draft, lambda _: mark)
    return lines if draft.declines else _open_list(lines, rng)


def _write_numbers(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    closing = rng.choice((". ", ". ", ") "))
    return _open_list(_list_lines(draft, lambda number: f"{number}{closing}"), rng)


def _write_citations(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    citation = rng.choice(phrases.CITATIONS)
    inside = rng.random() < 0.5
    cited = [replace(item, text=_cite(item.text, citation, inside)) for item in draft.sentences]
    return _separate(cited, " ")


def _write_closing(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    gap = rng.choice((" ", "\n\n"))
    return [*_separate(_as_sentences(draft), " "), gap, Sentence(rng.choice(phrases.CLOSINGS))]


def _write_courtesy(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    opening = Sentence(rng.choice(phrases.COURTESIES))
    return [opening, rng.choice((" ", " ", "\n\n")), *_separate(_as_sentences(draft), " ")]


def _write_heading(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    return [
        rng.choice(phrases.HEADINGS),
        rng.choice(("\n", "\n\n")),
        *_separate(draft.sentences, " "),
    ]


def _write_restatement(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    question = rng.choice(phrases.RESTATEMENTS).format(question=draft.question)
    gap = rng.choice(("\n", "\n\n"))
    label = rng.choice(phrases.ANSWER_LABELS)
    first = replace(draft.sentences[0], text=label + draft.sentences[0].text)
    return [Sentence(question), gap, *_separate((first, *draft.sentences[1:]), " ")]


def _write_quote_first(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    opening = Sentence(rng.choice(phrases.QUOTE_OPENINGS))
    quoted = quote_at_length(draft.passage, rng)
    link: list[Piece] = []
    if rng.random() < 0.4 and not draft.declines:
        link = [Sentence(rng.choice(phrases.QUOTE_LINKS)), " "]
    return [opening, "\n\n", *quoted, "\n\n", *link, *_separate(_as_sentences(draft), " ")]


def _write_quote_last(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    opening = Sentence(rng.choice(phrases.QUOTE_SOURCES))
    quoted = quote_at_length(draft.passage, rng)
    return [*_separate(_as_sentences(draft), " "), "\n\n", opening, "\n\n", *quoted]


def _write_mixed(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    """Write an opening, bold or citations, and a closing, as large models like to do."""
    sentences = _as_sentences(draft)
    marks = rng.random() < 0.5
    cites = rng.random() < 0.5
    citation = rng.choice(phrases.CITATIONS[:3])
    opening = rng.choice(phrases.CONTEXT_OPENINGS)
    changed = []
    for item in open_with(opening, sentences, draft.passage):
        text = item.text
        if marks and item.fact and item.fact in text:
            text = text.replace(item.fact, f"**{item.fact}**", 1)
        changed.append(replace(item, text=_cite(text, citation, inside=False) if cites else text))
    courtesy: list[Piece] = []
    closing: list[Piece] = []
    if rng.random() < 0.25:
        courtesy = [Sentence(rng.choice(phrases.COURTESIES)), " "]
    if rng.random() < 0.5:
        closing = ["\n\n", Sentence(rng.choice(phrases.CLOSINGS))]
    return [*courtesy, *_separate(changed, " "), *closing]


def _write_table(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    left, right = rng.choice(phrases.TABLE_HEADS)
    first, *further = draft.sentences
    lines: list[Piece] = [f"| {left} | {right} |\n|---|---|\n| {draft.question} | ", first, " |"]
    for sentence in further:
        lines += ["\n| Further | ", sentence, " |"]
    return lines


def _write_quoted_source(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    pattern = rng.choice(phrases.SOURCE_QUOTES)
    quoted = [
        replace(item, text=pattern.format(sentence=item.text)) for item in _as_sentences(draft)[:1]
    ]
    return _separate((*quoted, *draft.sentences[1:]), " ")


def _write_hedge_last(draft: Draft, rng: random.Random) -> Sequence[Piece]:
    """Write the further sentences first, then the answer, then the doubt."""
    first, *further = _as_sentences(draft)
    if not further and draft.background:
        further = [Sentence(draft.background)]
    return _separate((*further, first, Sentence(rng.choice(phrases.LAST_HEDGES))), " ")


STYLES: dict[str, Style] = {
    "bare": _write_bare,
    "sentence": _write_plain,
    "context_opening": _write_with_context_opening,
    "hedge": _write_with_hedge,
    "bold": _write_bold,
    "bullets": _write_bullets,
    "numbers": _write_numbers,
    "citations": _write_citations,
    "closing": _write_closing,
    "courtesy": _write_courtesy,
    "heading": _write_heading,
    "restated_question": _write_restatement,
    "quote_first": _write_quote_first,
    "quote_last": _write_quote_last,
    "mixed": _write_mixed,
    "table": _write_table,
    "quoted_source": _write_quoted_source,
    "hedge_last": _write_hedge_last,
}
# Styles that the starter's recipe does not train on, so that they measure unseen styles.
HELD_OUT_STYLES = ("table", "quoted_source", "hedge_last")
_OF_VALUES = ("bare", "bold", "citations", "heading", "restated_question", "table")
_OF_REFUSALS = (
    "bare",
    "sentence",
    "bold",
    "closing",
    "courtesy",
    "heading",
    "restated_question",
    "quote_first",
    "bullets",
)


def list_fitting_styles(drafts: Sequence[Draft]) -> list[str]:
    """Return the names of the styles that all these drafts can take."""
    names = list(STYLES)
    if any(draft.is_value for draft in drafts):
        names = [name for name in names if name in _OF_VALUES]
    elif not any(draft.declines for draft in drafts):
        names.remove("bare")
    if any(draft.declines for draft in drafts):
        names = [name for name in names if name in _OF_REFUSALS]
    # What stands between quotation marks must be in the source, but for the error.
    quotes = drafts[0].sentences[0].text[1:].rstrip(".") in drafts[0].passage.text
    return names if quotes else [name for name in names if name != "quoted_source"]


def end_sentence(text: str) -> str:
    """Return the text with a full stop, if it has no mark at its end."""
    return text if _TERMINATOR.search(text) else text + "."


def open_with(opening: str, sentences: Sequence[Sentence], passage: Passage) -> list[Sentence]:
    """Return the sentences with an opening before the first, whose capital is kept if it may be a name's."""
    first = sentences[0]
    text = first.text
    word = text.split()[0].rstrip(",")
    small = word[0].lower() + word[1:]
    # A word that the passage also writes small is no name.
    is_common = contains_exactly(passage.text, small)
    if _MAY_LOSE_CAPITAL.match(text) or (is_common and word != "I"):
        text = text[0].lower() + text[1:]
    return [replace(first, text=opening + text), *sentences[1:]]


def contains_exactly(text: str, word: str) -> bool:
    """Tell whether a word stands in a text with these capitals."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def quote_at_length(passage: Passage, rng: random.Random) -> list[Piece]:
    """Return several sentences of the passage in a row, quoted."""
    sentences = passage.sentences
    n = min(len(sentences), rng.choice((2, 3, 4, 12)))
    start = rng.randrange(len(sentences) - n + 1)
    quoted = [Sentence(text) for text in sentences[start : start + n]]
    before, after = rng.choice((("> ", ""), ("“", "”"), ('"', '"'), ("", "")))
    quoted[0] = replace(quoted[0], text=before + quoted[0].text)
    quoted[-1] = replace(quoted[-1], text=quoted[-1].text + after)
    return _separate(quoted, " ")


def _as_sentences(draft: Draft) -> list[Sentence]:
    """Return the sentences, each with its mark at the end."""
    return [replace(item, text=end_sentence(capitalise(item.text))) for item in draft.sentences]


def _wrap(sentence: Sentence, marks: str) -> Sentence:
    return replace(sentence, text=f"{marks}{sentence.text}{marks}")


def _cite(text: str, citation: str, inside: bool) -> str:
    end = _TERMINATOR.search(text)
    if inside and end and not text.endswith(('"', "”", "’")):
        return f"{text[: end.start()]} {citation}{end[0]}"
    return f"{text} {citation}"


def _list_lines(draft: Draft, mark: Callable[[int], str]) -> list[Piece]:
    lines: list[Piece] = []
    for number, sentence in enumerate(draft.sentences, start=1):
        lines += ["\n"] if lines else []
        lines += [mark(number), sentence]
    return lines


def _open_list(lines: list[Piece], rng: random.Random) -> Sequence[Piece]:
    opening = Sentence(rng.choice(phrases.LIST_OPENINGS))
    gap = rng.choice(("\n", "\n\n"))
    return [opening, gap, *lines] if rng.random() < 0.7 else lines


def _separate(sentences: Sequence[Sentence], gap: str) -> list[Piece]:
    pieces: list[Piece] = []
    for sentence in sentences:
        pieces += [gap, sentence] if pieces else [sentence]
    return pieces
