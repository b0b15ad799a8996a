"""The baselines of a comparison, which share one pass over the questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aspire_guard.lm.aspire_lm import Answer
from aspire_trainers.data.batching import group_by_context, split_by_tokens
from aspire_trainers.evaluation.baselines.baseline import AnsweredBatch, Baseline, ScoreWithCost
from aspire_trainers.evaluation.baselines.entailment import Entailment
from aspire_trainers.evaluation.baselines.p_true import PTrue, format_p_true_question
from aspire_trainers.evaluation.baselines.perplexity import Perplexity
from aspire_trainers.evaluation.baselines.predictive_entropy import PredictiveEntropy
from aspire_trainers.evaluation.baselines.self_eval import SelfEval
from aspire_trainers.evaluation.baselines.semantic_entropy import SemanticEntropy
from aspire_trainers.evaluation.prompting import Prompting
from aspire_trainers.record import QARecord

_BATCH_SIZE = 16
_TOKEN_BUDGET = 16384  # tokens of a batch's prompts


@dataclass(frozen=True)
class Suite:
    """Baselines that share the answers, the samples and the states of each question.

    Attributes:
        baselines: the scores to compare.
        samples: answers drawn for each question. With 0 the beams of the answer serve as samples, at no cost.
        temperature: temperature of the draws.
        seed: seed of the draws.
    """

    baselines: tuple[Baseline, ...] = ()
    samples: int = 0
    temperature: float = 1.0
    seed: int = 0

    @classmethod
    def cheap(cls) -> Suite:
        """Return the baselines that need no samples. P(True) is shown the beams."""
        return cls((Perplexity(), SelfEval(), PTrue()))

    @classmethod
    def paper(cls, entailment: Entailment, *, samples: int) -> Suite:
        """Return the paper's five baselines."""
        five = (Perplexity(), PredictiveEntropy(), SemanticEntropy(entailment), SelfEval(), PTrue())
        return cls(five, samples)

    def count_follow_up_tokens(self, prompting: Prompting, max_new_tokens: int) -> int:
        """Count the most tokens that a baseline reads after an answer, if P(True) shows no samples."""
        if not any(baseline.forward_passes for baseline in self.baselines):
            return 0
        question = format_p_true_question([], "")
        return len(prompting.encode_follow_up(question)) + max_new_tokens

    def answer_in_batches(
        self,
        prompting: Prompting,
        records: Sequence[QARecord],
        *,
        num_beams: int,
        max_new_tokens: int,
    ) -> Iterator[AnsweredBatch]:
        """Answer the records in batches of few passages, and draw the samples from the states of the same prompts."""
        batches = group_by_context(records, _BATCH_SIZE, seed=0)
        for batch in split_by_tokens(batches, prompting.count_tokens, _TOKEN_BUDGET):
            decoded = prompting.decode(batch, k=num_beams, max_new_tokens=max_new_tokens)
            if self.samples:
                drawn = prompting.aspire.sample(
                    decoded.prompts,
                    n=self.samples,
                    max_new_tokens=max_new_tokens,
                    temperature=self.temperature,
                    seeds=[f"{self.seed}/{record.id}" for record in batch],
                )
                samples = [prompting.trim_answers(row) for row in drawn]
                tokens = [_count_tokens(row) for row in samples]
            else:
                samples = [_drop_repetitions(row) for row in decoded.beams]
                tokens = [0] * len(batch)
            yield AnsweredBatch(prompting, batch, decoded, samples, tokens)

    def score(self, answered: AnsweredBatch) -> list[dict[str, ScoreWithCost]]:
        """Return every baseline's score of each answer, by the baseline's name."""
        columns = {baseline.name: baseline.score(answered) for baseline in self.baselines}
        rows: list[dict[str, ScoreWithCost]] = []
        for index in range(len(answered.records)):
            rows.append({name: column[index] for name, column in columns.items()})
        return rows


NO_BASELINES = Suite()


def _count_tokens(answers: Sequence[Answer]) -> int:
    return sum(answer.tokens for answer in answers)


def _drop_repetitions(beams: Sequence[Answer]) -> list[Answer]:
    """Return the best beam of each text."""
    best: dict[str, Answer] = {}
    for beam in beams:  # best first
        best.setdefault(beam.text, beam)
    return list(best.values())
