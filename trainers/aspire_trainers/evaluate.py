"""Evaluate an evaluator: the model answers labelled questions, and every score ranks the same answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from aspire_guard.evaluators.self_evaluator import SelfEvaluator, selection_score
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.selection.metrics import accuracy, auacc, auroc, bootstrap_interval, coverage_and_accuracy
from aspire_trainers.answer_sampling import decode_records, distinct
from aspire_trainers.baselines.p_true import p_true
from aspire_trainers.batches import by_context
from aspire_trainers.correctness import RougeL
from aspire_trainers.progress import Progress
from aspire_trainers.record import QARecord

_BATCH_SIZE = 16


@dataclass(frozen=True)
class JudgedAnswer:
    """The answer to one record and what is known of it.

    Attributes:
        text: ŷ, the best beam.
        beams: all distinct beams, ŷ first.
        log_likelihood: log f_norm(ŷ), in nats.
        log_p_correct: log P(z_c | x, ŷ), in nats.
        correct: whether Rouge-L calls it right.
    """

    record: QARecord
    text: str
    beams: tuple[str, ...]
    log_likelihood: float
    log_p_correct: float
    correct: bool


class Estimate(BaseModel):
    """A metric with its bootstrap 95 % interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float


class ScoreReport(BaseModel):
    """How well one score ranks the answers."""

    model_config = ConfigDict(frozen=True)

    auroc: Estimate
    auacc: Estimate


class Report(BaseModel):
    """The result on one dataset.

    Attributes:
        n: questions.
        accuracy: of all answers.
        coverage: share of answers that the evaluator's threshold releases.
        selective_accuracy: accuracy of those; None where nothing is released.
        scores: by score: aspire, perplexity, p_true.
    """

    model_config = ConfigDict(frozen=True)

    n: int
    accuracy: float
    coverage: float
    selective_accuracy: float | None
    scores: dict[str, ScoreReport]


@torch.inference_mode()
def answer_and_judge(
    aspire: AspireLM,
    records: Sequence[QARecord],
    correctness: RougeL,
    *,
    num_beams: int,
    max_new_tokens: int,
    progress: Progress,
) -> list[JudgedAnswer]:
    """Answer every record under θp and judge the best beam with θs, on the states of its generation."""
    judged: dict[str, JudgedAnswer] = {}
    progress.start(len(records))
    for batch in by_context(records, _BATCH_SIZE, seed=0):
        answers, beams = decode_records(aspire, batch, k=num_beams, max_new_tokens=max_new_tokens)
        best = torch.zeros(len(batch), 1, dtype=torch.long, device=beams.scores.device)
        log_p = aspire.verdict_logits(beams.states.branches(best)).log_softmax(-1)[:, 0, 0].tolist()
        for record, row, log_p_correct in zip(batch, answers, log_p, strict=True):
            judged[record.id] = JudgedAnswer(
                record=record,
                text=row[0].text,
                beams=tuple(distinct(row)),
                log_likelihood=row[0].log_likelihood,
                log_p_correct=log_p_correct,
                correct=correctness.is_correct(row[0].text, record.answers),
            )
        progress.advance(by=len(batch))
    return [judged[record.id] for record in records]


def answer_records(
    evaluator: SelfEvaluator, records: Sequence[QARecord], correctness: RougeL, progress: Progress
) -> list[JudgedAnswer]:
    """Answer the records as the evaluator does by itself, and judge the answers.

    Raises:
        InputError: the evaluator was fitted to the log-likelihoods of a chain.
    """
    evaluator.expect_own_likelihood()
    manifest = evaluator.manifest
    with progress:
        return answer_and_judge(
            evaluator.aspire,
            records,
            correctness,
            num_beams=manifest.num_beams,
            max_new_tokens=manifest.max_new_tokens,
            progress=progress,
        )


def scored_lines(evaluator: SelfEvaluator, judged: Sequence[JudgedAnswer]) -> Iterator[dict[str, Any]]:
    """One object an answer, as `aspire-guard score` writes it, with its label: what `calibrate` and `report` read."""
    for answer in judged:
        score = evaluator.blended(answer.log_likelihood, answer.log_p_correct)
        texts = {"id": answer.record.id, "question": answer.record.question, "answer": answer.text}
        yield texts | score.model_dump() | {"correct": answer.correct}


def evaluate(evaluator: SelfEvaluator, judged: Sequence[JudgedAnswer], asking: Progress) -> Report:
    """Compare ASPIRE's score with perplexity and P(True) on the same answers.

    Raises:
        InputError: all answers are right, or all are wrong: no ranking can be measured.
    """
    correct = [answer.correct for answer in judged]
    aspire = [selection_score(a.log_likelihood, a.log_p_correct, evaluator.manifest.alpha) for a in judged]
    confidence = [evaluator.calibration.confidence(g) for g in aspire]
    released = coverage_and_accuracy(confidence, correct, evaluator.threshold)
    with asking:
        scores = {
            "aspire": aspire,
            "perplexity": [answer.log_likelihood for answer in judged],
            "p_true": _p_true(evaluator.aspire, judged, asking),
        }
    return Report(
        n=len(judged),
        accuracy=accuracy(correct),
        coverage=released.coverage,
        selective_accuracy=released.accuracy,
        scores={name: _report(values, correct) for name, values in scores.items()},
    )


def _p_true(aspire: AspireLM, judged: Sequence[JudgedAnswer], progress: Progress) -> list[float]:
    by_id = {answer.record.id: answer for answer in judged}
    scores: dict[str, float] = {}
    progress.start(len(judged))
    for batch in by_context([answer.record for answer in judged], _BATCH_SIZE, seed=0):
        items = [(r.question, r.context, by_id[r.id].text, by_id[r.id].beams) for r in batch]
        scores |= zip((record.id for record in batch), p_true(aspire.lm, items), strict=True)
        progress.advance(by=len(batch))
    return [scores[answer.record.id] for answer in judged]


def _report(scores: Sequence[float], correct: Sequence[bool]) -> ScoreReport:
    return ScoreReport(
        auroc=Estimate(**bootstrap_interval(auroc, scores, correct)._asdict()),
        auacc=Estimate(**bootstrap_interval(auacc, scores, correct)._asdict()),
    )
