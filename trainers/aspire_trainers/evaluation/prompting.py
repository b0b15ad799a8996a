"""Ways to ask a model for answers, and for a verdict on them: under θp, or by a prompt alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from aspire_guard.lm.aspire_lm import Answer, AspireLM
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_trainers.record import QARecord

VERDICT = "The proposed answer is"
TRUE, FALSE = " true", " false"


@dataclass(frozen=True)
class DecodedAnswers:
    """The answers ŷ to a batch of questions.

    Attributes:
        prompts: states of `[x]`, a row for each question.
        beams: all beams of each question, best first.
        texts: ŷ, the text of the best beam of each question.
        log_likelihoods: log f_norm(ŷ) of each answer, in nats.
        states: states of `[x ; ŷ]`, a row with one branch for each question.
    """

    prompts: PrefixStates
    beams: list[list[Answer]]
    texts: list[str]
    log_likelihoods: list[float]
    states: PrefixStates


class Prompting(Protocol):
    """A way of asking a model."""

    @property
    def aspire(self) -> AspireLM:
        """The model that reads and answers."""
        ...

    def count_tokens(self, record: QARecord) -> int:
        """Count the tokens of the record's prompt."""
        ...

    def decode(self, records: Sequence[QARecord], *, k: int, max_new_tokens: int) -> DecodedAnswers:
        """Answer by beam search with `k` beams."""
        ...

    def trim_answers(self, answers: Sequence[Answer]) -> list[Answer]:
        """Return the answers without text that the model wrote after them."""
        ...

    def encode_follow_up(self, text: str) -> Tensor:
        """Return the ids `(tokens,)` that follow an answer: they ask `text` and begin the reply with `VERDICT`."""
        ...


@dataclass(frozen=True)
class AdaptedPrompting:
    """The model under θp: it was tuned to answer, and is asked in the words of its own template."""

    aspire: AspireLM

    def count_tokens(self, record: QARecord) -> int:
        """Count the tokens of `[θp ; x]`."""
        return sum(self.aspire.lengths(record.question, record.context, ""))

    def decode(self, records: Sequence[QARecord], *, k: int, max_new_tokens: int) -> DecodedAnswers:
        """Answer by beam search, as `SelfEvaluator.answer` does."""
        questions = [(record.question, record.context) for record in records]
        prompts = self.aspire.prompt_states(questions)
        beams, states = self.aspire.answer(prompts, k=k, max_new_tokens=max_new_tokens)
        best = [row[0] for row in beams]
        return DecodedAnswers(
            prompts=prompts,
            beams=beams,
            texts=[answer.text for answer in best],
            log_likelihoods=[answer.log_likelihood for answer in best],
            states=states,
        )

    def trim_answers(self, answers: Sequence[Answer]) -> list[Answer]:
        """Return the answers unchanged, because a tuned model ends its answers itself."""
        return list(answers)

    def encode_follow_up(self, text: str) -> Tensor:
        """Return the ids of the question on a line of its own, and of the reply on the same line."""
        return self.aspire.lm.token_ids(f"\n{text} {VERDICT}")
