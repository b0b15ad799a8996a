"""Tiny models to train on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from aspire_guard.testing import FAMILIES, Family


@pytest.fixture(scope="module", autouse=True)
def _single_thread() -> Iterator[None]:
    # A tiny model gains nothing from a second thread and waits for it where the cores are busy.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    family: Family = request.param
    return family
