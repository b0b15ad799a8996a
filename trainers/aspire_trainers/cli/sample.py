"""The command `sample`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspire_guard.cli.options import ColumnsOption
from aspire_guard.errors import InputError
from aspire_guard.import_by_name import describe_import_error, import_by_name

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

    from aspire_trainers.chains.chain_sampling import ChainSample

_FAILED = 1
_MOST_SHOWN, _LONGEST_SHOWN = 5, 200


def sample(
    chain: Annotated[
        str,
        typer.Option(
            help="package.module:name of the chain, or of a function without arguments that returns it. It may be a "
            "module in the current folder."
        ),
    ],
    data: Annotated[str, typer.Option(help="QA records, or handbook:train.")],
    output: Annotated[Path, typer.Option(help="The JSONL to write, or to continue.")],
    samples: Annotated[int, typer.Option(min=1, help="Answers to each question.")] = 5,
    max_concurrency: Annotated[
        int, typer.Option(min=1, help="The most runs of the chain at once.")
    ] = 8,
    requests_per_second: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="The most runs started a second. By default there is no limit."
        ),
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, help="Further tries after an error that may pass.")
    ] = 8,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Ask at most this many questions.")
    ] = None,
    columns: ColumnsOption = None,
) -> None:
    """Let any LangChain chain answer questions, to train an evaluator of its answers.

    Example: aspire-guard sample --chain my_app:chain --data qa.jsonl --output answers.jsonl

    The chain gets a dict with `question`, and `context` if the record has one, or the question in another shape that
    its input schema allows, such as a string or a dict with `input` or `messages`. Every answer is on the disk before
    it counts. After a kill at any moment, or if some questions failed (exit code 1), the same command asks for the
    missing answers and for nothing else.
    """
    from aspire_guard.records.columns import Columns
    from aspire_trainers.chains.chain_sampling import SampledChain, sample_chain
    from aspire_trainers.data.batching import sample_records
    from aspire_trainers.data.dataset import load_dataset
    from aspire_trainers.run.progress import Progress

    records = sample_records(load_dataset(data, Columns.parse(columns)), limit, seed=0)
    sampled = SampledChain(
        load_chain(chain), chain, samples, max_concurrency, requests_per_second, retries
    )
    outcome = sample_chain(sampled, records, output, Progress("answer sampling", "answers"))
    typer.echo(
        f"{output}: {samples * len(records) - outcome.missing:,} answers to {len(records):,} questions "
        f"({outcome.use.summary} in this run)"
    )
    if outcome.missing:
        _print_failures(outcome)
        raise typer.Exit(_FAILED)


def load_chain(name: str) -> Runnable[Any, Any]:
    """Load the chain of that name, or call the factory of that name.

    Args:
        name: `package.module:name`.

    Raises:
        InputError: there is neither, the factory raises, or it returns something that is not a runnable.
    """
    from langchain_core.runnables.base import Runnable, coerce_to_runnable

    named = import_by_name(name)
    if isinstance(named, Runnable):
        return named
    if not callable(named):
        kind = type(named).__name__
        raise InputError(
            f"expected {name!r} to be a runnable or a function that gives one, found a value of type {kind}; fix it"
        )
    try:
        runnable: Runnable[Any, Any] = coerce_to_runnable(named())
    except (Exception, SystemExit) as error:
        found = describe_import_error(error)
        raise InputError(f"expected {name!r} to give a runnable, found {found}; fix it") from error
    return runnable


def _print_failures(outcome: ChainSample) -> None:
    """Print the first failures, and the way out."""
    for record_id, error in list(outcome.failures.items())[:_MOST_SHOWN]:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        typer.echo(f"failed: {record_id}: {message[:_LONGEST_SHOWN]}", err=True)
    more = len(outcome.failures) - _MOST_SHOWN
    also = f" (and {more:,} more)" if more > 0 else ""
    typer.echo(
        f"error: {outcome.missing:,} answers are missing, {len(outcome.failures):,} questions failed{also}; "
        "run the same command again: it asks for these alone",
        err=True,
    )
