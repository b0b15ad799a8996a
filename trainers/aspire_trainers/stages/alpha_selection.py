"""The choice of α, which weighs self-evaluation against likelihood in the selection score, and the calibration."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from aspire_guard.evaluators.self_evaluator import selection_score
from aspire_guard.selection.calibration import Calibration, fit_calibration
from aspire_guard.selection.metrics import auroc, bootstrap_difference
from aspire_trainers.evaluation.judged_answer import JudgedAnswer

_PAPER_ALPHA = 0.25
_ALPHAS = [step / 20 for step in range(21)]


def choose_alpha(judged: Sequence[JudgedAnswer]) -> float:
    """Return the α nearest to the paper's 0.25 that the α of highest AUROC does not beat beyond chance.

    One α beats another if the paired bootstrap 95 % interval of their difference in AUROC lies above 0. The answers to
    a question are drawn together. With few answers the α of highest AUROC is often an extreme one, which ranks other
    answers worse.
    """
    correct = [answer.correct for answer in judged]
    if len(set(correct)) < 2:
        return _PAPER_ALPHA
    alphas = sorted(_ALPHAS, key=lambda alpha: abs(alpha - _PAPER_ALPHA))
    scores = {alpha: compute_selection_scores(judged, alpha) for alpha in alphas}
    best = max(scores.values(), key=lambda values: auroc(values, correct))
    questions = [answer.record.id for answer in judged]

    def is_beaten(values: list[float]) -> bool:
        difference = bootstrap_difference(
            auroc, (best, correct), (values, correct), questions=questions
        )
        return difference.low > 0

    return next(alpha for alpha, values in scores.items() if not is_beaten(values))


def calibrate(judged: Sequence[JudgedAnswer], alpha: float, target_accuracy: float) -> Calibration:
    """Fit the confidence and the threshold of the selection score with this α."""
    return fit_calibration(
        compute_selection_scores(judged, alpha),
        [answer.correct for answer in judged],
        target_accuracy=target_accuracy,
        date=datetime.now(UTC).date().isoformat(),
    )


def compute_selection_scores(judged: Sequence[JudgedAnswer], alpha: float) -> list[float]:
    """Compute the selection score g of each answer."""
    return [
        selection_score(answer.log_likelihood, answer.log_p_correct, alpha) for answer in judged
    ]
