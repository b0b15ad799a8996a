"""From questions to judged and graded answers, given by the evaluator's own model or by a chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_trainers.correctness import Correctness
from aspire_trainers.data.chain_answers import ChainAnswers, have_likelihoods
from aspire_trainers.data.sampled_answers import drop_repetitions
from aspire_trainers.evaluation.baselines import NO_BASELINES, AnsweredBatch, Suite
from aspire_trainers.evaluation.context_window import check_answering_window
from aspire_trainers.evaluation.few_shot import FewShotPrompting
from aspire_trainers.evaluation.judged_answer import JudgedAnswer
from aspire_trainers.evaluation.prompting import AdaptedPrompting, Prompting
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress

_BATCH_SIZE = 16


def check_answerable(
    evaluator: SelfEvaluator,
    records: Sequence[QARecord],
    suite: Suite = NO_BASELINES,
    *,
    pretrained: bool = False,
) -> None:
    """Check that the evaluator can answer the records by itself.

    Args:
        suite: the baselines that will score the answers.
        pretrained: check that its pre-trained model can answer them as well.

    Raises:
        InputError: the evaluator was fitted to the log-likelihoods or to rated answers of a chain, or a record does not
            fit its window.
    """
    evaluator.check_own_likelihood()
    evaluator.check_scores_by_g()
    promptings: list[Prompting] = [AdaptedPrompting(evaluator.aspire)]
    if pretrained:
        promptings.append(FewShotPrompting(evaluator.aspire.lm))
    for prompting in promptings:
        check_answering_window(prompting, records, evaluator.manifest.max_new_tokens, suite)


def answer_records(
    evaluator: SelfEvaluator,
    records: Sequence[QARecord],
    progress: Progress,
    suite: Suite = NO_BASELINES,
) -> list[JudgedAnswer]:
    """Answer the records with the evaluator's own model and settings, and judge the answers without grading them.

    Raises:
        InputError: the evaluator was fitted to the log-likelihoods of a chain, or a record does not fit its window.
    """
    check_answerable(evaluator, records, suite)
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


@torch.inference_mode()
def answer_and_judge(
    aspire: AspireLM,
    records: Sequence[QARecord],
    *,
    num_beams: int,
    max_new_tokens: int,
    progress: Progress,
    suite: Suite = NO_BASELINES,
) -> list[JudgedAnswer]:
    """Answer every record under θp, and judge the best beam with θs on the states of its generation.

    The answers are not graded yet.
    """
    judged: dict[str, JudgedAnswer] = {}
    progress.start(len(records))
    batches = suite.answer_in_batches(
        AdaptedPrompting(aspire), records, num_beams=num_beams, max_new_tokens=max_new_tokens
    )
    for batch in batches:
        for answer in _judge_batch(aspire, batch, suite):
            judged[answer.record.id] = answer
        progress.advance(by=len(batch.records))
    return [judged[record.id] for record in records]


def _judge_batch(aspire: AspireLM, batch: AnsweredBatch, suite: Suite) -> list[JudgedAnswer]:
    decoded = batch.decoded
    exchanges = [
        [(record.question, text)] for record, text in zip(batch.records, decoded.texts, strict=True)
    ]
    logits = aspire.verdict_logits(decoded.states, exchanges)
    log_p_correct = logits.log_softmax(-1)[:, 0].tolist()
    tokens = batch.count_answer_tokens()
    baselines = suite.score(batch)
    return [
        JudgedAnswer(
            record=record,
            text=decoded.texts[index],
            beams=tuple(drop_repetitions(decoded.beams[index])),
            log_likelihood=decoded.log_likelihoods[index],
            log_p_correct=log_p_correct[index],
            tokens=tokens[index],
            baselines=baselines[index],
        )
        for index, record in enumerate(batch.records)
    ]


def grade_answers(judged: Sequence[JudgedAnswer], correctness: Correctness) -> list[JudgedAnswer]:
    """Return the answers with their grades.

    All answers are graded at once, so that a file of labels names everything that is missing in it.

    Raises:
        InputError: an answer can't be graded.
    """
    grades = correctness.grade([(answer.record, answer.text) for answer in judged])
    return [replace(answer, correct=grade) for answer, grade in zip(judged, grades, strict=True)]


class _GivenAnswer(NamedTuple):
    """An answer of a chain, and the log-likelihood in nats that the chain's model reported, if any."""

    record: QARecord
    text: str
    log_likelihood: float | None


def judge_chain_answers(
    aspire: AspireLM,
    chain_answers: Sequence[ChainAnswers],
    correctness: Correctness,
    progress: Progress,
) -> list[JudgedAnswer]:
    """Judge and grade every answer of a chain.

    The reported likelihoods count if the chain's model reported one for every answer. Otherwise the evaluator's own
    likelihoods count.
    """
    uses_reported = have_likelihoods(chain_answers)
    answers = _list_given_answers(chain_answers)
    grades = correctness.grade([(answer.record, answer.text) for answer in answers])
    judged = []
    progress.start(len(answers))
    for start in range(0, len(answers), _BATCH_SIZE):
        batch = answers[start : start + _BATCH_SIZE]
        batch_grades = grades[start : start + _BATCH_SIZE]
        exchanges = [(given.record.question, given.record.context, given.text) for given in batch]
        own_likelihoods, log_ps = aspire.score(exchanges)
        rows = zip(batch, batch_grades, own_likelihoods.tolist(), log_ps.tolist(), strict=True)
        for answer, grade, own_likelihood, log_p_correct in rows:
            reported = answer.log_likelihood if uses_reported else None
            judged.append(
                JudgedAnswer(
                    record=answer.record,
                    text=answer.text,
                    beams=(answer.text,),
                    log_likelihood=own_likelihood if reported is None else reported,
                    log_p_correct=log_p_correct,
                    correct=grade,
                )
            )
        progress.advance(by=len(batch))
    return judged


def _list_given_answers(chain_answers: Sequence[ChainAnswers]) -> list[_GivenAnswer]:
    listed = []
    for answers in chain_answers:
        for text, log_likelihood in zip(answers.texts, answers.log_likelihoods, strict=True):
            listed.append(_GivenAnswer(answers.record, text, log_likelihood))
    return listed
