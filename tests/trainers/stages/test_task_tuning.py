"""Stage 1: the loss against that of transformers, and θp alone that moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.testing import Family, tiny_evaluator
from aspire_trainers.config import TaskTuningConfig
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.adapter_trainer import make_adapter
from aspire_trainers.stages.task_tuning import _split_by_token_budget, task_loss, tune_task

RECORDS = [
    QARecord(f"{i}-{j}", f"Which {j}?", f"Passage number {i}.", (f"no. {i}{j}", "another"))
    for i in range(4)
    for j in range(2)
]
CONFIG = TaskTuningConfig(
    length=3, text="Answer", epochs=2, batch_size=4, validate_every=2, checkpoint_every=1
)


def _make_aspire(family: Family = "llama") -> AspireLM:
    return replace(tiny_evaluator(family).aspire, self_eval=None)


def _tune(aspire: AspireLM, folder: Path, **changes: Any) -> Adapter:
    folder.mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "train": RECORDS,
        "validation": RECORDS[:2],
        "config": CONFIG,
        "seed": 0,
    } | changes
    start = replace(aspire, task=None)
    return tune_task(
        start, checkpoint=folder / "task.safetensors", progress=Progress("test"), **values
    )


def _join_weights(adapter: Adapter) -> Tensor:
    return torch.cat([weight.flatten() for _, weight in adapter.named_parameters()])


def _lay_out(aspire: AspireLM, record: QARecord) -> tuple[Tensor, Tensor]:
    """Spell out `[θp ; x ; y]` with the end token, and its labels: the loss is on y and the end only."""
    assert aspire.task is not None
    tokenizer = aspire.lm.tokenizer
    prompt = tokenizer("").input_ids
    for piece in (f"Passage: {record.context}\n", f"Question: {record.question}\nAnswer:"):
        prompt = prompt + tokenizer(piece, add_special_tokens=False).input_ids
    answer = [
        *tokenizer(f" {record.references[0]}", add_special_tokens=False).input_ids,
        tokenizer.eos_token_id,
    ]
    embeddings = torch.cat(
        [aspire.task.vectors(aspire.lm), aspire.lm.embed(torch.tensor([*prompt, *answer]))]
    )
    return embeddings, torch.tensor([-100] * (len(embeddings) - len(answer)) + answer)


def _compute_transformers_loss(aspire: AspireLM, records: Sequence[QARecord]) -> Tensor:
    embeddings, labels = zip(*(_lay_out(aspire, record) for record in records), strict=True)
    loss: Tensor = aspire.lm.model(
        inputs_embeds=torch.stack(embeddings), labels=torch.stack(labels)
    ).loss
    return loss


def test_the_loss_matches_transformers(family: Family) -> None:
    """The mean cross-entropy of the references' tokens, for records of equal lengths that need no padding."""
    aspire = _make_aspire(family)
    with torch.no_grad():
        torch.testing.assert_close(
            task_loss(aspire, RECORDS),
            _compute_transformers_loss(aspire, RECORDS),
            atol=1e-4,
            rtol=0,
        )


def test_the_gradient_matches_transformers(family: Family) -> None:
    """θp learns the same from shared states as from ordinary forward passes."""
    aspire = _make_aspire(family)
    assert aspire.task is not None
    aspire.task.requires_grad_(True)
    (found,) = torch.autograd.grad(task_loss(aspire, RECORDS), [aspire.task.vectors(aspire.lm)])
    (expected,) = torch.autograd.grad(
        _compute_transformers_loss(aspire, RECORDS), [aspire.task.vectors(aspire.lm)]
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_records_of_different_lengths_are_weighed_by_their_tokens(family: Family) -> None:
    """The mean is over all reference tokens of the batch."""
    aspire = _make_aspire(family)
    records = [
        RECORDS[0],
        QARecord("long", "A longer question?", None, ("a much longer reference",)),
        QARecord("short", "Why?", "Because of a longer passage than the others have.", ("x",)),
    ]
    total, tokens = 0.0, 0
    with torch.no_grad():
        for record in records[:1] + records[2:]:
            count = len(aspire.lm.token_ids(f" {record.references[0]}")) + 1
            total += float(_compute_transformers_loss(aspire, [record])) * count
            tokens += count
        closed_book, _ = _lay_out(aspire, replace(records[1], context=""))
        ids = aspire.lm.token_ids("Passage: \n")
        start = len(aspire.lm.start_ids) + 4
        closed_book = torch.cat([closed_book[:start], closed_book[start + len(ids) :]])
        answer = aspire.lm.token_ids(" a much longer reference")
        target = torch.cat([answer, torch.tensor([aspire.lm.tokenizer.eos_token_id])])
        labels = torch.cat([torch.full((len(closed_book) - len(target),), -100), target])
        loss = aspire.lm.model(inputs_embeds=closed_book[None], labels=labels[None]).loss
        total, tokens = total + float(loss) * len(target), tokens + len(target)
        assert float(task_loss(aspire, records)) == pytest.approx(total / tokens, abs=1e-4)


@pytest.mark.parametrize("method", ["soft_prompt", "lora"])
def test_only_the_task_adapter_moves(family: Family, method: Any, tmp_path: Path) -> None:
    """Every matrix of θp changes, and no parameter of the base model changes or has a gradient."""
    aspire, config = _make_aspire(family), CONFIG.model_copy(update={"method": method})
    before = {name: value.clone() for name, value in aspire.lm.model.state_dict().items()}
    moved = dict(_tune(aspire, tmp_path / "run", config=config, validation=[]).named_parameters())
    start = dict(make_adapter(aspire.lm, config, seed=0).named_parameters())
    assert all(not torch.equal(moved[name], start[name]) for name in start)
    for name, value in aspire.lm.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in aspire.lm.model.parameters())


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    """The loss on the training records ends well below that of the start."""
    aspire = _make_aspire()
    task = _tune(
        aspire, tmp_path / "run", config=CONFIG.model_copy(update={"epochs": 10}), validation=[]
    )
    start = make_adapter(aspire.lm, CONFIG, seed=0)
    with torch.no_grad():
        before, after = (
            float(task_loss(replace(aspire, task=prompt), RECORDS)) for prompt in (start, task)
        )
    assert after < before - 0.02


def test_equal_seeds_give_equal_weights_and_others_don_t(tmp_path: Path) -> None:
    """Equal seeds give bit-equal weights."""
    one, two, other = (
        _join_weights(_tune(_make_aspire(), tmp_path / name, seed=seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_a_token_budget_leaves_the_step_as_it_is(tmp_path: Path) -> None:
    """Records of different lengths weigh the same in parts of one record, of some or of all."""
    longer = QARecord(
        "long", "Which of all?", "A passage that is longer.", ("a longer reference", "another")
    )
    runs = []
    for budget in (1, 60, 10_000):
        config = CONFIG.model_copy(update={"token_budget": budget})
        folder = tmp_path / f"{budget}"
        runs.append(
            _join_weights(_tune(_make_aspire(), folder, train=[*RECORDS, longer], config=config))
        )
    for run in runs[:2]:
        torch.testing.assert_close(run, runs[2], atol=1e-5, rtol=0)


def test_a_pass_runs_no_more_tokens_than_the_budget() -> None:
    """Padding counts. A passage counts once, and so does a conversation, as each runs once."""
    aspire = _make_aspire()
    story = "It was told to all who came."
    turns = [story, f"{story}\nQ: Who?", f"{story}\nQ: Who?\nA: Ada", "Another, told to few."]
    batch = [
        QARecord(f"{i}", "Who then?", turn, ("Ada",))
        for i, turn in enumerate(turns)
        for _ in range(4)
    ]
    passes: list[int] = []
    aspire.lm.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(kwargs["inputs_embeds"].shape[:2].numel()),
        with_kwargs=True,
    )
    for budget in (150, 300, 10_000):
        parts = list(_split_by_token_budget(budget, aspire, batch))
        assert [record for part in parts for record in part] == batch
        for part in parts:
            passes.clear()
            task_loss(aspire, part)
            assert sum(passes) <= budget
    assert len(parts) == 1
    assert sum(passes) < 700


def test_records_without_reference_are_left_out(tmp_path: Path) -> None:
    """Records without a reference are used neither for training nor for validation."""
    unanswerable = [QARecord(f"u{i}", "Which?", "Another passage.", ()) for i in range(6)]
    with_them = _tune(
        _make_aspire(),
        tmp_path / "with",
        train=RECORDS + unanswerable,
        validation=RECORDS[:2] + unanswerable,
    )
    without = _tune(_make_aspire(), tmp_path / "without")
    assert all(
        torch.equal(a, b)
        for (_, a), (_, b) in zip(
            with_them.named_parameters(), without.named_parameters(), strict=True
        )
    )


def test_a_refusal_is_the_target_without_a_reference(tmp_path: Path) -> None:
    """θp is bit-equal to one trained with the refusal in the data. Without a refusal such records are left out."""
    aspire = _make_aspire()
    unanswerable = [replace(record, references=()) for record in RECORDS[:3]]
    spelled_out = [replace(record, references=("unanswerable",)) for record in RECORDS[:3]]
    rest = RECORDS[3:]
    config = CONFIG.model_copy(update={"refusal": "unanswerable"})

    def weights(folder: str, **changes: Any) -> list[Tensor]:
        return [
            weight for _, weight in _tune(aspire, tmp_path / folder, **changes).named_parameters()
        ]

    (taught,) = weights(
        "taught", train=[*unanswerable, *rest], validation=unanswerable, config=config
    )
    (expected,) = weights("spelled", train=[*spelled_out, *rest], validation=spelled_out)
    assert torch.equal(taught, expected)
    (untaught,) = weights(
        "untaught", train=[*unanswerable, *rest], validation=[*unanswerable, *rest]
    )
    (expected,) = weights("left out", train=rest, validation=rest)
    assert torch.equal(untaught, expected)
