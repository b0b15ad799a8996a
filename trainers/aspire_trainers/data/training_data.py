"""What a run learns from: records, or records with given answers, parted into training and validation."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aspire_guard.errors import InputError
from aspire_trainers.config import TrainingConfig
from aspire_trainers.data.batching import split_by_context, take
from aspire_trainers.data.chain_answers import ChainAnswers, load_chain_answers
from aspire_trainers.data.dataset import load_dataset
from aspire_trainers.record import QARecord


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from.

    Attributes:
        sources: the names of the datasets, for the evaluator's provenance.
        train: records of stages 1 to 3.
        validation: records to stop early, to choose α and to calibrate; the contexts set aside are not in `train`.
        given: by record id, answers that take the place of stage 2; None where the evaluator's own model answers.
    """

    sources: tuple[str, ...]
    train: tuple[QARecord, ...]
    validation: tuple[QARecord, ...]
    given: Mapping[str, ChainAnswers] | None = None

    @classmethod
    def load(
        cls,
        train: Sequence[str],
        validation: Sequence[str],
        config: TrainingConfig,
        read: Callable[[str], list[QARecord]] = load_dataset,
        question_ids: Mapping[str, str] | None = None,
    ) -> TrainingData:
        """Read datasets (paths, or names such as `handbook:train`) and set validation records aside.

        Raises:
            DatasetError: a file is missing or holds a bad line.
            InputError: no record has a reference to learn from, or a question is given for both.
        """
        names, others = (
            {str(Path(name).resolve()): name for name in datasets}
            for datasets in (train, validation)
        )
        train, validation = list(names.values()), list(others.values())
        if both := {names[place] for place in others if place in names}:
            raise InputError(
                f"expected other validation than training data, found {', '.join(sorted(both))} as both; leave it out "
                "of the validation: a share of the training contexts is set aside"
            )
        prefixes = _prefixes((*train, *validation))
        named = {
            name: [_named(prefix, record) for record in read(name)]
            for name, prefix in prefixes.items()
        }
        records = [
            record for name in train for record in take(named[name], config.limit, config.seed)
        ]
        kept, aside = split_by_context(records, config.validation_share, config.seed, question_ids)
        if not any(record.answerable for record in kept):
            raise InputError(
                f"expected training records with an answer, found none in {', '.join(train)}; add some"
            )
        asked = {(record.question, record.context) for record in kept}
        given = [record for name in validation for record in named[name]]
        if trained_on := [
            record.id for record in given if (record.question, record.context) in asked
        ]:
            raise InputError(
                f"expected questions for validation that are not trained on, found {len(trained_on)} of {len(given)} "
                f"that are, the first {trained_on[0]}; leave them out of either data"
            )
        aside += given
        sources = [Path(name).name for name in (*train, *validation)]
        return cls(tuple(sources), tuple(kept), tuple(aside))

    @classmethod
    def load_answers(
        cls, train: Sequence[str], validation: Sequence[str], config: TrainingConfig
    ) -> TrainingData:
        """As `load`, of files of given answers, which take the place of stage 2.

        Raises:
            DatasetError: a file is missing or holds a bad line.
            InputError: no record has a reference to learn from, or a question is given for both.
        """
        prefixes = _prefixes((*train, *validation))
        files = {name: load_chain_answers(name) for name in prefixes}
        given = {
            _named(prefixes[name], answers.record).id: answers
            for name, file in files.items()
            for answers in file
        }
        # Of a question that a chain answered over several contexts all answers are learned from, or none.
        asked = {
            name: f"{name.removesuffix(answers.record.id)}{answers.question_id}"
            for name, answers in given.items()
        }
        data = cls.load(
            train,
            validation,
            config,
            lambda name: [answers.record for answers in files[name]],
            asked,
        )
        records = (*data.train, *data.validation)
        return replace(
            data, given={record.id: replace(given[record.id], record=record) for record in records}
        )

    def digest(self) -> str:
        """Tells this data from any other (hex)."""
        records = (*self.train, *self.validation)
        rows: list[Any] = [(r.id, r.question, r.context, r.references) for r in records]
        if self.given is not None:
            rows += [(self.given[r.id].texts, self.given[r.id].log_likelihoods) for r in records]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def given_of(self, records: Sequence[QARecord]) -> list[ChainAnswers] | None:
        """The given answers to these records; None where the evaluator's own model answers."""
        return None if self.given is None else [self.given[record.id] for record in records]


def _prefixes(datasets: Sequence[str]) -> dict[str, str]:
    """By dataset what its ids begin with: the file's name, or the whole path where another file has that name."""
    names = {dataset: Path(dataset).name for dataset in datasets}
    counts = Counter(names.values())
    return {dataset: name if counts[name] == 1 else dataset for dataset, name in names.items()}


def _named(prefix: str, record: QARecord) -> QARecord:
    """The record with an id that is unique among several datasets."""
    return replace(record, id=f"{prefix}/{record.id}")
