"""Evaluate an evaluator: the model answers labelled questions, and every score ranks the same answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from aspire_guard.evaluators.self_evaluator import SelfEvaluator, selection_score
from aspire_guard.selection.metrics import coverage_and_accuracy
from aspire_trainers.correctness import Correctness
from aspire_trainers.evaluation.baselines import ScoreWithCost, Suite
from aspire_trainers.evaluation.few_shot import FewShot
from aspire_trainers.evaluation.judged_answer import JudgedAnswer
from aspire_trainers.evaluation.judging import _NOTHING, _tokens
from aspire_trainers.evaluation.score_reports import (
    Block,
    Cost,
    Differences,
    Ranking,
    ScoreReport,
    accuracy_of_all,
    baseline_reports,
    differences,
    score_report,
)
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress


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


class Report(Block):
    """The result on one dataset.

    Attributes:
        n: questions.
        coverage: share of answers that the evaluator's threshold releases.
        selective_accuracy: accuracy of those; None where nothing is released.
        wrong_withheld: share of wrong answers that it withholds; None where none is wrong.
        unanswerable: what became of the questions without a reference; None where there are none.
        pretrained: the same of the pre-trained model's own answers, where that was asked for.
    """

    n: int
    coverage: float
    selective_accuracy: float | None
    wrong_withheld: float | None
    unanswerable: UnanswerableReport | None
    pretrained: Block | None = None


class Comparison(Block):
    """Another evaluator on the same questions, each with its own answers.

    Attributes:
        evaluator: which one.
        scores: its ASPIRE score.
        difference: the first evaluator's metrics minus this one's.
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
) -> Block:
    """The baselines on the answers of the evaluator's base model, which is prompted by examples."""
    manifest, prompting = evaluator.manifest, FewShot(evaluator.aspire.lm)
    answers: list[tuple[QARecord, str]] = []
    tokens: list[int] = []
    priced: list[Mapping[str, ScoreWithCost]] = []
    with progress:
        progress.start(len(records))
        for batch in suite.answers(
            prompting, records, num_beams=manifest.num_beams, max_new_tokens=manifest.max_new_tokens
        ):
            answers += zip(batch.records, batch.decoded.texts, strict=True)
            tokens += _tokens(batch)
            priced += suite.scores(batch)
            progress.advance(by=len(batch.records))
    correct = correctness.grade(answers)
    return Block(
        accuracy=accuracy_of_all(correct),
        answer_tokens=fmean(tokens),
        scores=baseline_reports(suite, priced, correct),
    )


def format_scored_lines(
    evaluator: SelfEvaluator, judged: Sequence[JudgedAnswer], *, are_graded: bool = True
) -> Iterator[dict[str, Any]]:
    """One object an answer: what `aspire-guard score` writes, its label, and by name the baselines' scores of it.

    Before they are graded the label is None.
    """
    for answer in judged:
        score = evaluator.blend(answer.log_likelihood, answer.log_p_correct)
        texts = {"id": answer.record.id, "question": answer.record.question, "answer": answer.text}
        baselines = {name: priced.score for name, priced in answer.baselines.items()}
        label = answer.correct if are_graded else None
        verdict = {"evaluator": evaluator.manifest.scorer, "correct": label, "baselines": baselines}
        yield texts | score.model_dump() | verdict


def build_report(
    evaluator: SelfEvaluator,
    judged: Sequence[JudgedAnswer],
    suite: Suite = _NOTHING,
    pretrained: Block | None = None,
) -> Report:
    """Compare ASPIRE's score with those of the suite that the answers were judged with."""
    scores, correct = ranking = _aspire(evaluator, judged)
    confidence = [evaluator.calibration.confidence(g) for g in scores]
    point = coverage_and_accuracy(confidence, correct, evaluator.threshold)
    released = [value >= evaluator.threshold for value in confidence]
    withheld = [not out for out, is_right in zip(released, correct, strict=True) if not is_right]
    baselines = baseline_reports(suite, [answer.baselines for answer in judged], correct, ranking)
    return Report(
        n=len(judged),
        accuracy=accuracy_of_all(correct),
        answer_tokens=fmean(answer.tokens for answer in judged),
        coverage=point.coverage,
        selective_accuracy=point.accuracy,
        wrong_withheld=sum(withheld) / len(withheld) if withheld else None,
        unanswerable=_unanswerable(judged, released),
        scores={"aspire": _aspire_report(evaluator, judged, ranking)} | baselines,
        pretrained=pretrained,
    )


def build_comparison(
    first: tuple[SelfEvaluator, Sequence[JudgedAnswer]],
    second: tuple[SelfEvaluator, Sequence[JudgedAnswer]],
    name: str,
) -> Comparison:
    """The second evaluator, called `name`, and how far the first is ahead of it on the same questions."""
    ranking = _aspire(*second)
    return Comparison(
        evaluator=name,
        accuracy=accuracy_of_all(ranking[1]),
        answer_tokens=fmean(answer.tokens for answer in second[1]),
        scores={"aspire": _aspire_report(*second, ranking)},
        difference=differences(_aspire(*first), ranking),
    )


def _aspire(evaluator: SelfEvaluator, judged: Sequence[JudgedAnswer]) -> Ranking:
    alpha = evaluator.manifest.alpha
    scores = [selection_score(a.log_likelihood, a.log_p_correct, alpha) for a in judged]
    return scores, [answer.correct for answer in judged]


def _aspire_report(
    evaluator: SelfEvaluator, judged: Sequence[JudgedAnswer], ranking: Ranking
) -> ScoreReport:
    lm, self_eval = evaluator.aspire.lm, evaluator.aspire.self_eval
    tokens = (
        [len(self_eval.vectors(lm, a.record.question, a.text)) for a in judged]
        if self_eval
        else [0]
    )
    return score_report(ranking, Cost(generations=0, forward_passes=1, tokens=fmean(tokens)))


def _unanswerable(
    judged: Sequence[JudgedAnswer], released: Sequence[bool]
) -> UnanswerableReport | None:
    rows = [
        (a.correct, out) for a, out in zip(judged, released, strict=True) if not a.record.answerable
    ]
    if not rows:
        return None
    n, wrong = len(rows), [out for correct, out in rows if not correct]
    return UnanswerableReport(
        n=n,
        declined=(n - len(wrong)) / n,
        withheld=(len(wrong) - sum(wrong)) / n,
        released=sum(wrong) / n,
    )
