"""Tiny models to train on."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _on_one_thread(single_thread: None) -> None:
    """Every module of this folder runs tiny models."""
