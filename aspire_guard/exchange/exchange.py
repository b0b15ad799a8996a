"""The exchange that an evaluator scores: a question, the context it was answered from, and the answer."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.documents import Document
from pydantic import BaseModel, ConfigDict

from aspire_guard.exchange.extraction import find_context, read_answer, read_question


class Exchange(BaseModel):
    """A question with its answer.

    Attributes:
        question: the question as text.
        context: the passage that the answer should rest on, or None for a closed-book question.
        answer: the answer as text, which may be empty.
        log_likelihood: the mean log-probability of the answer's tokens, in nats, as reported by the
            model that wrote it, or None if the model reported no probabilities.
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
        """Read the exchange from a chain's input and output.

        The context is looked for in the input, then in the output, then in `documents`.

        Args:
            input: the chain's input, which holds the question.
            output: the chain's output, which holds the answer.
            documents: the documents that the retrievers inside the chain returned.

        Raises:
            ExchangeError: the input holds no question, or the output no answer.
        """
        return cls(
            question=read_question(input),
            context=find_context(input, output, documents),
            answer=read_answer(output),
        )
