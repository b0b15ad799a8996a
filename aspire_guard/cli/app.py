"""The command `aspire-guard`. Each room brings its own subcommands through the entry-point group
`aspire_guard.commands`, and so can any other package; the guard's own are `score`, `calibrate`, `report` and `monitor`.
"""

from __future__ import annotations

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
from aspire_guard.cli.report import report
from aspire_guard.errors import AspireGuardError
from aspire_guard.jsonl import check_output_path

COMMANDS = "aspire_guard.commands"
_USER_ERROR = 2
_LINES_AT_ONCE = 64
_PASSED_ON = ("question", "answer", "correct", "group", "cost")


def score(
    data: Annotated[
        Path,
        typer.Argument(
            help="JSONL with `question`, `answer` and, where there is one, `context`; - for stdin."
        ),
    ],
    evaluator: Annotated[
        Path | None, typer.Option(help="Evaluator folder; the starter evaluator where left out.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where to write; standard output where left out.")
    ] = None,
) -> None:
    """Score given answers: JSONL in, JSONL out, as a stream of any length.

    Example: aspire-guard score answers.jsonl --output scored.jsonl

    Each line out has `id`, `selection_score`, `confidence`, `log_likelihood`, `p_correct` and `evaluator`, which tells
    whose scores they are, beside `question` and `answer`; `correct`, `group` and `cost` are passed on where the line in
    has them. A `log_likelihood` in the line in is the one that the chain's model reported; evaluators fitted to these
    need it.
    """
    lines = _scored(Path("/dev/stdin") if str(data) == "-" else data, evaluator)
    if output is None:
        _write(lines, sys.stdout)
        return
    check_output_path(output, data)
    first = list(islice(lines, 1))  # a wrong input or evaluator should not cost an earlier output
    with output.open("w", encoding="utf-8") as stream:
        _write(chain(first, lines), stream)


def _scored(data: Path, folder: Path | None) -> Iterator[dict[str, Any]]:
    from aspire_guard.exchange import Exchange
    from aspire_guard.jsonl import (
        context_field,
        id_field,
        log_likelihood_field,
        numbered_objects,
        question_field,
        text_field,
    )

    # The first line is read before the model is loaded: a wrong path should not cost a minute.
    rows = numbered_objects(data)
    chunk = list(islice(rows, _LINES_AT_ONCE))
    judge = None
    while chunk:
        exchanges = [
            Exchange(
                question=question_field(data, number, value),
                context=context_field(data, number, value),
                answer=text_field(data, number, "answer", value.get("answer")),
                log_likelihood=log_likelihood_field(data, number, value),
            )
            for number, value in chunk
        ]
        judge = judge or load_evaluator(folder)
        for (number, value), scored in zip(chunk, judge.score(exchanges), strict=True):
            passed_on = {key: value[key] for key in _PASSED_ON if key in value}
            whose = {"evaluator": judge.manifest.scorer}
            yield {"id": id_field(data, number, value), **scored.model_dump(), **whose, **passed_on}
        chunk = list(islice(rows, _LINES_AT_ONCE))


def load_evaluator(folder: Path | None) -> Any:
    """The evaluator of a folder, or the starter evaluator."""
    from aspire_guard.evaluators.self_evaluator import SelfEvaluator

    return SelfEvaluator.starter() if folder is None else SelfEvaluator.from_pretrained(folder)


def _write(lines: Iterable[dict[str, Any]], stream: TextIO) -> None:
    for line in lines:
        stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        stream.flush()


def build_app() -> typer.Typer:
    """The whole command, with the subcommands of every installed package."""
    app = typer.Typer(
        help="Know when an LLM application is wrong.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=False,
    )
    for own in (score, calibrate, report, monitor):
        app.command()(own)
    for command in sorted(entry_points(group=COMMANDS), key=lambda entry: entry.name):
        app.command(name=command.name)(command.load())
    return app


def main() -> None:
    """Run the command; a user's mistake ends in one line and the exit code 2."""
    # A user's own modules are named on the command line; `python -m` would find them here too.
    sys.path.append("")
    try:
        build_app()()
    except AspireGuardError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(_USER_ERROR)
    except BrokenPipeError:
        # The reader has seen enough (`| head`); Python would complain again while it flushes standard output.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.filename is None:
            raise
        print(
            f"error: expected a path to read or write, found {error.filename} ({error.strerror}); choose another",
            file=sys.stderr,
        )
        sys.exit(_USER_ERROR)
