"""The command `aspire-guard`.

Its own subcommands are `score`, `calibrate`, `report` and `monitor`. Other packages, installed with it or separately,
add subcommands through the entry-point group `aspire_guard.commands`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from aspire_guard.cli.calibrate import calibrate
from aspire_guard.cli.monitor import monitor
from aspire_guard.cli.report import report
from aspire_guard.errors import AspireGuardError
from aspire_guard.jsonl import (
    check_output_path,
    parse_context,
    parse_id,
    parse_log_likelihood,
    parse_question,
    parse_text,
    read_numbered_objects,
)

if TYPE_CHECKING:
    from aspire_guard.exchange import Exchange

COMMANDS = "aspire_guard.commands"
_USER_ERROR = 2
_BATCH_SIZE = 64
# Keys that `score` copies from each line.
_COPIED_KEYS = ("question", "answer", "correct", "group", "cost")


def score(
    data: Annotated[
        Path,
        typer.Argument(
            help="JSONL with `question`, `answer` and optionally `context`; - for standard input."
        ),
    ],
    evaluator: Annotated[
        Path | None, typer.Option(help="Evaluator folder; the starter evaluator if left out.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The file to write; standard output if left out.")
    ] = None,
) -> None:
    """Score given answers: JSONL in, JSONL out, as a stream of any length.

    Example: aspire-guard score answers.jsonl --output scored.jsonl

    Each output line has `id`, `selection_score`, `confidence`, `log_likelihood`, `p_correct`, `question` and `answer`,
    the judgement of each sentence in `sentences`, the parts of the selection score in `signals`, `out_of_domain`, and
    in `evaluator` the evaluator that gave the scores. `correct`, `group` and `cost` are copied if the input line
    has them. A `log_likelihood` in the input line is the one that the chain's model reported. Evaluators that were
    fitted to reported log-likelihoods need it.
    """
    lines = _score_lines(Path("/dev/stdin") if str(data) == "-" else data, evaluator)
    if output is None:
        _write_lines(lines, sys.stdout)
        return
    check_output_path(output, data)
    # A wrong input or evaluator fails here, before the file of an earlier run is emptied.
    first_line = list(islice(lines, 1))
    with output.open("w", encoding="utf-8") as stream:
        _write_lines(chain(first_line, lines), stream)


def _score_lines(data: Path, folder: Path | None) -> Iterator[dict[str, Any]]:
    objects = read_numbered_objects(data)
    # The first lines are read before the model is loaded, so that a wrong path fails within a second.
    batch = list(islice(objects, _BATCH_SIZE))
    evaluator = None
    while batch:
        exchanges = [_parse_exchange(data, number, value) for number, value in batch]
        if evaluator is None:
            evaluator = load_evaluator(folder)
        scores = evaluator.score(exchanges)
        for (number, value), exchange, score in zip(batch, exchanges, scores, strict=True):
            line = {"id": parse_id(data, number, value), **score.model_dump()}
            line["evaluator"] = evaluator.manifest.scorer
            line |= {key: value[key] for key in _COPIED_KEYS if key in value}
            # The positions of the sentences count from the start of the answer as it was judged.
            line["answer"] = exchange.answer
            yield line
        batch = list(islice(objects, _BATCH_SIZE))


def _parse_exchange(data: Path, number: int, value: dict[str, Any]) -> Exchange:
    from aspire_guard.exchange import Exchange

    return Exchange(
        question=parse_question(data, number, value),
        context=parse_context(data, number, value),
        answer=parse_text(data, number, "answer", value.get("answer")),
        log_likelihood=parse_log_likelihood(data, number, value),
    )


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
    for command in (score, calibrate, report, monitor):
        app.command()(command)
    for entry in sorted(entry_points(group=COMMANDS), key=lambda entry: entry.name):
        app.command(name=entry.name)(entry.load())
    return app


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
            f"error: expected a path to read or write, found {problem}; choose another",
            file=sys.stderr,
        )
        sys.exit(_USER_ERROR)
