"""The scores that ASPIRE is compared with, on the same answers: one interface, one file for each score.

| score             | higher if                                           | costs beyond the answer            |
|-------------------|-----------------------------------------------------|------------------------------------|
| Perplexity        | the answer's tokens are likely                      | nothing                            |
| PredictiveEntropy | sampled answers are likely                          | n generations                      |
| SemanticEntropy   | sampled answers mean the same                       | n generations, and the entailments |
| SelfEval          | the model says that the answer is true              | one short forward pass             |
| PTrue             | the same, with the sampled answers shown first      | n generations, one forward pass    |
"""

from __future__ import annotations

from aspire_trainers.evaluation.baselines.baseline import AnsweredBatch, Baseline, ScoreWithCost
from aspire_trainers.evaluation.baselines.p_true import PTrue
from aspire_trainers.evaluation.baselines.perplexity import Perplexity
from aspire_trainers.evaluation.baselines.predictive_entropy import PredictiveEntropy
from aspire_trainers.evaluation.baselines.self_eval import SelfEval
from aspire_trainers.evaluation.baselines.semantic_entropy import SemanticEntropy
from aspire_trainers.evaluation.baselines.suite import NO_BASELINES, Suite

__all__ = [
    "NO_BASELINES",
    "AnsweredBatch",
    "Baseline",
    "PTrue",
    "Perplexity",
    "PredictiveEntropy",
    "ScoreWithCost",
    "SelfEval",
    "SemanticEntropy",
    "Suite",
]
