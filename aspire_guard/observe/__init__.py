"""Scoring without intervening: answers leave unchanged, and the guard's score of each is reported."""

from __future__ import annotations

from aspire_guard.observe.background import Observation
from aspire_guard.observe.handler import AspireCallbackHandler

__all__ = ["AspireCallbackHandler", "Observation"]
