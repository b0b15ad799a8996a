"""α, which weighs the self-evaluation against the likelihood in the selection score, and that score's calibration."""

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
    """The α nearest to the paper's 0.25 that the α of highest AUROC does not beat beyond chance on the judged answers.

    It beats another where the paired bootstrap 95 % interval of the difference in AUROC lies above 0; the answers to
    one question are drawn together. Of few answers it is often an extreme α that ranks other answers worse.
    """
    correct = [answer.correct for answer in judged]
    if len(set(correct)) < 2:
        return _PAPER_ALPHA
    alphas = sorted(_ALPHAS, key=lambda alpha: abs(alpha - _PAPER_ALPHA))
    scores = {alpha: selection_scores(judged, alpha) for alpha in alphas}
    best = max(scores.values(), key=lambda values: auroc(values, correct))
    ids = [answer.record.id for answer in judged]
    return next(
        alpha
        for alpha, values in scores.items()
        if bootstrap_difference(auroc, (best, correct), (values, correct), questions=ids).low <= 0
    )


def calibrate(judged: Sequence[JudgedAnswer], alpha: float, target_accuracy: float) -> Calibration:
    """Confidence and threshold of the selection score with this α."""
    return fit_calibration(
        selection_scores(judged, alpha),
        [answer.correct for answer in judged],
        target_accuracy=target_accuracy,
        date=datetime.now(UTC).date().isoformat(),
    )


def selection_scores(judged: Sequence[JudgedAnswer], alpha: float) -> list[float]:
    """g of each answer."""
    return [
        selection_score(answer.log_likelihood, answer.log_p_correct, alpha) for answer in judged
    ]
