"""Single answers worth reading: confident mistakes, and right answers that are not released."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aspire_guard.jsonl import parse_id
from aspire_guard.records.columns import NO_COLUMNS, Columns
from aspire_guard.records.context_reference import read_contexts
from aspire_guard.records.reading import read_numbered_records
from aspire_guard.selection.arrays import Labels, Numbers
from aspire_guard.selection.calibration import Calibration
from aspire_guard.selection.report.weak_sentences import AnswerPart, split_answer
from aspire_guard.selection.scored_answers import ScoredAnswers, name_repetition
from aspire_guard.selection.scored_sentences import ScoredSentence, parse_sentences

_MAX_EXAMPLES = 10
_MAX_CHARACTERS = 1_000


class Texts(NamedTuple):
    """The question, the answer and the context of a line, or None for each that is unknown, and the sentences."""

    question: str | None
    answer: str | None
    sentences: tuple[ScoredSentence, ...] = ()
    context: str | None = None


class AnswerExample(NamedTuple):
    """An answer with its scores and its texts, which are shortened.

    Attributes:
        id: the id of its line.
        confidence: its confidence by the report's calibrator.
        score: its selection score.
        is_out_of_domain: True if it is unlike the answers that its confidence was calibrated on.
        question: the question, or None if it is unknown.
        answer: the parts of the answer, or None if it is unknown.
        omission: a phrase that says what the shortened answer leaves out, or None if it is whole.
        limit: the lowest confidence of a sentence that is not weak.
        context: the context that the answer was judged by, or None if it is unknown.
    """

    id: str
    confidence: float
    score: float
    is_out_of_domain: bool
    question: str | None
    answer: list[AnswerPart] | None
    omission: str | None
    limit: float
    context: str | None = None


def find_worst_mistakes(answers: ScoredAnswers) -> list[int]:
    """Return the indices of the wrong answers with the highest scores, best first."""
    return _find_highest(answers.selection_score, ~answers.correct)


def find_best_rejected(answers: ScoredAnswers, released: Labels) -> list[int]:
    """Return the indices of the right answers with the highest scores among those not released, best first."""
    return _find_highest(answers.selection_score, answers.correct & ~released)


def describe_examples(
    indices: Iterable[int],
    answers: ScoredAnswers,
    calibration: Calibration,
    texts: Mapping[str, Texts],
    find_limit: Callable[[str | None], float],
) -> list[AnswerExample]:
    """Return the answers at these indices, with their texts.

    Args:
        find_limit: gives the lowest confidence of a sentence that is not weak, for a group or None.
    """
    examples = []
    for index in indices:
        name = answers.ids[index]
        score = float(answers.selection_score[index])
        limit = find_limit(None if answers.group is None else answers.group[index])
        question, answer, sentences, context = texts.get(name, Texts(None, None))
        parts, omission = None, None
        if answer is not None:
            parts = split_answer(answer[:_MAX_CHARACTERS], sentences, limit)
            omission = _describe_omission(answer, sentences, limit)
        examples.append(
            AnswerExample(
                id=name,
                confidence=calibration.confidence(score),
                score=score,
                is_out_of_domain=bool(
                    answers.out_of_domain is not None and answers.out_of_domain[index]
                ),
                question=None if question is None else _shorten(question),
                answer=parts,
                omission=omission,
                limit=limit,
                context=None if context is None else _shorten(context),
            )
        )
    return examples


def read_texts(
    path: str | Path, ids: Iterable[str], columns: Columns = NO_COLUMNS
) -> dict[str, Texts]:
    """Read the texts of the lines with these ids. A value that is not text is None.

    The context is read from the file that was scored, which the line refers to.

    Raises:
        DatasetError: the file can't be read, or the sentences of a line are malformed.
    """
    path = Path(path)
    wanted = set(ids)
    texts: dict[str, Texts] = {}
    read_ids: set[str] = set()
    references: dict[str, Any] = {}
    for number, value in read_numbered_records(path, columns):
        name = parse_id(path, number, value)
        if name in read_ids:
            name = name_repetition(name, number)
        read_ids.add(name)
        if name in wanted:
            sentences = parse_sentences(path, number, value)
            question, answer = _get_text(value, "question"), _get_text(value, "answer")
            texts[name] = Texts(question, answer, sentences, _get_text(value, "context"))
            references[name] = value.get("context_reference")
    for name, context in read_contexts(references, path.parent).items():
        texts[name] = texts[name]._replace(context=context)
    return texts


def _find_highest(scores: Numbers, eligible: Labels) -> list[int]:
    """Return the indices of the eligible answers with the highest scores, best first."""
    indices = np.flatnonzero(eligible)
    best_first = np.argsort(-scores[indices], kind="stable")
    highest: list[int] = indices[best_first][:_MAX_EXAMPLES].tolist()
    return highest


def _get_text(record: dict[str, Any], key: str) -> str | None:
    value = record.get(key)
    return value if isinstance(value, str) else None


def _shorten(text: str) -> str:
    if len(text) <= _MAX_CHARACTERS:
        return text
    return f"{text[:_MAX_CHARACTERS]}… ({len(text):,} characters)"


def _describe_omission(
    answer: str, sentences: Sequence[ScoredSentence], limit: float
) -> str | None:
    """Return the end of a shortened answer, which says how much is missing and whether it is weak."""
    if len(answer) <= _MAX_CHARACTERS:
        return None
    weak_count = sum(
        sentence.start >= _MAX_CHARACTERS and sentence.confidence < limit for sentence in sentences
    )
    more = f", {weak_count} more to underline" if weak_count else ""
    return f"… ({len(answer):,} characters{more})"
