"""The command `evaluate`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_guard.evaluators.evaluator_folder import save_evaluator
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.selection.metrics import bootstrap_difference, bootstrap_interval

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]
BASELINES = ["perplexity", "predictive_entropy", "semantic_entropy", "self_eval", "p_true"]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the bootstrap of the many metrics short: these tests don't check its intervals."""
    for function in (bootstrap_interval, bootstrap_difference):
        assert function.__kwdefaults__ is not None
        monkeypatch.setitem(function.__kwdefaults__, "resamples", 20)


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, where options find the modules that a test writes."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def answer(evaluator_folder: Path) -> str:
    """The answer of the tiny evaluator to the question "Which?"."""
    answer = SelfEvaluator.from_pretrained(evaluator_folder).answer("Which?")[0]
    assert answer
    return answer


@pytest.fixture
def questions(answer: str) -> Path:
    """A file of two questions that the evaluator answers with a part of the reference, and one without a reference."""
    data = Path("questions.jsonl")
    references = [[f"{answer} or so"], [f"{answer} or so"], []]
    write_lines(
        data,
        (
            {"id": f"{i}", "question": "Which?", "answers": texts}
            for i, texts in enumerate(references)
        ),
    )
    return data


@pytest.fixture
def evaluate_json(run_command: Run, capsys: Captured) -> Callable[..., Any]:
    """A function that runs `evaluate --json`, and returns the parsed output."""

    def evaluate(*options: object) -> Any:
        capsys.readouterr()
        assert run_command("evaluate", *options, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return evaluate


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_it_prints_a_single_json_object(
    evaluator_folder: Path, answer: str, evaluate_json: Callable[..., Any]
) -> None:
    """A script can read n, the accuracy, and AUROC and AUACC with intervals. --save adds them to the card."""
    references = {
        "Which?": answer,
        "Where?": "somewhere else",
        "When?": "never in a thousand years",
    }
    data = Path("data.jsonl")
    write_lines(data, ({"question": q, "answers": [text]} for q, text in references.items()))
    report = evaluate_json("--data", data, "--evaluator", evaluator_folder, "--save")
    assert report["n"] == 3
    assert report["accuracy"]["value"] == pytest.approx(1 / 3)
    assert set(report["scores"]) == {"aspire", "perplexity", "self_eval", "p_true"}
    for score in report["scores"].values():
        assert set(score["auroc"]) == set(score["auacc"]) == {"value", "low", "high"}
    card = (evaluator_folder / "README.md").read_text("utf-8")
    coverage = f"{100 * report['coverage']:.1f}"
    accuracy = r"33\.3 \[[0-9.]+, [0-9.]+\]"
    assert re.search(
        rf"\| data \| 3 \| {accuracy} \| {coverage} \((–|[0-9.]+)\) \| aspire \|", card
    )
    assert re.search(rf"\| data \| 3 \| {accuracy} \|  \| perplexity \|", card)


def test_it_applies_the_evaluators_own_correctness_or_another(
    evaluator_folder: Path, questions: Path, evaluate_json: Callable[..., Any]
) -> None:
    """Its own rule is the default. Options name another measure, threshold, or a function in the working folder."""
    Path("my_grading.py").write_text("def right(record, answer):\n    return record.answerable\n")
    options = ("--data", questions, "--evaluator", evaluator_folder)
    own = evaluate_json(*options)
    assert own["correctness"] == {"method": "rouge_l", "threshold": 0.7}
    exact = evaluate_json(*options, "--correctness", "exact_match", "--save")
    assert exact["correctness"] == {"method": "exact_match", "threshold": None}
    assert exact["accuracy"]["value"] == 0.0
    assert exact["scores"]["aspire"]["auroc"] is None
    assert exact["unanswerable"]["n"] == 1
    card = (evaluator_folder / "README.md").read_text("utf-8")
    row = "| questions (exact match) | 3 | 0.0 [0.0, 0.0] |  | perplexity | – | 0.0 [0.0, 0.0] |"
    assert row in card
    function = evaluate_json(*options, "--correctness", "my_grading:right")
    assert function["accuracy"]["value"] == pytest.approx(2 / 3)
    lenient = evaluate_json(*options, "--threshold", 0.01)
    assert lenient["correctness"] == {"method": "rouge_l", "threshold": 0.01}
    assert lenient["accuracy"]["value"] == pytest.approx(2 / 3)


def test_it_prints_a_dash_if_nothing_can_be_ranked(
    evaluator_folder: Path, questions: Path, run_command: Run, capsys: Captured
) -> None:
    """The table also says what became of the questions without a reference."""
    options = ("--evaluator", evaluator_folder, "--correctness", "exact_match")
    assert run_command("evaluate", "--data", questions, *options) == 0
    output = capsys.readouterr().out
    assert "accuracy of all answers 0.0 [0.0, 0.0] (exact match)" in output
    assert "1 of them without a reference: 0.0% declined" in output
    assert re.search(r"aspire +–  ", output)


def test_baselines_are_the_papers_table(
    evaluator_folder: Path,
    questions: Path,
    evaluate_json: Callable[..., Any],
    run_command: Run,
    capsys: Captured,
) -> None:
    """All five baselines on both blocks of answers, as JSON with each cost, and as a table."""
    options = ("--data", questions, "--evaluator", evaluator_folder, "--baselines", "--samples", 3)
    report = evaluate_json(*options)
    assert list(report["scores"]) == ["aspire", *BASELINES]
    assert list(report["pretrained"]["scores"]) == BASELINES
    assert report["scores"]["p_true"]["cost"]["generations"] == 3
    assert run_command("evaluate", *options) == 0
    table = capsys.readouterr().out
    assert all(table.count(name) == 2 for name in BASELINES)
    assert "answers under θp" in table
    assert "answers without θp" in table


def test_an_evaluator_that_can_t_answer_is_found_before_the_first_answer(
    evaluator_folder: Path,
    save_tiny_evaluator: Callable[..., Path],
    questions: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """An evaluator of a chain's answers can't answer by itself, so it is refused as the second evaluator."""
    other, scored = save_tiny_evaluator(Path("other"), likelihood="chain"), Path("scored.jsonl")
    evaluators = ("--evaluator", evaluator_folder, "--against", other)
    assert run_command("evaluate", "--data", questions, *evaluators, "--answers", scored) == 2
    assert "expected an evaluator fitted to its own model's likelihoods" in capsys.readouterr().err
    assert scored.read_bytes() == b""


def test_the_difference_to_another_evaluator_is_reported(
    evaluator_folder: Path,
    questions: Path,
    evaluate_json: Callable[..., Any],
    run_command: Run,
    capsys: Captured,
) -> None:
    """Compared with itself, an evaluator differs in no metric."""
    evaluators = ("--evaluator", evaluator_folder, "--against", evaluator_folder)
    options = ("--data", questions, *evaluators, "--threshold", 0.01)
    other = evaluate_json(*options)["against"]
    assert other["evaluator"] == str(evaluator_folder)
    metrics = ("auroc", "auacc", "aurc", "accuracy")
    zero = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert other["difference"] == dict.fromkeys(metrics, zero)
    assert run_command("evaluate", *options) == 0
    assert "accuracy +0.0 [+0.0, +0.0] · AUROC +0.0 [+0.0, +0.0]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--correctness", "bleu"), "found 'bleu'; fix it"),
        (
            ("--correctness", "no_such_module:right"),
            "to be importable, found ModuleNotFoundError: No module named",
        ),
        (
            ("--correctness", "exact_match", "--threshold", "0.5"),
            "found one with exact_match; fix it",
        ),
        (("--threshold", "0"), "greater than 0; fix it"),
        (("--correctness", "none.jsonl"), "none.jsonl: expected a file of records to read"),
        (
            ("--correctness", "labels.jsonl"),
            "expected a label for each of 3 answers, found none for 3",
        ),
    ],
)
def test_a_correctness_that_can_t_grade_is_one_line_and_exit_code_2(
    options: tuple[str, ...],
    problem: str,
    evaluator_folder: Path,
    questions: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """The last line on standard error states the problem and the way out."""
    Path("labels.jsonl").write_text('{"id": "q", "answer": "a", "correct": true}\n')
    arguments = ("--data", questions, "--evaluator", evaluator_folder, *options)
    assert run_command("evaluate", *arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert problem in error


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--nli", "x"), "expected --baselines with --nli, found --nli alone"),
        (
            ("--baselines", "--nli", "no/such/folder"),
            "expected an NLI model (a local folder or a hub id)",
        ),
        (("--baselines", "--samples", "1"), "Invalid value for '--samples'"),
        (
            ("--against", "nowhere"),
            "expected an evaluator folder with aspire.json, found none at nowhere",
        ),
    ],
)
def test_bad_options_end_with_exit_code_2(
    options: tuple[str, ...],
    problem: str,
    evaluator_folder: Path,
    questions: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """The problem is reported before any question is answered."""
    arguments = ("--data", questions, "--evaluator", evaluator_folder, *options)
    assert run_command("evaluate", *arguments) == 2
    assert problem in capsys.readouterr().err


def test_a_function_that_the_evaluator_names_runs_only_if_the_user_names_it_too(
    evaluator_folder: Path,
    questions: Path,
    evaluate_json: Callable[..., Any],
    run_command: Run,
    capsys: Captured,
) -> None:
    """An evaluator may come from somebody else, and so may the function that it names."""
    Path("their_grading.py").write_text(
        "open('run', 'w').close()\ndef right(record, answer):\n    return True\n"
    )
    saved = SelfEvaluator.from_pretrained(evaluator_folder)
    rule = CorrectnessRule(method="their_grading:right")
    manifest = saved.manifest.model_copy(update={"correctness": rule})
    save_evaluator(evaluator_folder, saved.aspire, manifest, saved.calibration)
    options = ("--data", questions, "--evaluator", evaluator_folder)
    assert run_command("evaluate", *options) == 2
    error = capsys.readouterr().err
    assert (
        "expected --correctness, since the evaluator's own rule is 'their_grading:right'" in error
    )
    assert "add --correctness their_grading:right if you trust it" in error
    assert not Path("run").exists()
    trusted = evaluate_json(*options, "--correctness", "their_grading:right")
    assert trusted["accuracy"]["value"] == 1.0
    assert Path("run").exists()


def test_answers_are_kept_if_grading_fails(
    evaluator_folder: Path, questions: Path, run_command: Run, capsys: Captured
) -> None:
    """They are in another file, without labels, which `calibrate` refuses. The labels of an earlier run stay."""
    Path("my_judge.py").write_text(
        "from aspire_guard.testing import ScriptedChatModel\nmodel = ScriptedChatModel('perhaps')\n"
    )
    answers = Path("scored.jsonl")
    options = ("--data", questions, "--evaluator", evaluator_folder, "--answers", answers)
    assert run_command("evaluate", *options) == 0
    before = answers.read_text("utf-8")
    capsys.readouterr()
    assert run_command("evaluate", *options, "--correctness", "my_judge:model") == 2
    error = capsys.readouterr().err
    assert "found 3 of 3 that don't, the first 'perhaps'" in error
    assert "the answers are kept in scored.ungraded.jsonl" in error
    ungraded = Path("scored.ungraded.jsonl").read_text("utf-8")
    unlabelled = [json.loads(line) | {"correct": None} for line in before.splitlines()]
    assert [json.loads(line) for line in ungraded.splitlines()] == unlabelled
    assert answers.read_text("utf-8") == before
    assert run_command("calibrate", "scored.ungraded.jsonl", "--target-risk", 0.5) == 2
    assert re.search(r"line 1: .*found null", capsys.readouterr().err)


def test_it_does_not_overwrite_its_questions(
    evaluator_folder: Path, questions: Path, run_command: Run, capsys: Captured
) -> None:
    """Opening the file for writing would empty it before it is read."""
    before = questions.read_bytes()
    options = ("--evaluator", evaluator_folder, "--answers", questions)
    assert run_command("evaluate", "--data", questions, *options) == 2
    assert "expected another file to write than" in capsys.readouterr().err
    assert questions.read_bytes() == before
