"""`calibrate`, `report` and `monitor`: from scored answers to thresholds, files and exit codes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aspire_guard.evaluators.evaluator_folder import read_calibration, read_manifest, save_evaluator
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.selection.calibration import Threshold
from aspire_guard.selection.calibrators import fit_calibrator
from aspire_guard.selection.monitoring.risk_monitor import RiskMonitor
from aspire_guard.selection.risk_control.thresholds import choose_threshold
from aspire_guard.selection.scored_answers import read_scored
from aspire_guard.testing import tiny_evaluator

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]

N = 2000
TUTORIAL = Path(__file__).parents[2] / "docs" / "calibration.md"


def make_lines(
    n: int = N, seed: int = 0, shift: float = 0.0, **fields: Any
) -> list[dict[str, Any]]:
    """Make answers whose score ranks them well. `fields` are functions of the row's number."""
    rng = np.random.default_rng(seed)
    scores = -rng.exponential(0.8, n) - shift
    chances = 1 / (1 + np.exp(-(4 + 5 * scores)))
    correct = rng.random(n) < chances
    rows: list[dict[str, Any]] = []
    columns = (scores.tolist(), chances.tolist(), correct.tolist())
    for i, (score, chance, right) in enumerate(zip(*columns, strict=True)):
        row = {"id": f"q{i}", "selection_score": score, "confidence": chance, "correct": right}
        rows.append(row | {key: field(i) for key, field in fields.items()})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    return write(tmp_path / "scored.jsonl", make_lines())


@pytest.fixture
def evaluator(tmp_path: Path) -> Path:
    """The folder of a tiny evaluator, trained on `faq.jsonl`, as its provenance says."""
    tiny = tiny_evaluator(seed=1)
    manifest = tiny.manifest.model_copy(update={"provenance": {"datasets": ["faq.jsonl"]}})
    save_evaluator(tmp_path / "evaluator", tiny.aspire, manifest, tiny.calibration)
    return tmp_path / "evaluator"


def test_calibrate_prints_the_threshold_and_what_it_promises(
    scored: Path, run_command: Run, capsys: Captured
) -> None:
    """A table with the threshold on both scales, and the guarantee in one sentence."""
    assert run_command("calibrate", scored, "--target-risk", 0.1, "--method", "platt") == 0
    captured = capsys.readouterr()
    answers = read_scored(scored)
    fitted = fit_calibrator(answers.selection_score, answers.correct, method="platt")
    threshold = choose_threshold(
        answers.selection_score,
        answers.correct,
        calibrator=fitted.calibrator,
        date="",
        target_risk=0.1,
    )
    assert isinstance(threshold, Threshold)
    assert threshold.selection_score is not None
    assert f"│ accept │ {threshold.confidence:.4f} " in captured.out
    assert f"│ {threshold.selection_score:.4f} " in captured.out
    assert f"│ {threshold.coverage:.1%} " in captured.out
    assert (
        "accept: with probability 95 % over the calibration answers, at most 10 % of the released"
        in captured.out
    )
    assert "for questions like the 2,000 calibrated on" in captured.out
    assert "confidence by platt: Brier score 0." in captured.out
    assert captured.err == ""


def test_scores_of_another_evaluator_are_refused(
    run_command: Run, tmp_path: Path, capsys: Captured
) -> None:
    """No evaluator keeps the promise of another's scores. Its own are accepted, before and after a calibration."""
    mine, other = (tmp_path / name for name in ("mine", "other"))
    for folder, seed in ((mine, 0), (other, 1)):
        evaluator = tiny_evaluator(seed=seed)
        save_evaluator(folder, evaluator.aspire, evaluator.manifest, evaluator.calibration)
    named = {folder: read_manifest(folder).scorer for folder in (mine, other)}
    assert len(set(named.values())) == 2
    file = write(tmp_path / "of-mine.jsonl", make_lines(evaluator=lambda i: named[mine]))
    before = (other / "calibration.json").read_bytes()
    assert run_command("calibrate", file, "--target-risk", "0.2", "--evaluator", other) == 2
    assert "expected scores of the evaluator in" in capsys.readouterr().err
    assert (other / "calibration.json").read_bytes() == before
    for _ in range(2):
        assert run_command("calibrate", file, "--target-risk", "0.2", "--evaluator", mine) == 0
    mixed = write(
        tmp_path / "mixed.jsonl", make_lines(evaluator=lambda i: named[mine if i % 2 else other])
    )
    assert run_command("calibrate", mixed, "--target-risk", "0.2") == 2
    assert "line 2: expected the evaluator of the first line" in capsys.readouterr().err


def test_scores_that_rank_the_wrong_way_round_are_warned_of(
    run_command: Run, tmp_path: Path, capsys: Captured
) -> None:
    """All answers have one confidence then, and no threshold parts them."""
    rows = [row | {"correct": not row["correct"]} for row in make_lines()]
    run_command(
        "calibrate",
        write(tmp_path / "wrong.jsonl", rows),
        "--target-risk",
        "0.9",
        "--method",
        "platt",
    )
    assert (
        "expected scores that rank right answers above wrong ones, found that they don't"
        in capsys.readouterr().err
    )


def test_the_scored_answers_are_not_written_over(run_command: Run, scored: Path) -> None:
    """A policy must not be written into their file."""
    before = scored.read_bytes()
    assert run_command("calibrate", scored, "--target-risk", "0.2", "--policy", scored) == 2
    assert scored.read_bytes() == before


def test_calibrate_prints_one_json_object_alone_on_standard_output(
    scored: Path, run_command: Run, capsys: Captured
) -> None:
    """A script finds the threshold, its promise and the losses of every calibrator that was tried."""
    assert run_command("calibrate", scored, "--target-risk", 0.1, "--delta", 0.1, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    [threshold] = result["thresholds"]
    assert (result["n"], result["missing"]) == (N, [])
    assert set(result["comparison"]) == {"platt", "isotonic", "temperature", "venn_abers"}
    assert result["method"] == min(
        result["comparison"], key=lambda name: result["comparison"][name]["brier"]
    )
    assert threshold["risk"] < threshold["risk_bound"] == threshold["target"] == 0.1
    assert threshold["guarantee"]["delta"] == 0.1
    assert threshold["promise"].startswith("with probability 90 %")


def test_no_threshold_is_exit_code_3_and_nothing_is_written(
    evaluator: Path,
    tmp_path: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """It says the best that could have been promised, and how many more labels should do."""
    scored, policy = write(tmp_path / "scored.jsonl", make_lines(300)), tmp_path / "policy.json"
    before = read_calibration(evaluator)
    asked = ("--target-risk", 0.01, "--evaluator", evaluator, "--policy", policy)
    assert run_command("calibrate", scored, *asked) == 3
    output = capsys.readouterr().out
    assert (
        "accept: no threshold keeps wrong answers at 1 % of the released ones or fewer with probability 95 %"
        in output
    )
    assert "the least that could have been promised is" in output
    assert "more labelled answers like these should do" in output
    assert read_calibration(evaluator) == before
    assert not policy.exists()
    assert run_command("calibrate", scored, "--target-risk", 0.01, "--json") == 3
    result = json.loads(capsys.readouterr().out)
    assert result["thresholds"] == []
    assert result["missing"][0]["more_needed"] > 0


def test_an_evaluator_takes_the_calibration_and_keeps_all_else(
    scored: Path, evaluator: Path, tmp_path: Path, run_command: Run
) -> None:
    """The folder stays sound and carries the promise, and the policy has the same threshold."""
    before, policy = read_manifest(evaluator), tmp_path / "policy.json"
    asked = ("--target-risk", 0.1, "--evaluator", evaluator, "--policy", policy)
    assert run_command("calibrate", scored, *asked) == 0
    calibration = read_calibration(evaluator)
    assert (calibration.n, calibration.source) == (N, "scored.jsonl")
    assert calibration.guarantee is not None
    assert calibration.guarantee.startswith("with probability 95 %")
    assert RoutingPolicy.model_validate_json(policy.read_text()).threshold == calibration.threshold
    after = read_manifest(evaluator)
    assert after.model_copy(update={"files": before.files, "seal": before.seal}) == before
    assert {name for name in after.files if after.files[name] != before.files[name]} == {
        "calibration.json"
    }
    assert calibration.guarantee in (evaluator / "README.md").read_text("utf-8")


def test_a_policy_alone_has_a_threshold_on_the_confidences_that_the_lines_have(
    scored: Path,
    tmp_path: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """Without --evaluator the guard keeps the confidences it had, and releases the same answers on that scale."""
    policy = tmp_path / "policy.json"
    assert run_command("calibrate", scored, "--target-risk", 0.1, "--policy", policy, "--json") == 0
    captured = capsys.readouterr()
    [threshold] = json.loads(captured.out)["thresholds"]
    assert captured.err.endswith("on the scale of the confidences in the lines\n")
    answers, released_from = (
        read_scored(scored),
        RoutingPolicy.model_validate_json(policy.read_text()).threshold,
    )
    assert answers.confidence is not None
    assert released_from is not None
    released = answers.confidence >= released_from
    assert released.tolist() == (answers.selection_score >= threshold["selection_score"]).tolist()
    assert released.mean() == threshold["coverage"]


def test_a_policy_that_releases_everything_has_a_threshold_of_zero(
    scored: Path, tmp_path: Path, run_command: Run
) -> None:
    """If even the lowest score may be released, so may a lower score."""
    policy = tmp_path / "policy.json"
    assert run_command("calibrate", scored, "--target-coverage", 1, "--policy", policy) == 0
    assert json.loads(policy.read_text()) == {"threshold": 0.0}


def test_a_policy_needs_confidences_on_one_scale(
    tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """Lines without a confidence, or with one of another evaluator here and there, can't carry the threshold over."""
    asked = ("--target-risk", 0.1, "--policy", tmp_path / "policy.json")
    without = make_lines(confidence=lambda i: None)
    assert run_command("calibrate", write(tmp_path / "without.jsonl", without), *asked) == 2
    assert (
        'expected a "confidence" in every line, to give the policy its scale'
        in capsys.readouterr().err
    )
    mixed = make_lines(confidence=lambda i: 0.5 + 0.1 * (i % 2))
    assert run_command("calibrate", write(tmp_path / "mixed.jsonl", mixed), *asked) == 2
    assert (
        "expected confidences that rise with the scores, found 0.6 on both sides"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "policy.json").exists()


def test_bands_hold_together_and_one_without_a_threshold_stays_closed(
    scored: Path,
    evaluator: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """The target risk is for the band "accept". All bands share δ. A band that can't keep its risk is closed."""
    bands = (
        "--target-risk",
        0.1,
        "--band",
        "review=0.3",
        "--band",
        "gold=0.001",
        "--evaluator",
        evaluator,
    )
    assert run_command("calibrate", scored, *bands) == 0
    calibration = read_calibration(evaluator)
    assert [(t.name, t.target, t.releases) for t in calibration.thresholds] == [
        ("gold", 0.001, False),
        ("accept", 0.1, True),
        ("review", 0.3, True),
    ]
    accept, review = calibration.thresholds[1:]
    assert review.confidence < accept.confidence == calibration.threshold
    assert accept.guarantee is not None
    assert accept.guarantee.family == 3
    output = capsys.readouterr().out
    assert "gold: no threshold keeps wrong answers at 0.1 %" in output
    assert (
        "review: with probability 95 % over the calibration answers, for all 3 thresholds at once, at most"
        in output
    )


def test_every_group_has_a_threshold_of_its_own(
    tmp_path: Path,
    evaluator: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """A group too small for any threshold stays closed, and so does whatever belongs to no group."""
    scored = write(
        tmp_path / "scored.jsonl", make_lines(group=lambda i: "tiny" if i < 5 else "ab"[i % 2])
    )
    assert (
        run_command(
            "calibrate",
            scored,
            "--target-risk",
            0.1,
            "--by-group",
            "--evaluator",
            evaluator,
        )
        == 0
    )
    calibration = read_calibration(evaluator)
    thresholds = [calibration.threshold_for(group) for group in ("a", "b", "tiny", "unknown", None)]
    releases = [threshold.releases if threshold else None for threshold in thresholds]
    assert releases == [True, True, False, None, None]
    assert calibration.threshold == 1.0
    assert "tiny: no threshold keeps wrong answers at 10 %" in capsys.readouterr().out
    policy = tmp_path / "policy.json"
    assert (
        run_command("calibrate", scored, "--target-risk", 0.1, "--by-group", "--policy", policy)
        == 2
    )
    assert "policy: expected a threshold for all answers, found" in capsys.readouterr().err


def test_costs_choose_the_cheapest_threshold(
    tmp_path: Path,
    scored: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """Expensive mistakes make it strict. Costs in the lines replace `wrong`."""
    own = write(tmp_path / "own.jsonl", make_lines(cost=lambda i: 20.0))
    coverages = []
    for data, cost in (
        (scored, "wrong=2,abstain=1"),
        (scored, "wrong=20,abstain=1"),
        (own, "abstain=1"),
    ):
        assert run_command("calibrate", data, "--cost", cost, "--json") == 0
        [threshold] = json.loads(capsys.readouterr().out)["thresholds"]
        assert (threshold["objective"], threshold["promise"]) == ("cost", None)
        coverages.append(threshold["coverage"])
    assert coverages[0] > coverages[1] == coverages[2]
    assert run_command("calibrate", scored, "--cost", "wrong=2,abstain=1") == 0
    assert (
        "on these answers; an estimate on these answers, not a guarantee" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            (),
            "expected a target risk, a target coverage, costs, or a target risk with costs, found none",
        ),
        (("--target-risk", 1.5), "target risk: expected a share between 0 and 1, found 1.5"),
        (
            ("--target-coverage", 0),
            "target coverage: expected a share above 0 and up to 1, found 0",
        ),
        (("--target-risk", 0.1, "--target-coverage", 0.5), "found a target coverage and another"),
        (
            ("--band", "review"),
            "band: expected a name and a number like review=0.2, found 'review'",
        ),
        (
            ("--band", "review=high"),
            "band: expected a name and a number like review=0.2, found 'review=high'",
        ),
        (("--band", "review=2"), "target risk: expected a share between 0 and 1, found 2"),
        (("--band", "a=0.1", "--band", "a=0.2"), "band: expected each name once, found a twice"),
        (
            ("--band", "accept=0.1", "--target-risk", 0.1),
            "bands: expected one risk for the band accept, found it and",
        ),
        (("--band", "a=0.1", "--by-group"), "bands: expected bands alone or with a target risk"),
        (("--by-group",), "by group: expected a target risk alone"),
        (("--by-group", "--target-risk", 0.1), 'expected a "group" in every line, found none'),
        (
            ("--cost", "wrong=5"),
            "cost: expected costs of 0 or more like abstain=1,wrong=1, found 'wrong=5'",
        ),
        (
            ("--cost", "wrong=5,abstain=-1"),
            "cost: expected costs of 0 or more like abstain=1,wrong=1",
        ),
        (
            ("--cost", "wrong=5,abstain=1,tea=2"),
            "cost: expected costs of 0 or more like abstain=1,wrong=1",
        ),
        (
            ("--cost", "wrong=5,wrong=1,abstain=1"),
            "cost: expected each name once, found wrong twice",
        ),
        (
            ("--target-risk", 0.1, "--evaluator", "nowhere"),
            "expected an evaluator folder with aspire.json, found none",
        ),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(
    options: tuple[object, ...],
    message: str,
    scored: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """The error tells what was expected and what was found, and nothing else."""
    assert run_command("calibrate", scored, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_poor_answers_are_calibrated_with_a_warning(
    tmp_path: Path,
    evaluator: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """Standard error warns of few answers, and of answers from the evaluator's own training data."""
    rows = [row | {"id": f"faq.jsonl/{i}"} for i, row in enumerate(make_lines(50))]
    scored = write(tmp_path / "scored.jsonl", rows)
    assert run_command("calibrate", scored, "--target-risk", 0.5, "--evaluator", evaluator) == 0
    few, trained_on = capsys.readouterr().err.splitlines()
    assert few.startswith("warning: scored.jsonl: expected 100 labelled answers or more, found 50")
    assert trained_on.startswith(
        "warning: scored.jsonl: expected answers that the evaluator was not trained on, found 50"
    )


def test_report_writes_one_page(
    scored: Path,
    evaluator: Path,
    tmp_path: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """An evaluator is optional, and keeps its calibration. A test must not repeat the calibration's answers."""
    page, test, before = (
        tmp_path / "report.html",
        tmp_path / "test.jsonl",
        read_calibration(evaluator),
    )
    asked = {"question": "<b>Who?</b>", "answer": "Ann"}
    write(test, [row | asked | {"id": f"t{row['id']}"} for row in make_lines(300, seed=5)])
    assert run_command("report", scored, "--output", page) == 0
    alone = page.read_text("utf-8")
    assert (
        run_command(
            "report",
            scored,
            "--test",
            test,
            "--evaluator",
            evaluator,
            "--output",
            page,
        )
        == 0
    )
    tested = page.read_text("utf-8")
    assert alone.startswith("<!DOCTYPE html>")
    assert "faq.jsonl" not in alone
    assert "faq.jsonl" in tested
    assert "&lt;b&gt;Who?&lt;/b&gt;" in tested
    assert read_calibration(evaluator) == before
    assert capsys.readouterr().err == ""
    assert run_command("report", scored, "--test", scored, "--output", page) == 2
    assert capsys.readouterr().err.count("\n") == 1
    kept = test.read_bytes()
    assert run_command("report", scored, "--test", test, "--output", test) == 2
    assert "expected another file to write than" in capsys.readouterr().err
    assert test.read_bytes() == kept


def test_the_monitor_starts_watches_and_raises_the_alarm(
    scored: Path,
    tmp_path: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """Scores like those calibrated on are fine, a file's lines count once, and other scores end in exit code 4."""
    state = tmp_path / "state.json"
    assert run_command("monitor", state, "--calibration", scored, "--target-risk", 0.1) == 0
    assert capsys.readouterr().out.startswith("ok: nothing speaks against the guarantee")
    same = write(tmp_path / "same.jsonl", make_lines(500, seed=1))
    for _ in range(2):
        assert run_command("monitor", state, "--scores", same) == 0
    captured = capsys.readouterr()
    assert (
        captured.err
        == f"warning: {same}: all of 500 lines were counted before, and are not counted again\n"
    )
    assert "scores: 500, on average above" in captured.out
    write(same, [*make_lines(500, seed=1), *make_lines(100, seed=6)])
    assert run_command("monitor", state, "--scores", same) == 0
    captured = capsys.readouterr()
    assert (
        captured.err
        == f"warning: {same}: the first 500 of 600 lines were counted before, and are not counted again\n"
    )
    assert "scores: 600, on average above" in captured.out
    other = write(tmp_path / "other.jsonl", make_lines(500, seed=2, shift=0.5))
    assert run_command("monitor", state, "--scores", other) == 4
    assert capsys.readouterr().out.startswith(
        "alarm: the scores are not like the calibration scores"
    )
    assert run_command("monitor", state) == 4
    assert RiskMonitor.load(state).record.shift.n == 1100


def test_the_monitor_takes_the_evaluators_promise_and_only_labels_of_what_it_releases(
    scored: Path,
    evaluator: Path,
    tmp_path: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """All answers that were reviewed may be given: those that the threshold holds back are not its promise."""
    state, reviewed = (
        tmp_path / "state.json",
        write(tmp_path / "reviewed.jsonl", make_lines(400, seed=3)),
    )
    assert run_command("calibrate", scored, "--target-risk", 0.2, "--evaluator", evaluator) == 0
    start = ("--calibration", scored, "--evaluator", evaluator, "--labels", reviewed)
    assert run_command("monitor", state, *start) == 0
    errors, answers, calibration = (
        RiskMonitor.load(state).record.errors,
        read_scored(reviewed),
        read_calibration(evaluator),
    )
    released = calibration.calibrator.confidences(answers.selection_score) >= calibration.threshold
    assert errors.target_risk == 0.2
    assert (errors.n, errors.wrong) == (released.sum(), (released & ~answers.correct).sum())
    assert 0 < errors.n < 400
    write(
        reviewed,
        [
            *make_lines(400, seed=3),
            *(row | {"id": f"later {row['id']}"} for row in make_lines(100, seed=7)),
        ],
    )
    assert run_command("monitor", state, "--labels", reviewed, "--evaluator", evaluator) == 0
    released = (
        calibration.calibrator.confidences(read_scored(reviewed).selection_score)
        >= calibration.threshold
    )
    assert RiskMonitor.load(state).record.errors.n == released.sum() > errors.n
    fixed = [json.loads(line) for line in reviewed.read_text("utf-8").splitlines()]
    write(reviewed, [fixed[0] | {"correct": not fixed[0]["correct"]}, *fixed[1:]])
    assert run_command("monitor", state, "--labels", reviewed, "--evaluator", evaluator) == 0
    assert RiskMonitor.load(state).record.errors.n == released.sum()
    wrong = write(
        tmp_path / "wrong.jsonl", [row | {"correct": False} for row in make_lines(400, seed=4)]
    )
    assert run_command("monitor", state, "--labels", wrong, "--evaluator", evaluator) == 4
    assert "alarm: more released answers are wrong than was promised" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "found: No such file or directory; start one with its calibration answers"),
        (
            ("--calibration", "scored.jsonl"),
            "monitor: expected a target risk to watch, found neither that nor",
        ),
        (
            ("--calibration", "scored.jsonl", "--evaluator", "evaluator"),
            "found an evaluator that promises none",
        ),
        (
            ("--calibration", "none.jsonl", "--target-risk", 0.1),
            "expected a file of records to read, found: No such file",
        ),
        (
            ("--calibration", "scored.jsonl", "--target-risk", 2),
            "monitor: expected 0 < target risk < 1 and 0 < δ",
        ),
    ],
)
def test_a_monitor_that_cannot_start_is_one_line_and_exit_code_2(
    options: tuple[object, ...],
    message: str,
    scored: Path,
    evaluator: Path,
    run_command: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    """The error tells what is missing, and no file is made."""
    monkeypatch.chdir(scored.parent)
    assert run_command("monitor", "state.json", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("state.json").exists()


def test_a_monitor_is_not_started_over(
    scored: Path,
    tmp_path: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """--calibration with an existing monitor would forget what it has seen."""
    state = tmp_path / "state.json"
    start = ("--calibration", scored, "--target-risk", 0.1)
    assert run_command("monitor", state, *start) == 0
    assert run_command("monitor", state, *start) == 2
    assert "expected a new file for the monitor, found one" in capsys.readouterr().err


def test_the_tutorial_shows_what_the_commands_print(
    tmp_path: Path, run_command: Run, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Every line of output in docs/calibration.md is printed for the answers that the page makes up, but for dates."""
    page = TUTORIAL.read_text("utf-8")
    [made_up] = [
        code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "mkdtemp" in code
    ]
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path))
    exec(compile(made_up, str(TUTORIAL), "exec"), {})
    monkeypatch.chdir(tmp_path)
    shown = re.findall(r"^\$ aspire-guard (.*)\n((?:(?!\$|```).+\n)+)", page, re.MULTILINE)
    assert len(shown) == 3
    for command, expected in shown:
        assert run_command(*shlex.split(command)) in (0, 3)
        captured = capsys.readouterr()
        printed = re.sub(r"\d{4}-\d\d-\d\d", "DATE", captured.out + captured.err).splitlines()
        lines_shown = re.sub(r"\d{4}-\d\d-\d\d", "DATE", expected).splitlines()
        assert [line for line in lines_shown if line != "…" and line not in printed] == []
