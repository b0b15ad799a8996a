"""The data of a run: records, or records with the answers of a chain, split into training and validation."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aspire_guard.errors import InputError
from aspire_guard.evaluators.correctness_rule import LABELS, CorrectnessRule
from aspire_guard.records.columns import NO_COLUMNS, Columns
from aspire_trainers.config import TrainingConfig
from aspire_trainers.correctness import Correctness, GivenLabels
from aspire_trainers.data.batching import sample_records, split_by_context
from aspire_trainers.data.chain_answers import ChainAnswers, collect_labels, load_chain_answers
from aspire_trainers.data.dataset import load_dataset
from aspire_trainers.record import QARecord


@dataclass(frozen=True)
class TrainingData:
    """The data of a run.

    Attributes:
        sources: the names of the datasets, for the evaluator's provenance.
        train: records for stages 1 to 3.
        validation: records to stop early, to choose α and to calibrate. Their contexts are not in `train`.
        chain_answers: a chain's answers by record id, which take the place of stage 2, or None if the evaluator's model
            answers.
    """

    sources: tuple[str, ...]
    train: tuple[QARecord, ...]
    validation: tuple[QARecord, ...]
    chain_answers: Mapping[str, ChainAnswers] | None = None

    @classmethod
    def load(
        cls,
        train: Sequence[str | Path],
        validation: Sequence[str | Path],
        config: TrainingConfig,
        read: Callable[[str, Columns], list[QARecord]] = load_dataset,
        question_ids: Mapping[str, str] | None = None,
        columns: Columns = NO_COLUMNS,
    ) -> TrainingData:
        """Read datasets and hold out validation records.

        Args:
            train: paths of datasets, or names such as `handbook:train`.
            validation: further datasets, which are used for validation alone.
            config: the limit, the validation share and the seed.
            read: reads a dataset by its path or name.
            question_ids: question ids by record id. See `split_by_context`.
            columns: the columns that hold the fields of a record.

        Raises:
            DatasetError: a file is missing or has a bad line.
            InputError: no record has a reference to learn from, or a question is in both kinds of data.
        """
        train_by_path, validation_by_path = _drop_repeated(train), _drop_repeated(validation)
        _check_datasets_differ(train_by_path, validation_by_path)
        train_names, validation_names = train_by_path.values(), validation_by_path.values()
        records_by_dataset = _read_datasets([*train_names, *validation_names], read, columns)
        records: list[QARecord] = []
        for name in train_names:
            records += sample_records(records_by_dataset[name], config.limit, config.seed)
        kept, held_out = split_by_context(
            records, config.validation_share, config.seed, question_ids
        )
        if not any(record.answerable for record in kept):
            raise InputError(
                f"expected training records with an answer, found none in {', '.join(train_names)}; add some"
            )
        for_validation = [
            record for name in validation_names for record in records_by_dataset[name]
        ]
        _check_not_trained_on(for_validation, kept)
        sources = [Path(name).name for name in (*train_names, *validation_names)]
        return cls(
            sources=tuple(sources),
            train=tuple(kept),
            validation=(*held_out, *for_validation),
        )

    @classmethod
    def load_answers(
        cls,
        train: Sequence[str | Path],
        validation: Sequence[str | Path],
        config: TrainingConfig,
        columns: Columns = NO_COLUMNS,
    ) -> TrainingData:
        """Do the same as `load` for files of a chain's answers, which take the place of stage 2.

        Raises:
            DatasetError: a file is missing or has a bad line.
            InputError: no record has a reference to learn from, or a question is in both kinds of data.
        """
        answers_by_file: dict[str, list[ChainAnswers]] = {}
        answers_by_id: dict[str, ChainAnswers] = {}
        # All contexts of a question share its id, so that its answers stay on one side of the split.
        question_ids: dict[str, str] = {}
        # The same names as in `load`, so that the prefixes are the same too.
        names = [*_drop_repeated(train).values(), *_drop_repeated(validation).values()]
        for name, prefix in _choose_prefixes(names).items():
            answers_by_file[name] = load_chain_answers(name, columns)
            for answers in answers_by_file[name]:
                record_id = _prefix_id(prefix, answers.record).id
                answers_by_id[record_id] = answers
                question_ids[record_id] = f"{prefix}/{answers.question_id}"

        def read(name: str, _: Columns) -> list[QARecord]:
            return [answers.record for answers in answers_by_file[name]]

        data = cls.load(train, validation, config, read, question_ids)
        chain_answers = {
            record.id: replace(answers_by_id[record.id], record=record)
            for record in (*data.train, *data.validation)
        }
        return replace(data, chain_answers=chain_answers)

    def digest(self) -> str:
        """Return a hexadecimal digest that differs between different data."""
        records = (*self.train, *self.validation)
        rows: list[Any] = []
        for record in records:
            rows.append((record.id, record.question, record.context, record.references))
        for answers in self.get_chain_answers(records) or ():
            rows.append((answers.texts, answers.log_likelihoods))
            if answers.labels:
                rows.append(answers.labels)
        content = json.dumps(rows).encode()
        return hashlib.sha256(content).hexdigest()

    def get_chain_answers(self, records: Iterable[QARecord]) -> list[ChainAnswers] | None:
        """Return a chain's answers to these records, or None if the evaluator's own model answers."""
        if self.chain_answers is None:
            return None
        return [self.chain_answers[record.id] for record in records]

    def grade_by_labels(self, otherwise: Correctness) -> Correctness:
        """Return the correctness that goes by the labels of the answers, and by another rule without a label."""
        labels = collect_labels((self.chain_answers or {}).values())
        return GivenLabels(labels, otherwise) if labels else otherwise

    def choose_rule(self, rule: CorrectnessRule) -> CorrectnessRule:
        """Return the rule by which the answers count as right: the labels, if every answer of the chain has one."""
        if not self.chain_answers:
            return rule
        for answers in self.chain_answers.values():
            if not answers.labels.keys() >= set(answers.texts):
                return rule
        return CorrectnessRule(method=LABELS)


def _read_datasets(
    datasets: Sequence[str], read: Callable[[str, Columns], list[QARecord]], columns: Columns
) -> dict[str, list[QARecord]]:
    """Map each dataset to its records, with ids that are unique among all datasets."""
    records_by_dataset = {}
    for dataset, prefix in _choose_prefixes(datasets).items():
        records = read(dataset, columns)
        records_by_dataset[dataset] = [_prefix_id(prefix, record) for record in records]
    return records_by_dataset


def _drop_repeated(datasets: Sequence[str | Path]) -> dict[str, str]:
    """Map each dataset's resolved path to its name, so that two spellings of a path count once."""
    return {str(Path(name).resolve()): str(name) for name in datasets}


def _check_datasets_differ(train: Mapping[str, str], validation: Mapping[str, str]) -> None:
    """Refuse a dataset that is in both kinds of data: a threshold chosen on it would promise too much."""
    shared = {train[path] for path in validation if path in train}
    if shared:
        raise InputError(
            f"expected other validation than training data, found {', '.join(sorted(shared))} as both; leave it out "
            "of the validation: a share of the training contexts is set aside"
        )


def _check_not_trained_on(validation: Sequence[QARecord], train: Sequence[QARecord]) -> None:
    """Refuse validation questions that are also trained on, as in a copy of a file."""
    trained_on = {(record.question, record.context) for record in train}
    repeated = [
        record.id for record in validation if (record.question, record.context) in trained_on
    ]
    if repeated:
        raise InputError(
            f"expected questions for validation that are not trained on, found {len(repeated)} of {len(validation)} "
            f"that are, the first {repeated[0]}; leave them out of one of the two"
        )


def _choose_prefixes(datasets: Sequence[str]) -> dict[str, str]:
    """Map each dataset to a prefix of its ids: the file's name, or the whole path if another file has that name."""
    file_names = {dataset: Path(dataset).name for dataset in datasets}
    counts = Counter(file_names.values())
    prefixes = {}
    for dataset, file_name in file_names.items():
        is_unique = counts[file_name] == 1
        prefixes[dataset] = file_name if is_unique else dataset
    return prefixes


def _prefix_id(prefix: str, record: QARecord) -> QARecord:
    """Return the record with an id that is unique among several datasets."""
    return replace(record, id=f"{prefix}/{record.id}")
