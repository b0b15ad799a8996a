"""Scoring without intervening: what the guard would have said of answers that leave as ever."""

from __future__ import annotations

from aspire_guard.observe.background import Observation
from aspire_guard.observe.handler import AspireCallbackHandler

__all__ = ["AspireCallbackHandler", "Observation"]
