"""Evaluate an evaluator: the model answers labelled questions, and every score ranks the same answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from aspire_guard.evaluators.self_evaluator import SelfEvaluator, selection_score
from aspire_guard.lm.aspire_lm import Answer, AspireLM
from aspire_guard.selection.metrics import Metric, accuracy, auacc, auroc, bootstrap_interval, coverage_and_accuracy
from aspire_trainers.answer_sampling import decode_records, distinct
from aspire_trainers.baselines.p_true import p_true
from aspire_trainers.batches import by_context
from aspire_trainers.correctness import Correctness
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
        correct: whether it is right.
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
    """How well one score ranks the answers; the AUROC is None where all are right or all are wrong."""

    model_config = ConfigDict(frozen=True)

    auroc: Estimate | None
    auacc: Estimate


class UnanswerableReport(BaseModel):
    """What became of the questions without a reference.

    Attributes:
        n: how many.
        declined: share that the model rightly declined to answer, in [0, 1].
        withheld: share that it answered, and that were withheld.
        released: share that it answered, and that were released.
    """

    model_config = ConfigDict(frozen=True)

    n: int
    declined: float
    withheld: float
    released: float


class Report(BaseModel):
    """The result on one dataset.

    Attributes:
        n: questions.
        accuracy: of all answers.
        coverage: share of answers that the evaluator's threshold releases.
        selective_accuracy: accuracy of those; None where nothing is released.
        wrong_withheld: share of wrong answers that it withholds; None where none is wrong.
        unanswerable: what became of the questions without a reference; None where there are none.
        scores: by score: aspire, perplexity, p_true.
    """

    model_config = ConfigDict(frozen=True)

    n: int
    accuracy: float
    coverage: float
    selective_accuracy: float | None
    wrong_withheld: float | None
    unanswerable: UnanswerableReport | None
    scores: dict[str, ScoreReport]


@torch.inference_mode()
def answer_and_judge(
    aspire: AspireLM,
    records: Sequence[QARecord],
    correctness: Correctness,
    *,
    num_beams: int,
    max_new_tokens: int,
    progress: Progress,
) -> list[JudgedAnswer]:
    """Answer every record under θp and judge the best beam with θs, on the states of its generation."""
    found: dict[str, tuple[list[Answer], float]] = {}
    progress.start(len(records))
    for batch in by_context(records, _BATCH_SIZE, seed=0):
        answers, beams = decode_records(aspire, batch, k=num_beams, max_new_tokens=max_new_tokens)
        texts = [[(record.question, row[0].text)] for record, row in zip(batch, answers, strict=True)]
        log_p = aspire.verdict_logits(beams.states, texts).log_softmax(-1)[:, 0].tolist()
        found |= zip((record.id for record in batch), zip(answers, log_p, strict=True), strict=True)
        progress.advance(by=len(batch))
    rows = [(record, *found[record.id]) for record in records]
    correct = correctness.grade([(record, answers[0].text) for record, answers, _ in rows])
    return [
        JudgedAnswer(
            record=record,
            text=answers[0].text,
            beams=tuple(distinct(answers)),
            log_likelihood=answers[0].log_likelihood,
            log_p_correct=log_p_correct,
            correct=is_right,
        )
        for (record, answers, log_p_correct), is_right in zip(rows, correct, strict=True)
    ]


def answer_records(
    evaluator: SelfEvaluator, records: Sequence[QARecord], correctness: Correctness, progress: Progress
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
    """Compare ASPIRE's score with perplexity and P(True) on the same answers."""
    correct = [answer.correct for answer in judged]
    aspire = [selection_score(a.log_likelihood, a.log_p_correct, evaluator.manifest.alpha) for a in judged]
    confidence = [evaluator.calibration.confidence(g) for g in aspire]
    point = coverage_and_accuracy(confidence, correct, evaluator.threshold)
    released = [value >= evaluator.threshold for value in confidence]
    withheld = [not out for out, is_right in zip(released, correct, strict=True) if not is_right]
    with asking:
        scores = {
            "aspire": aspire,
            "perplexity": [answer.log_likelihood for answer in judged],
            "p_true": _p_true(evaluator.aspire, judged, asking),
        }
    return Report(
        n=len(judged),
        accuracy=accuracy(correct),
        coverage=point.coverage,
        selective_accuracy=point.accuracy,
        wrong_withheld=sum(withheld) / len(withheld) if withheld else None,
        unanswerable=_unanswerable(judged, released),
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


def _unanswerable(judged: Sequence[JudgedAnswer], released: Sequence[bool]) -> UnanswerableReport | None:
    rows = [(a.correct, out) for a, out in zip(judged, released, strict=True) if not a.record.answerable]
    if not rows:
        return None
    n, wrong = len(rows), [out for correct, out in rows if not correct]
    return UnanswerableReport(
        n=n,
        declined=(n - len(wrong)) / n,
        withheld=(len(wrong) - sum(wrong)) / n,
        released=sum(wrong) / n,
    )


def _report(scores: Sequence[float], correct: Sequence[bool]) -> ScoreReport:
    can_rank = len(set(correct)) == 2
    return ScoreReport(
        auroc=_estimate(auroc, scores, correct) if can_rank else None,
        auacc=_estimate(auacc, scores, correct),
    )


def _estimate(metric: Metric, scores: Sequence[float], correct: Sequence[bool]) -> Estimate:
    return Estimate(**bootstrap_interval(metric, scores, correct)._asdict())
