"""The training of a judge: a θs that reaches over the prompt and the answer, and judges each sentence.

A label belongs to a sentence, or to an answer of several sentences, which is right if each of them is. The loss of a
passage is the mean over its labels of

    −log P(z | x, ŷ up to the sentence)       the sentence has the label z
    −log Π P(z_c | …) over the sentences      the answer is right
    −log (1 − Π P(z_c | …))                   the answer is wrong

plus `likelihood_weight` times the mean cross-entropy of the tokens of the right answers. Unlike in stage 3, gradients
pass through the whole sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.language_model import pad
from aspire_guard.lm.lora import Lora
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_trainers.config import JudgeConfig
from aspire_trainers.data.judged_passages import JudgedAnswer, JudgedPassage
from aspire_trainers.run.distributed import shard_mean_loss
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.adapter_trainer import AdapterTrainer, compute_mean_loss

# log P(z_c) of a wrong answer may round to 0, of which the log of the opposite would be −∞.
_LEAST_LOG_P_WRONG = -1e-4


def tune_judge(
    aspire: AspireLM,
    train: Sequence[JudgedPassage],
    validation: Sequence[JudgedPassage],
    config: JudgeConfig,
    *,
    checkpoint: str | Path,
    progress: Progress,
) -> AspireLM:
    """Train a judge on labelled answers, from the last checkpoint if there is one, and return the model with it."""
    judge = Lora.from_text(
        aspire.lm,
        config.text,
        rank=config.rank,
        seed=config.seed,
        target_modules=config.target_modules,
        first_layer=config.first_layer,
    )
    aspire = replace(aspire, task=None, self_eval=judge, reach="all")

    def loss(passages: Sequence[JudgedPassage]) -> Iterator[Tensor]:
        for passage in passages:
            yield judge_loss(aspire, passage, config.likelihood_weight) / len(passages)

    size = config.batch_size
    AdapterTrainer(
        adapter=judge,
        batches=[train[first : first + size] for first in range(0, len(train), size)],
        loss=lambda batch: shard_mean_loss(loss, batch),
        validate=lambda: compute_mean_loss(
            loss, [validation[first : first + size] for first in range(0, len(validation), size)]
        ),
        config=config,
        seed=config.seed,
        checkpoint=checkpoint,
        progress=progress,
    ).run()
    judge.requires_grad_(False)
    return aspire


def judge_loss(aspire: AspireLM, passage: JudgedPassage, likelihood_weight: float) -> Tensor:
    """Return the loss of the answers about a passage, in nats."""
    answers = passage.answers
    pieces = [_split(aspire, answer) for answer in answers]
    states, predictors = _read_answers(aspire, passage, [torch.cat(each) for each in pieces])
    log_p = _judge_sentences(aspire, passage, pieces, states)
    losses: list[Tensor] = []
    for answer, answer_log_p in zip(answers, log_p, strict=True):
        losses += _list_losses(answer, answer_log_p)
    loss = torch.stack(losses).mean()
    right = [i for i, answer in enumerate(answers) if answer.correct]
    if right and likelihood_weight:
        right_ids = [torch.cat(pieces[i]) for i in right]
        totals, counts = aspire.sum_log_likelihoods(predictors[right], right_ids)
        loss = loss - likelihood_weight * totals.sum() / counts.sum()
    return loss


def _split(aspire: AspireLM, answer: JudgedAnswer) -> list[Tensor]:
    """Return the ids of each sentence of an answer, `(tokens,)`."""
    reader = aspire.reader
    return [reader.sentence_ids(sentence) for sentence in reader.split_answer(answer.text)]


def _read_answers(
    aspire: AspireLM, passage: JudgedPassage, ids: Sequence[Tensor]
) -> tuple[PrefixStates, Tensor]:
    """Read the passage once, each question once, and the answers.

    Returns:
        The states of one row with a branch for each answer, and the hidden states that predict the tokens of each
        answer and its end, `(answers, longest + 1, hidden)`.
    """
    reader = aspire.reader
    questions = list(dict.fromkeys(answer.question for answer in passage.answers))
    prompts = reader.read_prompts([[(question, passage.context) for question in questions]])
    places = [questions.index(answer.question) for answer in passage.answers]
    states = prompts.select_branches(torch.tensor([places], device=prompts.visible.device))
    first = states.hidden[0, :, None]  # (answers, 1, hidden)
    embeddings, mask = pad([reader.lm.embed(each) for each in ids])
    states, hidden = reader.lm.extend(states, embeddings[None], mask[None])
    return states, torch.cat([first, hidden[0]], dim=1)


def _judge_sentences(
    aspire: AspireLM,
    passage: JudgedPassage,
    pieces: Sequence[Sequence[Tensor]],
    states: PrefixStates,
) -> list[Tensor]:
    """Return log P(z_c) and log P(z_w) after each sentence of each answer, `(sentences, 2)`.

    Args:
        aspire: the model with the judge.
        passage: the answers.
        pieces: the ids of the sentences of each answer.
        states: the states of the whole answers, a branch each.
    """
    branches: list[int] = []  # the answer of each sentence
    ends: list[int] = []  # the tokens of the branch up to the end of the sentence
    texts: list[tuple[str, str]] = []
    for i, answer in enumerate(passage.answers):
        end = int(states.lengths[0, i]) - sum(map(len, pieces[i]))
        for ids in pieces[i]:
            end += len(ids)
            branches.append(i)
            ends.append(end)
            texts.append((answer.question, answer.text))
    device = states.visible.device
    sentences = states.select_branches(torch.tensor([branches], device=device))
    sentences = sentences.truncate_branches(torch.tensor([ends], device=device))
    log_p = aspire.verdict_logits(sentences, [texts]).log_softmax(-1)  # (all sentences, 2)
    return list(torch.split(log_p, list(map(len, pieces))))


def _list_losses(answer: JudgedAnswer, log_p: Tensor) -> list[Tensor]:
    """Return the losses of an answer's labels in nats, given log P(z_c) and log P(z_w) `(sentences, 2)`."""
    if answer.labels:
        return [-log_p[i, 0 if is_right else 1] for i, is_right in enumerate(answer.labels)]
    log_p_right = log_p[:, 0].sum()
    if answer.correct:
        return [-log_p_right]
    return [-torch.log1p(-log_p_right.clamp(max=_LEAST_LOG_P_WRONG).exp())]
