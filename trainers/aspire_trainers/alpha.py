"""α, which weighs the self-evaluation against the likelihood in the selection score."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from aspire_guard.evaluators.self_evaluator import selection_score
from aspire_guard.selection.calibration import Calibration, fit_calibration
from aspire_guard.selection.metrics import auroc, bootstrap_difference
from aspire_trainers.evaluate import JudgedAnswer

_PAPER_ALPHA = 0.25
_ALPHAS = [step / 20 for step in range(21)]


def choose_alpha(judged: Sequence[JudgedAnswer], target_accuracy: float) -> tuple[float, Calibration]:
    """The α nearest to the paper's 0.25 that no α beats beyond chance on the judged answers, and its calibration.

    One beats another where the paired bootstrap 95 % interval of the difference in AUROC lies above 0. Of few answers
    the α of highest AUROC is often an extreme one that ranks other answers worse.
    """
    correct = [answer.correct for answer in judged]
    scores = {
        alpha: [selection_score(a.log_likelihood, a.log_p_correct, alpha) for a in judged]
        for alpha in sorted(_ALPHAS, key=lambda alpha: abs(alpha - _PAPER_ALPHA))
    }
    chosen = _PAPER_ALPHA
    if len(set(correct)) == 2:
        best = max(scores.values(), key=lambda values: auroc(values, correct))
        chosen = next(
            alpha
            for alpha, values in scores.items()
            if bootstrap_difference(auroc, (best, correct), (values, correct)).low <= 0
        )
    today = datetime.now(UTC).date().isoformat()
    return chosen, fit_calibration(scores[chosen], correct, target_accuracy=target_accuracy, date=today)
