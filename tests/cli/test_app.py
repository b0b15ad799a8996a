"""The command `aspire-guard` and its subcommand `score`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.exchange import Exchange
from aspire_guard.testing import tiny_lm

ANSWER_LINE = '{"question": "Who?", "answer": "Ann"}\n'
Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]


def test_a_users_mistake_is_one_line_and_exit_code_2(
    evaluator_folder: Path, tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """An evaluator is refused if its base model has other weights than those it was trained on."""
    data = tmp_path / "answers.jsonl"
    data.write_text(ANSWER_LINE)
    tiny_lm(seed=2).model.save_pretrained(tmp_path / "base")
    capsys.readouterr()  # what saving the models printed
    assert run_command("score", data, "--evaluator", evaluator_folder) == 2
    error = capsys.readouterr().err
    assert f"expected the base model {tmp_path / 'base'} with fingerprint" in error
    assert error.count("\n") == 1


def test_an_unknown_option_is_exit_code_2(run_command: Run) -> None:
    """Typer's own errors have the same exit code."""
    assert run_command("score", "--nonsense") == 2


def test_score_writes_a_line_for_each_line(
    evaluator_folder: Path, tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """Each record gets the evaluator's scores, in order, and keeps its id and its label but no unknown key."""
    exchanges = [Exchange(question=f"Who is {i}?", answer="Ann" * (i % 3)) for i in range(70)]
    data = tmp_path / "answers.jsonl"
    with data.open("w") as stream:
        for i, exchange in enumerate(exchanges):
            line = {"id": f"r{i}", "question": exchange.question, "answer": exchange.answer}
            stream.write(json.dumps(line | {"correct": True, "note": "dropped"}) + "\n")
    assert run_command("score", data, "--evaluator", evaluator_folder) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    evaluator = SelfEvaluator.from_pretrained(evaluator_folder)
    scores = [score.selection_score for score in evaluator.score(exchanges)]
    assert [line["id"] for line in lines] == [f"r{i}" for i in range(70)]
    assert [line["selection_score"] for line in lines] == pytest.approx(scores, abs=1e-4)
    copied = {"id", "question", "answer", "correct"}
    numbers = {"selection_score", "confidence", "log_likelihood", "p_correct", "declined"}
    scored = numbers | {"signals", "sentences", "out_of_domain", "evaluator"}
    for line in lines:
        assert set(line) == copied | scored
        assert line["evaluator"] == evaluator.manifest.scorer


def test_score_writes_the_answer_that_was_judged(
    evaluator_folder: Path, tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """White space around an answer is not judged, so the positions of its sentences are those of the line's answer."""
    data = tmp_path / "answers.jsonl"
    data.write_text(json.dumps({"question": "Who?", "answer": "\n  Ada. \n"}) + "\n")
    assert run_command("score", data, "--evaluator", evaluator_folder) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == "Ada."


def test_score_reads_the_likelihoods_that_a_chains_model_reported(
    save_tiny_evaluator: Callable[..., Path], tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """An evaluator that was fitted to reported likelihoods requires a number in each line."""
    folder = save_tiny_evaluator(tmp_path, likelihood="chain")
    data = tmp_path / "answers.jsonl"
    data.write_text('{"question": "Who?", "answer": "Ann", "log_likelihood": -0.375}\n')
    assert run_command("score", data, "--evaluator", folder) == 0
    assert json.loads(capsys.readouterr().out)["log_likelihood"] == -0.375
    for value, problem in (
        ("null", "expected the log-likelihood that the chain's model reports of its answer"),
        ('"high"', "line 1: expected \"log_likelihood\" to be a number, found the string 'high'"),
    ):
        data.write_text(f'{{"question": "Who?", "answer": "Ann", "log_likelihood": {value}}}\n')
        assert run_command("score", data, "--evaluator", folder) == 2
        assert problem in capsys.readouterr().err


def test_a_wrong_input_or_evaluator_keeps_an_earlier_output(
    tmp_path: Path, run_command: Run
) -> None:
    """The output file is opened only when there is a first line to write."""
    data, output = tmp_path / "answers.jsonl", tmp_path / "scored.jsonl"
    data.write_text(ANSWER_LINE)
    output.write_text("earlier")
    nowhere = tmp_path / "nowhere"
    assert run_command("score", data, "--evaluator", nowhere, "--output", output) == 2
    assert run_command("score", nowhere, "--output", output) == 2
    assert output.read_text() == "earlier"


def test_score_keeps_the_lines_before_a_bad_line(
    evaluator_folder: Path, tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """The batches before that of the bad line are in the output, and the error names the bad line."""
    data, output = tmp_path / "answers.jsonl", tmp_path / "scored.jsonl"
    data.write_text(ANSWER_LINE * 64 + '{"question": "Who?"}\n')
    assert run_command("score", data, "--evaluator", evaluator_folder, "--output", output) == 2
    assert len(output.read_text().splitlines()) == 64
    assert 'line 65: expected "answer" to hold text, found null' in capsys.readouterr().err


def test_score_does_not_overwrite_its_input(
    tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """Opening the file for writing would empty it before it is read."""
    data = tmp_path / "answers.jsonl"
    data.write_text(ANSWER_LINE)
    assert run_command("score", data, "--output", data) == 2
    assert "expected another file to write than" in capsys.readouterr().err
    assert data.read_text() == ANSWER_LINE
