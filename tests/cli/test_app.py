"""The command line: bad input ends in one line and exit code 2, good input in JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from aspire_guard.cli.app import main
from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_guard.evaluators.evaluator_folder import save_evaluator
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.exchange import Exchange
from aspire_guard.testing import tiny_evaluator, tiny_lm

RECORD = '{"question": "Who?", "context": "Ann did.", "answers": ["Ann"]}\n'


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of `aspire-guard` with these arguments."""
    monkeypatch.setattr("sys.argv", ["aspire-guard", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    code = stop.value.code
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "expected a JSONL file to read, found: No such file or directory"),
        ("not json\n", "line 1: expected a JSON object, found 'not json'"),
        ('{"context": "x", "answers": ["y"]}\n', 'line 1: expected the key "question"'),
        ("", "expected at least one record, found none"),
        (
            '{"question": "Who?", "answers": []}\n',
            "expected training records with an answer, found none",
        ),
    ],
)
def test_bad_training_data_is_one_line_and_exit_code_2(
    content: str | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is wrong with the data is said at once, and nothing is made."""
    data, output = tmp_path / "data.jsonl", tmp_path / "out"
    if content is not None:
        data.write_text(content)
    assert run(monkeypatch, "train", "--train", data, "--output", output) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == ([data] if content is not None else [])


def test_an_unknown_model_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that is neither known nor a folder is named, with the way out."""
    data = tmp_path / "data.jsonl"
    data.write_text(RECORD)
    model = tmp_path / "no" / "model"
    assert (
        run(monkeypatch, "train", "--train", data, "--model", model, "--output", tmp_path / "out")
        == 2
    )
    error = capsys.readouterr().err
    assert (
        f"expected a folder with a base model, found nothing at '{model}'; check the path" in error
    )
    assert error.count("\n") == 1


def test_an_evaluator_for_another_base_model_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An evaluator whose base model has other weights than the ones it was trained on is not used."""
    data = tmp_path / "data.jsonl"
    save_tiny_evaluator(tmp_path, seed=1)
    tiny_lm(seed=2).model.save_pretrained(tmp_path / "base")
    data.write_text('{"question": "Who?", "answer": "Ann"}\n')
    capsys.readouterr()  # what saving the model printed
    assert run(monkeypatch, "score", data, "--evaluator", tmp_path / "evaluator") == 2
    error = capsys.readouterr().err
    assert f"expected the base model {tmp_path / 'base'} with fingerprint" in error
    assert error.count("\n") == 1


def test_an_unknown_option_is_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Typer's own errors have the same exit code."""
    assert run(monkeypatch, "score", "--nonsense") == 2


@pytest.fixture
def evaluator(tmp_path: Path) -> Path:
    """The folder of a tiny evaluator, its base model beside it."""
    return save_tiny_evaluator(tmp_path, seed=1)


def test_score_writes_a_line_for_a_line(
    evaluator: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each record gets the evaluator's scores, in order, and keeps its id and its label."""
    rows = [
        {"id": f"r{i}", "question": f"Who is {i}?", "answer": "Ann" * (i % 3)} for i in range(70)
    ]
    data = tmp_path / "answers.jsonl"
    data.write_text(
        "".join(json.dumps({**row, "correct": True, "note": "dropped"}) + "\n" for row in rows)
    )
    assert run(monkeypatch, "score", data, "--evaluator", evaluator) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    judge = SelfEvaluator.from_pretrained(evaluator)
    expected = judge.score(
        [Exchange(question=str(row["question"]), answer=str(row["answer"])) for row in rows]
    )
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert [set(line) for line in lines] == [
        {
            "id",
            "question",
            "answer",
            "selection_score",
            "confidence",
            "log_likelihood",
            "p_correct",
            "evaluator",
            "correct",
        }
    ] * 70
    assert {line["evaluator"] for line in lines} == {judge.manifest.scorer}
    assert [line["selection_score"] for line in lines] == pytest.approx(
        [s.selection_score for s in expected], abs=1e-4
    )


def test_score_takes_the_likelihoods_that_a_chain_s_model_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the evaluator was fitted to them; a line without one is an error then, and so is one that is no number."""
    evaluator = save_tiny_evaluator(tmp_path, seed=1, likelihood="chain")
    data = tmp_path / "answers.jsonl"
    data.write_text('{"question": "Who?", "answer": "Ann", "log_likelihood": -0.375}\n')
    assert run(monkeypatch, "score", data, "--evaluator", evaluator) == 0
    assert json.loads(capsys.readouterr().out)["log_likelihood"] == -0.375
    for value, said in (
        ("null", "expected the log-likelihood that the chain's model reports of its answer"),
        ('"high"', "line 1: expected \"log_likelihood\" to be a number, found the string 'high'"),
    ):
        data.write_text(f'{{"question": "Who?", "answer": "Ann", "log_likelihood": {value}}}\n')
        assert run(monkeypatch, "score", data, "--evaluator", evaluator) == 2
        assert said in capsys.readouterr().err


def test_a_wrong_input_costs_no_earlier_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does a wrong evaluator: the file is opened once there is a first line to write."""
    data, output = tmp_path / "answers.jsonl", tmp_path / "scored.jsonl"
    data.write_text('{"question": "Who?", "answer": "Ada"}\n', encoding="utf-8")
    output.write_text("earlier", encoding="utf-8")
    assert (
        run(monkeypatch, "score", data, "--evaluator", tmp_path / "nowhere", "--output", output)
        == 2
    )
    assert run(monkeypatch, "score", tmp_path / "nothing.jsonl", "--output", output) == 2
    assert output.read_text(encoding="utf-8") == "earlier"


def test_score_keeps_what_it_has_written_when_a_later_line_is_bad(
    evaluator: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The lines before the bad one's chunk are in the output, and the bad line is named."""
    data, output = tmp_path / "answers.jsonl", tmp_path / "scored.jsonl"
    data.write_text('{"question": "Who?", "answer": "Ann"}\n' * 64 + '{"question": "Who?"}\n')
    assert run(monkeypatch, "score", data, "--evaluator", evaluator, "--output", output) == 2
    assert len(output.read_text().splitlines()) == 64
    assert 'line 65: expected "answer" to hold text, found null' in capsys.readouterr().err


def test_evaluate_prints_one_json_object_alone_on_standard_output(
    evaluator: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A script can read the result: n, accuracy, and AUROC and AUACC with intervals for four scores."""
    answer = SelfEvaluator.from_pretrained(evaluator).answer("Which?")[0]
    assert answer
    rows = [
        {"question": "Which?", "answers": [answer]},
        {"question": "Where?", "answers": ["somewhere else entirely"]},
        {"question": "When?", "answers": ["never in a thousand years"]},
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (
        run(monkeypatch, "evaluate", "--data", data, "--evaluator", evaluator, "--json", "--save")
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["n"] == 3
    assert report["accuracy"]["value"] == pytest.approx(1 / 3)
    assert set(report["scores"]) == {"aspire", "perplexity", "self_eval", "p_true"}
    assert all(
        set(score[m]) == {"value", "low", "high"}
        for score in report["scores"].values()
        for m in ("auroc", "auacc")
    )
    card, released = (evaluator / "README.md").read_text("utf-8"), f"{100 * report['coverage']:.1f}"
    assert re.search(
        rf"\| data \| 3 \| 33\.3 \[0\.0, 100\.0\] \| {released} \((–|[0-9.]+)\) \| aspire \|", card
    )
    assert "| data | 3 | 33.3 [0.0, 100.0] |  | perplexity |" in card


@pytest.fixture
def questions(evaluator: Path, tmp_path: Path) -> Path:
    """Two questions that the tiny evaluator answers with a part of its reference, and one without a reference."""
    answer = SelfEvaluator.from_pretrained(evaluator).answer("Which?")[0]
    assert answer
    references: tuple[list[str], ...] = ([f"{answer} or so"], [f"{answer} or so"], [])
    rows = [
        {"id": f"{i}", "question": "Which?", "answers": answers}
        for i, answers in enumerate(references)
    ]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data


def _evaluated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> Any:
    assert run(monkeypatch, "evaluate", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_evaluate_takes_the_evaluator_s_own_correctness_or_another(
    evaluator: Path,
    questions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its own by default; a measure, or a function from a module in the working folder, by name."""
    monkeypatch.chdir(questions.parent)
    (questions.parent / "my_grading.py").write_text(
        "def right(record, answer):\n    return record.answerable\n"
    )
    options = ("--data", questions, "--evaluator", evaluator)
    own = _evaluated(monkeypatch, capsys, *options)
    assert own["correctness"] == {"method": "rouge_l", "threshold": 0.7}
    exact = _evaluated(monkeypatch, capsys, *options, "--correctness", "exact_match", "--save")
    assert (exact["correctness"], exact["accuracy"]["value"]) == (
        {"method": "exact_match", "threshold": None},
        0.0,
    )
    assert exact["scores"]["aspire"]["auroc"] is None
    assert exact["unanswerable"]["n"] == 1
    card = (evaluator / "README.md").read_text("utf-8")
    assert (
        "| questions (exact match) | 3 | 0.0 [0.0, 0.0] |  | perplexity | – | 0.0 [0.0, 0.0] |"
        in card
    )
    mine = _evaluated(monkeypatch, capsys, *options, "--correctness", "my_grading:right")
    assert mine["accuracy"]["value"] == pytest.approx(2 / 3)
    lenient = _evaluated(monkeypatch, capsys, *options, "--threshold", 0.01)
    assert lenient["correctness"] == {"method": "rouge_l", "threshold": 0.01}
    assert lenient["accuracy"]["value"] == pytest.approx(2 / 3)


def test_evaluate_prints_a_dash_where_nothing_can_be_ranked(
    evaluator: Path,
    questions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And what became of the questions without a reference."""
    options = ("--data", questions, "--evaluator", evaluator, "--correctness", "exact_match")
    assert run(monkeypatch, "evaluate", *options) == 0
    out = capsys.readouterr().out
    assert "accuracy of all answers 0.0 [0.0, 0.0] (exact match)" in out
    assert "1 of them without a reference: 0.0% declined" in out
    assert re.search(r"aspire +–  ", out)


def test_evaluate_with_baselines_prints_the_papers_table(
    evaluator: Path,
    questions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All five baselines on both blocks of answers, as JSON and as a table that says what each costs."""
    arguments = (
        "evaluate",
        "--data",
        questions,
        "--evaluator",
        evaluator,
        "--baselines",
        "--samples",
        3,
    )
    five = ["perplexity", "predictive_entropy", "semantic_entropy", "self_eval", "p_true"]
    assert run(monkeypatch, *arguments, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["scores"]) == ["aspire", *five]
    assert list(report["pretrained"]["scores"]) == five
    assert report["scores"]["p_true"]["cost"]["generations"] == 3
    assert run(monkeypatch, *arguments) == 0
    table = capsys.readouterr().out
    assert all(table.count(name) == 2 for name in five)
    assert "answers under θp" in table
    assert "answers without θp" in table


def test_evaluate_against_one_that_can_t_answer_asks_neither(
    evaluator: Path,
    questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An evaluator of a chain's answers is named before the first has answered."""
    other, scored = (
        save_tiny_evaluator(tmp_path / "other", seed=1, likelihood="chain"),
        tmp_path / "scored.jsonl",
    )
    pair = ("--evaluator", evaluator, "--against", other)
    assert run(monkeypatch, "evaluate", "--data", questions, *pair, "--answers", scored) == 2
    assert "expected an evaluator fitted to its own model's likelihoods" in capsys.readouterr().err
    assert scored.read_bytes() == b""


def test_evaluate_against_another_evaluator_tells_the_difference(
    evaluator: Path,
    questions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Against itself it is none, of any metric."""
    same = ("--evaluator", evaluator, "--against", evaluator, "--threshold", 0.01)
    arguments = ("evaluate", "--data", questions, *same)
    assert run(monkeypatch, *arguments, "--json") == 0
    other = json.loads(capsys.readouterr().out)["against"]
    assert other["evaluator"] == str(evaluator)
    assert other["difference"] == {
        name: {"value": 0.0, "low": 0.0, "high": 0.0}
        for name in ("auroc", "auacc", "aurc", "accuracy")
    }
    assert run(monkeypatch, *arguments) == 0
    assert "accuracy +0.0 [+0.0, +0.0] · AUROC +0.0 [+0.0, +0.0]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--correctness", "bleu"), "found 'bleu'; fix it"),
        (
            ("--correctness", "no_such_module:right"),
            "to be importable, found ModuleNotFoundError: No module named",
        ),
        (("--correctness", "exact_match", "--threshold", "0.5"), "exact_match has none; fix it"),
        (("--threshold", "0"), "greater than 0; fix it"),
        (("--correctness", "none.jsonl"), "none.jsonl: expected a JSONL file to read"),
        (
            ("--correctness", "labels.jsonl"),
            "expected a label for each of 3 answers, found none for 3",
        ),
    ],
)
def test_a_correctness_that_can_t_grade_is_one_line_and_exit_code_2(
    options: tuple[str, ...],
    said: str,
    evaluator: Path,
    questions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The line says what is wrong and the way out."""
    monkeypatch.chdir(questions.parent)
    Path("labels.jsonl").write_text('{"id": "q", "answer": "a", "correct": true}\n')
    assert (
        run(monkeypatch, "evaluate", "--data", questions, "--evaluator", evaluator, *options) == 2
    )
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--nli", "x"), "expected --baselines beside --nli, found --nli alone"),
        (
            ("--baselines", "--nli", "no/such/folder"),
            "expected an NLI model (a local folder or a hub id)",
        ),
        (("--baselines", "--samples", "1"), "Invalid value for '--samples'"),
        (
            ("--against", "nowhere"),
            "expected an evaluator folder with aspire.json, found none at nowhere",
        ),
        (("--no-such-option",), "No such option"),
    ],
)
def test_bad_options_of_evaluate_end_with_exit_code_2(
    options: tuple[str, ...],
    said: str,
    evaluator: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is wrong is said before any question is answered."""
    data = tmp_path / "data.jsonl"
    data.write_text(RECORD)
    assert run(monkeypatch, "evaluate", "--data", data, "--evaluator", evaluator, *options) == 2
    assert said in capsys.readouterr().err


def test_what_an_evaluator_names_is_run_only_where_the_user_names_it_too(
    evaluator: Path,
    questions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An evaluator may be somebody else's, and so may be what it names."""
    monkeypatch.chdir(questions.parent)
    Path("their_grading.py").write_text(
        "open('run', 'w').close()\ndef right(record, answer):\n    return True\n"
    )
    saved = SelfEvaluator.from_pretrained(evaluator)
    rule = CorrectnessRule(method="their_grading:right")
    save_evaluator(
        evaluator,
        saved.aspire,
        saved.manifest.model_copy(update={"correctness": rule}),
        saved.calibration,
    )
    options = ("--data", questions, "--evaluator", evaluator)
    assert run(monkeypatch, "evaluate", *options) == 2
    assert capsys.readouterr().err == (
        "error: expected --correctness, since the evaluator's own rule is 'their_grading:right', and what a folder "
        "names is not run or read by itself; add --correctness their_grading:right if you trust it\n"
    )
    assert not Path("run").exists()
    trusted = _evaluated(monkeypatch, capsys, *options, "--correctness", "their_grading:right")
    assert (trusted["accuracy"]["value"], Path("run").exists()) == (1.0, True)


def test_answers_are_kept_where_grading_them_fails(
    evaluator: Path,
    questions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a file of their own, without a label each, which `calibrate` asks for; an earlier run's labels stay."""
    monkeypatch.chdir(questions.parent)
    Path("my_judge.py").write_text(
        "from aspire_guard.testing import ScriptedChatModel\nmodel = ScriptedChatModel('perhaps')\n"
    )
    options = ("--data", questions, "--evaluator", evaluator, "--answers", "scored.jsonl")
    assert run(monkeypatch, "evaluate", *options) == 0
    before = Path("scored.jsonl").read_bytes()
    assert run(monkeypatch, "evaluate", *options, "--correctness", "my_judge:model") == 2
    said = capsys.readouterr().err
    assert "found 3 of 3 that don't, the first 'perhaps'" in said
    assert "the answers are kept in scored.ungraded.jsonl" in said
    kept = [
        json.loads(line) for line in Path("scored.ungraded.jsonl").read_text("utf-8").splitlines()
    ]
    assert kept == [json.loads(line) | {"correct": None} for line in before.splitlines()]
    assert Path("scored.jsonl").read_bytes() == before
    assert run(monkeypatch, "calibrate", "scored.ungraded.jsonl", "--target-risk", 0.5) == 2
    assert re.search(r"line 1: .*found null", capsys.readouterr().err)


def test_an_answer_file_is_not_written_over_while_it_is_scored(
    evaluator: Path,
    questions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """To open it for writing would empty it."""
    before = questions.read_bytes()
    assert (
        run(monkeypatch, "score", questions, "--evaluator", evaluator, "--output", questions) == 2
    )
    assert "expected another file to write than" in capsys.readouterr().err
    assert (
        run(
            monkeypatch,
            "evaluate",
            "--data",
            questions,
            "--evaluator",
            evaluator,
            "--answers",
            questions,
        )
        == 2
    )
    assert "expected another file to write than" in capsys.readouterr().err
    assert questions.read_bytes() == before


def save_tiny_evaluator(folder: Path, seed: int, likelihood: str = "own") -> Path:
    """A tiny evaluator in `folder / "evaluator"`, whose base model is in `folder / "base"`."""
    tiny, base = tiny_evaluator(seed=seed), folder / "base"
    tiny.aspire.lm.model.save_pretrained(base)
    tiny.aspire.lm.tokenizer.save_pretrained(base)
    name = tiny.manifest.base_model.model_copy(update={"name": str(base)})
    manifest = tiny.manifest.model_copy(update={"base_model": name, "likelihood": likelihood})
    save_evaluator(folder / "evaluator", tiny.aspire, manifest, tiny.calibration)
    return folder / "evaluator"
