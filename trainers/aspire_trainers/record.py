"""The QA record: a question, the context that it is about, and the references of a right answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QARecord:
    """A question with its references.

    Attributes:
        id: an id that is unique within the dataset.
        question: the text of the question.
        context: the passage to answer from, or None for a closed-book question.
        references: the references, each a right answer. Empty if the right answer is to decline.
        is_open: True if the question has no reference because its right answer is unknown. Then declining is not right.
    """

    id: str
    question: str
    context: str | None = None
    references: tuple[str, ...] = ()
    is_open: bool = False

    @property
    def answerable(self) -> bool:
        """True if the question has a reference."""
        return bool(self.references)
