"""The command `train`: a mistake ends in one line and exit code 2, before any file is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aspire_guard.evaluators.evaluator_folder import read_manifest

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "expected a file of records to read, found: No such file or directory"),
        ("not json\n", "line 1: expected a JSON object, found 'not json'"),
        ('{"question": "Who?", "answers": []}\n', "expected training records with an answer"),
    ],
)
def test_bad_training_data_is_one_line_and_exit_code_2(
    content: str | None, problem: str, tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """The problem is reported at once, and no folder is made."""
    data, output = tmp_path / "data.jsonl", tmp_path / "out"
    if content is not None:
        data.write_text(content)
    assert run_command("train", "--train", data, "--output", output) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_an_unknown_model_is_one_line_and_exit_code_2(
    tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """A model that is neither known nor a folder is named."""
    data, model = tmp_path / "data.jsonl", tmp_path / "no" / "model"
    data.write_text('{"question": "Who?", "context": "Ann did.", "answers": ["Ann"]}\n')
    output = tmp_path / "out"
    assert run_command("train", "--train", data, "--model", model, "--output", output) == 2
    error = capsys.readouterr().err
    assert f"expected a folder with a base model, found nothing at '{model}'" in error
    assert error.count("\n") == 1


RECIPE = """
validation_share = 0.3
[task]
text = "Answer"
length = 3
batch_size = 2
[self_evaluation]
text = "Right?"
length = 3
batch_size = 2
"""


def test_one_file_of_labelled_answers_feeds_every_command(
    base: Path, tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """It trains an evaluator by its labels, is scored and calibrated, and its scores are monitored."""
    data, scored = tmp_path / "answers.jsonl", tmp_path / "scored.jsonl"
    with data.open("w") as stream:
        for i in range(12):
            row = {"question": f"Which boat has no. {i}?", "context": [f"Boat {i}.", "It is red."]}
            label = {"answer": f"no. {i % 5}", "correct": i % 2 == 0}
            stream.write(json.dumps(row | label) + "\n")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    folder = tmp_path / "out"
    options = ["--recipe", tmp_path / "recipe.toml", "--model", base, "--output", folder]
    assert run_command("train", "--answers", data, *options) == 0
    assert (
        "6 of 12 answers are right (50.0%), by the labels in the files" in capsys.readouterr().err
    )
    assert str(read_manifest(folder).correctness) == "labels"
    assert run_command("score", data, "--evaluator", folder, "--output", scored) == 0
    assert run_command("calibrate", scored, "--target-coverage", 0.5) == 0
    start = ["--calibration", scored, "--target-risk", 0.9]
    assert run_command("monitor", tmp_path / "monitor.json", *start, "--labels", scored) in (0, 4)
