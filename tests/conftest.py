"""What the tests of several rooms share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from aspire_guard.testing import FAMILIES, Family


@pytest.fixture(scope="module")
def single_thread() -> Iterator[None]:
    """One thread: a tiny model gains nothing from a second one and waits for it where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    """The architectures that everything on a language model is tested on."""
    family: Family = request.param
    return family
