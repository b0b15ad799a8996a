"""An evaluator's judgement of answers that large language models really gave, labelled by people.

Run: `python benchmarks/real_answers.py --data FILE…`. A file is JSONL with an answer a line:

    {"id": "1", "question": "…", "context": "… or null", "answer": "…", "correct": true, "model": "…", "group": "…"}

Answers of one `group` are about the same passage or belong to one conversation. The bootstrap draws whole groups, and
so does `--limit`. A summary says for each file, and for all files together, how many answers the evaluator's threshold
releases, how many of them are right, and the expected calibration error (ECE) of the confidence. Then come three
tables:

    scores          AUROC and AUACC of each score, in %, with bootstrap 95 % intervals
    differences     the same for "aspire" minus another score on the same answers, by the paired bootstrap
    models          AUROC of each score on the answers of one model, for models with 20 answers or more, right and wrong

The scores:

    aspire          the evaluator's selection score
    g, one alpha    the paper's g, if the selection score is a combination of signals
    log-likelihood  log f_norm of the answer under the evaluator's own model
    P(z_c)          the learned self-evaluation
    word overlap    the share of the answer's different words that stand in the context
    length          the negative number of the answer's words
    P(True)         the baseline `self_eval`: the evaluator's model is asked whether the answer is true (`--p-true`)

Answers that are longer than the evaluator's window are counted as "too long" and left out of all tables. Answers
without a context have no word overlap.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from answer_report import format_page, make_reports
from given_answers import Key, ScoredAnswer, Scores, measure_texts

from aspire_guard import SelfEvaluator
from aspire_guard.errors import InputError
from aspire_guard.evaluators.protocol import Evaluator
from aspire_trainers.data.rated_answers import RatedAnswer, read_rated_answers, sample_groups
from aspire_trainers.evaluation.baselines import AnsweredBatch, SelfEval
from aspire_trainers.evaluation.prompting import AdaptedPrompting, DecodedAnswers
from aspire_trainers.record import QARecord
from aspire_trainers.run.append_log import AppendOnlyJsonl
from aspire_trainers.run.progress import Progress

_NUMBERS = {"selection_score", "confidence", "log_likelihood", "p_correct"}

# Scores answers about the same passage.
Scorer = Callable[[Sequence[RatedAnswer]], list[Scores]]


def score_by_evaluator(evaluator: Evaluator, answers: Sequence[RatedAnswer]) -> list[Scores]:
    """Return the evaluator's scores of each answer, and its confidence."""
    rows: list[Scores] = []
    for score in evaluator.score([answer.exchange for answer in answers]):
        rows.append(score.model_dump(include=_NUMBERS, exclude_none=True) | score.signals)
    return rows


@torch.inference_mode()
def ask_model(evaluator: SelfEvaluator, answers: Sequence[RatedAnswer]) -> list[Scores]:
    """Return log P("true") of each answer, in nats, by the baseline `self_eval`."""
    aspire = evaluator.aspire
    exchanges = [answer.exchange for answer in answers]
    texts = [exchange.answer for exchange in exchanges]
    prompts = aspire.prompt_states([(each.question, each.context) for each in exchanges])
    states, totals, counts = aspire.answer_states(prompts, [[text] for text in texts])
    likelihoods = (totals / counts)[:, 0]  # (answers,)
    decoded = DecodedAnswers(prompts, [], texts, likelihoods.tolist(), states)
    records = [QARecord(answer.id, answer.exchange.question) for answer in answers]
    batch = AnsweredBatch(AdaptedPrompting(aspire), records, decoded, [], [])
    return [{"log_p_true": verdict.score} for verdict in SelfEval().score(batch)]


def score_or_skip(scorer: Scorer, answers: Sequence[RatedAnswer]) -> list[Scores]:
    """Return the scores of each answer, or no scores for an answer that is longer than the window."""
    try:
        return scorer(answers)
    except InputError:
        if len(answers) == 1:
            return [{}]
    return [score_or_skip(scorer, [answer])[0] for answer in answers]


def split_by_passage(answers: Iterable[RatedAnswer]) -> list[list[RatedAnswer]]:
    """Put together the answers of a group with the same context, which is then read once."""
    parts: dict[tuple[str, str, str | None], list[RatedAnswer]] = {}
    for answer in answers:
        place = (answer.file, answer.group, answer.exchange.context)
        parts.setdefault(place, []).append(answer)
    return list(parts.values())


class ScoreFile:
    """A file of scores, in which another run finds what is scored already.

    A line holds the answer's file and id, the evaluator, the kind of scores, and the scores, which are empty if the
    answer is longer than the window.

    Args:
        path: the file, as JSONL. It may not exist yet.
        fingerprint: the digest of the evaluator.

    Raises:
        InputError: the file can't be read, or holds the scores of another evaluator.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.log = AppendOnlyJsonl(path)
        self._fingerprint = fingerprint
        self._scores: dict[tuple[Key, str], Scores] = {}
        for line in self.log.values:
            if line["evaluator"] != fingerprint:
                raise InputError(
                    f"{path}: expected scores of this evaluator, found those of another; choose another file"
                )
            self._scores[(line["file"], line["id"]), line["kind"]] = line["scores"]

    def complete(self, answers: Sequence[RatedAnswer], kind: str, scorer: Scorer) -> None:
        """Score the answers that have no scores of this kind yet, within `with self.log`."""
        missing = [answer for answer in answers if (answer.key, kind) not in self._scores]
        with Progress(kind, "answers") as progress:
            progress.start(len(missing))
            for passage in split_by_passage(missing):
                for answer, scores in zip(passage, score_or_skip(scorer, passage), strict=True):
                    self._add(answer, kind, scores)
                progress.advance(by=len(passage))

    def get_scores(self, answer: RatedAnswer, kinds: Iterable[str]) -> Scores:
        """Return the scores of an answer of these kinds, by their keys."""
        scores: Scores = {}
        for kind in kinds:
            scores |= self._scores[answer.key, kind]
        return scores

    def _add(self, answer: RatedAnswer, kind: str, scores: Scores) -> None:
        self._scores[answer.key, kind] = scores
        line = {
            "file": answer.file,
            "id": answer.id,
            "model": answer.model,
            "group": answer.group,
            "correct": answer.correct,
            "evaluator": self._fingerprint,
            "kind": kind,
            "scores": scores,
        }
        self.log.append(line)


def score_answers(
    answers: Sequence[RatedAnswer], scorers: Mapping[str, Scorer], file: ScoreFile
) -> list[ScoredAnswer]:
    """Return every answer with its scores of all kinds, out of the file as far as it has them."""
    with file.log:
        for kind, scorer in scorers.items():
            file.complete(answers, kind, scorer)
    scored = []
    for answer in answers:
        scores = file.get_scores(answer, scorers) | measure_texts(answer.exchange)
        scored.append(ScoredAnswer(answer, scores))
    return scored


def read_files(paths: Sequence[Path], limit: int | None) -> list[RatedAnswer]:
    """Read the answers of all files, or at most about `limit` of each.

    Raises:
        InputError: two files have the same name.
        DatasetError: a line can't be read.
    """
    answers: list[RatedAnswer] = []
    names: set[str] = set()
    for path in paths:
        if path.stem in names:
            raise InputError(
                f"expected files of different names, found {path.stem} twice; rename one of the two"
            )
        names.add(path.stem)
        answers += sample_groups(read_rated_answers(path), limit)
    return answers


def load_evaluator(folder: Path | None) -> SelfEvaluator:
    """Load the evaluator of a folder, or the starter evaluator if it is None."""
    return SelfEvaluator.for_chains() if folder is None else SelfEvaluator.from_pretrained(folder)


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, nargs="+", action="extend", required=True, help="labelled answers"
    )
    parser.add_argument(
        "--evaluator", type=Path, help="an evaluator folder; the starter by default"
    )
    parser.add_argument(
        "--limit", type=int, help="draw whole groups until there are this many answers of each file"
    )
    parser.add_argument(
        "--scores", type=Path, help="a file that keeps the scores, which the next run reads"
    )
    parser.add_argument("--p-true", action="store_true", help="also ask the model, which is slow")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser.parse_args()


def main() -> None:
    """Score the answers, and print the tables."""
    options = parse_options()
    answers = read_files(options.data, options.limit)
    evaluator = load_evaluator(options.evaluator)
    evaluator.check_own_likelihood()
    scorers: dict[str, Scorer] = {"evaluator": partial(score_by_evaluator, evaluator)}
    if options.p_true:
        scorers["self_eval"] = partial(ask_model, evaluator)
    with tempfile.TemporaryDirectory() as folder:
        path = options.scores or Path(folder) / "scores.jsonl"
        scored = score_answers(answers, scorers, ScoreFile(path, evaluator.fingerprint))
    reports = make_reports(scored, evaluator.threshold)
    if options.json:
        print(json.dumps([asdict(report) for report in reports], indent=2, ensure_ascii=False))
        return
    print("\n".join(format_page(reports)))


if __name__ == "__main__":
    main()
