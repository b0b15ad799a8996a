"""One training run in several processes, started by `accelerate launch`; started otherwise, it is one process.

The main process alone touches the run's files; what they hold, the others hear from it.
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

# The launcher ends the run when a process dies; to wait for the main one, as long as it takes, is no error.
_LONGEST_WAIT = timedelta(days=30)


@cache
def get_processes() -> PartialState:
    """Which of the processes this is; the first call joins them."""
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_LONGEST_WAIT)
    # Left to the interpreter, a group that is still open ends some processes with SIGABRT.
    atexit.register(state.destroy_process_group)
    return state


def broadcast_from_main(compute: Callable[[], T]) -> T:
    """What `compute` gives in the main process, the only one that calls it."""
    (value,) = broadcast_object_list([compute() if get_processes().is_main_process else None])
    return value  # type: ignore[no-any-return]


def sharded_mean_loss(
    mean: Callable[[Sequence[T]], Iterable[Tensor]],
    batch: Sequence[T],
    size: Callable[[Sequence[T]], int] = len,
) -> Iterator[Tensor]:
    """This process's parts of a batch's mean loss, one computed after another; those of all processes add up to it.

    Args:
        mean: the mean loss of some items, in parts that add up to it.
        batch: split into shares of neighbours, which mostly have a passage in common.
        size: over how many things the mean of some items is.
    """
    with get_processes().split_between_processes(list(batch)) as share:
        if share:
            for part in mean(share):
                yield part * (size(share) / size(batch))
