"""Reports on evaluators: the model answers labelled questions, and every score ranks the same answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from aspire_guard.evaluators.self_evaluator import SelfEvaluator, selection_score
from aspire_guard.selection.metrics import coverage_and_accuracy
from aspire_trainers.correctness import Correctness
from aspire_trainers.evaluation.baselines import NO_BASELINES, ScoreWithCost, Suite
from aspire_trainers.evaluation.few_shot import FewShotPrompting
from aspire_trainers.evaluation.judged_answer import JudgedAnswer
from aspire_trainers.evaluation.score_reports import (
    Cost,
    Differences,
    Ranking,
    ScoreReport,
    ScoreTable,
    compare_rankings,
    estimate_accuracy,
    report_baselines,
    report_score,
)
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress


class UnanswerableReport(BaseModel):
    """The outcome for the questions without a reference.

    Attributes:
        n: number of these questions.
        declined: share that the model rightly declined to answer, in [0, 1].
        withheld: share that the model answered, and whose answers were withheld.
        released: share that the model answered, and whose answers were released.
    """

    model_config = ConfigDict(frozen=True)

    n: int
    declined: float
    withheld: float
    released: float


class Report(ScoreTable):
    """The result on one dataset.

    Attributes:
        n: number of questions.
        coverage: share of answers that the evaluator's threshold releases.
        selective_accuracy: accuracy of the released answers, or None if nothing is released.
        wrong_withheld: share of the wrong answers that the threshold withholds, or None if no answer is wrong.
        unanswerable: outcome for the questions without a reference, or None if every question has a reference.
        pretrained: scores of the pre-trained model's own answers, if they were requested.
    """

    n: int
    coverage: float
    selective_accuracy: float | None
    wrong_withheld: float | None
    unanswerable: UnanswerableReport | None
    pretrained: ScoreTable | None = None


class Comparison(ScoreTable):
    """Another evaluator on the same questions, with its own answers.

    Attributes:
        evaluator: name of the other evaluator.
        scores: its ASPIRE score.
        difference: the first evaluator's metrics minus the other's.
    """

    evaluator: str
    difference: Differences


@torch.inference_mode()
def evaluate_pretrained(
    evaluator: SelfEvaluator,
    records: Sequence[QARecord],
    correctness: Correctness,
    suite: Suite,
    progress: Progress,
) -> ScoreTable:
    """Score the answers of the evaluator's base model, which is prompted by examples, with the baselines."""
    manifest = evaluator.manifest
    answers: list[tuple[QARecord, str]] = []
    tokens: list[int] = []
    scored: list[Mapping[str, ScoreWithCost]] = []
    with progress:
        progress.start(len(records))
        batches = suite.answer_in_batches(
            FewShotPrompting(evaluator.aspire.lm),
            records,
            num_beams=manifest.num_beams,
            max_new_tokens=manifest.max_new_tokens,
        )
        for batch in batches:
            answers += zip(batch.records, batch.decoded.texts, strict=True)
            tokens += batch.count_answer_tokens()
            scored += suite.score(batch)
            progress.advance(by=len(batch.records))
    correct = correctness.grade(answers)
    return ScoreTable(
        accuracy=estimate_accuracy(correct),
        answer_tokens=fmean(tokens),
        scores=report_baselines(suite, scored, correct),
    )


def format_scored_lines(
    evaluator: SelfEvaluator, judged: Sequence[JudgedAnswer], *, are_graded: bool = True
) -> Iterator[dict[str, Any]]:
    """Yield an object for each answer: the fields of `aspire-guard score`, the label, and the baselines' scores.

    The label is None if the answers are not graded yet.
    """
    for answer in judged:
        score = evaluator.blend(answer.log_likelihood, answer.log_p_correct)
        texts = {"id": answer.record.id, "question": answer.record.question, "answer": answer.text}
        verdict = {
            "evaluator": evaluator.manifest.scorer,
            "correct": answer.correct if are_graded else None,
            "baselines": {name: scored.score for name, scored in answer.baselines.items()},
        }
        yield texts | score.model_dump() | verdict


def build_report(
    evaluator: SelfEvaluator,
    judged: Sequence[JudgedAnswer],
    suite: Suite = NO_BASELINES,
    pretrained: ScoreTable | None = None,
) -> Report:
    """Compare ASPIRE's score of graded answers with the scores of the suite that they were judged with."""
    ranking = _rank_by_aspire(evaluator, judged)
    confidence = [evaluator.calibration.confidence(score) for score in ranking.scores]
    point = coverage_and_accuracy(confidence, ranking.correct, evaluator.threshold)
    released = [value >= evaluator.threshold for value in confidence]
    baseline_scores = [answer.baselines for answer in judged]
    baselines = report_baselines(suite, baseline_scores, ranking.correct, ranking)
    return Report(
        n=len(judged),
        accuracy=estimate_accuracy(ranking.correct),
        answer_tokens=_mean_tokens(judged),
        coverage=point.coverage,
        selective_accuracy=point.accuracy,
        wrong_withheld=_share_of_wrong_withheld(released, ranking.correct),
        unanswerable=_report_unanswerable(judged, released),
        scores={"aspire": _report_aspire(evaluator, judged, ranking)} | baselines,
        pretrained=pretrained,
    )


def build_comparison(
    first: tuple[SelfEvaluator, Sequence[JudgedAnswer]],
    second: tuple[SelfEvaluator, Sequence[JudgedAnswer]],
    name: str,
) -> Comparison:
    """Report the second evaluator, called `name`, and how far the first is ahead of it on the same questions."""
    evaluator, judged = second
    ranking = _rank_by_aspire(evaluator, judged)
    return Comparison(
        evaluator=name,
        accuracy=estimate_accuracy(ranking.correct),
        answer_tokens=_mean_tokens(judged),
        scores={"aspire": _report_aspire(evaluator, judged, ranking)},
        difference=compare_rankings(_rank_by_aspire(*first), ranking),
    )


def _rank_by_aspire(evaluator: SelfEvaluator, judged: Sequence[JudgedAnswer]) -> Ranking:
    alpha = evaluator.manifest.alpha
    scores = [
        selection_score(answer.log_likelihood, answer.log_p_correct, alpha) for answer in judged
    ]
    return Ranking(scores, [answer.correct for answer in judged])


def _report_aspire(
    evaluator: SelfEvaluator, judged: Sequence[JudgedAnswer], ranking: Ranking
) -> ScoreReport:
    lm, self_eval = evaluator.aspire.lm, evaluator.aspire.self_eval
    tokens = [0]
    if self_eval:
        tokens = [
            len(self_eval.vectors(lm, answer.record.question, answer.text)) for answer in judged
        ]
    return report_score(ranking, Cost(generations=0, forward_passes=1, tokens=fmean(tokens)))


def _share_of_wrong_withheld(released: Sequence[bool], correct: Sequence[bool]) -> float | None:
    outcomes = zip(released, correct, strict=True)
    withheld = [not is_released for is_released, is_right in outcomes if not is_right]
    return sum(withheld) / len(withheld) if withheld else None


def _report_unanswerable(
    judged: Sequence[JudgedAnswer], released: Sequence[bool]
) -> UnanswerableReport | None:
    outcomes = zip(judged, released, strict=True)
    unanswerable = [row for row in outcomes if not row[0].record.answerable]
    if not unanswerable:
        return None
    n = len(unanswerable)
    # Declining is right, so every answer that is wrong answers the question.
    wrong = [is_released for answer, is_released in unanswerable if not answer.correct]
    return UnanswerableReport(
        n=n,
        declined=(n - len(wrong)) / n,
        withheld=(len(wrong) - sum(wrong)) / n,
        released=sum(wrong) / n,
    )


def _mean_tokens(judged: Sequence[JudgedAnswer]) -> float:
    return fmean(answer.tokens for answer in judged)
