"""What is judged: a question, the context it was answered from, and the answer."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.documents import Document
from pydantic import BaseModel, ConfigDict

from aspire_guard.exchange.extraction import answer_text, find_context, question_text


class Exchange(BaseModel):
    """One question with its answer.

    Attributes:
        question: what was asked.
        context: the passage the answer should rest on; None for a closed-book question.
        answer: the answer as text, which may be empty.
        log_likelihood: the mean log-probability of the answer's tokens, in nats, as the model that wrote it reported
            it; None where it reported none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    context: str | None = None
    answer: str
    log_likelihood: float | None = None

    @classmethod
    def from_run(
        cls, input: object, output: object, documents: Sequence[Document] = ()
    ) -> Exchange:
        """The exchange that a chain's input and output hold.

        The context is looked for in the input, then in the output, then in `documents`: what the
        retrievers inside the chain returned.

        Raises:
            ExchangeError: no question is in the input, or no answer in the output.
        """
        return cls(
            question=question_text(input),
            context=find_context(input, output, documents),
            answer=answer_text(output),
        )
