"""The command `demo`."""

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
        int, typer.Option("--limit", min=1, help="The number of questions in the sample.")
    ] = 24,
) -> None:
    """Answer questions over a small handbook, and show what the guard does with each answer.

    The questions are a fixed sample of the handbook's test split, on which
    nothing was trained. The handbook does not answer one in five of them. The
    output ends with the gain from the guard: the accuracy of all answers, the
    accuracy of the released answers, and the coverage.

    Example: aspire-guard demo --ask "How many cars can MV Petrel carry?"
    """
    # The imports are here so that `aspire-guard --help` loads no model library.
    from aspire_guard.errors import InputError
    from aspire_guard.guard import AspireGuard
    from aspire_integrations.demo import (
        answer_question,
        load_evaluator,
        make_chain,
        make_console,
        print_answer,
        print_summary,
        run_demo,
        sample_questions,
    )

    if ask is not None and not ask.strip():
        raise InputError(
            'expected a question after --ask, found none; try --ask "How many cars can MV Petrel carry?"'
        )
    console = make_console()
    evaluator = load_evaluator(console)
    guard = AspireGuard(make_chain(evaluator), evaluator=evaluator)
    if ask is not None:
        print_answer(answer_question(guard, ask), console)
    else:
        print_summary(run_demo(guard, sample_questions(limit), console), console)
