"""The handbook: 64 passages of an invented ferry cooperative and 512 questions on them, shipped with the package.

`passages.jsonl` and `questions.jsonl` are next to this file, with a README.md that describes their fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from aspire_guard.errors import DatasetError
from aspire_trainers.record import QARecord

SPLITS = ("train", "calibration", "test")


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of the handbook.

    Attributes:
        id: a readable slug, e.g. `harbours-port-anselm`.
        title: the passage's heading.
        section: the section of the handbook that contains the passage. Each section has four passages.
        text: 60 to 120 words.
        split: `train`, `calibration` or `test`. All questions about a passage share its split.
    """

    id: str
    title: str
    section: str
    text: str
    split: str


@cache
def load_passages() -> tuple[Passage, ...]:
    """Return all passages, in the handbook's order."""
    return tuple(Passage(**row) for row in _read_rows("passages.jsonl"))


def load_questions(split: str) -> list[QARecord]:
    """Return the questions of a split, each with its passage as context, in the handbook's order.

    Raises:
        DatasetError: the handbook has no split of this name.
    """
    if split not in SPLITS:
        raise DatasetError(
            f"handbook: expected the split {' or '.join(SPLITS)}, found {split!r}; pick one."
        )
    contexts = {passage.id: passage.text for passage in load_passages() if passage.split == split}
    return [
        QARecord(row["id"], row["question"], contexts[row["passage"]], tuple(row["answers"]))
        for row in _read_rows("questions.jsonl")
        if row["passage"] in contexts
    ]


def _read_rows(name: str) -> Iterator[dict[str, Any]]:
    text = files(__name__).joinpath(name).read_text(encoding="utf-8")
    return map(json.loads, text.splitlines())
