"""Answers of any chain that people rated: JSONL with one answer per line.

    {"question": "…", "context": "… or null", "answer": "…", "correct": true}

`id`, `model` and `group` may be left out. The answers of one `group` depend on each other, for example because they are
about the same passage. Without it, the answers to one question over one context are a group.

`sentences` may say which sentences of an answer are right:

    "sentences": [{"start": 0, "end": 6, "correct": true}, …]
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aspire_guard.exchange import Exchange
from aspire_guard.jsonl import describe_json, make_line_error, parse_id, parse_text
from aspire_guard.records.columns import NO_COLUMNS, Columns
from aspire_guard.records.fields import parse_exchange, parse_label
from aspire_guard.records.reading import read_numbered_records


@dataclass(frozen=True)
class RatedPart:
    """A part of an answer with a label of its own.

    Attributes:
        start: its first character in the answer.
        end: the end of its last character.
        correct: True if people found it right.
    """

    start: int
    end: int
    correct: bool


@dataclass(frozen=True)
class RatedAnswer:
    """An answer with its label.

    Attributes:
        file: the name of the file, without its ending.
        id: the id of the answer within the file.
        exchange: the question, the context and the answer.
        correct: True if people found it right.
        model: the model that answered, or "" if it is unknown.
        group: the answers that depend on each other, within the file.
        sentences: the labels of its sentences, or nothing if only the answer has a label.
    """

    file: str
    id: str
    exchange: Exchange
    correct: bool
    model: str
    group: str
    sentences: tuple[RatedPart, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """The name of the answer among those of all files."""
        return self.file, self.id


def read_rated_answers(path: Path, columns: Columns = NO_COLUMNS) -> list[RatedAnswer]:
    """Read the answers of a file.

    Raises:
        DatasetError: a line lacks a field, or has the id of an earlier line.
    """
    answers: dict[str, RatedAnswer] = {}
    for number, value in read_numbered_records(path, columns):
        answer = _parse_answer(path, number, value)
        if answer.id in answers:
            found = f"the id {answer.id} again"
            raise make_line_error(path, number, "an id of its own", found, "rename one of the two")
        answers[answer.id] = answer
    return list(answers.values())


def sample_groups(
    answers: Sequence[RatedAnswer], limit: int | None, *, seed: int = 0
) -> list[RatedAnswer]:
    """Return all answers of groups drawn at random, until there are `limit` answers or more, in their order."""
    if limit is None or len(answers) <= limit:
        return list(answers)
    members: dict[str, list[RatedAnswer]] = {}
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


def _parse_answer(path: Path, number: int, value: dict[str, Any]) -> RatedAnswer:
    correct = parse_label(path, number, value)
    # A fit measures the log-likelihood itself.
    exchange = parse_exchange(path, number, value).model_copy(update={"log_likelihood": None})
    model, group = value.get("model"), value.get("group")
    if group is None:
        group = f"{exchange.question}\n{exchange.context or ''}"
    return RatedAnswer(
        file=path.stem,
        id=parse_id(path, number, value),
        exchange=exchange,
        correct=correct,
        model="" if model is None else parse_text(path, number, "model", model),
        group=parse_text(path, number, "group", group),
        sentences=_parse_sentences(path, number, value.get("sentences")),
    )


def _parse_sentences(path: Path, number: int, values: Any) -> tuple[RatedPart, ...]:
    if values is None:
        return ()
    parts: list[RatedPart] = []
    for value in values if isinstance(values, list) else [values]:
        match value:
            case {"start": int(start), "end": int(end), "correct": bool(correct)}:
                parts.append(RatedPart(start, end, correct))
            case _:
                expected = '"sentences" to hold objects with start, end and correct'
                found = describe_json(value)
                raise make_line_error(path, number, expected, found, "correct it or leave it out")
    return tuple(parts)
