"""The names of the kinds of correctness, and the rules that they stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from langchain_core.runnables import RunnableLambda
from pydantic import ValidationError

from aspire_guard.errors import DatasetError, InputError
from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_trainers.correctness import (
    Correctness,
    ExactMatch,
    GradingFunction,
    Judge,
    Labels,
    RougeL,
    TokenF1,
    is_refusal,
    load_correctness,
)
from aspire_trainers.record import QARecord

# Named by the tests below, as a user's module names its own.
strict = RougeL(0.95)
judge: RunnableLambda[str, str] = RunnableLambda(lambda prompt: "yes")
number = 7


def mentions(record: QARecord, answer: str) -> bool:
    if not record.answerable:
        return is_refusal(answer)
    return any(reference in answer for reference in record.references)


def share(record: QARecord, answer: str) -> float:
    return 0.83


def picky(record: QARecord, answer: str) -> bool:
    raise KeyError(record.question)


def _load(method: str, threshold: float | None = None) -> Correctness:
    return load_correctness(CorrectnessRule(method=method, threshold=threshold))


def test_the_measures_are_made_with_their_thresholds() -> None:
    """Both F1 measures take the paper's 0.7 by default."""
    for method, kind in (("rouge_l", RougeL), ("token_f1", TokenF1)):
        for given, threshold in ((None, 0.7), (0.5, 0.5)):
            made = _load(method, given)
            assert isinstance(made, kind)
            assert made.threshold == threshold
    assert isinstance(_load("exact_match"), ExactMatch)


def test_a_name_to_import_is_a_function_a_judge_or_a_correctness_itself() -> None:
    """The kind of the named object decides."""
    record = QARecord("q", "Which yard?", references=("Harrow",))
    answers = [(record, "It was Harrow."), (QARecord("q2", "Who?"), "unknown")]
    function = _load(f"{__name__}:mentions")
    assert isinstance(function, GradingFunction)
    assert function.grade([*answers, (record, "Cobbold")]) == [True, True, False]
    assert isinstance(_load(f"{__name__}:judge"), Judge)
    assert _load(f"{__name__}:strict") is strict


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            "no.such.module:right",
            "expected 'no.such.module:right' to be importable, found ModuleNotFoundError: No module named 'no'",
        ),
        (f"{__name__}:nothing", "to be importable, found AttributeError: .*no attribute 'nothing'"),
        (
            ":right",
            "expected the name of something to import, found ':right'; name it as package.module:name",
        ),
        (
            f"{__name__}:number",
            "to be a function or a runnable, found a value of type int; name another",
        ),
        (
            f"{__name__}:QARecord",
            "to be a function or a runnable, found a class; name an instance of it",
        ),
    ],
)
def test_a_name_that_can_t_grade_is_an_error(name: str, found: str) -> None:
    """The error says what was named."""
    with pytest.raises(InputError, match=found):
        _load(name)


def test_a_function_says_true_or_false_and_nothing_else() -> None:
    """A score is not a grade, since 0.83 would count as true. A comparison of NumPy is a grade."""
    function = GradingFunction(lambda _, answer: np.float64(len(answer)) > 1)
    assert function.grade([(QARecord("q", "?"), "a"), (QARecord("q", "?"), "ab")]) == [False, True]
    with pytest.raises(InputError) as caught:
        _load(f"{__name__}:share").grade([(QARecord("q", "?"), "a")])
    assert str(caught.value) == (
        "share: expected True or False, found a value of type float on 'q'; apply a threshold in the function"
    )


def test_a_function_that_raises_is_an_error_about_the_record() -> None:
    """The user learns which record it can't take."""
    with pytest.raises(InputError) as caught:
        _load(f"{__name__}:picky").grade([(QARecord("q", "?"), "a")])
    assert (
        str(caught.value)
        == "picky: expected True or False, found KeyError: '?' on 'q'; fix the function"
    )


def test_a_jsonl_file_holds_labels(tmp_path: Path) -> None:
    """The path may hold a colon."""
    path = tmp_path / "by:ada.jsonl"
    with pytest.raises(DatasetError):
        _load(str(path))
    path.write_text('{"id": "q", "answer": "a", "correct": true}', encoding="utf-8")
    assert isinstance(_load(str(path)), Labels)


def test_only_measures_of_degree_have_a_threshold() -> None:
    """γ̂ replaces γ if the rule has a γ, and changes nothing else."""
    rule = CorrectnessRule()
    assert (rule.method, rule.threshold, str(rule)) == ("rouge_l", 0.7, "Rouge-L F1 ≥ 0.7")
    assert rule.with_threshold(0.9) == CorrectnessRule(threshold=0.9)
    exact = CorrectnessRule(method="exact_match")
    assert exact.with_threshold(0.9) is exact
    assert str(exact) == "exact match"
    assert str(CorrectnessRule(method="my_app:right")) == "my_app:right"


def test_a_measure_needs_nothing_of_the_user_s() -> None:
    """Any other rule runs code or reads a file."""
    rules = {
        method: CorrectnessRule(method=method)
        for method in ("rouge_l", "token_f1", "exact_match", "a:b", "l.jsonl")
    }
    assert [method for method, rule in rules.items() if rule.is_measure] == [
        "rouge_l",
        "token_f1",
        "exact_match",
    ]


@pytest.mark.parametrize(
    ("method", "threshold", "found"),
    [
        (
            "bleu",
            None,
            "expected rouge_l, token_f1, exact_match, containment, package.module:name or labels.jsonl, found 'bleu'",
        ),
        ("exact_match", 0.5, "only with rouge_l or token_f1, found one with exact_match"),
        ("rouge_l", 0.0, "greater than 0"),
        ("rouge_l", 1.1, "less than or equal to 1"),
    ],
)
def test_a_bad_rule_is_refused(method: str, threshold: float | None, found: str) -> None:
    """A bad name is an input error, and a file that holds it fails its own check."""
    with pytest.raises(InputError, match=f"^correctness: .*{found}.*; fix it$"):
        CorrectnessRule.from_name(method, threshold)
    with pytest.raises(ValidationError):
        CorrectnessRule(method=method, threshold=threshold)


def test_a_rule_survives_json() -> None:
    """It is written to recipes and evaluators."""
    for rule in (
        CorrectnessRule(),
        CorrectnessRule(method="exact_match"),
        CorrectnessRule(method="a:b"),
    ):
        assert CorrectnessRule.model_validate_json(rule.model_dump_json()) == rule
