"""`aspire-guard make-answers`: it writes labelled answers, and ends in one line if it can't."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]

CONTEXT = (
    "The ferry Petrel was built in Bergen in 1904. Ada Berg designed the ferry before the war. In 1931 the captain "
    "Jon Moe steered the ferry through a storm. The Norse Line bought the ferry from Olav Rud."
)
QUESTIONS = {"Who designed the ferry?": "Ada Berg", "Who steered the ferry?": "Jon Moe"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with some questions."""
    rows = [
        {"id": question, "question": question, "context": CONTEXT, "answers": [answer]}
        for question, answer in QUESTIONS.items()
    ]
    rows.append({"id": "closed-book", "question": "Who sang?", "answers": ["Ada Berg"]})
    lines = [json.dumps(row) + "\n" for row in rows]
    (tmp_path / "qa.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "closed.jsonl").write_text(lines[-1], encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def _read(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def test_answers_are_written_and_counted(run_command: Run, capsys: Captured) -> None:
    """The record without a passage is counted as skipped. The same command writes the same file."""
    command = ("make-answers", "qa.jsonl", "--output", "made.jsonl", "--per-record", 3)
    assert run_command(*command) == 0
    assert capsys.readouterr().out == (
        "made.jsonl: 10 answers, half of them right, to 3 records (1 skipped)\n"
    )
    made = _read("made.jsonl")
    assert [row["correct"] for row in made] == [True, False] * 5
    assert run_command(*command) == 0
    assert _read("made.jsonl") == made


def test_held_out_styles_go_to_a_file_of_their_own(run_command: Run, capsys: Captured) -> None:
    """Without the other file they are left out."""
    command = ("make-answers", "qa.jsonl", "--output", "made.jsonl", "--per-record", 9)
    assert run_command(*command) == 0
    styles = {row["style"] for row in _read("made.jsonl")}
    style = sorted(map(str, styles))[0]
    options = ("--hold-out-styles", style, "--held-out-output", "held_out.jsonl")
    assert run_command(*command, *options) == 0
    assert "held-out answers" in capsys.readouterr().out
    assert {row["style"] for row in _read("made.jsonl")} == styles - {style}
    assert {row["style"] for row in _read("held_out.jsonl")} == {style}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("qa.jsonl", "--hold-out-styles", "bold,sonnet"), "found sonnet"),
        (("qa.jsonl", "--hold-out-errors", "typo"), "found typo"),
        (("qa.jsonl", "closed.jsonl"), "found 'closed-book' in two datasets"),
        (("closed.jsonl",), "expected records with a context"),
    ],
)
def test_a_mistake_ends_in_one_line(
    options: tuple[str, ...], found: str, run_command: Run, capsys: Captured
) -> None:
    """Nothing is written."""
    assert run_command("make-answers", *options, "--output", "made.jsonl") == 2
    shown = capsys.readouterr().err
    assert found in shown
    assert shown.count("\n") == 1
    assert not Path("made.jsonl").exists()
