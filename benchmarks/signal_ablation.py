"""The worth of each signal of a selection rule on answers of files that the weights were not fitted on.

Run: `python benchmarks/signal_ablation.py --data FILE… --signals signals.jsonl [--limit 400]`, with the files, the
limit and the signals of `aspire-guard fit`. Every line is a set of signals over a context. Each column is the AUROC, in
%, on one file under weights that were fitted on the others, and the last column has the weights on all files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from aspire_guard.evaluators.selection_rule import SignalName, SignalWeights
from aspire_guard.selection.metrics import auroc
from aspire_trainers.data.rated_answers import read_rated_answers, sample_groups
from aspire_trainers.run.append_log import AppendOnlyJsonl
from aspire_trainers.stages.rule_fitting import SIGNALS as RULES
from aspire_trainers.stages.rule_fitting import MeasuredAnswer, fit_signal_weights

SIGNALS: tuple[SignalName, ...] = (
    "support",
    "explained",
    "claims_correct",
    "lead",
    "log_p_correct",
    "log_likelihood",
)


def list_signal_sets() -> Iterator[tuple[SignalName, ...]]:
    """Yield each signal alone, pairs, the sets that are fitted, and these with each other signal."""
    for name in SIGNALS:
        yield (name,)
    yield from combinations(SIGNALS[:4], 2)
    seen: set[frozenset[SignalName]] = set()
    for names in RULES.values():
        fitted = names["over_context"]
        yield fitted
        for name in SIGNALS:
            larger = frozenset((*fitted, name))
            if name not in fitted and larger not in seen:
                seen.add(larger)
                yield (*fitted, name)


def read_measured(paths: Sequence[Path], signals: Path, limit: int | None) -> list[MeasuredAnswer]:
    """Read the answers over a context with the signals that `aspire-guard fit` has measured."""
    lines = {(line["file"], line["id"]): line for line in AppendOnlyJsonl(signals).values}
    measured: list[MeasuredAnswer] = []
    for path in paths:
        for answer in sample_groups(read_rated_answers(path), limit):
            line = lines[answer.key]
            found = MeasuredAnswer(
                line["text"], line["signals"], answer.correct, answer.file, answer.group
            )
            if found.kind == "over_context":
                measured.append(found)
    return measured


def measure_held_out(
    answers: Sequence[MeasuredAnswer], names: tuple[SignalName, ...], file: str
) -> float:
    """Return the AUROC on a file under weights that were fitted on the other files."""
    others = [answer for answer in answers if answer.file != file]
    weights = fit_signal_weights(others, names)
    members = [answer for answer in answers if answer.file == file]
    scores = [weights.score(answer.signals) for answer in members]
    return auroc(scores, [answer.correct for answer in members])


def format_weights(weights: SignalWeights) -> str:
    """Return the weights in one cell."""
    return ", ".join(f"{name} {weight:.2f}" for name, weight in weights.weights.items())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", action="extend", required=True)
    parser.add_argument(
        "--signals", type=Path, required=True, help="the signals of aspire-guard fit"
    )
    parser.add_argument("--limit", type=int, help="as in aspire-guard fit")
    options = parser.parse_args()
    answers = read_measured(options.data, options.signals, options.limit)
    files = list(dict.fromkeys(answer.file for answer in answers))
    print(f"| signals | {' | '.join(files)} | weights on all files |")
    print(f"|---|{'---|' * len(files)}---|")
    for names in list_signal_sets():
        aurocs = [f"{measure_held_out(answers, names, file):.1%}".rstrip("%") for file in files]
        weights = format_weights(fit_signal_weights(answers, names))
        print(f"| {' + '.join(names)} | {' | '.join(aurocs)} | {weights} |")


if __name__ == "__main__":
    main()
