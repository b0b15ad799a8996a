"""The recipe that gives an evaluator the probe for refusals."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from aspire_guard.errors import InputError
from aspire_guard.evaluators.evaluator_folder import (
    read_manifest,
    save_evaluator,
    save_refusal_probe,
)
from aspire_guard.evaluators.refusal_probe import RefusalProbe
from aspire_guard.testing import tiny_evaluator

SCRIPT = Path(__file__).parents[2] / "trainers" / "recipes" / "refusal_probe.py"
PROBE = RefusalProbe(weights={0: (1.0, -2.0)}, intercept=-1.0)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that runs the recipe with its arguments."""

    def run_script(*arguments: Path | str) -> None:
        monkeypatch.setattr("sys.argv", [str(SCRIPT), *map(str, arguments)])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run_script


def save(folder: Path, *, seed: int = 0, alpha: float = 0.25) -> Path:
    evaluator = tiny_evaluator(seed=seed, alpha=alpha)
    save_evaluator(folder, evaluator.aspire, evaluator.manifest, evaluator.calibration)
    return folder


def test_a_probe_is_taken_over_from_an_evaluator_that_reads_alike(
    tmp_path: Path, run: Callable[..., None]
) -> None:
    """Another α does not matter, since the probe belongs to the base model and θp."""
    mine, theirs = save(tmp_path / "mine"), save(tmp_path / "theirs", alpha=0.75)
    save_refusal_probe(theirs, PROBE)
    run(mine, "--like", theirs)
    assert read_manifest(mine).refusal == PROBE
    assert read_manifest(mine).alpha == 0.25


def test_a_probe_of_an_evaluator_that_reads_otherwise_is_refused(
    tmp_path: Path, run: Callable[..., None]
) -> None:
    """The values of another model mean something else. An evaluator without a probe has nothing to give."""
    mine, other = save(tmp_path / "mine"), save(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="expected an evaluator with a probe for refusals"):
        run(mine, "--like", other)
    save_refusal_probe(other, PROBE)
    with pytest.raises(InputError, match="expected evaluators that read answers alike"):
        run(mine, "--like", other)
    assert read_manifest(mine).refusal is None
