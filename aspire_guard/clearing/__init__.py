"""Clearing: outputs and memories in which nothing of a rejected answer is left, and the caller's own values stay."""

from __future__ import annotations

from aspire_guard.clearing.known_values import KnownValues, take_snapshot
from aspire_guard.clearing.memories import MemoryBefore, MemoryClearing, MemoryFinder
from aspire_guard.clearing.walker import Clearing

__all__ = [
    "Clearing",
    "KnownValues",
    "MemoryBefore",
    "MemoryClearing",
    "MemoryFinder",
    "take_snapshot",
]
