"""The options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns",
        help="The columns that hold the fields, e.g. question=query,answer=response,context=documents. Or a preset: "
        "ragas, langsmith or langfuse, alone or with pairs after it.",
    ),
]
