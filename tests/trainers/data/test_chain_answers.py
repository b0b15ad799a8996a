"""Answers that come from a file: read by question, and judged in the place of the model's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aspire_guard.errors import DatasetError, InputError
from aspire_guard.evaluators.evaluator_folder import read_calibration, read_manifest
from aspire_guard.testing import tiny_evaluator
from aspire_trainers.config import SelfEvaluationConfig, TaskTuningConfig, TrainingConfig
from aspire_trainers.correctness import RougeL
from aspire_trainers.data.chain_answers import ChainAnswers, have_likelihoods, load_chain_answers
from aspire_trainers.data.training_data import TrainingData
from aspire_trainers.evaluation.judging import judge_chain_answers
from aspire_trainers.pipeline import train_evaluator
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress


def _write_file(folder: Path, *rows: dict[str, Any]) -> Path:
    (path := folder / "answers.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def test_the_lines_of_a_question_belong_together(tmp_path: Path) -> None:
    """A question has its answers with their repetitions and chains, and stage 3 sees each text once."""
    shared = {
        "id": "q1",
        "question": "Who?",
        "context": "Ada did.",
        "answers": ["Ada"],
        "chain": "app:chain",
    }
    answers = [("Ada", -0.5), ("Bob", -1.5), ("Ada", -0.25)]
    rows = [shared | {"answer": text, "log_likelihood": likelihood} for text, likelihood in answers]
    (given,) = load_chain_answers(_write_file(tmp_path, *rows))
    assert given == ChainAnswers(
        QARecord("q1", "Who?", "Ada did.", ("Ada",)),
        ["Ada", "Bob", "Ada"],
        [-0.5, -1.5, -0.25],
        {"app:chain"},
    )
    sampled = given.to_sampled_answers()
    assert (sampled.texts, sampled.log_likelihoods) == (("Ada", "Bob"), (-0.5, -1.5))


def test_a_file_of_other_makes_needs_little(tmp_path: Path) -> None:
    """A line needs a question, references and an answer. Without ids, lines are grouped by their question."""
    one, two = {"question": "Who?", "answers": "Ada"}, {"question": "When?", "answers": []}
    path = _write_file(
        tmp_path, one | {"answer": "Bob"}, two | {"answer": "Never."}, one | {"answer": ""}
    )
    who, when = load_chain_answers(path)
    assert who == ChainAnswers(
        QARecord("answers-1", "Who?", None, ("Ada",)), ["Bob", ""], [None, None]
    )
    assert when.record == QARecord("answers-2", "When?")
    assert not have_likelihoods([who, when])


def test_a_question_answered_from_two_contexts_is_two(tmp_path: Path) -> None:
    """A retrieving chain may find another context each time, and the ids stay unique."""
    row = {"id": "q1", "question": "Who?", "answers": ["Ada"], "answer": "Ada"}
    given = load_chain_answers(
        _write_file(tmp_path, row | {"context": "Here."}, row | {"context": "There."})
    )
    assert [(one.record.id, one.record.context) for one in given] == [
        ("q1", "Here."),
        ("q1-2", "There."),
    ]


ROW = {"id": "q1", "question": "Who?", "answers": ["Ada"], "answer": "Ada"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW | {"answer": None}, 'line 2: expected "answer" to hold text, found null'),
        (
            {"question": "Who?", "answer": "Ada"},
            'line 2: expected "answers" with the references, or "correct" with a label',
        ),
        (
            ROW | {"log_likelihood": True},
            'line 2: expected "log_likelihood" to be a number, found the boolean true',
        ),
        (ROW | {"chain": 7}, 'line 2: expected "chain" to hold text, found the number 7'),
        (
            ROW | {"answers": ["Bob"]},
            "line 2: expected the question and the references of the earlier lines",
        ),
        (
            ROW | {"question": "Why?"},
            "line 2: expected the question and the references of the earlier lines",
        ),
    ],
)
def test_a_bad_line_is_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The error names the line and what was expected."""
    path = _write_file(tmp_path, ROW, row)
    with pytest.raises(DatasetError) as raised:
        load_chain_answers(path)
    assert message in str(raised.value)


def _make_answers(*likelihoods: float | None) -> list[ChainAnswers]:
    records = [QARecord(f"q{i}", f"Who is {i}?", f"Passage {i}.", (f"no. {i}",)) for i in range(20)]
    return [ChainAnswers(r, [f"no. {i}", "Bob"], list(likelihoods)) for i, r in enumerate(records)]


@pytest.mark.parametrize("likelihoods", [(-0.5, -0.25), (-0.5, None)])
def test_every_given_answer_is_judged(likelihoods: tuple[float | None, ...]) -> None:
    """θs judges each answer. The reported likelihoods count if all answers have one, and else the evaluator's own."""
    aspire, given = tiny_evaluator().aspire, _make_answers(*likelihoods)
    judged = judge_chain_answers(aspire, given, RougeL(), Progress("test"))
    assert [(answer.record.id, answer.text) for answer in judged] == [
        (one.record.id, text) for one in given for text in one.texts
    ]
    assert [answer.correct for answer in judged] == [True, False] * 20
    own, log_p = aspire.score(
        [(answer.record.question, answer.record.context, answer.text) for answer in judged]
    )
    assert [answer.log_p_correct for answer in judged] == pytest.approx(log_p.tolist(), abs=1e-4)
    expected = own.tolist() if None in likelihoods else list(likelihoods) * 20
    assert [answer.log_likelihood for answer in judged] == pytest.approx(expected, abs=1e-4)


def test_a_run_on_given_answers_that_is_killed_ends_with_the_same_evaluator(
    base: Path, tmp_path: Path, train_until: Callable[..., None]
) -> None:
    """The run is killed in stages 1 and 3. Other answers to the same questions make another run."""
    fit: dict[str, Any] = {"length": 3, "batch_size": 2, "checkpoint_every": 1}
    config = TrainingConfig(
        model=str(base),
        validation_share=0.2,
        task=TaskTuningConfig(text="Answer", **fit),
        self_evaluation=SelfEvaluationConfig(text="Right?", **fit),
    )
    question: dict[str, Any] = {"question": "Which?", "answer": "no. 3"}
    rows = [question | {"context": f"Passage {i}.", "answers": [f"no. {i % 6}"]} for i in range(10)]
    data = TrainingData.load_answers([str(_write_file(tmp_path, *rows))], [], config)
    for left_behind in ("task.safetensors", "self_eval.safetensors"):
        train_until(tmp_path / ".out.work" / left_behind, config, data, tmp_path / "out")
    killed = train_evaluator(config, data, tmp_path / "out")
    through = train_evaluator(config, data, tmp_path / "through")
    for name in (
        "task/adapter_model.safetensors",
        "self_eval/adapter_model.safetensors",
        "calibration.json",
    ):
        assert (killed / name).read_bytes() == (through / name).read_bytes()
    assert read_calibration(killed).n == 2
    # Answers without reported likelihoods are judged by the evaluator's own.
    assert read_manifest(killed).likelihood == "own"
    others = TrainingData.load_answers(
        [str(_write_file(tmp_path, *({**row, "answer": "no"} for row in rows)))], [], config
    )
    with pytest.raises(InputError, match="expected a new folder, found another evaluator"):
        train_evaluator(config, others, killed)
