"""Does the promise of a threshold hold, and how much is released under it? On answers whose true risk is known.

Run: `python benchmarks/threshold_guarantee.py` (some twenty minutes on one core; `--draws 100` for a first look).
Draws labelled answers from known distributions, chooses a threshold for a risk of at most 10 % with probability 90 %,
and computes the true risk of what it releases, by integration and not from a test set. On the same draws, MAPIE's
BinaryClassificationController with its defaults. These find nothing wherever one of the hundred default thresholds
releases no answer (its p-value is NaN, and Holm's procedure ends there; MAPIE 1.6.0), so beside "MAPIE" as it is stands
"fixed": its own p-values and procedure, with a NaN counted as not passed.

Exits with 1 where, in any cell, the true risk exceeds the target in more than δ + 3 standard errors of the draws, or,
in any but the borderline ones, either of the two finds a threshold more often or releases more.

Scores, as probabilities:

    sharp      log-odds 4z + 1 with z standard normal: most answers are plainly right or plainly wrong
    weak       log-odds 0.6z + 1.6: nothing is sure, and the target is met by the best fifth only
    useless    says nothing of its answers, of which one in five is wrong
    borderline says nothing either, and the errors are a hair above the target: every threshold is a mistake, and none
               is harder to avoid, so this is where δ is used up; to find fewer is better here
    tied       four different scores; the risk of what is released goes 4 %, 10.06 %, 9.7 %, 10.1 % from cut to cut,
               so that two of four cuts miss the target by next to nothing
"""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri

from aspire_guard.selection.calibration import Threshold
from aspire_guard.selection.calibrators import PlattCalibrator
from aspire_guard.selection.risk_control.thresholds import choose_threshold

Numbers = NDArray[np.float64]
Labels = NDArray[np.bool_]

TARGET, DELTA = 0.1, 0.1
SIZES = (100, 300, 1000, 3000)
_POINTS = 1_000_000


@dataclass(frozen=True)
class Shape:
    """A law of scores: points of equal mass with their probabilities of being wrong, the highest scores first."""

    name: str
    score: Numbers
    wrong: Numbers

    def draw(self, chance: np.random.Generator, n: int) -> tuple[Numbers, Labels]:
        """Scores and labels of n answers."""
        place = chance.integers(len(self.score), size=n)
        return self.score[place], chance.random(n) >= self.wrong[place]

    def released(self, threshold: float) -> tuple[float, float]:
        """Coverage and true risk of releasing scores ≥ threshold."""
        count = int(np.searchsorted(-self.score, -threshold, side="right"))
        return count / len(self.score), float(self.wrong[:count].mean()) if count else 0.0


def _honest(name: str, score: Numbers) -> Shape:
    score = np.sort(score)[::-1]
    return Shape(name, score, 1 - score)


def shapes() -> list[Shape]:
    """The shapes of the table."""
    share = (np.arange(_POINTS) + 0.5) / _POINTS
    atoms = np.repeat(
        [0.955, 0.855, 0.755, 0.655],
        [15 * _POINTS // 100, _POINTS // 4, _POINTS // 5, 2 * _POINTS // 5],
    )
    errors = {0.955: 0.04, 0.855: 0.137, 0.755: 0.09, 0.655: 0.108}
    return [
        _honest("sharp", expit(4 * ndtri(share) + 1)),
        _honest("weak", expit(0.6 * ndtri(share) + 1.6)),
        Shape("useless", share[::-1], np.full(_POINTS, 0.2)),
        Shape("borderline", share[::-1], np.full(_POINTS, TARGET + 1e-4)),
        Shape("tied", atoms, np.vectorize(errors.get)(atoms)),
    ]


def ours(score: Numbers, correct: Labels) -> float | None:
    """Our threshold on the score; None where there is none."""
    calibrator = PlattCalibrator(
        slope=1.0, intercept=0.0
    )  # the score's own logistic: confidence is the score
    found = choose_threshold(
        logit(score),
        correct,
        calibrator=calibrator,
        target_risk=TARGET,
        delta=DELTA,
        date="2024-01-31",
    )
    return found.confidence if isinstance(found, Threshold) else None


def mapies(score: Numbers, correct: Labels) -> tuple[float | None, float | None]:
    """The thresholds of MAPIE's defaults, as they are and fixed; None where there is none."""
    from mapie.risk_control import BinaryClassificationController
    from mapie.risk_control.fwer_control import control_fwer

    controller = BinaryClassificationController(
        lambda column: np.column_stack([1 - column[:, 0], column[:, 0]]),
        risk="precision",
        target_level=1 - TARGET,
        confidence_level=1 - DELTA,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of each draw without a threshold
        controller.calibrate(score[:, None], correct.astype(int))
    best = controller.best_predict_param
    valid = control_fwer(np.nan_to_num(np.ravel(controller.p_values), nan=1.0), DELTA)
    # The default grid rises, and of the valid thresholds the lowest releases most.
    fixed = float(np.linspace(0, 0.99, 100)[valid[0]]) if len(valid) else None
    return None if best is None else float(best), fixed


@dataclass(frozen=True)
class Cell:
    """Shares of the draws: a threshold found, its true risk above the target; and the mean coverage."""

    found: float
    exceeded: float
    coverage: float


def simulate(shape: Shape, n: int, draws: int) -> list[Cell]:
    """Ours, MAPIE's and the fixed one, on the same draws."""
    chance = np.random.default_rng([n, draws])
    samples = (shape.draw(chance, n) for _ in range(draws))
    thresholds = [(ours(*sample), *mapies(*sample)) for sample in samples]
    return [_cell(shape, column) for column in zip(*thresholds, strict=True)]


def _cell(shape: Shape, thresholds: tuple[float | None, ...]) -> Cell:
    results = [shape.released(threshold) for threshold in thresholds if threshold is not None]
    return Cell(
        found=len(results) / len(thresholds),
        exceeded=sum(risk > TARGET for _, risk in results) / len(thresholds),
        coverage=sum(coverage for coverage, _ in results) / len(thresholds),
    )


def main() -> None:
    """Print the table, and say whether every cell keeps what is promised."""
    parser = argparse.ArgumentParser(description="Simulate the guarantee of thresholds.")
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    limit = DELTA + 3 * (DELTA * (1 - DELTA) / draws) ** 0.5
    print(
        f"target risk {TARGET}, δ {DELTA}, {draws} draws a cell; true risk above the target: at most {limit:.4f}\n"
    )
    print("| n | shape | risk above target | found | coverage | MAPIE | | | fixed | | |")
    print("|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    kept = True
    for n in SIZES:
        for shape in shapes():
            cells = simulate(shape, n, draws)
            kept &= cells[0].exceeded <= limit
            if shape.name != "borderline":
                kept &= all(
                    cells[0].found >= cell.found and cells[0].coverage >= cell.coverage
                    for cell in cells[1:]
                )
            figures = (
                f"{cell.exceeded:.4f} | {cell.found:.4f} | {cell.coverage:.4f}" for cell in cells
            )
            print(f"| {n} | {shape.name} |", " | ".join(figures), "|", flush=True)
    print("\nn = 1,000, P(right) uniform, 200 draws:")
    uniform = _honest("uniform", (np.arange(_POINTS) + 0.5) / _POINTS)
    for name, cell in zip(("ours", "MAPIE", "fixed"), simulate(uniform, 1000, 200), strict=True):
        print(
            f"{name}: found {200 * cell.found:.0f}, coverage {cell.coverage:.3f}, above target {cell.exceeded:.3f}"
        )
    print("every cell keeps its promise, and MAPIE is nowhere ahead" if kept else "A CELL FAILS")
    sys.exit(not kept)


if __name__ == "__main__":
    main()
