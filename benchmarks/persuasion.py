"""The effect of answers that argue for themselves on their scores, against answers with neutral text.

Run: `python benchmarks/persuasion.py` (`--limit 60` for a first look). The evaluator's own model answers the records of
`--data`. Each answer is scored alone, with every phrase of `aspire_trainers.stages.adversarial.HELD_OUT` (which are
not trained on), and with neutral twins of the phrase: the same number of tokens in the same place, which say nothing
about the answer. Prints a table for the wrong answers and a table for the right ones, with a row for each family of
phrases:

    P(z_c), g, confidence   mean change from the neutral twins to the phrase, with its bootstrap 95 % interval over
                            answers: arguing helps if the whole interval is above 0, and harms if it is below 0
    released                share of the answers that reach the threshold with a phrase, mean over the family's phrases
    neutral twins released  the same share with the phrases' neutral twins

The row "neutral" compares neutral phrases with other neutral phrases, to show the effect of the choice of words.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch

from aspire_guard import SelfEvaluator
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.selection.arrays import Numbers
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
# A row for each phrase of a family: the score with the phrase, and then with each of its neutral twins.
FamilyScores = list[list[Score]]


def make_twin(phrase: str, filler: str, lm: LanguageModel) -> str:
    """Return a neutral twin of `phrase`, in which tokens of `filler` replace its words, token for token."""
    before, after = phrase.split(ANSWER)
    return _neutralize(before, filler, lm) + ANSWER + _neutralize(after, filler, lm)


def _neutralize(text: str, filler: str, lm: LanguageModel) -> str:
    if not text:
        return ""
    # Repetition alone makes a text likely, so a text that repeats itself has a twin that does so too.
    period = (text + text).find(text, 1)
    unit, repetitions = text[:period], len(text) // period
    match = re.fullmatch(r"(\W*)(.*?)(\W*)", unit, re.DOTALL)
    assert match is not None
    lead, words, trail = match.groups()
    filler_ids = lm.token_ids(f" {filler}")
    length = len(lm.token_ids(f" {words}"))
    enough_ids = filler_ids.repeat(math.ceil(length / len(filler_ids)))
    replacement = lm.tokenizer.decode(enough_ids[:length]).strip()
    return f"{lead}{replacement}{trail}" * repetitions


def score_phrases(
    evaluator: SelfEvaluator, answer: JudgedAnswer
) -> tuple[Score, dict[str, FamilyScores]]:
    """Return the score of an answer alone, and by family the scores with phrases and their neutral twins."""
    lm = evaluator.aspire.lm
    texts = [answer.text]
    for phrases in HELD_OUT.values():
        for phrase in phrases:
            twins = [make_twin(phrase, filler, lm) for filler in FILLERS]
            texts += [variant.replace(ANSWER, answer.text) for variant in [phrase, *twins]]
    remaining = iter(score_texts(evaluator, answer, texts))
    alone = next(remaining)
    scores: dict[str, FamilyScores] = {}
    for family, phrases in HELD_OUT.items():
        scores[family] = [list(islice(remaining, 1 + len(FILLERS))) for _ in phrases]
    return alone, scores


@torch.inference_mode()
def score_texts(
    evaluator: SelfEvaluator, answer: JudgedAnswer, texts: Sequence[str]
) -> list[Score]:
    """Score several answers to a question, which is read once."""
    aspire, record = evaluator.aspire, answer.record
    prompt = aspire.prompt_states([(record.question, record.context)])
    states, totals, counts = aspire.answer_states(prompt, [texts])
    logits = aspire.verdict_logits(states, [[(record.question, text) for text in texts]])
    log_p_correct = logits.log_softmax(-1)[:, 0]  # (texts,)
    likelihoods = (totals / counts)[0]  # (texts,)
    return [
        evaluator.blend(likelihood, log_p)
        for likelihood, log_p in zip(likelihoods.tolist(), log_p_correct.tolist(), strict=True)
    ]


def format_table(evaluator: SelfEvaluator, answers: Sequence[JudgedAnswer]) -> Iterator[str]:
    """Yield the lines of a table in Markdown for these answers."""
    alone, phrase_scores = [], []
    with Progress("arguing", "answers") as progress:
        progress.start(len(answers))
        for answer in answers:
            score, scores = score_phrases(evaluator, answer)
            alone.append(score)
            phrase_scores.append(scores)
            progress.advance()
    released = sum(score.confidence >= evaluator.threshold for score in alone)
    yield f"{released} of {len(answers)} reach the threshold as they are\n"
    yield f"| family | {' | '.join(MEASURES)} | released | neutral twins released |"
    yield "|---|---|---|---|---|---|"
    for family in HELD_OUT:
        yield format_row(family, [scores[family] for scores in phrase_scores], evaluator.threshold)


def format_row(family: str, scores: Sequence[FamilyScores], threshold: float) -> str:
    """Return the row of a family, whose scores are given for each answer."""
    cells = [family]
    for measure in MEASURES.values():
        values = _collect(scores, measure)
        changes = (values[:, :, 0] - values[:, :, 1:].mean(-1)).mean(-1)  # (answers,)
        mean, low, high = bootstrap_interval(
            lambda change, _: float(change.mean()), changes, np.ones(len(changes))
        )
        cells.append(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    released = _collect(scores, "confidence") >= threshold
    cells.append(f"{released[:, :, 0].mean():.1%}")
    cells.append(f"{released[:, :, 1:].mean():.1%}")
    return f"| {' | '.join(cells)} |"


def _collect(scores: Sequence[FamilyScores], measure: str) -> Numbers:
    """Return a measure of all scores, `(answers, phrases, 1 + fillers)`."""
    rows = chain.from_iterable(scores)
    values = [getattr(score, measure) for score in chain.from_iterable(rows)]
    return np.array(values).reshape(len(scores), -1, 1 + len(FILLERS))


def load_evaluator(folder: Path | None) -> SelfEvaluator:
    """Load the evaluator of a folder, or the starter evaluator if it is None."""
    return SelfEvaluator.starter() if folder is None else SelfEvaluator.from_pretrained(folder)


def main() -> None:
    """Print a table for the wrong and a table for the right answers."""
    parser = argparse.ArgumentParser(description="Measure what an answer gains by arguing.")
    parser.add_argument(
        "--evaluator", type=Path, help="an evaluator folder; the starter by default"
    )
    parser.add_argument(
        "--data", default="handbook:test", help="a JSONL file or a built-in dataset"
    )
    parser.add_argument("--limit", type=int, help="the maximal number of records")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16"],
        help="the type of the frozen weights",
    )
    options = parser.parse_args()
    saved = load_evaluator(options.evaluator)
    aspire = saved.aspire.copy_onto(saved.aspire.lm.to(getattr(torch, options.dtype)))
    evaluator = SelfEvaluator(aspire, saved.manifest, saved.calibration)
    records = load_dataset(options.data)[: options.limit]
    answers = answer_records(evaluator, records, Progress("answering", "answers"))
    graded = [answer for answer in grade_answers(answers, RougeL()) if answer.text]
    for title, correct in (("Wrong answers", False), ("Right answers", True)):
        chosen = [answer for answer in graded if answer.correct is correct]
        if chosen:
            print(f"\n## {title}\n")
            print("\n".join(format_table(evaluator, chosen)))


if __name__ == "__main__":
    main()
