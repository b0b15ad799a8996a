"""The command `aspire-guard`.

Its own subcommands are `score`, `calibrate`, `report`, `monitor`, `seal` and the commands under `review`. Other
packages, installed with it or separately, add subcommands through the entry-point group `aspire_guard.commands`.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from aspire_guard.cli.calibrate import calibrate
from aspire_guard.cli.monitor import monitor
from aspire_guard.cli.options import ColumnsOption
from aspire_guard.cli.report import report
from aspire_guard.cli.review import review
from aspire_guard.cli.seal import seal
from aspire_guard.errors import AspireGuardError
from aspire_guard.files import name_file
from aspire_guard.jsonl import check_output_path, parse_id
from aspire_guard.records.columns import Columns
from aspire_guard.records.reading import read_numbered_records, resolve_standard_input

COMMANDS = "aspire_guard.commands"
_USER_ERROR = 2
_BATCH_SIZE = 64
# Keys that `score` copies from each line.
_COPIED_KEYS = ("question", "question_id", "answer", "correct", "group", "cost")


def score(
    data: Annotated[
        Path,
        typer.Argument(
            help="A file with `question`, `answer` and optionally `context`; - for standard input."
        ),
    ],
    evaluator: Annotated[
        Path | None, typer.Option(help="Evaluator folder; the starter evaluator if left out.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The file to write; standard output if left out.")
    ] = None,
    columns: ColumnsOption = None,
) -> None:
    """Score given answers from JSONL, a JSON array, CSV or Parquet. JSONL comes out, as a stream of any length.

    Example: aspire-guard score answers.jsonl --output scored.jsonl

    Each output line has `id`, `selection_score`, `confidence`, `log_likelihood`, `p_correct`, `question` and `answer`,
    the judgement of each sentence in `sentences`, the parts of the selection score in `signals`, `out_of_domain`, and
    in `evaluator` the evaluator that gave the scores. `correct`, `group`, `cost` and `question_id` are copied if the
    input line has them. A `log_likelihood` in the input line is the one that the chain's model reported. Evaluators
    that were fitted to reported log-likelihoods need it. `context_reference` says where the context is, for `report`.
    """
    lines = _score_lines(resolve_standard_input(data), evaluator, Columns.parse(columns))
    if output is None:
        _write_lines(lines, sys.stdout)
        return
    check_output_path(output, data)
    # A wrong input or evaluator fails here, before the file of an earlier run is emptied.
    first_line = list(islice(lines, 1))
    with name_file(output), output.open("w", encoding="utf-8") as stream:
        _write_lines(chain(first_line, lines), stream)


def _score_lines(data: Path, folder: Path | None, columns: Columns) -> Iterator[dict[str, Any]]:
    from aspire_guard.records.context_reference import make_context_reference
    from aspire_guard.records.fields import parse_exchange

    objects = read_numbered_records(data, columns)
    # The first lines are read before the model is loaded, so that a wrong path fails within a second.
    batch = list(islice(objects, _BATCH_SIZE))
    evaluator = None
    while batch:
        exchanges = [parse_exchange(data, number, value) for number, value in batch]
        if evaluator is None:
            evaluator = load_evaluator(folder)
        scores = evaluator.score(exchanges)
        for (number, value), exchange, score in zip(batch, exchanges, scores, strict=True):
            line = {"id": parse_id(data, number, value), **score.model_dump()}
            line["evaluator"] = evaluator.manifest.scorer
            line |= {key: value[key] for key in _COPIED_KEYS if key in value}
            # The positions of the sentences count from the start of the answer as it was judged.
            line["answer"] = exchange.answer
            if exchange.context is not None:
                line["context_reference"] = make_context_reference(
                    data, number, exchange.context, columns
                )
            yield line
        batch = list(islice(objects, _BATCH_SIZE))


def load_evaluator(folder: str | Path | None) -> Any:
    """Load the evaluator of a folder, or the starter evaluator if it is None."""
    from aspire_guard.evaluators.self_evaluator import SelfEvaluator

    return SelfEvaluator.for_chains() if folder is None else SelfEvaluator.from_pretrained(folder)


def _write_lines(lines: Iterable[dict[str, Any]], stream: TextIO) -> None:
    for line in lines:
        stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        stream.flush()


def build_app() -> typer.Typer:
    """Build the whole command, with the subcommands of every installed package."""
    app = typer.Typer(
        help="Know when an LLM application is wrong.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=False,
    )
    for command in (score, calibrate, report, monitor, seal):
        app.command()(command)
    app.add_typer(review, name="review")
    for entry in sorted(entry_points(group=COMMANDS), key=lambda entry: entry.name):
        app.command(name=entry.name)(entry.load())
    return app


def _find_way_out(error: OSError) -> str:
    """Return the way out of an error of the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room and run the same command again: training and sampling go on from where they stopped"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "make it writable or choose another"
    return "choose another"


def main() -> None:
    """Run the command. A user's mistake ends in one line on standard error and exit code 2."""
    # Options can name modules of the user's own, which `python -m` would also find in the working folder.
    sys.path.append("")
    try:
        build_app()()
    except AspireGuardError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(_USER_ERROR)
    except BrokenPipeError:
        # The reader has stopped reading, as `head` does. Python would report another error when it flushes
        # standard output at exit.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.filename is None:
            raise
        problem = f"{error.filename} ({error.strerror})"
        print(
            f"error: expected a path to read or write, found {problem}; {_find_way_out(error)}",
            file=sys.stderr,
        )
        sys.exit(_USER_ERROR)
