"""The training loop of both tuning stages: one soft prompt moves, the rest stays frozen.

A run can be killed at any moment: the next one continues from the last checkpoint, goes
through the same batches and ends with the same weights.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_trainers.config import FitConfig
from aspire_trainers.progress import Progress

Batch = TypeVar("Batch")
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
class Fit(Generic[Batch]):
    """One tuning stage.

    Args:
        adapter: the soft prompt that is trained, in place.
        batches: what a step may be made of; shuffled anew each epoch.
        loss: the mean loss of a batch, in nats.
        validate: the loss on held-out records, in nats; None trains to the end without early stopping.
        config: the optimisation.
        seed: of the order of the batches.
        checkpoint: a file of this run's own.
        progress: shows step, loss and time left.
    """

    adapter: SoftPrompt
    batches: Sequence[Batch]
    loss: Callable[[Batch], Tensor]
    validate: Callable[[], float] | None
    config: FitConfig
    seed: int
    checkpoint: Path
    progress: Progress

    def __post_init__(self) -> None:
        self._optimizer = torch.optim.AdamW(self.adapter.parameters(), weight_decay=0.0)
        self._best = self.adapter.weight.detach().clone()
        self._position = _Position()
        self._steps = len(self.batches) * self.config.epochs

    def run(self) -> None:
        """Train to the end; the adapter is left with the weights that did best on the held-out records."""
        self._resume()
        position = self._position
        self.progress.start(self._steps, position.step)
        while position.step < self._steps and not position.finished:
            loss = self._step(self._batch(position.step))
            position.step += 1
            last = position.step == self._steps
            if self.validate is not None and (last or position.step % self.config.validate_every == 0):
                self._judge(self.validate())
            if last or position.finished or position.step % self.config.checkpoint_every == 0:
                self._save()
            self.progress.advance(loss)
        if self.validate is not None:
            self.adapter.weight.data.copy_(self._best)

    def _batch(self, step: int) -> Batch:
        epoch, place = divmod(step, len(self.batches))
        order = list(range(len(self.batches)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        return self.batches[order[place]]

    def _step(self, batch: Batch) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._schedule(self._position.step)
        loss = self.loss(batch)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.adapter.parameters(), _MAX_GRADIENT_NORM)
        self._optimizer.step()
        return float(loss.detach())

    def _schedule(self, step: int) -> float:
        warm_up = max(1, round(_WARM_UP * self._steps))
        return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / self._steps))

    def _judge(self, loss: float) -> None:
        position = self._position
        if loss < position.best_loss:
            position.best_loss, position.stale = loss, 0
            self._best = self.adapter.weight.detach().clone()
        else:
            position.stale += 1
            position.finished = position.stale >= self.config.patience
        self.progress.validated(loss, position.best_loss)

    def _save(self) -> None:
        state = self._optimizer.state[self.adapter.weight]
        tensors = {
            "weight": self.adapter.weight.detach(),
            "best": self._best,
            "step": state["step"],
            "exp_avg": state["exp_avg"],
            "exp_avg_sq": state["exp_avg_sq"],
        }
        partial = self.checkpoint.with_suffix(".partial")
        save_file(tensors, partial, metadata={"position": json.dumps(asdict(self._position))})
        os.replace(partial, self.checkpoint)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        with safe_open(self.checkpoint, framework="pt") as file:
            self._position = _Position(**json.loads(file.metadata()["position"]))
            self.adapter.weight.data.copy_(file.get_tensor("weight"))
            self._best = file.get_tensor("best")
            self._optimizer.state[self.adapter.weight] = {
                "step": file.get_tensor("step"),
                **{name: file.get_tensor(name).to(self.adapter.weight.device) for name in ("exp_avg", "exp_avg_sq")},
            }
