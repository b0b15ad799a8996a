"""The commands of the integrations."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    ask: Annotated[
        str | None,
        typer.Option(
            "--ask", help="Answer this question about the handbook, instead of the sample."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="How many questions the sample has.")
    ] = 24,
) -> None:
    """Answer questions over a small handbook, and show what the guard does with each answer.

    The questions are a fixed sample of the handbook's test split, which no
    training has seen; one in five is not answered anywhere in the handbook. At
    the end stands what the guard bought: the accuracy of all answers, the
    accuracy of the released ones, and the coverage.

    Example: aspire-guard demo --ask "How many cars can MV Petrel carry?"
    """
    # Imported here, so that `aspire-guard --help` loads no model library.
    from aspire_guard.errors import InputError
    from aspire_guard.guard import AspireGuard
    from aspire_integrations import demo as shown

    if ask is not None and not ask.strip():
        raise InputError(
            'expected a question after --ask, found none; try --ask "How many cars can MV Petrel carry?"'
        )
    console = shown.demo_console()
    evaluator = shown.prepare(console)
    guard = AspireGuard(shown.demo_chain(evaluator), evaluator=evaluator)
    if ask is not None:
        shown.show_answer(shown.ask(guard, ask), console)
        return
    shown.show_summary(shown.run_demo(guard, shown.sample_questions(limit), console), console)
