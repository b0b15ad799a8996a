"""A threshold as a policy file, on the scale of the confidences that the policy will meet."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from aspire_guard.errors import InputError
from aspire_guard.files import write_text
from aspire_guard.selection.calibration import Threshold
from aspire_guard.selection.scored_answers import ScoredAnswers


def threshold_in_lines(threshold: Threshold, scored: ScoredAnswers) -> float:
    """The same cut on the confidences that the lines have, for an evaluator that goes on giving these.

    Args:
        threshold: chosen on these very answers.
        scored: with the confidence of each answer.

    Returns:
        The least confidence that is released, in [0, 1]: just above that of the best answer left out.

    Raises:
        InputError: a line has no confidence, or the confidences don't rise with the scores across the threshold.
    """
    if scored.confidence is None:
        raise InputError(
            f'{scored.source}: expected a "confidence" in every line, on whose scale a policy cuts, found lines '
            "without; score the answers again, or give the --evaluator that the policy is for"
        )
    if threshold.selection_score is None:
        return 1.0
    released = scored.selection_score >= threshold.selection_score
    if released.all():
        return 0.0
    highest_left_out = float(np.max(scored.confidence[~released]))
    if not released.any() or float(np.min(scored.confidence[released])) <= highest_left_out:
        raise InputError(
            f"{scored.source}: expected confidences that rise with the scores, found {highest_left_out:g} on both "
            "sides of the threshold; score all answers with one evaluator, or write into it with --evaluator"
        )
    return math.nextafter(highest_left_out, 1.0)


def write_policy(path: Path, threshold: float) -> None:
    """Write a policy that releases answers from this confidence on; `RoutingPolicy` reads it.

    Raises:
        InputError: the file can't be written.
    """
    try:
        write_text(path, json.dumps({"threshold": threshold}, indent=2) + "\n")
    except OSError as error:
        found = error.strerror or str(error)
        raise InputError(
            f"{path}: expected to write the policy, found: {found}; fix the path"
        ) from error
