"""Answers that were given by something else than the evaluator's own model, in the place of stage 2.

A file of them is JSONL in UTF-8, one answer a line, as `aspire-guard sample` writes it:

    {"question": "Which yard built MV Petrel?", "context": "…", "answers": ["Harrow & Lund"], "answer": "The yard."}

`answers` are the references, and `answer` is what was answered. `id`, `context`, `log_likelihood` (the mean
log-probability of the answer's tokens in nats) and `chain` (whose answer it is) may be left out. Lines with the same
id, or without any the same question, and with the same context are answers to one question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aspire_guard.jsonl import (
    context_field,
    id_field,
    line_error,
    log_likelihood_field,
    numbered_objects,
    question_field,
    text_field,
)
from aspire_trainers.data.dataset import references_field
from aspire_trainers.data.sampled_answers import SampledAnswers
from aspire_trainers.record import QARecord


@dataclass
class ChainAnswers:
    """The answers to one question, with their repetitions: as often as the chain gives it, as often an answer counts.

    Attributes:
        texts: in the order of the file.
        log_likelihoods: of each, in nats, as its model reported it; None where it did not.
        chains: whose answers they are, as far as the file says so.
        question_id: the record's id in the file. A chain that finds its own context may find several for one question:
            several records, then, with ids of their own.
    """

    record: QARecord
    texts: list[str] = field(default_factory=list)
    log_likelihoods: list[float | None] = field(default_factory=list)
    chains: set[str] = field(default_factory=set)
    question_id: str = field(default="", compare=False)

    @property
    def sampled(self) -> SampledAnswers:
        """What stage 3 learns from: each text once."""
        likelihoods: dict[str, float | None] = {}
        for text, likelihood in zip(self.texts, self.log_likelihoods, strict=True):
            likelihoods.setdefault(text, likelihood)
        return SampledAnswers(self.record, tuple(likelihoods), tuple(likelihoods.values()))


def load_chain_answers(path: str | Path) -> list[ChainAnswers]:
    """The answers of a file by question, in its order.

    Raises:
        DatasetError: the file is missing, unreadable or empty, a line is no answer with references, or two lines give
            one question different references.
    """
    path = Path(path)
    questions: dict[tuple[str, str | None], ChainAnswers] = {}
    ids: set[str] = set()
    for number, value in numbered_objects(path):
        question, context = question_field(path, number, value), context_field(path, number, value)
        name, references = id_field(path, number, value), references_field(path, number, value)
        key = (question if value.get("id") is None else name, context)
        if key not in questions:
            unique = name if name not in ids else f"{name}-{number}"
            ids.add(unique)
            questions[key] = ChainAnswers(
                QARecord(unique, question, context, references), question_id=name
            )
        given = questions[key]
        if (given.record.question, given.record.references) != (question, references):
            expected = "the question and the references of the earlier lines with this id, or this question"
            raise line_error(
                path,
                number,
                expected,
                "others",
                "fix them, or give each question an id of its own",
            )
        given.texts.append(text_field(path, number, "answer", value.get("answer")))
        given.log_likelihoods.append(log_likelihood_field(path, number, value))
        if value.get("chain") is not None:
            given.chains.add(text_field(path, number, "chain", value["chain"]))
    return list(questions.values())


def list_answers_without_likelihood(given: Sequence[ChainAnswers]) -> int:
    """Of how many answers the chain's model reported no log-likelihood."""
    return sum(answers.log_likelihoods.count(None) for answers in given)


def have_likelihoods(given: Sequence[ChainAnswers]) -> bool:
    """Whether the chain's model reported the log-likelihood of every answer."""
    return list_answers_without_likelihood(given) == 0
