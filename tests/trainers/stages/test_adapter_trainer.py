"""The training loop: the same weights whenever it was killed, and the best of them at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aspire_guard.errors import InputError
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_trainers.config import FitConfig
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.adapter_trainer import AdapterTrainer

N_BATCHES, EPOCHS = 5, 3
STEPS = N_BATCHES * EPOCHS


class Killed(BaseException):
    """An error that nothing catches, as a signal."""


def _draw_targets() -> list[Tensor]:
    return list(torch.randn(N_BATCHES, 3, 4, generator=torch.Generator().manual_seed(0)))


def _make_adapter() -> SoftPrompt:
    return SoftPrompt(torch.zeros(3, 4))


def _make_trainer(adapter: SoftPrompt, folder: Path, **changes: Any) -> AdapterTrainer[Tensor]:
    """Make a run whose batches are targets, and whose loss is the squared distance to the target."""
    values: dict[str, Any] = {
        "adapter": adapter,
        "batches": _draw_targets(),
        "loss": lambda target: [((adapter.weight - target) ** 2).mean()],
        "validate": None,
        "config": _make_config(),
        "seed": 0,
        "checkpoint": folder / "stage.safetensors",
        "progress": Progress("test"),
    }
    return AdapterTrainer(**(values | changes))


def _make_config(**changes: Any) -> FitConfig:
    values: dict[str, Any] = {
        "method": "soft_prompt",
        "length": 3,
        "text": "x",
        "learning_rate": 0.1,
        "epochs": EPOCHS,
        "validate_every": 4,
        "checkpoint_every": 2,
    }
    return FitConfig(**(values | changes))


def _kill_at(step: int, compute: Callable[..., Any]) -> Callable[..., Any]:
    """Return `compute` with a kill in call number `step`, counted from 0."""
    calls = iter(range(step + 1))

    def wrapped(*arguments: Any) -> Any:
        if next(calls) == step:
            raise Killed
        return compute(*arguments)

    return wrapped


def _make_validation(adapter: SoftPrompt) -> Callable[[], float]:
    return lambda: float(((adapter.weight.detach() - 0.3) ** 2).mean())


def _train(folder: Path, **changes: Any) -> Tensor:
    folder.mkdir()
    adapter = _make_adapter()
    _make_trainer(adapter, folder, **changes).run()
    return adapter.weight.detach()


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("step", [0, 1, 2, STEPS - 1])
def test_a_run_killed_at_any_step_ends_with_the_same_weights(
    tmp_path: Path, step: int, validated: bool
) -> None:
    """After a kill in the loss of any step the next call continues from the last checkpoint to bit-equal weights."""
    through = _make_adapter()
    (tmp_path / "through").mkdir()
    _make_trainer(
        through, tmp_path / "through", validate=_make_validation(through) if validated else None
    ).run()

    (tmp_path / "killed").mkdir()
    killed = _make_adapter()
    fit = _make_trainer(
        killed, tmp_path / "killed", validate=_make_validation(killed) if validated else None
    )
    fit.loss = _kill_at(step, fit.loss)
    with pytest.raises(Killed):
        fit.run()
    resumed = _make_adapter()
    calls: list[Tensor] = []
    fit = _make_trainer(
        resumed, tmp_path / "killed", validate=_make_validation(resumed) if validated else None
    )
    loss = fit.loss
    fit.loss = lambda batch: calls.append(batch) or loss(batch)  # type: ignore[func-returns-value]
    fit.run()
    assert torch.equal(resumed.weight, through.weight)
    assert len(calls) == STEPS - step // 2 * 2


@pytest.mark.parametrize("validation", range(3))
def test_a_run_killed_while_it_validates_ends_with_the_same_weights(
    tmp_path: Path, validation: int
) -> None:
    """An interrupted validation runs again, and counts once."""
    through = _make_adapter()
    (tmp_path / "through").mkdir()
    _make_trainer(
        through,
        tmp_path / "through",
        validate=_make_validation(through),
        config=_make_config(patience=2),
    ).run()

    (tmp_path / "killed").mkdir()
    killed = _make_adapter()
    dying = _kill_at(validation, _make_validation(killed))
    with pytest.raises(Killed):
        _make_trainer(
            killed, tmp_path / "killed", validate=dying, config=_make_config(patience=2)
        ).run()
    resumed = _make_adapter()
    _make_trainer(
        resumed,
        tmp_path / "killed",
        validate=_make_validation(resumed),
        config=_make_config(patience=2),
    ).run()
    assert torch.equal(resumed.weight, through.weight)


def test_a_run_killed_while_it_saves_ignores_the_half_written_file(tmp_path: Path) -> None:
    """An incomplete file next to the checkpoint is overwritten, and never read."""
    through = _train(tmp_path / "through")
    (tmp_path / "killed").mkdir()
    leftover = tmp_path / "killed" / ".stage.safetensors.0.partial"
    leftover.write_bytes(b"half a checkpoint")
    os.utime(leftover, (0, 0))
    adapter = _make_adapter()
    _make_trainer(adapter, tmp_path / "killed").run()
    assert torch.equal(adapter.weight, through)
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["stage.safetensors"]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    """A call with the same checkpoint gives the same weights without a single step."""
    through = _train(tmp_path / "through")
    adapter = _make_adapter()
    _make_trainer(adapter, tmp_path / "through", loss=_kill_at(0, lambda _: None)).run()
    assert torch.equal(adapter.weight, through)


def test_a_run_that_stopped_early_is_not_trained_again(tmp_path: Path) -> None:
    """Early stopping is part of the checkpoint, and so are the best weights."""
    losses = iter([1.0, 2.0, 3.0])
    changes: dict[str, Any] = {"config": _make_config(patience=2)}
    through = _train(tmp_path / "through", validate=lambda: next(losses), **changes)
    adapter = _make_adapter()
    _make_trainer(
        adapter,
        tmp_path / "through",
        loss=_kill_at(0, lambda _: None),
        validate=lambda: 0.0,
        **changes,
    ).run()
    assert torch.equal(adapter.weight, through)


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    """With held-out losses 3, 1, 2, 2 and a patience of 2, training stops at the fourth and restores the second."""
    adapter, seen = _make_adapter(), []
    losses = iter([3.0, 1.0, 2.0, 2.0])

    def validate() -> float:
        seen.append(adapter.weight.detach().clone())
        return next(losses)

    _make_trainer(
        adapter, tmp_path, validate=validate, config=_make_config(validate_every=2, patience=2)
    ).run()
    assert len(seen) == 4
    assert torch.equal(adapter.weight, seen[1])
    assert not torch.equal(adapter.weight, seen[3])


def test_an_equal_loss_is_not_an_improvement(tmp_path: Path) -> None:
    """On a plateau the earliest weights stay, and patience runs out."""
    adapter, seen = _make_adapter(), []

    def validate() -> float:
        seen.append(adapter.weight.detach().clone())
        return 1.0

    _make_trainer(
        adapter, tmp_path, validate=validate, config=_make_config(validate_every=1, patience=3)
    ).run()
    assert len(seen) == 4
    assert torch.equal(adapter.weight, seen[0])


def test_the_last_step_is_always_validated(tmp_path: Path) -> None:
    """If the run ends between two validations, its last weights are validated too."""
    adapter, seen = _make_adapter(), []
    losses = iter([4.0, 3.0, 2.0, 1.0])

    def validate() -> float:
        seen.append(adapter.weight.detach().clone())
        return next(losses)

    _make_trainer(adapter, tmp_path, validate=validate, config=_make_config(validate_every=4)).run()
    assert len(seen) == 4
    assert torch.equal(adapter.weight, seen[-1])


def test_without_validation_the_last_weights_stay(tmp_path: Path) -> None:
    """Every epoch has each batch once, in a new order."""
    adapter, seen = _make_adapter(), []
    targets = _draw_targets()

    def loss(target: Tensor) -> list[Tensor]:
        seen.append(next(i for i, known in enumerate(targets) if known is target))
        return [((adapter.weight - target) ** 2).mean()]

    _make_trainer(adapter, tmp_path, batches=targets, loss=loss).run()
    epochs = [seen[i : i + N_BATCHES] for i in range(0, STEPS, N_BATCHES)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(N_BATCHES))] * EPOCHS
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_training_approaches_the_minimum(tmp_path: Path) -> None:
    """The mean of the targets minimises the mean loss."""
    trained = _train(tmp_path / "run", config=_make_config(epochs=60, learning_rate=0.05))
    torch.testing.assert_close(trained, torch.stack(_draw_targets()).mean(0), atol=0.05, rtol=0)


def test_equal_seeds_give_equal_weights_and_others_don_t(tmp_path: Path) -> None:
    """The seed decides the order of the batches."""
    one, two, other = (
        _train(tmp_path / name, seed=seed) for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_the_global_random_state_does_not_matter(tmp_path: Path) -> None:
    """Training draws from its own seed only."""
    torch.manual_seed(1)
    one = _train(tmp_path / "one")
    torch.manual_seed(2)
    assert torch.equal(_train(tmp_path / "two"), one)


def test_the_rate_warms_up_and_decays_to_zero(tmp_path: Path) -> None:
    """Under a constant gradient AdamW moves by the rate itself: the steps trace the schedule."""
    adapter, at = _make_adapter(), []

    def loss(_: Tensor) -> list[Tensor]:
        at.append(float(adapter.weight.detach()[0, 0]))
        return [-adapter.weight.sum()]

    _make_trainer(adapter, tmp_path, loss=loss, config=_make_config(epochs=6)).run()
    moves = torch.tensor([*at, float(adapter.weight.detach()[0, 0])]).diff()
    steps = torch.arange(30)
    expected = 0.1 * ((steps + 1) / 3).clamp(max=1) * 0.5 * (1 + torch.cos(torch.pi * steps / 30))
    torch.testing.assert_close(moves, expected, atol=1e-5, rtol=0)


def test_a_loss_in_parts_makes_the_same_step(tmp_path: Path) -> None:
    """The gradient of each part is taken before the next part is computed, and their sum is the loss of the step."""
    adapter, order = _make_adapter(), []
    adapter.weight.register_hook(lambda _: order.append("gradient"))  # type: ignore[no-untyped-call]

    def loss(target: Tensor) -> Iterator[Tensor]:
        for row in range(3):
            order.append("loss")
            yield ((adapter.weight[row] - target[row]) ** 2).sum() / target.numel()

    _make_trainer(adapter, tmp_path, loss=loss).run()
    torch.testing.assert_close(
        adapter.weight.detach(), _train(tmp_path / "whole"), atol=1e-6, rtol=0
    )
    assert order == ["loss", "gradient"] * 3 * STEPS


def test_nothing_to_learn_from_changes_nothing(tmp_path: Path) -> None:
    """Without batches there is no step."""
    assert torch.equal(_train(tmp_path / "run", batches=[]), torch.zeros(3, 4))


@pytest.mark.parametrize(("start_counts", "stays"), [(True, True), (False, False)])
def test_a_trained_start_stays_if_training_makes_it_worse(
    tmp_path: Path, start_counts: bool, stays: bool
) -> None:
    """The held-out losses are 1, 3, 3, …, and the first is the start's if the start counts."""
    adapter = _make_adapter()
    losses = iter([1.0] * start_counts + [3.0] * 99)
    _make_trainer(adapter, tmp_path, validate=lambda: next(losses), start_counts=start_counts).run()
    assert torch.equal(adapter.weight, _make_adapter().weight) == stays


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path: Path) -> None:
    """The error names the step, and the weights are as they were."""
    adapter = _make_adapter()
    with pytest.raises(
        InputError, match="expected a finite loss, found nan in step 1; lower the learning rate"
    ):
        _make_trainer(adapter, tmp_path, loss=lambda _: [adapter.weight.sum() * torch.nan]).run()
    assert torch.equal(adapter.weight, _make_adapter().weight)
