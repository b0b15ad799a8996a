"""The exchange that an evaluator scores: a question, the context it was answered from, and the answer."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.documents import Document
from pydantic import BaseModel, ConfigDict

from aspire_guard.exchange.extraction import find_context, read_answer, read_question
from aspire_guard.verdict import ContextSource


class Exchange(BaseModel):
    """A question with its answer. Exchanges are equal if the same is judged, wherever their contexts were found.

    Attributes:
        question: the question as text.
        context: the passage that the answer should rest on, or None for a closed-book question.
        answer: the answer as text, which may be empty.
        log_likelihood: the mean log-probability of the answer's tokens, in nats, as reported by the
            model that wrote it, or None if the model reported no probabilities.
        context_source: the place where the context was found, or None if there is no context or its place is
            unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    context: str | None = None
    answer: str
    log_likelihood: float | None = None
    context_source: ContextSource | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exchange) and self._judged == other._judged

    def __hash__(self) -> int:
        return hash(self._judged)

    @classmethod
    def from_run(
        cls, input: object, output: object, documents: Sequence[Document] = ()
    ) -> Exchange:
        """Read the exchange from a chain's input and output.

        The context is looked for in this order: in the input, in the output, among the results of tools in the
        messages since the question together with `documents`, in the state of the graph around a node, and in a
        prompt under its label.

        Args:
            input: the chain's input, which holds the question.
            output: the chain's output, which holds the answer.
            documents: the documents that the retrievers inside the chain returned.

        Raises:
            ExchangeError: the input holds no question, or the output no answer, or what is in the place of a context
                can't be read.
        """
        question = read_question(input)
        found = find_context(input, output, documents)
        return cls(
            question=question,
            context=None if found is None else found.text,
            answer=read_answer(output),
            context_source=None if found is None else found.source,
        )

    @property
    def _judged(self) -> tuple[str, str | None, str, float | None]:
        return self.question, self.context, self.answer, self.log_likelihood
