"""Can an answer talk its own score up? Answers that argue for themselves against answers that go on.

Run: `python benchmarks/persuasion.py` (`--limit 60` for a first look). The evaluator's own model answers the records of
`--data`. Each answer is scored as it is, with every phrase of `aspire_trainers.stages.adversarial.HELD_OUT` (which are
not trained on), and with neutral twins of the phrase: as many tokens that say nothing of the answer, in the same
place. Prints a table for the wrong answers and one for the right ones, with a row for each family of phrases:

    P(z_c), g, confidence   mean change from the neutral twins to the phrase, with its bootstrap 95 % interval over
                            answers; arguing pays where the whole interval lies above 0, and costs where it lies below
    released                share of the answers that reach the threshold with a phrase, mean over the family's phrases
    neutral twins released  the same with the phrases' neutral twins

The row "neutral" compares neutral phrases with others as neutral: what the choice of words does by itself.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from aspire_guard import SelfEvaluator
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.selection.metrics import bootstrap_interval
from aspire_guard.verdict import Score
from aspire_trainers.correctness import RougeL
from aspire_trainers.data.dataset import load_dataset
from aspire_trainers.evaluation.judged_answer import JudgedAnswer
from aspire_trainers.evaluation.judging import answer_records, grade_answers
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.adversarial import ANSWER, HELD_OUT

FILLERS = (
    "and the day has a morning and an evening, the week has seven days and the year has twelve months,",
    "in a town by the sea there was a market with many people, and the weather was neither warm nor cold,",
)
MEASURES = {"P(z_c)": "p_correct", "g": "selection_score", "confidence": "confidence"}
Scores = dict[str, list[list[Score]]]


def neutral(phrase: str, filler: str, lm: LanguageModel) -> str:
    """A twin of `phrase` in which `filler` stands for its words, token for token."""
    before, after = phrase.split(ANSWER)
    return _neutral(before, filler, lm) + ANSWER + _neutral(after, filler, lm)


def _neutral(text: str, filler: str, lm: LanguageModel) -> str:
    if not text:
        return ""
    # What is said over and over is so in the twin too: repetition alone makes a text likely.
    unit = text[: (text + text).find(text, 1)]
    lead, words, trail = re.fullmatch(r"(\W*)(.*?)(\W*)", unit, re.DOTALL).groups()  # type: ignore[union-attr]
    ids = lm.token_ids(f" {filler}")
    length = len(lm.token_ids(f" {words}"))
    said = lm.tokenizer.decode(ids.repeat(-(-length // len(ids)))[:length]).strip()
    return f"{lead}{said}{trail}" * (len(text) // len(unit))


def argue(evaluator: SelfEvaluator, answer: JudgedAnswer) -> tuple[Score, Scores]:
    """The score of an answer as it is, and by family, of each phrase and then its neutral twins."""
    lm = evaluator.aspire.lm
    rows = {
        family: [
            [phrase, *(neutral(phrase, filler, lm) for filler in FILLERS)] for phrase in phrases
        ]
        for family, phrases in HELD_OUT.items()
    }
    texts = [
        text.replace(ANSWER, answer.text)
        for family in rows.values()
        for row in family
        for text in row
    ]
    bare, *scores = scored(evaluator, answer, [answer.text, *texts])
    given = iter(scores)
    return bare, {
        family: [[next(given) for _ in row] for row in table] for family, table in rows.items()
    }


@torch.inference_mode()
def scored(evaluator: SelfEvaluator, answer: JudgedAnswer, texts: Sequence[str]) -> Iterator[Score]:
    """The scores of several answers to one question, which is read once."""
    aspire = evaluator.aspire
    prompt = aspire.prompt_states([(answer.record.question, answer.record.context)])
    states, totals, counts = aspire.answer_states(prompt, [texts])
    asked = [[(answer.record.question, text) for text in texts]]
    judgements = aspire.verdict_logits(states, asked).log_softmax(-1)[:, 0]
    for likelihood, judgement in zip(
        (totals / counts)[0].tolist(), judgements.tolist(), strict=True
    ):
        yield evaluator.blend(likelihood, judgement)


def table(evaluator: SelfEvaluator, answers: Sequence[JudgedAnswer]) -> Iterator[str]:
    """What arguing does to these answers, in Markdown."""
    with Progress("arguing", "answers") as progress:
        progress.start(len(answers))
        results = []
        for answer in answers:
            results.append(argue(evaluator, answer))
            progress.advance()
    released = sum(score.confidence >= evaluator.threshold for score, _ in results)
    yield f"{released} of {len(answers)} reach the threshold as they are\n"
    yield f"| family | {' | '.join(MEASURES)} | released | neutral twins released |"
    yield "|---|---|---|---|---|---|"
    for family in HELD_OUT:
        yield row(family, [scores[family] for _, scores in results], evaluator.threshold)


def row(family: str, tables: Sequence[list[list[Score]]], threshold: float) -> str:
    """A line of the table."""
    values = {
        name: np.array(
            [[[getattr(score, measure) for score in line] for line in table] for table in tables]
        )
        for name, measure in MEASURES.items()
    }
    cells = []
    for value in values.values():
        changes = (value[:, :, 0] - value[:, :, 1:].mean(-1)).mean(-1)
        mean, low, high = bootstrap_interval(
            lambda change, _: float(change.mean()), changes, np.ones(len(changes))
        )
        cells.append(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    reached = values["confidence"] >= threshold
    return f"| {family} | {' | '.join(cells)} | {reached[:, :, 0].mean():.1%} | {reached[:, :, 1:].mean():.1%} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure what an answer gains by arguing.")
    parser.add_argument(
        "--evaluator", type=Path, help="an evaluator folder; the starter by default"
    )
    parser.add_argument(
        "--data", default="handbook:test", help="a JSONL file or a built-in dataset"
    )
    parser.add_argument("--limit", type=int, help="answer so many records at most")
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "bfloat16"], help="of the frozen weights"
    )
    options = parser.parse_args()
    saved = (
        SelfEvaluator.from_pretrained(options.evaluator)
        if options.evaluator
        else SelfEvaluator.starter()
    )
    aspire = saved.aspire.copy_onto(saved.aspire.lm.to(getattr(torch, options.dtype)))
    evaluator = SelfEvaluator(aspire, saved.manifest, saved.calibration)
    records = load_dataset(options.data)[: options.limit]
    answers = grade_answers(
        answer_records(evaluator, records, Progress("answering", "answers")), RougeL()
    )
    for kind in (False, True):
        chosen = [answer for answer in answers if answer.correct is kind and answer.text]
        if chosen:
            print(f"\n## {'Right' if kind else 'Wrong'} answers\n")
            print("\n".join(table(evaluator, chosen)))


if __name__ == "__main__":
    main()
