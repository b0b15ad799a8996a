"""A batch of questions, answered by a tiny model of each architecture, with θp and without it."""

from __future__ import annotations

import pytest
import torch

from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.testing import Family, tiny_evaluator
from aspire_trainers.evaluation.baselines import AnsweredBatch, Suite
from aspire_trainers.evaluation.few_shot import FewShotExample, FewShotPrompting
from aspire_trainers.evaluation.prompting import AdaptedPrompting, Prompting
from aspire_trainers.record import QARecord

EXAMPLES = (FewShotExample("Ada sat on a chair.", "Who sat?", "Ada"),)
RECORDS = [
    QARecord("0", "Which one?", "Passage one.", ("a",)),
    QARecord("1", "Which two?", "Passage one.", ("b",)),
    QARecord("2", "Which three?", None, ("c",)),
    QARecord("3", "Which four?", "A longer passage.", ("d",)),
]
SAMPLES = 4


@pytest.fixture(scope="session")
def records() -> list[QARecord]:
    return RECORDS


@pytest.fixture(scope="session")
def evaluator(family: Family) -> SelfEvaluator:
    return tiny_evaluator(family)


@pytest.fixture(scope="session", params=["adapted", "few-shot"])
def prompting(request: pytest.FixtureRequest, evaluator: SelfEvaluator) -> Prompting:
    if request.param == "adapted":
        return AdaptedPrompting(evaluator.aspire)
    return FewShotPrompting(evaluator.aspire.lm, EXAMPLES)


@pytest.fixture(scope="session")
def answered(prompting: Prompting) -> AnsweredBatch:
    with torch.inference_mode():
        (batch,) = Suite(samples=SAMPLES).answer_in_batches(
            prompting, RECORDS, num_beams=3, max_new_tokens=6
        )
    return batch
