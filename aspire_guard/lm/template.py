"""The prompt layout: how a question, its context and an answer become text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

_PLACEHOLDER = re.compile(r"\{(?:context|question|answer)\}")


class PromptTemplate(BaseModel):
    """The text around a context, a question and an answer.

    It is part of an evaluator, which is trained with it. The three pieces are tokenised separately, so
    their tokens don't depend on one another, and the states of a context serve all questions about it.

    Text that is filled in can't pass for another piece: if one of its lines begins with a marker (see
    `markers`), that line is joined to the line before it. All other text stays as it is.

    Attributes:
        context: the piece that holds `{context}`, which a closed-book prompt leaves out.
        question: the piece that holds `{question}`, and ends where the answer begins.
        answer: the piece that holds `{answer}`.
        plain_answers: True if an answer is read sentence by sentence, without markdown, citation marks and set
            phrases. See `split_answer`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: str = "Passage: {context}\n"
    question: str = "Question: {question}\nAnswer:"
    answer: str = " {answer}"
    plain_answers: bool = False

    @field_validator("context", "question", "answer")
    @classmethod
    def _check_placeholder(cls, value: str, info: ValidationInfo) -> str:
        placeholder = f"{{{info.field_name}}}"
        if value.count(placeholder) != 1:
            raise ValueError(f"expected {placeholder} exactly once, found {value!r}")
        return value

    @property
    def markers(self) -> tuple[str, ...]:
        """The words that begin the lines of the layout: by default "Passage:", "Question:" and "Answer:"."""
        layout = self.context + self.question + self.answer
        return list_markers(layout)

    def render_context(self, context: str | None) -> str:
        """Return the text before the question, which is empty for a closed-book question."""
        if not context:
            return ""
        return self._fill(self.context, "{context}", context)

    def render_question(self, question: str) -> str:
        """Return the text from the question up to the answer."""
        return self._fill(self.question, "{question}", question)

    def render_answer(self, answer: str) -> str:
        """Return the text of the answer.

        An empty answer stays empty, without the space that parts an answer from its prompt.
        """
        if not answer:
            return ""
        return self._fill(self.answer, "{answer}", answer)

    def render(self, question: str, context: str | None) -> str:
        """Return the whole prompt x."""
        before = self.render_context(context)
        return before + self.render_question(question)

    def parse(self, text: str) -> tuple[str, str | None]:
        """Split a rendered prompt into question and context.

        They come back as they were rendered, whatever they hold, if a marker stands before the
        question. Any other text counts as a question without context.
        """
        context = _make_pattern(self.context, "context")
        question = _make_pattern(self.question, "question")
        match = re.fullmatch(f"(?:{context})?{question}", text, re.DOTALL)
        if match is None:
            return text, None
        return match["question"], match["context"]

    def _fill(self, piece: str, placeholder: str, text: str) -> str:
        plain = neutralize_markers(text, self.markers)
        return piece.replace(placeholder, plain)


def list_markers(text: str) -> tuple[str, ...]:
    """List the beginnings of the lines of `text`, each up to its first placeholder."""
    markers: list[str] = []
    for line in text.splitlines():
        beginning = _PLACEHOLDER.split(line)[0]
        markers.append(beginning.strip())
    return tuple(filter(None, markers))


def neutralize_markers(text: str, markers: Iterable[str]) -> str:
    """Join every line of `text` that begins with a marker, in any case, to the line before it by a space.

    No word is lost, and text without such lines stays as it is, so doing this twice changes nothing more.
    The first line stays too: the layout has something before it.
    """
    pieces: list[str] = []
    end = 0
    for space in _find_line_breaks(text, markers):
        pieces.append(text[end : space.start()])
        end = space.end()
    pieces.append(text[end:])
    return " ".join(pieces)


def truncate_at_marker(text: str, markers: Iterable[str]) -> str:
    """Cut `text` before the first line that begins with a marker, the very first line excepted."""
    for space in _find_line_breaks(text, markers):
        return text[: space.start()]
    return text


def _find_line_breaks(
    text: str,
    markers: Iterable[str],
) -> Iterator[re.Match[str]]:
    """Find the white space before each marker that begins a line."""
    for space in _compile_markers(markers).finditer(text):
        # An empty line after the last line break would not count without the letter.
        lines = f"{space[0]}x".splitlines()
        if len(lines) > 1:
            yield space


def _compile_markers(markers: Iterable[str]) -> re.Pattern[str]:
    """Make a pattern for the white space before a marker."""
    words: list[str] = []
    for marker in markers:
        word_end = r"\b" if marker[-1].isalnum() else ""
        words.append(re.escape(marker) + word_end)
    if not words:
        return re.compile("(?!)")  # matches nowhere
    # A possessive match from the first white space on: a long run of white space is read only once.
    pattern = rf"(?<!\s)\s++(?={'|'.join(words)})"
    return re.compile(pattern, re.IGNORECASE)


def _make_pattern(piece: str, name: str) -> str:
    """Make a regular expression of a piece of the layout, with its placeholder as a group."""
    escaped = re.escape(piece)
    return escaped.replace(rf"\{{{name}\}}", f"(?P<{name}>.*)")
