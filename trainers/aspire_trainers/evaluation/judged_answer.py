"""An answer with the evaluator's judgement of it, on which α, the calibration and every comparison rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aspire_trainers.evaluation.baselines import ScoreWithCost
from aspire_trainers.record import QARecord


@dataclass(frozen=True)
class JudgedAnswer:
    """The answer to a record, with its likelihood, its judgement and its grade.

    Attributes:
        text: ŷ, the best beam.
        beams: all distinct beams, ŷ first.
        log_likelihood: log f_norm(ŷ), in nats.
        log_p_correct: log P(z_c | x, ŷ), in nats.
        correct: True if the answer is right. It is False until the answer is graded.
        tokens: forward-token equivalents of answering: the prompt, and each generated token once a beam.
        baselines: the scores of the requested baselines, by name.
    """

    record: QARecord
    text: str
    beams: tuple[str, ...]
    log_likelihood: float
    log_p_correct: float
    correct: bool = False
    tokens: int = 0
    baselines: Mapping[str, ScoreWithCost] = field(default_factory=dict)
