"""The judgement of each sentence of an answer, as the lines of `aspire-guard score` hold it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from aspire_guard.jsonl import describe_json, make_line_error, shorten

_EXAMPLE = '"sentences" to hold a list of objects like {"start": 0, "end": 12, "confidence": 0.8}'
_WAY_OUT = "score the answer again, or leave them out"


class ScoredSentence(NamedTuple):
    """A sentence of an answer with its confidence.

    Attributes:
        start: its first character in the answer.
        end: the end of its last character in the answer.
        confidence: the evaluator's probability that the sentence is right, in [0, 1].
    """

    start: int
    end: int
    confidence: float


def parse_sentences(path: Path, number: int, record: dict[str, Any]) -> tuple[ScoredSentence, ...]:
    """Return the sentences of a line, in order. A line without `sentences` has no sentences.

    Raises:
        DatasetError: `sentences` is malformed, or its sentences overlap or reach beyond the answer.
    """
    values = record.get("sentences")
    if values is None:
        return ()
    if not isinstance(values, list):
        raise make_line_error(path, number, _EXAMPLE, describe_json(values), _WAY_OUT)
    sentences = []
    earliest_start = 0
    answer = record.get("answer")
    for value in values:
        sentence = _parse_sentence(path, number, value)
        if sentence.start < earliest_start:
            expected = '"sentences" in their order, without overlaps'
            found = f"the start {sentence.start} before the position {earliest_start}"
            raise make_line_error(path, number, expected, found, _WAY_OUT)
        sentences.append(sentence)
        earliest_start = sentence.end
    if isinstance(answer, str) and earliest_start > len(answer):
        expected = f'"sentences" within the {len(answer):,} characters of the answer'
        raise make_line_error(path, number, expected, f"the end {earliest_start}", _WAY_OUT)
    return tuple(sentences)


def _parse_sentence(path: Path, number: int, value: Any) -> ScoredSentence:
    if not isinstance(value, dict):
        raise make_line_error(path, number, _EXAMPLE, describe_json(value), _WAY_OUT)
    fields: list[Any] = [value.get(key) for key in ScoredSentence._fields]
    sentence = ScoredSentence(*fields)
    # A bool is an int to Python, but neither a position nor a confidence.
    are_positions = type(sentence.start) is int and type(sentence.end) is int
    is_confidence = type(sentence.confidence) in (int, float) and 0 <= sentence.confidence <= 1
    if not (are_positions and is_confidence and sentence.start < sentence.end):
        raise make_line_error(path, number, _EXAMPLE, shorten(value), _WAY_OUT)
    return sentence
