"""Stage 3: the objective by hand from full forward passes, and θs alone that moves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.testing import FAMILIES, Family, tiny_evaluator
from aspire_trainers.config import SelfEvaluationConfig
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.adapter_trainer import make_adapter
from aspire_trainers.stages.labelling import LabelledAnswers
from aspire_trainers.stages.self_evaluation import (
    StateCache,
    compute_answer_states,
    self_evaluation_loss,
    tune_self_evaluation,
)

CONFIG = SelfEvaluationConfig(
    method="soft_prompt",
    length=3,
    text="Right?",
    learning_rate=0.01,
    epochs=2,
    batch_size=2,
    answers=3,
    validate_every=2,
    checkpoint_every=1,
)
BATCH = [
    LabelledAnswers(
        "Who?", "A passage.", ("Ada", "Bob", "Eve"), (True, False, False), (1, 1 / 2, 1 / 2)
    ),
    LabelledAnswers("Who else?", "A passage.", ("nobody at all", "Bob"), (True, False), (1, 1)),
    LabelledAnswers("Where?", None, ("", "here"), (False, False), (0.5, 0.5)),
]


ITEMS = [
    LabelledAnswers(
        f"Which {i}?",
        f"Passage {i // 2}.",
        ("Ada", "Bob", "ada" if i % 3 else "Eve"),
        (True, False, i % 3 > 0),
        (1.0, 1.0, 1.0),
    )
    for i in range(6)
]
TRAIN = [ITEMS[:2], ITEMS[2:4], ITEMS[4:]]


def _tune(aspire: AspireLM, folder: Path, **changes: Any) -> Adapter:
    folder.mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "train": TRAIN,
        "validation": [],
        "config": CONFIG,
        "seed": 0,
    } | changes
    return tune_self_evaluation(
        replace(aspire, self_eval=None),
        checkpoint=folder / "self_eval.safetensors",
        progress=Progress("test"),
        **values,
    )


def _compute_log_p(aspire: AspireLM, question: str, context: str | None, answer: str) -> Tensor:
    """Compute log P(z_c) and log P(z_w) by a full forward pass over `[θp ; x ; ŷ ; θs]`."""
    assert aspire.task is not None
    assert aspire.self_eval is not None
    tokenizer = aspire.lm.tokenizer
    ids = tokenizer("").input_ids
    passage = f"Passage: {context}\n" if context else ""
    for piece in (passage, f"Question: {question}\nAnswer:", f" {answer}" if answer else ""):
        ids = ids + tokenizer(piece, add_special_tokens=False).input_ids
    layout = [
        aspire.task.vectors(aspire.lm),
        aspire.lm.embed(torch.tensor(ids)),
        aspire.self_eval.vectors(aspire.lm),
    ]
    words = [
        tokenizer(word, add_special_tokens=False).input_ids[0] for word in (" correct", " wrong")
    ]
    logits: Tensor = aspire.lm.model(inputs_embeds=torch.cat(layout)[None]).logits[0, -1, words]
    return logits.log_softmax(-1)


def _copy_values(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}


def _compute_loss(
    aspire: AspireLM, batch: list[LabelledAnswers], token_budget: int = 10_000
) -> Tensor:
    states = compute_answer_states(aspire, batch)
    parts = list(self_evaluation_loss(aspire, batch, states, token_budget))
    return torch.stack(parts).sum()


def _compute_loss_by_hand(aspire: AspireLM, batch: list[LabelledAnswers]) -> Tensor:
    """Compute the mean over questions of the mean −log P(z_c) over S_c plus the mean −log P(z_w) over S_w."""
    total = torch.zeros(())
    for item in batch:
        for label in (True, False):
            texts = [
                text
                for text, right in zip(item.texts, item.is_right, strict=True)
                if right is label
            ]
            losses = [
                -_compute_log_p(aspire, item.question, item.context, text)[0 if label else 1]
                for text in texts
            ]
            total = total + (torch.stack(losses).mean() if losses else 0.0)
    return total / len(batch)


def test_the_loss_is_the_objective_of_the_paper(family: Family) -> None:
    """The batch has questions with different numbers of right and wrong answers, and one without right answers."""
    aspire = tiny_evaluator(family).aspire
    with torch.no_grad():
        torch.testing.assert_close(
            _compute_loss(aspire, BATCH), _compute_loss_by_hand(aspire, BATCH), atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("answer", ["", " "])
def test_a_batch_of_blank_answers_is_learned_from(answer: str) -> None:
    """A chain may say nothing if it does not know the answer, and the last batch may hold one question."""
    aspire = tiny_evaluator().aspire
    batch = [LabelledAnswers("Who?", "A passage.", (answer,), (True,), (1.0,))]
    with torch.no_grad():
        torch.testing.assert_close(
            _compute_loss(aspire, batch),
            _compute_loss_by_hand(aspire, batch[:1]),
            atol=1e-4,
            rtol=0,
        )


def test_the_gradient_matches_full_forward_passes(family: Family) -> None:
    """The states before θs have no gradient, and the gradient of θs is the same."""
    aspire = tiny_evaluator(family).aspire
    assert aspire.self_eval is not None
    ((_, weight),) = aspire.self_eval.requires_grad_(True).named_parameters()
    (found,) = torch.autograd.grad(_compute_loss(aspire, BATCH), [weight])
    (expected,) = torch.autograd.grad(_compute_loss_by_hand(aspire, BATCH), [weight])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("token_budget", [1, 90, 10_000])
def test_a_token_budget_parts_the_loss_and_keeps_its_value(token_budget: int) -> None:
    """A part holds answers of several questions and passages, as many as the longest allows, or a single one."""
    aspire = tiny_evaluator().aspire
    states = compute_answer_states(aspire, BATCH)
    with torch.no_grad():
        parts = list(self_evaluation_loss(aspire, BATCH, states, token_budget))
    answers_a_part = max(1, token_budget // int(states.lengths.max()))
    assert len(parts) == -(-7 // answers_a_part)
    torch.testing.assert_close(
        torch.stack(parts).sum(), _compute_loss_by_hand(aspire, BATCH), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(
    ("family", "task", "method"),
    [
        *itertools.product(["llama"], ["soft_prompt", "lora", "none"], ["soft_prompt", "lora"]),
        *itertools.product(FAMILIES[1:], ["lora"], ["lora"]),
    ],
)
def test_only_the_self_evaluation_moves(
    family: Family, task: Any, method: Any, tmp_path: Path
) -> None:
    """Every matrix of θs changes. θp and the base model stay as they are and get no gradient."""
    aspire = replace(tiny_evaluator(family, task=task).aspire, self_eval=None)
    config = CONFIG.model_copy(update={"method": method})
    # Even a θp that could be trained is left alone.
    frozen = (
        dict(aspire.task.requires_grad_(True).named_parameters()) if aspire.task is not None else {}
    )
    before = _copy_values(frozen | aspire.lm.model.state_dict())
    moved = dict(_tune(aspire, tmp_path / "run", config=config).named_parameters())
    start = dict(make_adapter(aspire.lm, config, seed=0).named_parameters())
    assert all(not torch.equal(moved[name], start[name]) for name in start)
    assert all(
        torch.equal(value, before[name])
        for name, value in (frozen | aspire.lm.model.state_dict()).items()
    )
    assert all(weight.grad is None for weight in (*frozen.values(), *aspire.lm.model.parameters()))


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    """θs learns to tell the right answers of its own batches from the wrong ones."""
    aspire = tiny_evaluator().aspire
    batches = [BATCH]
    config = CONFIG.model_copy(update={"epochs": 15})
    self_eval = _tune(aspire, tmp_path / "run", train=batches, config=config)
    start = make_adapter(aspire.lm, CONFIG, seed=0)
    with torch.no_grad():
        before, after = (
            float(_compute_loss(replace(aspire, self_eval=prompt), BATCH))
            for prompt in (start, self_eval)
        )
    assert after < before - 0.1


def test_equal_seeds_give_equal_weights_and_others_don_t(tmp_path: Path) -> None:
    """Equal seeds give bit-equal weights."""
    aspire = tiny_evaluator().aspire
    one, two, other = (
        _tune(aspire, tmp_path / name, seed=s) for name, s in (("a", 0), ("b", 0), ("c", 1))
    )
    (a, b, c) = (next(iter(adapter.named_parameters()))[1] for adapter in (one, two, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_validation_keeps_the_best_weights(tmp_path: Path) -> None:
    """A rate at which θs only gets worse on the held-out batches leaves an earlier θs in place."""
    aspire = tiny_evaluator().aspire
    swapped = []
    for item in BATCH[:2]:
        swapped.append(replace(item, is_right=tuple(not right for right in item.is_right)))
    opposite = [swapped]
    config = CONFIG.model_copy(update={"epochs": 8, "validate_every": 1, "learning_rate": 0.05})
    kept = _tune(aspire, tmp_path / "kept", train=[BATCH[:2]], validation=opposite, config=config)
    last = _tune(aspire, tmp_path / "last", train=[BATCH[:2]], config=config)
    with torch.no_grad():
        kept_loss, last_loss = (
            float(_compute_loss(replace(aspire, self_eval=prompt), opposite[0]))
            for prompt in (kept, last)
        )
    assert kept_loss < last_loss


def test_cached_states_give_the_same_weights_as_computed_states(tmp_path: Path) -> None:
    """The weights are bit-equal, whether all states fit the cache, some or none."""
    aspire = tiny_evaluator().aspire
    runs = []
    for gib in (0.0, 40_000 / 2**30, 1.0):
        config = CONFIG.model_copy(update={"states_gib": gib})
        runs.append(dict(_tune(aspire, tmp_path / f"{gib}", config=config).named_parameters()))
    assert all(torch.equal(runs[0][name], run[name]) for run in runs[1:] for name in run)


def test_states_are_cached_within_the_budget() -> None:
    """The first batches that fit are cached, and the others are computed at every call."""
    aspire = tiny_evaluator().aspire
    first, second = BATCH[:2], BATCH[2:]
    size = sum(
        tensor.nbytes for layer in compute_answer_states(aspire, first).layers for tensor in layer
    )
    states = StateCache(aspire, size / 2**30)
    assert states.get(first) is states.get(first)
    assert states.get(second) is not states.get(second)
