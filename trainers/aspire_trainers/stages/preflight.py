"""The checks before training: the settings of every stage suit the model, and every record fits its window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aspire_guard.errors import BaseModelError, InputError
from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.base_model import describe_error
from aspire_guard.lm.lora import fill_text
from aspire_guard.lm.shared_prefixes import find_first_turns
from aspire_trainers.evaluation.context_window import (
    check_fit,
    count_adapter_tokens,
    count_longest_answer,
)
from aspire_trainers.evaluation.prompting import AdaptedPrompting
from aspire_trainers.record import QARecord
from aspire_trainers.stages.adapter_trainer import make_adapter
from aspire_trainers.stages.adversarial import ANSWER, NEUTRAL, TRAINING
from aspire_trainers.stages.labelling import LabelledAnswers
from aspire_trainers.stages.self_evaluation import StateCache, self_evaluation_loss
from aspire_trainers.stages.task_tuning import task_loss

if TYPE_CHECKING:
    from aspire_trainers.config import FitConfig, TrainingConfig
    from aspire_trainers.data.training_data import TrainingData

_EXAMPLE = QARecord("example", "When did it open?", "The railway opened in 1830.", ("1830",))


def check_adapters(aspire: AspireLM, config: TrainingConfig) -> None:
    """Check that stage 1 and stage 3 can train their adapters: make both, and compute a gradient of each.

    Raises:
        InputError: the text of an adapter has no token, or a LoRA finds no module to change.
        BaseModelError: the model fails to compute a gradient.
    """
    stage = config.self_evaluation
    start = None if stage.from_scratch else aspire.self_eval
    self_eval = _make_adapter(aspire, "self_evaluation", stage, config.seed, start)
    task = aspire.task
    if config.task.method != "none":
        task = _make_adapter(aspire, "task", config.task, config.seed, aspire.task)
        tuned = replace(aspire, task=task)
        _check_gradient(task, lambda: task_loss(tuned, [_EXAMPLE]))
        task.requires_grad_(False)
    judge = replace(aspire, task=task, self_eval=self_eval)
    answers = LabelledAnswers(
        question=_EXAMPLE.question,
        context=_EXAMPLE.context,
        texts=("1830", "Paris"),
        is_right=(True, False),
        weights=(0.5, 0.5),
    )
    states = StateCache(judge, gib=0.0)
    _check_gradient(
        self_eval,
        lambda: torch.stack(
            list(self_evaluation_loss(judge, [answers], states.get([answers]), stage.token_budget))
        ).sum(),
    )


def _make_adapter(
    aspire: AspireLM, name: str, stage: FitConfig, seed: int, start: Adapter | None
) -> Adapter:
    """Make the adapter that a stage starts from."""
    text = fill_text(stage.text, "", "")
    if start is None and not len(aspire.lm.token_ids(text)):
        raise InputError(
            f"expected a text with a token in [{name}], found {stage.text!r}; choose another text"
        )
    return make_adapter(aspire.lm, stage, seed=seed, start=start).requires_grad_()


def _check_gradient(adapter: Adapter, compute_loss: Callable[[], Tensor]) -> None:
    """Check that a loss has a gradient in an adapter, which is left without it.

    Raises:
        BaseModelError: it has no gradient, or one that is not finite.
    """
    parameters = [parameter for _, parameter in adapter.named_parameters()]
    found = "no gradient that is finite"
    try:
        gradients = torch.autograd.grad(compute_loss(), parameters, allow_unused=True)
    except InputError:
        raise
    except Exception as error:
        # Nearly anything may go wrong in an architecture that nobody trains.
        found = describe_error(error)
        gradients = ()
    known = [gradient for gradient in gradients if gradient is not None]
    if not known or not all(gradient.isfinite().all() for gradient in known):
        raise BaseModelError(
            f"expected a base model whose adapters can be trained, found {found} for a {adapter.method}; "
            "choose another model, method or target_modules"
        )


def check_context_window(aspire: AspireLM, config: TrainingConfig, data: TrainingData) -> None:
    """Check that every record, with the adapters and the longest answer that θs may see, fits the model's window.

    Raises:
        InputError: a record does not fit. The message names it.
    """
    stage = config.self_evaluation
    start = None if stage.from_scratch else aspire.self_eval
    # The length of a prompt includes a θp that the model already has.
    task_tokens = 0 if aspire.task is not None else count_adapter_tokens(aspire, config.task, None)
    for record, answer_tokens in chain(
        _measure_training_answers(aspire, config, data),
        _measure_validation_answers(aspire, config, data),
    ):
        suffix_tokens = count_adapter_tokens(aspire, stage, start, record.question, answer_tokens)
        check_fit(AdaptedPrompting(aspire), record, task_tokens + answer_tokens + suffix_tokens)


def _measure_training_answers(
    aspire: AspireLM, config: TrainingConfig, data: TrainingData
) -> Iterator[tuple[QARecord, int]]:
    """Yield each training record with the tokens of the longest answer that θs may see."""
    stage = config.self_evaluation
    distractors = _count_longest_references(aspire, data.train) if stage.distractors else {}
    neutral_phrases = _measure_phrases(aspire, [NEUTRAL])
    all_phrases = _measure_phrases(aspire, TRAINING)
    for record in data.train:
        target = _count_target(aspire, config, record)
        given = _count_given_answer(aspire, config, data, record)
        other = max(given, distractors.get(record.id, 0))
        if stage.persuasion:
            # Right answers are never shown with an argument.
            target = _count_with_phrase(target, neutral_phrases)
            other = _count_with_phrase(other, all_phrases)
        yield record, max(target, other)


def _measure_validation_answers(
    aspire: AspireLM, config: TrainingConfig, data: TrainingData
) -> Iterator[tuple[QARecord, int]]:
    """Yield each validation record with the tokens of its longest answer.

    Validation answers get no additions and no distractors.
    """
    for record in data.validation:
        target = _count_target(aspire, config, record)
        given = _count_given_answer(aspire, config, data, record)
        yield record, max(target, given)


def _count_target(aspire: AspireLM, config: TrainingConfig, record: QARecord) -> int:
    """Count the tokens of the record's reference or the refusal, if a stage learns from them."""
    if not config.self_evaluation.references and config.task.method == "none":
        return 0
    targets = [*record.references[:1], config.task.refusal or ""]
    return count_longest_answer(aspire, targets)


def _count_given_answer(
    aspire: AspireLM, config: TrainingConfig, data: TrainingData, record: QARecord
) -> int:
    """Count the tokens of the longest answer that may be sampled, or that a chain gave."""
    chain_answers = data.get_chain_answers([record])
    texts = chain_answers[0].texts if chain_answers else ()
    return max(config.sampling.max_new_tokens, count_longest_answer(aspire, texts))


def _count_longest_references(aspire: AspireLM, records: Sequence[QARecord]) -> dict[str, int]:
    """Map each record id to the tokens of the longest reference among the questions about its passage."""
    first_turns = find_first_turns(record.context for record in records)
    longest: dict[str | None, int] = {}
    for record in records:
        if record.context is not None:
            passage = first_turns[record.context]
            tokens = count_longest_answer(aspire, record.references[:1])
            longest[passage] = max(longest.get(passage, 0), tokens)
    longest_references = {}
    for record in records:
        passage = first_turns[record.context]
        longest_references[record.id] = longest.get(passage, 0)
    return longest_references


def _measure_phrases(aspire: AspireLM, families: Iterable[str]) -> list[tuple[int, int]]:
    """Count for each phrase its own tokens, and how often it repeats the answer."""
    measures = []
    for phrase in chain.from_iterable(TRAINING[family] for family in families):
        tokens = count_longest_answer(aspire, [phrase.replace(ANSWER, "")])
        measures.append((tokens, phrase.count(ANSWER)))
    return measures


def _count_with_phrase(answer_tokens: int, phrases: Sequence[tuple[int, int]]) -> int:
    """Count the tokens of an answer together with the phrase that makes it longest."""
    return max(tokens + repetitions * answer_tokens for tokens, repetitions in phrases)
