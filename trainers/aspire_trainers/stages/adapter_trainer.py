"""The training loop of both tuning stages: one adapter moves, the rest stays frozen.

A run can be killed at any moment: the next run continues from the last checkpoint, goes through the same batches and
ends with the same weights. Each of several processes computes its part of a step's loss, and all make the same step.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar, cast

import torch
from accelerate.utils import gather_object, reduce
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from aspire_guard.errors import InputError
from aspire_guard.files import replace_file
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
    """The progress of training, as the checkpoint saves it.

    Attributes:
        step: steps that are done.
        best_loss: the lowest validation loss so far, in nats.
        stale: validations since that lowest loss.
        finished: True if training stopped early.
    """

    step: int = 0
    best_loss: float = math.inf
    stale: int = 0
    finished: bool = False


@dataclass
class AdapterTrainer(Generic[Batch]):
    """The training of an adapter in one of the two tuning stages.

    Args:
        adapter: θp or θs, trained in place.
        batches: the batches of an epoch, in a new random order in each epoch.
        loss: computes this process's parts of the mean loss of a batch, in nats. Each part is computed after the
            gradient of the part before. See `shard_mean_loss`.
        validate: computes the loss on held-out records, in nats. None trains to the end without early stopping.
        config: the optimisation.
        seed: seed of the order of the batches.
        checkpoint: a file that no other run uses.
        progress: shows step, loss and time left.
        start_counts: True if the adapter is trained already, and should keep its weights if training makes them no
            better.
    """

    adapter: Adapter
    batches: Sequence[Batch]
    loss: Callable[[Batch], Iterable[Tensor]]
    validate: Callable[[], float] | None
    config: FitConfig
    seed: int
    checkpoint: str | Path
    progress: Progress
    start_counts: bool = False

    def __post_init__(self) -> None:
        self._weights = dict(self.adapter.named_parameters())
        self._optimizer = torch.optim.AdamW(self._weights.values(), weight_decay=0.0)
        self._best_weights = self._copy_weights()
        self._position = _Position()
        self._total_steps = len(self.batches) * self.config.epochs

    def run(self) -> None:
        """Train to the end. The adapter is left with the weights that did best on the held-out records."""
        self._resume()
        position = self._position
        self.progress.start(self._total_steps, position.step)
        if self.start_counts and position.step == 0:
            self._run_validation()
        while position.step < self._total_steps and not position.finished:
            loss = self._make_step(self._choose_batch(position.step))
            position.step += 1
            is_last = position.step == self._total_steps
            if is_last or position.step % self.config.validate_every == 0:
                self._run_validation()
            if is_last or position.finished or position.step % self.config.checkpoint_every == 0:
                self._save_checkpoint()
            self.progress.advance(loss)
        if self.validate is not None:
            self._set_weights(self._best_weights)

    def _choose_batch(self, step: int) -> Batch:
        epoch, position = divmod(step, len(self.batches))
        order = list(range(len(self.batches)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        return self.batches[order[position]]

    def _make_step(self, batch: Batch) -> float:
        """Make a step of the optimiser, and return the loss of all processes in nats."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._scale_rate(self._position.step)
        self._optimizer.zero_grad()
        loss = torch.zeros(())  # on the CPU
        for part in self.loss(batch):
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach().cpu()
        loss = self._sum_over_processes(loss)
        if not loss.isfinite():
            raise InputError(
                f"expected a finite loss, found {float(loss)} in step {self._position.step + 1}; "
                "lower the learning rate"
            )
        torch.nn.utils.clip_grad_norm_(self._weights.values(), _MAX_GRADIENT_NORM)
        self._optimizer.step()
        return float(loss)

    def _scale_rate(self, step: int) -> float:
        """Return the share of the peak learning rate: a linear warm-up times a cosine decay to zero."""
        warm_up_steps = max(1, round(_WARM_UP * self._total_steps))
        warm_up = min(1.0, (step + 1) / warm_up_steps)
        angle = math.pi * step / self._total_steps
        return warm_up * 0.5 * (1 + math.cos(angle))

    def _sum_over_processes(self, loss: Tensor) -> Tensor:
        """Return the summed loss of all processes, and replace each weight's gradient by the sum of all processes."""
        weights = list(self._weights.values())
        gradients = [
            torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights
        ]
        # All gradients go in a single message, because a LoRA has many small ones.
        parts = [loss.to(weights[0].device).view(1)]
        parts += [gradient.flatten() for gradient in gradients]
        message = torch.cat(parts)  # (1 + numbers of all gradients,)
        lengths = [1, *(weight.numel() for weight in weights)]
        total_loss, *total_gradients = reduce(message, "sum").split(lengths)
        for weight, gradient in zip(weights, total_gradients, strict=True):
            weight.grad = gradient.view_as(weight)
        return cast("Tensor", total_loss)

    def _run_validation(self) -> None:
        """Compare the held-out loss with the best so far: keep better weights, or else stop when patience runs out."""
        if self.validate is None:
            return
        loss = self.validate()
        position = self._position
        if loss < position.best_loss:
            position.best_loss = loss
            position.stale = 0
            self._best_weights = self._copy_weights()
        else:
            position.stale += 1
            position.finished = position.stale >= self.config.patience
        self.progress.note_validation(loss, position.best_loss)

    def _save_checkpoint(self) -> None:
        if not get_processes().is_main_process:
            return
        tensors = {f"best/{name}": weight for name, weight in self._best_weights.items()}
        for name, weight in self._weights.items():
            tensors[f"weight/{name}"] = weight.detach()
            for key, value in self._optimizer.state[weight].items():
                tensors[f"{key}/{name}"] = value
        position = json.dumps(asdict(self._position))
        with replace_file(Path(self.checkpoint)) as partial:
            partial.write_bytes(save(tensors, metadata={"position": position}))

    def _load_checkpoint(self) -> tuple[_Position, dict[str, Tensor]] | None:
        if not Path(self.checkpoint).exists():
            return None
        with safe_open(self.checkpoint, framework="pt") as file:
            position = json.loads(file.metadata()["position"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is not a mapping
        return _Position(**position), tensors

    def _resume(self) -> None:
        """Restore weights, optimiser and position from the main process's checkpoint, if there is one."""
        checkpoint = broadcast_from_main(self._load_checkpoint)
        if checkpoint is None:
            return
        self._position, tensors = checkpoint
        self._set_weights({name: tensors[f"weight/{name}"] for name in self._weights})
        for name, weight in self._weights.items():
            self._best_weights[name] = tensors[f"best/{name}"].to(weight.device)
            self._optimizer.state[weight] = {
                "step": tensors[f"step/{name}"],  # AdamW counts its steps on the CPU.
                "exp_avg": tensors[f"exp_avg/{name}"].to(weight.device),
                "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(weight.device),
            }

    def _copy_weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self._weights.items()}

    def _set_weights(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.data.copy_(values[name])


@torch.no_grad()  # Not inference_mode: a training step may use states that are computed and kept here.
def compute_mean_loss(
    loss: Callable[[Sequence[Item]], Iterable[Tensor]], batches: Sequence[Sequence[Item]]
) -> float:
    """Compute the mean loss over the items of all batches, in nats. Each process computes some of the batches.

    Args:
        loss: computes the mean loss of a batch, in parts that add up to it.
        batches: batches of held-out items.
    """
    with get_processes().split_between_processes(list(batches)) as share:
        sums = [sum(map(float, loss(batch))) * len(batch) for batch in share]
    totals: list[float] = gather_object([sum(sums)])
    return sum(totals) / sum(map(len, batches))


def make_adapter(
    lm: LanguageModel, config: FitConfig, *, seed: int, start: Adapter | None = None
) -> Adapter:
    """Copy `start`, or make an untrained adapter of the config's kind. Equal seeds make equal adapters."""
    if start is not None:
        return start.copy_onto(lm).requires_grad_()
    if config.method == "lora":
        return Lora.from_text(
            lm,
            config.text,
            rank=config.rank,
            seed=seed,
            target_modules=config.target_modules,
        )
    return SoftPrompt.from_text(lm, config.text, config.length)
