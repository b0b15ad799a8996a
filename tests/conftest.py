"""Fixtures that the tests of several rooms share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from aspire_guard.cli.app import main
from aspire_guard.testing import FAMILIES, Family, tiny_evaluator

# A loaded machine makes no test fail: examples may take any time to generate and to run.
settings.register_profile(
    "aspire-guard", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("aspire-guard")


@pytest.fixture(scope="module")
def single_thread() -> Iterator[None]:
    """Limit torch to one thread, as a tiny model gains nothing from a second one and waits for it on busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    """Each architecture that language-model code is tested on."""
    family: Family = request.param
    return family


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A function that runs `aspire-guard` with its arguments, and returns the exit code."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["aspire-guard", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        code = stop.value.code
        assert isinstance(code, int)
        return code

    return run


@pytest.fixture
def save_tiny_evaluator() -> Callable[..., Path]:
    """A function that saves a tiny evaluator in `folder / "evaluator"`, with its base model in `folder / "base"`."""

    def save(folder: Path, *, likelihood: str = "own") -> Path:
        from aspire_guard.evaluators.evaluator_folder import save_evaluator

        evaluator = tiny_evaluator(seed=1)
        base = folder / "base"
        evaluator.aspire.lm.model.save_pretrained(base)
        evaluator.aspire.lm.tokenizer.save_pretrained(base)
        base_model = evaluator.manifest.base_model.model_copy(update={"name": str(base)})
        changes = {"base_model": base_model, "likelihood": likelihood}
        manifest = evaluator.manifest.model_copy(update=changes)
        save_evaluator(folder / "evaluator", evaluator.aspire, manifest, evaluator.calibration)
        return folder / "evaluator"

    return save


@pytest.fixture
def evaluator_folder(save_tiny_evaluator: Callable[..., Path], tmp_path: Path) -> Path:
    """The folder of a tiny evaluator."""
    return save_tiny_evaluator(tmp_path)
