"""One training run in several processes started by `accelerate launch`. Started in another way, it is one process.

Only the main process touches the run's files. It broadcasts their content to the other processes.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor

T = TypeVar("T")

# The launcher ends the run if a process dies, so a long wait for the main process is not an error.
_LONGEST_WAIT = timedelta(days=30)


@cache
def get_processes() -> PartialState:
    """Return the state of this process among the processes of the run. The first call joins them."""
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST_WAIT)
    # A group that is still open when the interpreter shuts down ends some processes with SIGABRT.
    atexit.register(state.destroy_process_group)
    return state


def broadcast_from_main(compute: Callable[[], T]) -> T:
    """Call `compute` in the main process alone, and return its value in every process."""
    value_in_main = compute() if get_processes().is_main_process else None
    (value,) = broadcast_object_list([value_in_main])
    return value  # type: ignore[no-any-return]


def shard_mean_loss(
    mean: Callable[[Sequence[T]], Iterable[Tensor]],
    batch: Sequence[T],
    size: Callable[[Sequence[T]], int] = len,
) -> Iterator[Tensor]:
    """Yield this process's parts of a batch's mean loss, each computed on demand.

    The parts of all processes add up to the mean loss of the whole batch.

    Args:
        mean: computes the mean loss of some items, in parts that add up to it.
        batch: the items. Each process gets neighbours, which mostly share a passage.
        size: counts the things over which the mean of some items is taken.
    """
    with get_processes().split_between_processes(list(batch)) as share:
        if share:
            for part in mean(share):
                yield part * (size(share) / size(batch))
