"""The trainers, which make an evaluator folder from questions with references in the three stages of ASPIRE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aspire_guard.lazy_names import load_lazily

if TYPE_CHECKING:
    from aspire_trainers.chains.chain_sampling import SampledChain, sample_chain
    from aspire_trainers.config import TrainingConfig
    from aspire_trainers.correctness.judge import Judge
    from aspire_trainers.correctness.labels import Labels
    from aspire_trainers.correctness.overlap import ExactMatch, RougeL, TokenF1
    from aspire_trainers.data.dataset import load_dataset
    from aspire_trainers.data.training_data import TrainingData
    from aspire_trainers.evaluation.judged_answer import JudgedAnswer
    from aspire_trainers.pipeline import train_evaluator
    from aspire_trainers.record import QARecord
    from aspire_trainers.run.progress import Progress

__all__ = [
    "ExactMatch",
    "Judge",
    "JudgedAnswer",
    "Labels",
    "Progress",
    "QARecord",
    "RougeL",
    "SampledChain",
    "TokenF1",
    "TrainingConfig",
    "TrainingData",
    "load_dataset",
    "sample_chain",
    "train_evaluator",
]

_MODULES = {
    "ExactMatch": "aspire_trainers.correctness.overlap",
    "Judge": "aspire_trainers.correctness.judge",
    "JudgedAnswer": "aspire_trainers.evaluation.judged_answer",
    "Labels": "aspire_trainers.correctness.labels",
    "Progress": "aspire_trainers.run.progress",
    "QARecord": "aspire_trainers.record",
    "RougeL": "aspire_trainers.correctness.overlap",
    "SampledChain": "aspire_trainers.chains.chain_sampling",
    "TokenF1": "aspire_trainers.correctness.overlap",
    "TrainingConfig": "aspire_trainers.config",
    "TrainingData": "aspire_trainers.data.training_data",
    "load_dataset": "aspire_trainers.data.dataset",
    "sample_chain": "aspire_trainers.chains.chain_sampling",
    "train_evaluator": "aspire_trainers.pipeline",
}

__getattr__, __dir__ = load_lazily(__name__, _MODULES)
