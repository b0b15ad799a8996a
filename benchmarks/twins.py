"""An evaluator's judgement of right answers and of their wrong twins in ten styles, and of padded wrong answers.

Run: `python benchmarks/twins.py [--evaluator FOLDER]`. A hundred questions over made-up passages have a right answer
and a wrong twin each, which is of the same type and mostly stands elsewhere in the passage. Both are written in ten
styles, from the bare value to a table, and differ in the value alone. Three styles and all their phrases are held out:
no evaluator may learn from them.

The first table has a row for all twins, for the held-out styles and the others, for each style and each kind of error:

    right above wrong   the share of twins whose right answer has the higher selection score
    AUROC               of the selection score, over all these answers together, in %
    … likelihood        the AUROC of the log-likelihood under the evaluator's own model
    … word overlap      the AUROC of the share of the answer's words that stand in the passage
    released (right)    the share of answers that the threshold releases, and of right ones among them, in %

Then follows how far the confidence in the same fact depends on the style. The second table has sixty wrong answers,
each made longer in forms that don't make it right, or argued for: how many answers the threshold releases that it did
not release without padding ("newly released"), and the share whose confidence is higher. The last tables are those
of `real_answers.py`.

A question takes about ten seconds on a core. `--limit` takes the first questions only. `--scores` keeps the scores, and
a run that was ended goes on from there. `--export FILE` writes the twins as JSONL, which `real_answers.py` reads, and
scores nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from given_answers import Key, ScoredAnswer
from padding import Padded, make_padded
from real_answers import ScoreFile, Scorer, load_evaluator, score_answers, score_by_evaluator
from twin_answers import Twins, export_answers, list_answers, make_twins, read_questions
from twin_report import ScoredPadded, ScoredTwins, format_twin_page, make_twin_report

from aspire_guard import SelfEvaluator
from aspire_trainers.data.rated_answers import RatedAnswer


def score_twins(
    twins: Sequence[Twins], padded: Sequence[Padded], scorer: Scorer, file: ScoreFile
) -> tuple[list[ScoredTwins], list[ScoredPadded]]:
    """Return the twins and the padded answers with their scores."""
    answers: list[RatedAnswer] = [*list_answers(twins), *(each.padded for each in padded)]
    scored: dict[Key, ScoredAnswer] = {}
    for answer in score_answers(answers, {"evaluator": scorer}, file):
        scored[answer.given.key] = answer
    scored_twins = []
    for pair in twins:
        right, wrong = scored[pair.right.key], scored[pair.wrong.key]
        scored_twins.append(ScoredTwins(pair.question, pair.style, right, wrong))
    scored_padded = []
    for each in padded:
        plain, longer = scored[each.plain.key], scored[each.padded.key]
        scored_padded.append(ScoredPadded(each.form, plain, longer))
    return scored_twins, scored_padded


def score_by(
    evaluator: SelfEvaluator, twins: Sequence[Twins], padded: Sequence[Padded], path: Path | None
) -> tuple[list[ScoredTwins], list[ScoredPadded]]:
    """Return the evaluator's scores, out of the file as far as it has them."""
    scorer = partial(score_by_evaluator, evaluator)
    with tempfile.TemporaryDirectory() as folder:
        file = ScoreFile(path or Path(folder) / "scores.jsonl", evaluator.fingerprint)
        return score_twins(twins, padded, scorer, file)


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--evaluator", type=Path, help="an evaluator folder; the starter by default"
    )
    parser.add_argument(
        "--scores", type=Path, help="a file that keeps the scores, which the next run reads"
    )
    parser.add_argument("--limit", type=int, help="take this many questions, the first ones")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--export", type=Path, help="write the twins to this file, and score nothing"
    )
    return parser.parse_args()


def main() -> None:
    """Score the twins and the padded answers, and print the tables."""
    options = parse_options()
    questions = read_questions()[: options.limit]
    twins = make_twins(questions)
    if options.export is not None:
        export_answers(list_answers(twins), options.export)
        return
    evaluator = load_evaluator(options.evaluator)
    evaluator.check_own_likelihood()
    scored = score_by(evaluator, twins, make_padded(questions), options.scores)
    report = make_twin_report(*scored, evaluator.threshold)
    if options.json:
        print(json.dumps(asdict(report), indent=2, ensure_ascii=False))
        return
    print("\n".join(format_twin_page(report)))


if __name__ == "__main__":
    main()
