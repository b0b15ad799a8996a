"""The number of rated answers that an evaluator takes for refusals.

Run: `python benchmarks/false_refusals.py FILE…`. The files are those of `real_answers.py`. A line says for each file
how many answers, and how many right answers, have `Score.declined` of one half or more. With `--show` their texts
follow. The answers are read without their contexts, on which the probability does not depend.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from aspire_guard import Exchange, SelfEvaluator
from aspire_trainers.data.rated_answers import RatedAnswer, read_rated_answers, sample_groups


def find_refusals(evaluator: SelfEvaluator, answers: Sequence[RatedAnswer]) -> list[RatedAnswer]:
    """Return the answers that the evaluator takes for refusals."""
    exchanges: list[Exchange] = []
    for answer in answers:
        texts = answer.exchange
        exchanges.append(Exchange(question=texts.question, answer=texts.answer))
    scores = evaluator.score(exchanges)
    return [answer for answer, score in zip(answers, scores, strict=True) if score.is_refusal]


def main() -> None:
    """Read the arguments and print a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="JSONL of rated answers.")
    parser.add_argument("--evaluator", type=Path, help="By default the starter for chains.")
    parser.add_argument("--limit", type=int, help="Draw whole groups until there are so many.")
    parser.add_argument("--show", action="store_true", help="Print the answers that are flagged.")
    arguments = parser.parse_args()
    if arguments.evaluator is None:
        evaluator = SelfEvaluator.for_chains()
    else:
        evaluator = SelfEvaluator.from_pretrained(arguments.evaluator)
    for path in arguments.files:
        answers = sample_groups(read_rated_answers(path), arguments.limit)
        flagged = find_refusals(evaluator, answers)
        right = sum(answer.correct for answer in answers)
        flagged_right = sum(answer.correct for answer in flagged)
        print(
            f"{path.stem}: {len(flagged)} of {len(answers):,} flagged, {flagged_right} of the {right:,} right ones"
        )
        for answer in flagged if arguments.show else ():
            print(f"  {answer.exchange.answer!r}")


if __name__ == "__main__":
    main()
