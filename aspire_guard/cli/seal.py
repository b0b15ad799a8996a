"""The command `seal`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def seal(
    evaluator: Annotated[Path, typer.Argument(help="The evaluator folder, which you trust.")],
) -> None:
    """Seal an evaluator folder as it is, so that every later change to it is found.

    Example: aspire-guard seal my-evaluator

    Folders are sealed when they are saved. Only a folder from a release without seals, or one that you have edited by
    hand, needs this command. A seal is a digest and no signature: it does not tell who made the folder.
    """
    from aspire_guard.evaluators.evaluator_folder import seal_evaluator

    seal_evaluator(evaluator)
    typer.echo(f"{evaluator}: sealed")
