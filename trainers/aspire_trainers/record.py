"""A QA record: a question, the context it is asked about, and the references of a right answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QARecord:
    """One question with its references.

    Attributes:
        id: unique within its dataset.
        question: what is asked.
        context: the passage to answer from; None for a closed-book question.
        references: the references, each a right answer; empty where the right answer is to decline.
    """

    id: str
    question: str
    context: str | None = None
    references: tuple[str, ...] = ()

    @property
    def answerable(self) -> bool:
        """Whether there is a reference to answer with."""
        return bool(self.references)
