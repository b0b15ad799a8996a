"""Labels in a chain's answers: they train, and the share of right answers is told before training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aspire_guard.errors import DatasetError, InputError
from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_trainers.config import SelfEvaluationConfig, TrainingConfig
from aspire_trainers.correctness import load_correctness
from aspire_trainers.data.chain_answers import load_chain_answers
from aspire_trainers.data.label_report import describe_labels, warn_of_long_answers
from aspire_trainers.data.training_data import TrainingData
from aspire_trainers.record import QARecord
from aspire_trainers.stages.labelling import label_answers

SENTENCE = "According to the passage, the yard that built the ship was {}, as far as it says."


def write(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(tmp_path: Path, *rows: dict[str, Any]) -> TrainingData:
    config = TrainingConfig(validation_share=0)
    return TrainingData.load_answers([write(tmp_path, *rows)], [], config)


def make_sentences(**fields: Any) -> list[dict[str, Any]]:
    """Return 200 right sentences, with references of two words."""
    rows = []
    for i in range(200):
        answer = SENTENCE.format(f"Harrow {i}")
        rows.append({"question": f"Who built ship {i}?", "answer": answer} | fields)
        if "correct" not in fields:
            rows[-1]["answers"] = [f"Harrow {i}"]
    return rows


def test_a_label_takes_the_place_of_references(tmp_path: Path) -> None:
    """Right answers are the references. A question without a right one is open, and declining is not right."""
    path = write(
        tmp_path,
        {"question": "Who?", "answer": "Bob", "correct": False},
        {"question": "Who?", "answer": "Ada", "correct": True},
        {"question": "When?", "answer": "1890", "correct": False},
        {"question": "Why?", "answers": ["Wind"], "answer": "It was the wind.", "correct": True},
    )
    who, when, why = load_chain_answers(path)
    assert who.record == QARecord("answers-1", "Who?", None, ("Ada",))
    assert who.labels == {"Bob": False, "Ada": True}
    assert when.record == QARecord("answers-3", "When?", is_open=True)
    assert why.record.references == ("Wind",)


def test_the_labels_are_what_training_learns(tmp_path: Path) -> None:
    """They win over the rule, and an open question gets no refusal as a right answer."""
    data = load(
        tmp_path,
        {"question": "Who?", "answer": "Ada it was", "answers": ["Bob"], "correct": True},
        {"question": "When?", "answer": "1890", "correct": False},
    )
    rule = load_correctness(CorrectnessRule())
    sampled = [answers.to_sampled_answers() for answers in data.chain_answers.values()]  # type: ignore[union-attr]
    config = SelfEvaluationConfig(references=False)
    batches = label_answers(
        sampled, config, data.grade_by_labels(rule), seed=0, refusal="unanswerable"
    )
    labelled = {}
    for batch in batches:
        for item in batch:
            labelled[item.question] = dict(zip(item.texts, item.is_right, strict=True))
    assert labelled == {"Who?": {"Ada it was": True, "": False}, "When?": {"1890": False}}
    assert data.choose_rule(CorrectnessRule()) == CorrectnessRule(method="labels")


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (
            {},
            'expected "answers" with the references, or "correct" with a label, found neither of them',
        ),
        ({"correct": "yes"}, 'expected "correct" to hold true or false, found the string'),
        ({"correct": None}, "found neither of them; label the answer, or add its references"),
        ({"correct": False, "answer": "Ada"}, "expected one label for each answer, found another"),
    ],
)
def test_a_line_without_label_and_references_is_named(
    tmp_path: Path, row: dict[str, Any], found: str
) -> None:
    """The way out is a label. An empty list would make every answer wrong."""
    good = {"question": "Who?", "answer": "Ada", "correct": True}
    path = write(tmp_path, good, {"question": "Who?", "answer": "Bob"} | row)
    with pytest.raises(DatasetError, match="line 2") as caught:
        load_chain_answers(path)
    assert found in str(caught.value)


def test_the_share_of_right_answers_names_its_rule(tmp_path: Path) -> None:
    """Rouge-L calls right sentences wrong, which containment and labels don't."""
    rouge, containment = CorrectnessRule(), CorrectnessRule(method="containment")
    data = load(tmp_path, *make_sentences())
    assert describe_labels(data, rouge) == "0 of 200 answers are right (0.0%), by Rouge-L F1 ≥ 0.7"
    expected = "200 of 200 answers are right (100.0%), by containment of a reference"
    assert describe_labels(data, containment) == expected
    labelled = load(tmp_path, *make_sentences(correct=True))
    expected = "200 of 200 answers are right (100.0%), by the labels in the files"
    assert describe_labels(labelled, rouge) == expected


def test_answers_much_longer_than_references_bring_a_warning(tmp_path: Path) -> None:
    """The warning proposes containment, a judge or labels, and needs a rule that compares lengths."""
    data = load(tmp_path, *make_sentences())
    warning = warn_of_long_answers(data, CorrectnessRule())
    assert warning is not None
    assert "found 18 words against 2 (medians), so Rouge-L F1 ≥ 0.7 calls right" in warning
    for word in ("containment", "judge", 'label the answers with "correct"'):
        assert word in warning
    assert warn_of_long_answers(data, CorrectnessRule(method="containment")) is None
    labelled = load(tmp_path, *make_sentences(correct=True))
    assert warn_of_long_answers(labelled, CorrectnessRule()) is None
    short = [row | {"answer": "Harrow & Lund"} for row in make_sentences()]
    assert warn_of_long_answers(load(tmp_path, *short), CorrectnessRule()) is None


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("It was built by Harrow & Lund in Rye.", True),
        ("the harrow lund", True),
        ("Harrow and Lund", False),
        ("Lund, Harrow", False),
        ("", False),
    ],
)
def test_containment_looks_for_a_reference_in_the_answer(answer: str, is_right: bool) -> None:
    """The words of the reference follow one another, without case, punctuation and articles."""
    containment = load_correctness(CorrectnessRule(method="containment"))
    record = QARecord("q", "Who?", None, ("Cobbold", "Harrow & Lund"))
    assert containment.grade([(record, answer)]) == [is_right]


def test_labels_are_no_rule_for_other_answers() -> None:
    """An evaluator that was trained on labels says so, and the error proposes a rule."""
    with pytest.raises(InputError, match="name another, such as containment"):
        load_correctness(CorrectnessRule(method="labels"))
