"""Answers with the evaluator's judgement: the model's own, and those that a chain gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_trainers.correctness import Correctness
from aspire_trainers.data.chain_answers import ChainAnswers, have_likelihoods
from aspire_trainers.data.sampled_answers import drop_repetitions
from aspire_trainers.evaluation.baselines import AnsweredBatch, Suite
from aspire_trainers.evaluation.context_window import check_answering_window
from aspire_trainers.evaluation.few_shot import FewShot
from aspire_trainers.evaluation.judged_answer import JudgedAnswer
from aspire_trainers.evaluation.prompting import Adapted, Prompting
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress

_NOTHING = Suite()


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
    for batch in suite.answers(
        Adapted(aspire), records, num_beams=num_beams, max_new_tokens=max_new_tokens
    ):
        decoded = batch.decoded
        texts = [
            [(record.question, text)]
            for record, text in zip(batch.records, decoded.texts, strict=True)
        ]
        log_p = aspire.verdict_logits(decoded.states, texts).log_softmax(-1)[:, 0].tolist()
        tokens, baselines = _tokens(batch), suite.scores(batch)
        for i, record in enumerate(batch.records):
            judged[record.id] = JudgedAnswer(
                record=record,
                text=decoded.texts[i],
                beams=tuple(drop_repetitions(decoded.beams[i])),
                log_likelihood=decoded.log_likelihoods[i],
                log_p_correct=log_p[i],
                tokens=tokens[i],
                baselines=baselines[i],
            )
        progress.advance(by=len(batch.records))
    return [judged[record.id] for record in records]


def grade_answers(judged: Sequence[JudgedAnswer], correctness: Correctness) -> list[JudgedAnswer]:
    """The answers with their grades: all at once, so that a file of labels tells of everything that is missing in it.

    Raises:
        InputError: an answer can't be graded.
    """
    grades = correctness.grade([(answer.record, answer.text) for answer in judged])
    return [
        replace(answer, correct=is_right) for answer, is_right in zip(judged, grades, strict=True)
    ]


def check_answerable(
    evaluator: SelfEvaluator,
    records: Sequence[QARecord],
    suite: Suite = _NOTHING,
    *,
    pretrained: bool = False,
) -> None:
    """Make sure that the evaluator can answer the records by itself, and its pre-trained model where that is asked for.

    Raises:
        InputError: it was fitted to the log-likelihoods of a chain, or a record does not fit its window.
    """
    evaluator.check_own_likelihood()
    prompting: list[Prompting] = [Adapted(evaluator.aspire)]
    if pretrained:
        prompting.append(FewShot(evaluator.aspire.lm))
    for way in prompting:
        check_answering_window(way, records, evaluator.manifest.max_new_tokens, suite)


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


def _tokens(batch: AnsweredBatch) -> list[int]:
    prompts = batch.decoded.prompts.lengths[:, 0].tolist()
    generated = (sum(beam.tokens for beam in beams) for beams in batch.decoded.beams)
    return [prompt + tokens for prompt, tokens in zip(prompts, generated, strict=True)]


_BATCH_SIZE = 16


def judge_chain_answers(
    aspire: AspireLM, given: Sequence[ChainAnswers], correctness: Correctness, progress: Progress
) -> list[JudgedAnswer]:
    """Judge every given answer; with the likelihoods that the chain's model reported if all have one, else our own."""
    reported = have_likelihoods(given)
    answers = [
        (answers.record, text, likelihood)
        for answers in given
        for text, likelihood in zip(answers.texts, answers.log_likelihoods, strict=True)
    ]
    grades = iter(correctness.grade([(record, text) for record, text, _ in answers]))
    judged = []
    progress.start(len(answers))
    for start in range(0, len(answers), _BATCH_SIZE):
        batch = answers[start : start + _BATCH_SIZE]
        own, log_p = aspire.score(
            [(record.question, record.context, text) for record, text, _ in batch]
        )
        for (record, text, likelihood), own_likelihood, log_p_correct in zip(
            batch, own.tolist(), log_p.tolist(), strict=True
        ):
            judged.append(
                JudgedAnswer(
                    record=record,
                    text=text,
                    beams=(text,),
                    log_likelihood=likelihood
                    if reported and likelihood is not None
                    else own_likelihood,
                    log_p_correct=log_p_correct,
                    correct=next(grades),
                )
            )
        progress.advance(by=len(batch))
    return judged
