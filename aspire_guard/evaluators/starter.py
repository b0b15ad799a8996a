"""The evaluator folder that comes with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def starter_folder() -> Path:
    """Return the folder of the starter evaluator: SmolLM2-135M, trained on questions over a passage."""
    return Path(str(files("aspire_guard.evaluators") / "starter"))
