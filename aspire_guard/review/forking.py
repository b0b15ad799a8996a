"""Objects that start anew in a forked child, which has no threads of its parent and must not use its connections."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class ForkAware(Protocol):
    """An object with connections, threads or locks."""

    def reset_after_fork(self) -> None:
        """Leave the parent's connections and threads alone, and start anew."""
        ...


_objects: WeakSet[ForkAware] = WeakSet()


def reset_in_children(fork_aware: ForkAware) -> None:
    """Have an object start anew in each child that is forked from now on."""
    _objects.add(fork_aware)


def _reset_all() -> None:
    for fork_aware in list(_objects):
        fork_aware.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
