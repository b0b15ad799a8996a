"""The labels of a chain's answers before training: the share of right answers, and signs that the rule does not fit."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_trainers.correctness import load_correctness
from aspire_trainers.data.chain_answers import ChainAnswers, collect_labels
from aspire_trainers.data.training_data import TrainingData
from aspire_trainers.record import QARecord

# Right answers of a few words share most of them with their reference. At three times its length, an answer that holds
# the whole reference has a Rouge-L F1 of 0.5.
_MUCH_LONGER = 3


def describe_labels(data: TrainingData, rule: CorrectnessRule) -> str | None:
    """Return a sentence with the share of right answers and their rule, or None if nothing can be said yet.

    The evaluator's own model answers later, and a judge or a function is not asked here, since that costs money.
    """
    answers = _list_answers(data)
    labelled_by = data.choose_rule(rule)
    if not answers or not (labelled_by != rule or rule.is_measure):
        return None
    grades = data.grade_by_labels(load_correctness(rule)).grade(answers)
    n_labels = len(collect_labels((data.chain_answers or {}).values()))
    source = "the labels in the files" if labelled_by != rule else str(rule)
    if n_labels and labelled_by == rule:
        source = f"the labels in the files, and by {rule} without a label"
    share = sum(grades) / len(grades)
    return f"{sum(grades):,} of {len(grades):,} answers are right ({share:.1%}), by {source}"


def warn_of_long_answers(data: TrainingData, rule: CorrectnessRule) -> str | None:
    """Return a warning if the answers are much longer than the references, and the rule compares their lengths."""
    is_affected = rule.is_measure and rule.method != "containment"
    if not is_affected or data.choose_rule(rule) != rule:
        return None
    answer_lengths, reference_lengths = [], []
    for record, answer in _list_answers(data):
        if record.references and not record.is_open:
            answer_lengths.append(len(answer.split()))
            reference_lengths.append(min(len(text.split()) for text in record.references))
    if not answer_lengths:
        return None
    answer_length, reference_length = median(answer_lengths), median(reference_lengths)
    if answer_length < _MUCH_LONGER * max(reference_length, 1):
        return None
    return (
        f"expected answers about as long as their references, found {answer_length:g} words against "
        f"{reference_length:g} (medians), so {rule} calls right sentences wrong; set [correctness] method in the "
        'recipe to "containment" or to a judge, or label the answers with "correct"'
    )


def _list_answers(data: TrainingData) -> list[tuple[QARecord, str]]:
    given: Iterable[ChainAnswers] = (data.chain_answers or {}).values()
    return [(answers.record, text) for answers in given for text in answers.texts]
