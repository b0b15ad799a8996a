"""Which answers are right: by overlap with the references, by a judge, by a function, or by people."""

from __future__ import annotations

from langchain_core.runnables import Runnable

from aspire_guard.errors import InputError
from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_guard.import_by_name import import_by_name
from aspire_trainers.correctness.function import Function
from aspire_trainers.correctness.judge import Judge
from aspire_trainers.correctness.labels import Labels
from aspire_trainers.correctness.overlap import ExactMatch, RougeL, TokenF1
from aspire_trainers.correctness.protocol import Correctness
from aspire_trainers.correctness.refusal import is_refusal

__all__ = [
    "Correctness",
    "ExactMatch",
    "Function",
    "Judge",
    "Labels",
    "RougeL",
    "TokenF1",
    "is_refusal",
    "load_correctness",
]


def load_correctness(rule: CorrectnessRule) -> Correctness:
    """What the rule names.

    Raises:
        InputError: the name can't be imported, or is of something that can't grade.
        DatasetError: the file of labels is missing or holds a bad line.
    """
    if rule.threshold is not None:
        return {"rouge_l": RougeL, "token_f1": TokenF1}[rule.method](rule.threshold)
    if rule.method == "exact_match":
        return ExactMatch()
    return Labels(rule.method) if rule.method.endswith(".jsonl") else _named(rule.method)


def _named(name: str) -> Correctness:
    found = import_by_name(name)
    if isinstance(found, type):
        raise InputError(
            f"expected {name!r} to be a function or a runnable, found a class; name an instance of it"
        )
    if isinstance(found, Correctness):
        return found
    if isinstance(found, Runnable):
        return Judge(found)
    if callable(found):
        return Function(found)
    kind = type(found).__name__
    raise InputError(
        f"expected {name!r} to be a function or a runnable, found a value of type {kind}; name another"
    )
