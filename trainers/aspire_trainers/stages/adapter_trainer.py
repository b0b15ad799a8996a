"""The training loop of both tuning stages: one adapter moves, the rest stays frozen.

A run can be killed at any moment: the next one continues from the last checkpoint, goes
through the same batches and ends with the same weights. Of several processes each computes
its part of a step's loss, and all make the same step.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from accelerate.utils import gather_object, reduce
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from aspire_guard.errors import InputError
from aspire_guard.files import replaced_file
from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.lora import Lora
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_trainers.config import FitConfig
from aspire_trainers.run.distributed import broadcast_from_main, get_processes
from aspire_trainers.run.progress import Progress

Batch = TypeVar("Batch")
Item = TypeVar("Item")
_WARM_UP = 0.1
_MAX_GRADIENT_NORM = 1.0


@dataclass
class _Position:
    """Where training stands."""

    step: int = 0
    best_loss: float = math.inf
    stale: int = 0
    finished: bool = False


@dataclass
class AdapterTrainer(Generic[Batch]):
    """One tuning stage.

    Args:
        adapter: θp or θs, trained in place.
        batches: what a step may be made of; shuffled anew each epoch.
        loss: this process's parts of the mean loss of a batch, in nats; each is computed after the gradient of the one
            before. See `sharded_mean_loss`.
        validate: the loss on held-out records, in nats; None trains to the end without early stopping.
        config: the optimisation.
        seed: of the order of the batches.
        checkpoint: a file of this run's own.
        progress: shows step, loss and time left.
        start_counts: the adapter is a trained one already, and stays as it is where training makes it no better.
    """

    adapter: Adapter
    batches: Sequence[Batch]
    loss: Callable[[Batch], Iterable[Tensor]]
    validate: Callable[[], float] | None
    config: FitConfig
    seed: int
    checkpoint: Path
    progress: Progress
    start_counts: bool = False

    def __post_init__(self) -> None:
        self._weights = dict(self.adapter.named_parameters())
        self._optimizer = torch.optim.AdamW(self._weights.values(), weight_decay=0.0)
        self._best = self._copy()
        self._position = _Position()
        self._steps = len(self.batches) * self.config.epochs

    def run(self) -> None:
        """Train to the end; the adapter is left with the weights that did best on the held-out records."""
        self._resume()
        position = self._position
        self.progress.start(self._steps, position.step)
        if self.start_counts and position.step == 0 and self.validate is not None:
            self._judge(self.validate())
        while position.step < self._steps and not position.finished:
            loss = self._step(self._batch(position.step))
            position.step += 1
            last = position.step == self._steps
            if self.validate is not None and (
                last or position.step % self.config.validate_every == 0
            ):
                self._judge(self.validate())
            if last or position.finished or position.step % self.config.checkpoint_every == 0:
                self._save()
            self.progress.advance(loss)
        if self.validate is not None:
            self._set(self._best)

    def _batch(self, step: int) -> Batch:
        epoch, place = divmod(step, len(self.batches))
        order = list(range(len(self.batches)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        return self.batches[order[place]]

    def _step(self, batch: Batch) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._schedule(self._position.step)
        self._optimizer.zero_grad()
        loss = torch.zeros(())
        for part in self.loss(batch):
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach().cpu()
        loss = self._add_up(loss)
        if not loss.isfinite():
            raise InputError(
                f"expected a finite loss, found {float(loss)} in step {self._position.step + 1}; "
                "lower the learning rate"
            )
        torch.nn.utils.clip_grad_norm_(self._weights.values(), _MAX_GRADIENT_NORM)
        self._optimizer.step()
        return float(loss)

    def _add_up(self, loss: Tensor) -> Tensor:
        """The loss of all processes together; their gradients are added up in place."""
        weights = list(self._weights.values())
        gradients = [
            torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights
        ]
        # In one message: a LoRA has many small gradients.
        message = torch.cat(
            [loss.to(weights[0].device).view(1), *(gradient.flatten() for gradient in gradients)]
        )
        sums: list[Tensor] = list(reduce(message, "sum").split([1, *map(torch.numel, weights)]))
        for weight, gradient in zip(weights, sums[1:], strict=True):
            weight.grad = gradient.view_as(weight)
        return sums[0]

    def _schedule(self, step: int) -> float:
        warm_up = max(1, round(_WARM_UP * self._steps))
        return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / self._steps))

    def _judge(self, loss: float) -> None:
        position = self._position
        if loss < position.best_loss:
            position.best_loss, position.stale = loss, 0
            self._best = self._copy()
        else:
            position.stale += 1
            position.finished = position.stale >= self.config.patience
        self.progress.validated(loss, position.best_loss)

    def _save(self) -> None:
        if not get_processes().is_main_process:
            return
        tensors = {f"best/{name}": value for name, value in self._best.items()}
        for name, weight in self._weights.items():
            tensors[f"weight/{name}"] = weight.detach()
            tensors |= {
                f"{key}/{name}": value for key, value in self._optimizer.state[weight].items()
            }
        position = json.dumps(asdict(self._position))
        with replaced_file(self.checkpoint) as partial:
            save_file(tensors, partial, metadata={"position": position})

    def _saved(self) -> tuple[_Position, dict[str, Tensor]] | None:
        if not self.checkpoint.exists():
            return None
        with safe_open(self.checkpoint, framework="pt") as file:
            position = _Position(**json.loads(file.metadata()["position"]))
            return position, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no mapping

    def _resume(self) -> None:
        if (found := broadcast_from_main(self._saved)) is None:
            return
        self._position, saved = found
        self._set({name: saved[f"weight/{name}"] for name in self._weights})
        for name, weight in self._weights.items():
            self._best[name] = saved[f"best/{name}"].to(weight.device)
            # AdamW counts its steps on the CPU.
            self._optimizer.state[weight] = {
                "step": saved[f"step/{name}"],
                **{
                    key: saved[f"{key}/{name}"].to(weight.device)
                    for key in ("exp_avg", "exp_avg_sq")
                },
            }

    def _copy(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self._weights.items()}

    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.data.copy_(values[name])


@torch.no_grad()  # not inference_mode: what is computed here may be kept, and taken by a training step
def mean_loss(
    loss: Callable[[Sequence[Item]], Iterable[Tensor]], batches: Sequence[Sequence[Item]]
) -> float:
    """The mean over the batches' items of a loss that is a mean itself, in nats; each process takes some batches.

    Args:
        loss: the mean of a batch, in parts that add up to it.
        batches: of held-out items.
    """
    with get_processes().split_between_processes(list(batches)) as share:
        total = sum(sum(map(float, loss(batch))) * len(batch) for batch in share)
    totals: list[float] = gather_object([total])
    return sum(totals) / sum(map(len, batches))


def make_adapter(
    lm: LanguageModel, config: FitConfig, *, seed: int, start: Adapter | None = None
) -> Adapter:
    """A copy of `start`, or an untrained adapter of the kind that `config` names; equal seeds make equal ones."""
    if start is not None:
        return start.copy_onto(lm).requires_grad_()
    if config.method == "lora":
        modules = config.target_modules
        return Lora.from_text(lm, config.text, rank=config.rank, seed=seed, target_modules=modules)
    return SoftPrompt.from_text(lm, config.text, config.length)
