"""Evaluate an evaluator: the model answers labelled questions, and every score ranks the same answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from aspire_guard.evaluators.self_evaluator import SelfEvaluator, selection_score
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.selection.metrics import coverage_and_accuracy
from aspire_trainers.answer_sampling import distinct
from aspire_trainers.baselines import Answered, Priced, Suite
from aspire_trainers.comparison import (
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
from aspire_trainers.correctness import Correctness
from aspire_trainers.few_shot import FewShot
from aspire_trainers.judged_answer import JudgedAnswer
from aspire_trainers.progress import Progress
from aspire_trainers.prompting import Adapted, Prompting
from aspire_trainers.record import QARecord
from aspire_trainers.room import expect_room_to_answer

_NOTHING = Suite()


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
def answer_and_judge(
    aspire: AspireLM,
    records: Sequence[QARecord],
    *,
    num_beams: int,
    max_new_tokens: int,
    progress: Progress,
    suite: Suite = _NOTHING,
) -> list[JudgedAnswer]:
    """Answer every record under θp and judge the best beam with θs, on the states of its generation; graded is none."""
    judged: dict[str, JudgedAnswer] = {}
    progress.start(len(records))
    for batch in suite.answers(Adapted(aspire), records, num_beams=num_beams, max_new_tokens=max_new_tokens):
        decoded = batch.decoded
        texts = [[(record.question, text)] for record, text in zip(batch.records, decoded.texts, strict=True)]
        log_p = aspire.verdict_logits(decoded.states, texts).log_softmax(-1)[:, 0].tolist()
        tokens, baselines = _tokens(batch), suite.scores(batch)
        for i, record in enumerate(batch.records):
            judged[record.id] = JudgedAnswer(
                record=record,
                text=decoded.texts[i],
                beams=tuple(distinct(decoded.beams[i])),
                log_likelihood=decoded.log_likelihoods[i],
                log_p_correct=log_p[i],
                tokens=tokens[i],
                baselines=baselines[i],
            )
        progress.advance(by=len(batch.records))
    return [judged[record.id] for record in records]


def graded(judged: Sequence[JudgedAnswer], correctness: Correctness) -> list[JudgedAnswer]:
    """The answers with their grades: all at once, so that a file of labels tells of everything that is missing in it.

    Raises:
        InputError: an answer can't be graded.
    """
    grades = correctness.grade([(answer.record, answer.text) for answer in judged])
    return [replace(answer, correct=is_right) for answer, is_right in zip(judged, grades, strict=True)]


@torch.inference_mode()
def evaluate_pretrained(
    evaluator: SelfEvaluator, records: Sequence[QARecord], correctness: Correctness, suite: Suite, progress: Progress
) -> Block:
    """The baselines on the answers of the evaluator's base model, which is prompted by examples."""
    manifest, prompting = evaluator.manifest, FewShot(evaluator.aspire.lm)
    answers: list[tuple[QARecord, str]] = []
    tokens: list[int] = []
    priced: list[Mapping[str, Priced]] = []
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
        accuracy=accuracy_of_all(correct), answer_tokens=fmean(tokens), scores=baseline_reports(suite, priced, correct)
    )


def expect_answerable(
    evaluator: SelfEvaluator, records: Sequence[QARecord], suite: Suite = _NOTHING, *, pretrained: bool = False
) -> None:
    """Make sure that the evaluator can answer the records by itself, and its pre-trained model where that is asked for.

    Raises:
        InputError: it was fitted to the log-likelihoods of a chain, or a record does not fit its window.
    """
    evaluator.expect_own_likelihood()
    prompting: list[Prompting] = [Adapted(evaluator.aspire)]
    if pretrained:
        prompting.append(FewShot(evaluator.aspire.lm))
    for way in prompting:
        expect_room_to_answer(way, records, evaluator.manifest.max_new_tokens, suite)


def answer_records(
    evaluator: SelfEvaluator,
    records: Sequence[QARecord],
    progress: Progress,
    suite: Suite = _NOTHING,
) -> list[JudgedAnswer]:
    """Answer the records as the evaluator does by itself, and judge the answers; graded is none.

    Raises:
        InputError: the evaluator was fitted to the log-likelihoods of a chain, or a record does not fit its window.
    """
    expect_answerable(evaluator, records, suite)
    manifest = evaluator.manifest
    with progress:
        return answer_and_judge(
            evaluator.aspire,
            records,
            num_beams=manifest.num_beams,
            max_new_tokens=manifest.max_new_tokens,
            progress=progress,
            suite=suite,
        )


def scored_lines(
    evaluator: SelfEvaluator, judged: Sequence[JudgedAnswer], *, are_graded: bool = True
) -> Iterator[dict[str, Any]]:
    """One object an answer: what `aspire-guard score` writes, its label, and by name the baselines' scores of it.

    Before they are graded the label is None.
    """
    for answer in judged:
        score = evaluator.blended(answer.log_likelihood, answer.log_p_correct)
        texts = {"id": answer.record.id, "question": answer.record.question, "answer": answer.text}
        baselines = {name: priced.score for name, priced in answer.baselines.items()}
        label = answer.correct if are_graded else None
        verdict = {"evaluator": evaluator.manifest.scorer, "correct": label, "baselines": baselines}
        yield texts | score.model_dump() | verdict


def evaluate(
    evaluator: SelfEvaluator, judged: Sequence[JudgedAnswer], suite: Suite = _NOTHING, pretrained: Block | None = None
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


def compare(
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


def _aspire_report(evaluator: SelfEvaluator, judged: Sequence[JudgedAnswer], ranking: Ranking) -> ScoreReport:
    lm, self_eval = evaluator.aspire.lm, evaluator.aspire.self_eval
    tokens = [len(self_eval.vectors(lm, a.record.question, a.text)) for a in judged] if self_eval else [0]
    return score_report(ranking, Cost(generations=0, forward_passes=1, tokens=fmean(tokens)))


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


def _tokens(batch: Answered) -> list[int]:
    prompts = batch.decoded.prompts.lengths[:, 0].tolist()
    generated = (sum(beam.tokens for beam in beams) for beams in batch.decoded.beams)
    return [prompt + tokens for prompt, tokens in zip(prompts, generated, strict=True)]
