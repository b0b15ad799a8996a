"""Tiny models to train on, and runs that are killed."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aspire_guard.testing import tiny_lm
from aspire_trainers.pipeline import train_evaluator

_PATIENCE = 120.0


@pytest.fixture(scope="module", autouse=True)
def _on_one_thread(single_thread: None) -> None:
    """Every module of this folder runs tiny models."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model in a folder."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    lm = tiny_lm()
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def train_until(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Trains in another process, and kills it as soon as a file holds something."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Processes of their own that have imported the library already.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["aspire_trainers.pipeline"])

    def train_until(file: Path, *arguments: Any) -> None:
        process = context.Process(target=train_evaluator, args=arguments)
        process.start()
        deadline = time.monotonic() + _PATIENCE
        while not (file.exists() and file.stat().st_size):
            assert process.is_alive(), "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL

    return train_until
