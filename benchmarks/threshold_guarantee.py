"""A simulation of the promise of thresholds, and of the share of answers they release, with known true risks.

Run: `python benchmarks/threshold_guarantee.py` (about twenty minutes on one core; `--draws 100` for a first look).
Draws labelled answers from known distributions, chooses a threshold for a risk of at most 10 % with probability 90 %,
and computes the true risk of the released answers, by integration and not from a test set. MAPIE's
BinaryClassificationController with its defaults gets the same draws. It finds no threshold if any of its hundred
default thresholds releases no answer (its p-value is NaN, and Holm's procedure ends there; MAPIE 1.6.0). Therefore the
table has "MAPIE" unchanged, and "fixed": its own p-values and procedure, with a NaN counted as not passed.

Exits with 1 if, in any cell, the true risk exceeds the target in more than δ + 3 standard errors of the draws. Also
exits with 1 if, in any cell except the borderline ones, one of the two finds a threshold more often or releases more.

Scores, as probabilities:

    sharp      log-odds 4z + 1 with z standard normal: most answers are plainly right or plainly wrong
    weak       log-odds 0.6z + 1.6: no answer is certain, and only the best fifth meets the target
    useless    independent of the answers, one in five of which is wrong
    borderline independent of the answers, and the errors are slightly above the target: every threshold is a mistake,
               and all are equally hard to avoid, so the simulation uses up δ here, and finding fewer is better
    tied       four different scores; the risk of the released answers is 4 %, 10.06 %, 9.7 % and 10.1 % from threshold
               to threshold, so that two of four thresholds barely miss the target
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
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
    """A distribution of scores: points of equal mass with their probabilities of being wrong, highest scores first."""

    name: str
    score: Numbers
    wrong: Numbers

    def draw(self, generator: np.random.Generator, n: int) -> tuple[Numbers, Labels]:
        """Draw the scores and labels of n answers, `(n,)` each."""
        points = generator.integers(len(self.score), size=n)
        correct = generator.random(n) >= self.wrong[points]
        return self.score[points], correct

    def measure(self, threshold: float) -> tuple[float, float]:
        """Return the coverage and the true risk of releasing scores ≥ threshold."""
        count = int(np.searchsorted(-self.score, -threshold, side="right"))
        coverage = count / len(self.score)
        risk = float(self.wrong[:count].mean()) if count else 0.0
        return coverage, risk


def make_calibrated_shape(name: str, score: Numbers) -> Shape:
    """Return the shape of a score that equals the probability of being right."""
    score = np.sort(score)[::-1]
    return Shape(name, score, 1 - score)


def make_shapes() -> list[Shape]:
    """Return the shapes of the table."""
    share = (np.arange(_POINTS) + 0.5) / _POINTS
    atoms = np.repeat(
        [0.955, 0.855, 0.755, 0.655],
        [15 * _POINTS // 100, _POINTS // 4, _POINTS // 5, 2 * _POINTS // 5],
    )
    errors = {0.955: 0.04, 0.855: 0.137, 0.755: 0.09, 0.655: 0.108}
    return [
        make_calibrated_shape("sharp", expit(4 * ndtri(share) + 1)),
        make_calibrated_shape("weak", expit(0.6 * ndtri(share) + 1.6)),
        Shape("useless", share[::-1], np.full(_POINTS, 0.2)),
        Shape("borderline", share[::-1], np.full(_POINTS, TARGET + 1e-4)),
        Shape("tied", atoms, np.vectorize(errors.get)(atoms)),
    ]


def choose_ours(score: Numbers, correct: Labels) -> float | None:
    """Return our threshold on the score, or None if no threshold keeps the risk."""
    # The logistic function is the inverse of the logit, so the confidence is the score.
    calibrator = PlattCalibrator(slope=1.0, intercept=0.0)
    threshold = choose_threshold(
        logit(score),
        correct,
        calibrator=calibrator,
        target_risk=TARGET,
        delta=DELTA,
        date="2024-01-31",
    )
    return threshold.confidence if isinstance(threshold, Threshold) else None


def choose_mapie(score: Numbers, correct: Labels) -> tuple[float | None, float | None]:
    """Return the thresholds of MAPIE's defaults, unchanged and fixed, or None if it finds none."""
    from mapie.risk_control import BinaryClassificationController
    from mapie.risk_control.fwer_control import control_fwer

    controller = BinaryClassificationController(
        lambda scores: np.column_stack([1 - scores[:, 0], scores[:, 0]]),
        risk="precision",
        target_level=1 - TARGET,
        confidence_level=1 - DELTA,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns about each draw without a threshold.
        controller.calibrate(score[:, None], correct.astype(int))
    best = controller.best_predict_param
    p_values = np.nan_to_num(np.ravel(controller.p_values), nan=1.0)
    valid = control_fwer(p_values, DELTA)
    # The default grid rises, so the first valid threshold is the lowest and releases the most answers.
    fixed = float(np.linspace(0, 0.99, 100)[valid[0]]) if len(valid) else None
    return None if best is None else float(best), fixed


@dataclass(frozen=True)
class Cell:
    """The share of draws with a threshold, the share with a true risk above the target, and the mean coverage."""

    found: float
    exceeded: float
    coverage: float


def simulate(shape: Shape, n: int, draws: int) -> list[Cell]:
    """Return the cells of our threshold, MAPIE's and the fixed MAPIE threshold, on the same draws."""
    generator = np.random.default_rng([n, draws])
    ours, mapie, fixed = [], [], []
    for _ in range(draws):
        score, correct = shape.draw(generator, n)
        ours.append(choose_ours(score, correct))
        mapie_threshold, fixed_threshold = choose_mapie(score, correct)
        mapie.append(mapie_threshold)
        fixed.append(fixed_threshold)
    return [summarise(shape, thresholds) for thresholds in (ours, mapie, fixed)]


def summarise(shape: Shape, thresholds: Sequence[float | None]) -> Cell:
    """Return the cell of the thresholds that were found on the draws."""
    results = [shape.measure(threshold) for threshold in thresholds if threshold is not None]
    return Cell(
        found=len(results) / len(thresholds),
        exceeded=sum(risk > TARGET for _, risk in results) / len(thresholds),
        coverage=sum(coverage for coverage, _ in results) / len(thresholds),
    )


def keeps_promise(shape: Shape, cells: Sequence[Cell], limit: float) -> bool:
    """Tell whether our cell, the first, keeps the promise, and no other cell is ahead of it."""
    ours, *others = cells
    if ours.exceeded > limit:
        return False
    if shape.name == "borderline":
        return True
    return all(ours.found >= cell.found and ours.coverage >= cell.coverage for cell in others)


def main() -> None:
    """Print the table, and say whether every cell keeps its promise."""
    parser = argparse.ArgumentParser(description="Simulate the guarantee of thresholds.")
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    limit = DELTA + 3 * (DELTA * (1 - DELTA) / draws) ** 0.5
    print(
        f"target risk {TARGET}, δ {DELTA}, {draws} draws a cell; true risk above the target: at most {limit:.4f}\n"
    )
    print("| n | shape | risk above target | found | coverage | MAPIE | | | fixed | | |")
    print("|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    all_cells_pass = True
    for n in SIZES:
        for shape in make_shapes():
            cells = simulate(shape, n, draws)
            all_cells_pass &= keeps_promise(shape, cells, limit)
            figures = [
                f"{cell.exceeded:.4f} | {cell.found:.4f} | {cell.coverage:.4f}" for cell in cells
            ]
            print(f"| {n} | {shape.name} |", " | ".join(figures), "|", flush=True)
    print("\nn = 1,000, P(right) uniform, 200 draws:")
    uniform = make_calibrated_shape("uniform", (np.arange(_POINTS) + 0.5) / _POINTS)
    for name, cell in zip(("ours", "MAPIE", "fixed"), simulate(uniform, 1000, 200), strict=True):
        print(
            f"{name}: found {200 * cell.found:.0f}, coverage {cell.coverage:.3f}, above target {cell.exceeded:.3f}"
        )
    print(
        "every cell keeps its promise, and MAPIE is nowhere ahead"
        if all_cells_pass
        else "A CELL FAILS"
    )
    sys.exit(not all_cells_pass)


if __name__ == "__main__":
    main()
