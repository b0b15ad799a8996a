"""Answers that a chain gave, which take the place of stage 2.

A file of answers is JSONL in UTF-8 with one answer per line, as `aspire-guard sample` writes it:

    {"question": "Which yard built MV Petrel?", "context": "…", "answers": ["Harrow & Lund"], "answer": "The yard."}

`answers` are the references, and `answer` is the chain's answer. A line may have a label, `correct`, with or without
`answers`. Without them the right answers to the question are its references. `id`, `context`, `log_likelihood` (the
mean log-probability of the answer's tokens in nats) and `chain` (the name of the chain) may be left out. Lines with the
same context and the same id (or, without an id, the same question) hold answers to one question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aspire_guard.jsonl import (
    make_line_error,
    parse_id,
    parse_log_likelihood,
    parse_question,
    parse_text,
    shorten,
)
from aspire_guard.records.columns import NO_COLUMNS, Columns
from aspire_guard.records.fields import parse_context, parse_label
from aspire_guard.records.reading import read_numbered_records
from aspire_trainers.data.dataset import references_field
from aspire_trainers.data.sampled_answers import SampledAnswers
from aspire_trainers.record import QARecord


@dataclass
class ChainAnswers:
    """The answers to a question. A repeated answer counts as often as the chain gave it.

    Attributes:
        record: the question.
        texts: the answers, in the order of the file.
        log_likelihoods: mean log-probability of each answer's tokens in nats, or None if its model reported none.
        chains: the names of the chains that answered, if the file has them.
        question_id: the record's id in the file. A chain that finds its own context may find several contexts for a
            question. These are several records with different ids, but the same question id.
        labels: the labels of the answers that have one, by their text.
    """

    record: QARecord
    texts: list[str] = field(default_factory=list)
    log_likelihoods: list[float | None] = field(default_factory=list)
    chains: set[str] = field(default_factory=set)
    question_id: str = field(default="", compare=False)
    labels: dict[str, bool] = field(default_factory=dict)

    def to_sampled_answers(self) -> SampledAnswers:
        """Return the answers that stage 3 learns from: each text once, with its first log-likelihood."""
        likelihoods: dict[str, float | None] = {}
        for text, likelihood in zip(self.texts, self.log_likelihoods, strict=True):
            likelihoods.setdefault(text, likelihood)
        return SampledAnswers(self.record, tuple(likelihoods), tuple(likelihoods.values()))


def load_chain_answers(path: str | Path, columns: Columns = NO_COLUMNS) -> list[ChainAnswers]:
    """Load the answers of a file by question, in the order of the file.

    Raises:
        DatasetError: the file is missing, unreadable or empty, a line is not an answer with references or a label, or
            two lines give the same question different references, or the same answer different labels.
    """
    path = Path(path)
    answers_by_question: dict[tuple[str, str | None], ChainAnswers] = {}
    record_ids: set[str] = set()
    for number, value in read_numbered_records(path, columns):
        question = parse_question(path, number, value)
        context = parse_context(path, number, value)
        question_id = parse_id(path, number, value)
        references = _parse_references(path, number, value)
        key = (question if value.get("id") is None else question_id, context)
        if key not in answers_by_question:
            record_id = question_id if question_id not in record_ids else f"{question_id}-{number}"
            record_ids.add(record_id)
            answers_by_question[key] = ChainAnswers(
                QARecord(
                    record_id, question, context, references or (), is_open=references is None
                ),
                question_id=question_id,
            )
        answers = answers_by_question[key]
        record = answers.record
        known = None if record.is_open else record.references
        if (record.question, known) != (question, references):
            raise make_line_error(
                path,
                number,
                "the question and the references of the earlier lines with this id, or this question",
                "others",
                "fix them, or give each question an id of its own",
            )
        _add_answer(answers, path, number, value)
    return [_complete_references(answers) for answers in answers_by_question.values()]


def _parse_references(path: Path, number: int, value: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the references, or None if the line has a label in their place."""
    if value.get("answers") is not None:
        return references_field(path, number, value)
    if isinstance(value.get("correct"), bool):
        return None
    if value.get("correct") is not None:
        parse_label(path, number, value)
    expected = '"answers" with the references, or "correct" with a label'
    way_out = (
        "label the answer, or add its references ([] if the context does not answer the question)"
    )
    raise make_line_error(path, number, expected, "neither of them", way_out)


def _complete_references(answers: ChainAnswers) -> ChainAnswers:
    """Return the answers with the right ones as references, if the file has labels in place of references."""
    if not answers.record.is_open:
        return answers
    right = [text for text, label in answers.labels.items() if label and text]
    record = replace(answers.record, references=tuple(right), is_open=not right)
    return replace(answers, record=record)


def _add_answer(answers: ChainAnswers, path: Path, number: int, value: dict[str, Any]) -> None:
    text = parse_text(path, number, "answer", value.get("answer"))
    answers.texts.append(text)
    if value.get("correct") is not None:
        label = parse_label(path, number, value)
        if answers.labels.setdefault(text, label) != label:
            expected = "one label for each answer"
            found = f"another for the same answer {shorten(text)} before"
            raise make_line_error(path, number, expected, found, "delete one of the two")
    answers.log_likelihoods.append(parse_log_likelihood(path, number, value))
    if value.get("chain") is not None:
        answers.chains.add(parse_text(path, number, "chain", value["chain"]))


def collect_labels(chain_answers: Iterable[ChainAnswers]) -> dict[tuple[str, str], bool]:
    """Map the record id and the text of each labelled answer to its label."""
    labels: dict[tuple[str, str], bool] = {}
    for answers in chain_answers:
        for text, label in answers.labels.items():
            labels[answers.record.id, text] = label
    return labels


def count_answers_without_likelihood(chain_answers: Sequence[ChainAnswers]) -> int:
    """Count the answers for which the chain's model reported no log-likelihood."""
    return sum(answers.log_likelihoods.count(None) for answers in chain_answers)


def have_likelihoods(chain_answers: Sequence[ChainAnswers]) -> bool:
    """Tell whether the chain's model reported the log-likelihood of every answer."""
    return count_answers_without_likelihood(chain_answers) == 0
