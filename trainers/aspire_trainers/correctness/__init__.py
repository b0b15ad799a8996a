"""Rules for which answers are right: overlap with the references, a judge, a function, or labels of people."""

from __future__ import annotations

from langchain_core.runnables import Runnable

from aspire_guard.errors import InputError
from aspire_guard.evaluators.correctness_rule import LABELS, CorrectnessRule
from aspire_guard.import_by_name import import_by_name
from aspire_trainers.correctness.given_labels import GivenLabels
from aspire_trainers.correctness.judge import Judge
from aspire_trainers.correctness.labels import Labels
from aspire_trainers.correctness.overlap import Containment, ExactMatch, RougeL, TokenF1
from aspire_trainers.correctness.protocol import Correctness, GradingFunction
from aspire_trainers.correctness.refusal import is_refusal

__all__ = [
    "Containment",
    "Correctness",
    "ExactMatch",
    "GivenLabels",
    "GradingFunction",
    "Judge",
    "Labels",
    "RougeL",
    "TokenF1",
    "is_refusal",
    "load_correctness",
]

_WITH_THRESHOLD = {"rouge_l": RougeL, "token_f1": TokenF1}


def load_correctness(rule: CorrectnessRule) -> Correctness:
    """Load the correctness that the rule names.

    Raises:
        InputError: the name can't be imported, or belongs to something that can't grade.
        DatasetError: the file of labels is missing or holds a bad line.
    """
    if rule.threshold is not None:
        return _WITH_THRESHOLD[rule.method](rule.threshold)
    if rule.method == "exact_match":
        return ExactMatch()
    if rule.method == "containment":
        return Containment()
    if rule.method == LABELS:
        raise InputError(
            "expected a rule that can grade any answer, found the labels of the answers that the evaluator was trained "
            "on; name another, such as containment"
        )
    if rule.method.endswith(".jsonl"):
        return Labels(rule.method)
    return _import_correctness(rule.method)


def _import_correctness(name: str) -> Correctness:
    named = import_by_name(name)
    if isinstance(named, type):
        raise InputError(
            f"expected {name!r} to be a function or a runnable, found a class; name an instance of it"
        )
    if isinstance(named, Correctness):
        return named
    if isinstance(named, Runnable):
        return Judge(named)
    if callable(named):
        return GradingFunction(named)
    kind = type(named).__name__
    raise InputError(
        f"expected {name!r} to be a function or a runnable, found a value of type {kind}; name another"
    )
