"""How a model is brought to answer, and to say of an answer whether it is true: under θp, or by a prompt alone."""

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
class Decoded:
    """The answers ŷ to a batch of questions.

    Attributes:
        prompts: states of `[x]`, a row a question.
        beams: of each question all beams, best first.
        texts: ŷ, made of the best beam.
        log_likelihoods: log f_norm(ŷ), in nats.
        states: of `[x ; ŷ]`, a row a question, one branch each.
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

    def length(self, record: QARecord) -> int:
        """Tokens of the record's prompt."""
        ...

    def decode(self, records: Sequence[QARecord], *, k: int, max_new_tokens: int) -> Decoded:
        """Answer by beam search with `k` beams."""
        ...

    def sample(
        self,
        prompts: PrefixStates,
        *,
        n: int,
        max_new_tokens: int,
        temperature: float,
        seeds: Sequence[str],
    ) -> list[list[Answer]]:
        """`n` answers to each prompt drawn from the model's distribution."""
        ...

    def follow_up(self, text: str) -> Tensor:
        """`(tokens,)`: ids that stand after an answer, ask `text` and begin the reply with `VERDICT`."""
        ...


@dataclass(frozen=True)
class Adapted:
    """The model under θp: it was tuned to answer, and is asked in the words of its own template."""

    aspire: AspireLM

    def length(self, record: QARecord) -> int:
        """Tokens of `[θp ; x]`."""
        return sum(self.aspire.lengths(record.question, record.context, ""))

    def decode(self, records: Sequence[QARecord], *, k: int, max_new_tokens: int) -> Decoded:
        """Answer by beam search, as `SelfEvaluator.answer` does."""
        prompts = self.aspire.prompt_states(
            [(record.question, record.context) for record in records]
        )
        beams, states = self.aspire.answer(prompts, k=k, max_new_tokens=max_new_tokens)
        likelihoods = [row[0].log_likelihood for row in beams]
        return Decoded(prompts, beams, [row[0].text for row in beams], likelihoods, states)

    def sample(
        self,
        prompts: PrefixStates,
        *,
        n: int,
        max_new_tokens: int,
        temperature: float,
        seeds: Sequence[str],
    ) -> list[list[Answer]]:
        """`n` answers to each prompt drawn from the model's distribution."""
        return self.aspire.sample(
            prompts, n=n, max_new_tokens=max_new_tokens, temperature=temperature, seeds=seeds
        )

    def follow_up(self, text: str) -> Tensor:
        """The question on a line of its own, and the reply on it."""
        return self.aspire.lm.token_ids(f"\n{text} {VERDICT}")
