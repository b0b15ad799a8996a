"""A full disk and read-only places: one line that names the file and the way out, and nothing is lost."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aspire_guard.evaluators.evaluator_folder import read_manifest
from aspire_guard.lm import smollm2
from aspire_guard.testing import tiny_lm

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]

GO_ON = "make room and run the same command again"


@contextmanager
def limit_files(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_answers(path: Path, n: int) -> None:
    line = {"question": "Who?", "context": "Ada did it.", "answer": "Ada."}
    lines = [json.dumps({"id": str(i), **line}) + "\n" for i in range(n)]
    path.write_text("".join(lines), encoding="utf-8")


def test_scoring_on_a_full_disk_names_the_file(
    evaluator_folder: Path, tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """It is one line with the way out."""
    answers, output = tmp_path / "answers.jsonl", tmp_path / "scored.jsonl"
    write_answers(answers, 20)
    options = ("--evaluator", evaluator_folder, "--output", output)
    with limit_files(2_000):
        assert run_command("score", answers, *options) == 2
    error = capsys.readouterr().err
    assert str(output) in error
    assert GO_ON in error
    assert error.count("\n") == 1


def test_training_goes_on_after_the_disk_was_full(
    tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """The same command ends the run that a full disk has stopped at its first checkpoint."""
    base, data, output = tmp_path / "base", tmp_path / "qa.jsonl", tmp_path / "trained"
    lm = tiny_lm()
    lm.model.save_pretrained(base)
    lm.tokenizer.save_pretrained(base)
    lines: list[str] = []
    for i in range(12):
        record = {"question": f"Which {i}?", "context": f"It is no. {i}.", "answers": [f"no. {i}"]}
        lines.append(json.dumps(record) + "\n")
    data.write_text("".join(lines), encoding="utf-8")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "[task]\nepochs = 1\ncheckpoint_every = 1\n[sampling]\nk = 2\nmax_new_tokens = 3\n"
        "[self_evaluation]\nepochs = 1\n",
        encoding="utf-8",
    )
    options = ("--model", base, "--train", data, "--recipe", recipe, "--output", output)
    with limit_files(10_000):
        assert run_command("train", *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "task.safetensors" in error
    assert GO_ON in error
    assert not output.exists()
    assert run_command("train", *options) == 0
    assert read_manifest(output).base_model.name == str(base)


def test_a_converted_model_that_finds_no_room_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_command: Run, capsys: Captured
) -> None:
    """A cache where no folder can be made, such as a read-only home, is one line."""
    occupied = tmp_path / "file"
    occupied.write_text("", encoding="utf-8")
    answers = tmp_path / "answers.jsonl"
    write_answers(answers, 1)
    monkeypatch.setenv("ASPIRE_GUARD_CACHE", str(occupied / "cache"))
    assert smollm2.get_cache_folder() == occupied / "cache"
    assert run_command("train", "--train", "handbook:train", "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "set ASPIRE_GUARD_CACHE to a writable folder" in error
    assert error.count("\n") == 1


def test_a_moved_base_model_is_one_line_with_the_way_out(
    evaluator_folder: Path, tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """The evaluator names the folder that its base model was in."""
    base, answers = tmp_path / "base", tmp_path / "answers.jsonl"
    base.rename(tmp_path / "moved")
    write_answers(answers, 1)
    assert run_command("score", answers, "--evaluator", evaluator_folder) == 2
    error = capsys.readouterr().err
    assert str(base) in error
    assert "link its new place from the old one" in error
    assert error.count("\n") == 1
