"""The prompt layout: how a question, its context and an answer become text."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, field_validator

_PLACEHOLDER = re.compile(r"\{(?:context|question|answer)\}")


class PromptTemplate(BaseModel):
    """The text around a context, a question and an answer; part of the evaluator, since it is trained with it.

    The three pieces are tokenised apart, so their tokens don't depend on one another and
    the states of one context serve all of its questions.

    What is filled in can't pass for another piece: a line of it that begins with one of `markers` is joined to the
    line before it (see `unmarked`). All other text stays as it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: str = "Passage: {context}\n"
    question: str = "Question: {question}\nAnswer:"
    answer: str = " {answer}"

    @field_validator("context", "question", "answer")
    @classmethod
    def _names_its_part(cls, value: str, info: object) -> str:
        name = "{" + str(getattr(info, "field_name", "")) + "}"
        if value.count(name) != 1:
            raise ValueError(f"expected {name} exactly once, found {value!r}")
        return value

    @property
    def markers(self) -> tuple[str, ...]:
        """What the lines of the layout begin with: "Passage:", "Question:" and "Answer:" by default."""
        return list_markers(self.context + self.question + self.answer)

    def render_context(self, context: str | None) -> str:
        """The text before the question: empty for a closed-book question."""
        return self._filled(self.context, "{context}", context) if context else ""

    def render_question(self, question: str) -> str:
        """The text from the question up to the answer."""
        return self._filled(self.question, "{question}", question)

    def render_answer(self, answer: str) -> str:
        """An empty answer stays empty, without the space that parts an answer from its prompt."""
        return self._filled(self.answer, "{answer}", answer) if answer else ""

    def render(self, question: str, context: str | None) -> str:
        """The whole prompt x."""
        return self.render_context(context) + self.render_question(question)

    def parse(self, text: str) -> tuple[str, str | None]:
        """Question and context out of a rendered prompt; any other text is a question without context.

        They come back as they were rendered, whatever they hold, if a marker stands before the question.
        """
        context, question = (
            re.escape(part)
            .replace(r"\{context\}", "(?P<context>.*)")
            .replace(r"\{question\}", "(?P<question>.*)")
            for part in (self.context, self.question)
        )
        match = re.fullmatch(f"(?:{context})?{question}", text, re.DOTALL)
        return (match["question"], match["context"]) if match else (text, None)

    def _filled(self, piece: str, placeholder: str, text: str) -> str:
        return piece.replace(placeholder, neutralize_markers(text, self.markers))


def list_markers(text: str) -> tuple[str, ...]:
    """What the lines of `text` begin with, up to the first placeholder."""
    return tuple(
        marker for line in text.splitlines() if (marker := _PLACEHOLDER.split(line)[0].strip())
    )


def neutralize_markers(text: str, markers: Iterable[str]) -> str:
    """`text` with every line that begins with a marker, in whatever case, joined to the line before by a space.

    No word is lost, and what has no such line stays as it is, so to do it twice is to do it once. The first line
    stays too: the layout has something before it.
    """
    return _before_markers(markers).sub(lambda space: " " if _breaks(space) else space[0], text)


def truncate_at_marker(text: str, markers: Iterable[str]) -> str:
    """`text` up to the first line that begins with a marker; the first line stays here, too."""
    spaces = _before_markers(markers).finditer(text)
    return text[: next((space.start() for space in spaces if _breaks(space)), None)]


def _before_markers(markers: Iterable[str]) -> re.Pattern[str]:
    """Finds the white space that stands before a marker."""
    words = "|".join(
        re.escape(marker) + (r"\b" if marker[-1].isalnum() else "") for marker in markers
    )
    # Possessive, from the first white space on: a long run of it is read once.
    return re.compile(rf"(?<!\s)\s++(?={words})" if words else r"(?!)", re.IGNORECASE)


def _breaks(space: re.Match[str]) -> bool:
    """Whether there is the end of a line in it."""
    return len(f"{space[0]}.".splitlines()) > 1
