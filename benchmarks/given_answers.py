"""Labelled answers of language models: reading them, drawing some of them, and their scores that need no model."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aspire_guard.exchange import Exchange
from aspire_guard.jsonl import (
    describe_json,
    make_line_error,
    parse_context,
    parse_id,
    parse_question,
    parse_text,
    read_numbered_objects,
)

_WORD = re.compile(r"\w+")

# Scores of an answer by their keys, which `answer_report.SCORES` lists, and its confidence.
Scores = dict[str, float]
Key = tuple[str, str]


@dataclass(frozen=True)
class GivenAnswer:
    """An answer of a language model, with its label.

    Attributes:
        file: the name of the file, without its ending.
        id: the id of the answer within the file.
        exchange: the question, the context and the answer.
        correct: True if people found it right.
        model: the model that answered.
        group: the answers that depend on each other, within the file.
    """

    file: str
    id: str
    exchange: Exchange
    correct: bool
    model: str
    group: str

    @property
    def key(self) -> Key:
        """The name of the answer among those of all files."""
        return self.file, self.id


@dataclass(frozen=True)
class ScoredAnswer:
    """An answer with its confidence and its scores, by their keys in `SCORES`, as far as it has them."""

    given: GivenAnswer
    scores: Scores

    @property
    def fits(self) -> bool:
        """True if the evaluator could score the answer."""
        return "confidence" in self.scores

    @property
    def group(self) -> Key:
        """The group of the answer among those of all files."""
        return self.given.file, self.given.group


def read_answers(path: Path) -> list[GivenAnswer]:
    """Read the labelled answers of a file.

    Raises:
        DatasetError: a line lacks a field, or has the id of an earlier line.
    """
    answers: dict[str, GivenAnswer] = {}
    for number, value in read_numbered_objects(path):
        answer = _parse_answer(path, number, value)
        if answer.id in answers:
            found = f"the id {answer.id} again"
            raise make_line_error(path, number, "an id of its own", found, "rename one of the two")
        answers[answer.id] = answer
    return list(answers.values())


def _parse_answer(path: Path, number: int, value: dict[str, Any]) -> GivenAnswer:
    correct = value.get("correct")
    if not isinstance(correct, bool):
        expected = '"correct" to hold true or false'
        raise make_line_error(path, number, expected, describe_json(correct), "label the answer")
    exchange = Exchange(
        question=parse_question(path, number, value),
        context=parse_context(path, number, value),
        answer=parse_text(path, number, "answer", value.get("answer")),
    )
    return GivenAnswer(
        file=path.stem,
        id=parse_id(path, number, value),
        exchange=exchange,
        correct=correct,
        model=parse_text(path, number, "model", value.get("model")),
        group=parse_text(path, number, "group", value.get("group")),
    )


def sample_groups(
    answers: Sequence[GivenAnswer], limit: int | None, *, seed: int = 0
) -> list[GivenAnswer]:
    """Return all answers of groups drawn at random, until there are `limit` answers or more, in their order."""
    if limit is None or len(answers) <= limit:
        return list(answers)
    members: dict[str, list[GivenAnswer]] = {}
    for answer in answers:
        members.setdefault(answer.group, []).append(answer)
    groups = list(members)
    random.Random(seed).shuffle(groups)
    chosen: set[str] = set()
    n = 0
    for group in groups:
        if n >= limit:
            break
        chosen.add(group)
        n += len(members[group])
    return [answer for answer in answers if answer.group in chosen]


def measure_word_overlap(answer: str, context: str) -> float:
    """Return the share of the answer's different words, lower-cased, that stand in the context, in [0, 1].

    An answer without words has an overlap of 0.
    """
    words = _find_words(answer)
    if not words:
        return 0.0
    return len(words & _find_words(context)) / len(words)


def _find_words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def measure_texts(exchange: Exchange) -> Scores:
    """Return the scores that need no model. An answer without a context has no word overlap."""
    scores = {"negative_length": -float(len(exchange.answer.split()))}
    if exchange.context is not None:
        scores["word_overlap"] = measure_word_overlap(exchange.answer, exchange.context)
    return scores
