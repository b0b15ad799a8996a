"""Which baselines a comparison has, and one pass over the questions for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aspire_guard.lm.aspire_lm import Answer
from aspire_trainers.data.batching import group_by_context, split_by_tokens
from aspire_trainers.evaluation.baselines.baseline import AnsweredBatch, Baseline, ScoreWithCost
from aspire_trainers.evaluation.baselines.entailment import Entailment
from aspire_trainers.evaluation.baselines.p_true import PTrue, p_true_question
from aspire_trainers.evaluation.baselines.perplexity import Perplexity
from aspire_trainers.evaluation.baselines.predictive_entropy import PredictiveEntropy
from aspire_trainers.evaluation.baselines.self_eval import SelfEval
from aspire_trainers.evaluation.baselines.semantic_entropy import SemanticEntropy
from aspire_trainers.evaluation.prompting import Prompting
from aspire_trainers.record import QARecord

_BATCH_SIZE = 16
_TOKEN_BUDGET = 16384  # of a batch's prompts


@dataclass(frozen=True)
class Suite:
    """Baselines that share the answers, the samples and the states of each question.

    Attributes:
        baselines: what is compared.
        samples: answers drawn a question; with 0 the beams of the answer serve as samples, at no cost.
        temperature: of the draws.
        seed: of the draws.
    """

    baselines: tuple[Baseline, ...] = ()
    samples: int = 0
    temperature: float = 1.0
    seed: int = 0

    @classmethod
    def cheap(cls) -> Suite:
        """Those that draw nothing; P(True) is shown the beams."""
        return cls((Perplexity(), SelfEval(), PTrue()))

    @classmethod
    def paper(cls, entailment: Entailment, *, samples: int) -> Suite:
        """The paper's five."""
        five = (Perplexity(), PredictiveEntropy(), SemanticEntropy(entailment), SelfEval(), PTrue())
        return cls(five, samples)

    def follow_up_tokens(self, prompting: Prompting, max_new_tokens: int) -> int:
        """The most tokens that a baseline reads after an answer, where P(True) shows no samples."""
        asks = any(baseline.forward_passes for baseline in self.baselines)
        return len(prompting.follow_up(p_true_question([], ""))) + max_new_tokens if asks else 0

    def answers(
        self,
        prompting: Prompting,
        records: Sequence[QARecord],
        *,
        num_beams: int,
        max_new_tokens: int,
    ) -> Iterator[AnsweredBatch]:
        """Answer the records in batches of few passages, and draw the samples on the states of the same prompts."""
        batches = group_by_context(records, _BATCH_SIZE, seed=0)
        for batch in split_by_tokens(batches, prompting.length, _TOKEN_BUDGET):
            decoded = prompting.decode(batch, k=num_beams, max_new_tokens=max_new_tokens)
            if not self.samples:
                yield AnsweredBatch(
                    prompting, batch, decoded, list(map(_distinct, decoded.beams)), [0] * len(batch)
                )
                continue
            drawn = prompting.sample(
                decoded.prompts,
                n=self.samples,
                max_new_tokens=max_new_tokens,
                temperature=self.temperature,
                seeds=[f"{self.seed}/{record.id}" for record in batch],
            )
            tokens = [sum(sample.tokens for sample in samples) for samples in drawn]
            yield AnsweredBatch(prompting, batch, decoded, drawn, tokens)

    def scores(self, answered: AnsweredBatch) -> list[dict[str, ScoreWithCost]]:
        """Of each answer every baseline's score, by its name."""
        columns = {baseline.name: baseline.scores(answered) for baseline in self.baselines}
        return [
            {name: column[i] for name, column in columns.items()}
            for i in range(len(answered.records))
        ]


def _distinct(beams: Sequence[Answer]) -> list[Answer]:
    """Of beams that decode to the same text the best stays."""
    best: dict[str, Answer] = {}
    for beam in beams:
        best.setdefault(beam.text, beam)
    return list(best.values())
