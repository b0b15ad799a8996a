"""The same labelled answers in every format that people keep them in."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.selection import choose_threshold, fit_calibrator
from aspire_guard.selection.report.error_examples import read_texts

Run = Callable[..., int]
FORMATS = ["jsonl", "json", "csv", "parquet", "ragas.csv", "ragas.jsonl"]
RAGAS = {"question": "user_input", "context": "retrieved_contexts", "answer": "response"}


def make_answers() -> list[dict[str, Any]]:
    """Return 50 labelled answers over passages, some of them empty, quoted or over several lines."""
    answers = []
    for i in range(50):
        answer = ["Ann", "", 'the "yard"; Rye, 1890', "two\nlines"][i % 4]
        context = [f"Passage {i}.", f"Ann built boat {i}."]
        fields = {"id": f"q{i}", "question": f"Who built boat {i}?", "context": context}
        answers.append(fields | {"answer": answer, "correct": i % 3 != 0})
    return answers


@pytest.fixture
def write_answers(tmp_path: Path) -> Callable[[str], Path]:
    def write(ending: str) -> Path:
        frame = pandas.DataFrame(make_answers())
        if "ragas" in ending:
            frame = frame.rename(columns=RAGAS | {"correct": "label"})
        path = tmp_path / f"answers.{ending}"
        match ending.split(".")[-1]:
            case "jsonl":
                frame.to_json(path, orient="records", lines=True)
            case "json":
                frame.to_json(path, orient="records")
            case "csv":
                frame.to_csv(path)
            case _:
                frame.to_parquet(path)
        return path

    return write


def run_score(
    run_command: Run, data: Path, evaluator: Path, tmp_path: Path
) -> list[dict[str, Any]]:
    """Score a file, and return the lines."""
    options = ["--columns", "ragas,correct=label"] if "ragas" in data.name else []
    output = tmp_path / "scored.jsonl"
    assert run_command("score", data, "--evaluator", evaluator, "--output", output, *options) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_every_format_gives_the_same_scores_and_thresholds(
    evaluator_folder: Path,
    write_answers: Callable[[str], Path],
    tmp_path: Path,
    run_command: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """JSONL, a JSON array, CSV, Parquet, a frame and RAGAS-shaped files are scored and calibrated alike."""
    columns = ("id", "question", "answer", "correct", "selection_score", "confidence")
    scores: list[list[tuple[Any, ...]]] = []
    thresholds = []
    for ending in FORMATS:
        lines = run_score(run_command, write_answers(ending), evaluator_folder, tmp_path)
        scores.append([tuple(line[column] for column in columns) for line in lines])
        capsys.readouterr()
        run_command("calibrate", tmp_path / "scored.jsonl", "--target-coverage", "0.5", "--json")
        thresholds.append(capsys.readouterr().out)
    assert len(scores[0]) == 50
    assert scores == len(FORMATS) * [scores[0]]
    assert thresholds == len(FORMATS) * [thresholds[0]]

    frame = pandas.DataFrame(make_answers())
    own_scores = SelfEvaluator.from_pretrained(evaluator_folder).score(frame)
    assert [score.selection_score for score in own_scores] == [row[4] for row in scores[0]]
    calibrator = fit_calibrator(
        [score.selection_score for score in own_scores], frame["correct"].to_numpy()
    ).calibrator
    threshold = choose_threshold(
        [score.selection_score for score in own_scores],
        frame["correct"].to_numpy(),
        calibrator=calibrator,
        date="2026-01-01",
        target_coverage=0.5,
    )
    [printed] = json.loads(thresholds[0])["thresholds"]
    assert printed["confidence"] == threshold.model_dump()["confidence"]


def test_standard_input_feeds_every_command_that_reads_answers(
    evaluator_folder: Path,
    write_answers: Callable[[str], Path],
    tmp_path: Path,
    run_command: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A dash stands for a pipe, also if a command reads the answers twice."""
    lines = run_score(run_command, write_answers("jsonl"), evaluator_folder, tmp_path)
    scored = "".join(json.dumps(line) + "\n" for line in lines).encode()
    page = tmp_path / "report.html"
    commands: list[list[object]] = [
        ["score", "-", "--evaluator", evaluator_folder],
        ["calibrate", "-", "--target-coverage", "0.5"],
        ["report", "-", "--output", page],
        ["monitor", tmp_path / "m.json", "--calibration", "-", "--target-risk", "0.5"],
        ["monitor", tmp_path / "m.json", "--scores", "-"],
    ]
    for command in commands:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(scored)))
        assert run_command(*command) == 0
    assert "Who built boat" in page.read_text()
    assert capsys.readouterr().out.count('"selection_score"') >= 50


@pytest.mark.parametrize("ending", ["ragas.csv"])
def test_the_report_shows_the_context_of_a_mistake(
    evaluator_folder: Path,
    write_answers: Callable[[str], Path],
    tmp_path: Path,
    run_command: Run,
    ending: str,
) -> None:
    """Scored lines refer to it. It is found after a move, and left out if the file has changed."""
    data, page = write_answers(ending), tmp_path / "report.html"
    lines = run_score(run_command, data, evaluator_folder, tmp_path)
    assert lines[7]["context_reference"]["number"] == 8
    assert "context" not in lines[7]

    def find_contexts(scored: Path) -> set[str | None]:
        return {texts.context for texts in read_texts(scored, ["q7", "q9"]).values()}

    scored = tmp_path / "scored.jsonl"
    assert run_command("report", scored, "--output", page) == 0
    assert '<p class="context"><bdi>Passage' in page.read_text()
    contexts = find_contexts(scored)
    assert contexts == {f"Passage {i}.\n\nAnn built boat {i}." for i in (7, 9)}
    moved = tmp_path / "moved"
    moved.mkdir()
    moved_scored = scored.rename(moved / scored.name)
    moved_data = data.rename(moved / data.name)
    assert find_contexts(moved_scored) == contexts
    moved_data.write_text(moved_data.read_text().replace("Ann built", "Bo built"))
    assert find_contexts(moved_scored) == {None}
