"""The command `train`: a mistake ends in one line and exit code 2, before any file is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "expected a JSONL file to read, found: No such file or directory"),
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
