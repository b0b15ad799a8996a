"""`calibrate` for two stages: from records to a policy file that a guard follows, and whose promise it keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.runnables import RunnableLambda

from aspire_guard import AspireGuard, RoutingPolicy, Verdict
from aspire_guard.evaluators.evaluator_folder import (
    read_calibration,
    read_manifest,
    save_evaluator,
)
from aspire_guard.exchange import Exchange
from aspire_guard.review.queue import ReviewQueue
from aspire_guard.testing import ConstantEvaluator, tiny_evaluator

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]

COSTS = "wrong=20,abstain=4,fallback=1,review=3"
Rows = list[dict[str, Any]]


def draw(n: int, seed: int, **fields: Any) -> Rows:
    """Records whose confidences are too high by a fixed amount of log-odds, and rank well in both stages."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=(n, 2)) * 2 + [0.5, 1.5]
    correct = rng.random((n, 2)) < 1 / (1 + np.exp(-odds))
    confidence = 1 / (1 + np.exp(-odds - 1))
    rows = []
    for i in range(n):
        stages = {}
        for column, stage in enumerate(("answer", "fallback")):
            answer = {
                "selection_score": float(np.log(confidence[i, column])),
                "confidence": float(confidence[i, column]),
                "correct": bool(correct[i, column]),
            }
            stages[stage] = answer | fields
        rows.append({"id": f"{seed}-{i}", "stages": stages})
    return rows


def write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return write(tmp_path / "staged.jsonl", draw(2000, 0))


def make_guard(policy: RoutingPolicy, confidence: Callable[[Exchange], float]) -> AspireGuard:
    """A guard over a chain that answers `answer`, with a policy whose fallback answers `fallback`."""
    chain: RunnableLambda[str, str] = RunnableLambda(lambda question: "answer")
    return AspireGuard(chain, evaluator=ConstantEvaluator(confidence), policy=policy)


def judge(policy: RoutingPolicy, of_answer: float, of_fallback: float) -> Verdict:
    """The verdict of a guard whose evaluator gives both answers these confidences."""
    confidences = {"answer": float(of_answer), "fallback": float(of_fallback)}
    return make_guard(policy, lambda exchange: confidences[exchange.answer]).judge("Who?")


def load(path: Path) -> RoutingPolicy:
    return RoutingPolicy.load(path, {"large": RunnableLambda(lambda question: "fallback")})


def test_a_guard_takes_each_way_of_the_policy(
    records: Path,
    tmp_path: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """Release, fallback and review begin exactly at the policy's thresholds, of which each stage has its own."""
    path, queue = tmp_path / "policy.json", f"sqlite:///{tmp_path / 'reviews.db'}"
    asked = ("--target-risk", 0.1, "--cost", COSTS, "--policy", path)
    names = ("--fallback", "large", "--review", queue, "--json")
    assert run_command("calibrate", records, *asked, *names) == 0
    captured = capsys.readouterr()
    chosen = json.loads(captured.out)["policy"]
    assert "on the scale of the confidences in the lines" in captured.err
    assert chosen["promise"].startswith(
        "with probability 95 % over the calibration answers, at most 10 %"
    )
    accept, fallback = chosen["accept"], chosen["fallback"]
    second = chosen["accept_fallback"]
    assert 0 < fallback < accept < 1
    assert 0 < second < 1
    assert second != accept
    policy = load(path)
    ways = [
        (accept, 0.0, "accept", True, accept),
        (np.nextafter(accept, 0), second, "fallback", True, second),
        (fallback, second, "fallback", True, second),
        (fallback, np.nextafter(second, 0), "abstain", False, None),
        (np.nextafter(fallback, 0), 1.0, "abstain", False, accept),
    ]
    for of_answer, of_fallback, route, is_released, threshold in ways:
        verdict = judge(policy, of_answer, of_fallback)
        assert (verdict.route, verdict.released) == (route, is_released)
        assert threshold is None or verdict.threshold == threshold
        assert (verdict.ticket is None) == is_released
    assert len(ReviewQueue(queue).list()) == 2


def test_the_promise_holds_for_what_a_guard_releases(
    tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """On fresh draws the guard's released answers, of both stages together, are wrong at the target or less often."""
    path = tmp_path / "policy.json"
    costs = ("--cost", "wrong=0,abstain=1,fallback=0.1")
    asked = ("--target-risk", 0.15, *costs, "--policy", path, "--fallback", "large")
    fresh = {row["id"]: row["stages"] for row in draw(400, 99)}

    def confidence(exchange: Exchange) -> float:
        value: float = fresh[exchange.question][exchange.answer]["confidence"]
        return value

    n_kept = 0
    for seed in range(3):
        records = write(tmp_path / f"{seed}.jsonl", draw(1500, seed + 1))
        assert run_command("calibrate", records, *asked) == 0
        guard = make_guard(load(path), confidence)
        n_released = n_wrong = 0
        for stages, verdict in zip(fresh.values(), guard.judge_batch(list(fresh)), strict=True):
            if verdict.released:
                stage = "fallback" if verdict.route == "fallback" else "answer"
                n_released += 1
                n_wrong += not stages[stage]["correct"]
        assert n_released > 150
        n_kept += n_wrong / n_released <= 0.15
    assert n_kept >= 2
    assert "then" in capsys.readouterr().out


def test_with_an_evaluator_its_own_confidences_are_compared(
    tmp_path: Path, run_command: Run, capsys: Captured
) -> None:
    """Both stages use the scale of its calibration, which stays as it is. Another evaluator's scores are refused."""
    tiny, folder = tiny_evaluator(seed=1), tmp_path / "evaluator"
    save_evaluator(folder, tiny.aspire, tiny.manifest, tiny.calibration)
    before, path = (folder / "calibration.json").read_bytes(), tmp_path / "policy.json"
    rows = draw(2000, 0, evaluator=read_manifest(folder).scorer)
    records = write(tmp_path / "staged.jsonl", rows)
    asked = ("--target-risk", 0.1, "--cost", COSTS, "--policy", path, "--fallback", "large")
    review = ("--review", f"sqlite:///{tmp_path / 'reviews.db'}", "--json", "--evaluator")
    assert run_command("calibrate", records, *asked, *review, folder) == 0
    chosen = json.loads(capsys.readouterr().out)["policy"]
    scores = [row["stages"]["answer"]["selection_score"] for row in rows]
    assert chosen["accept"] in read_calibration(folder).calibrator.confidences(scores)
    assert (folder / "calibration.json").read_bytes() == before
    assert load(path).bands[0].at_least == chosen["accept"]
    other = write(tmp_path / "other.jsonl", draw(200, 0, evaluator="another"))
    assert run_command("calibrate", other, *asked, *review, folder) == 2
    assert "expected scores of the evaluator in" in capsys.readouterr().err


def test_a_target_out_of_reach_is_exit_code_3(
    records: Path,
    tmp_path: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """It says what could have been promised, and no policy is written."""
    path = tmp_path / "policy.json"
    asked = ("--target-risk", 0.001, "--cost", "wrong=20,abstain=4,fallback=1", "--policy", path)
    assert run_command("calibrate", records, *asked, "--fallback", "large") == 3
    assert "policy: no threshold keeps wrong answers at 0.1 %" in capsys.readouterr().out
    assert run_command("calibrate", records, *asked, "--fallback", "large", "--json") == 3
    result = json.loads(capsys.readouterr().out)
    assert result["policy"] is None
    assert result["missing"]["best_risk"] > 0.001
    assert not path.exists()


def test_where_review_is_cheapest_the_policy_releases_nothing(
    records: Path,
    tmp_path: Path,
    run_command: Run,
    capsys: Captured,
) -> None:
    """All answers go to the reviewers, even if the evaluator is sure of them."""
    path = tmp_path / "policy.json"
    asked = ("--target-risk", 0.2, "--cost", "wrong=100,abstain=1,fallback=0.1,review=0.01")
    names = ("--fallback", "large", "--review", f"sqlite:///{tmp_path / 'reviews.db'}")
    assert run_command("calibrate", records, *asked, "--policy", path, *names) == 0
    assert "releasing nothing costs least, so nothing is promised" in capsys.readouterr().out
    verdict = judge(load(path), 1.0, 1.0)
    assert not verdict.released
    assert verdict.ticket is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--target-risk", 0.1, "--fallback", "m:f"),
            "expected a target risk and costs for two stages, found no costs",
        ),
        (("--cost", COSTS), "found no target risk; pass e.g. --target-risk 0.1"),
        (
            ("--target-risk", 0.1, "--cost", "wrong=20,abstain=4", "--fallback", "m:f"),
            "cost: expected costs of 0 or more like wrong=20,abstain=4,fallback=1",
        ),
        (
            ("--target-risk", 0.1, "--cost", COSTS, "--band", "review=0.2", "--by-group"),
            "options: expected --band, --by-group with one stage alone; leave --band, --by-group out",
        ),
        (
            ("--target-risk", 0.1, "--cost", COSTS, "--policy", "policy.json"),
            "policy: expected the name of the fallback",
        ),
        (
            ("--target-risk", 0.1, "--cost", COSTS, "--policy", "policy.json", "--fallback", "m:f"),
            "policy: expected the URL of a review queue",
        ),
        (("--target-risk", 2, "--cost", COSTS), "staged policy: expected a target risk and a δ"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(
    options: tuple[object, ...],
    message: str,
    records: Path,
    run_command: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    """The error tells what was expected and what was found, and no file is made."""
    monkeypatch.chdir(records.parent)
    assert run_command("calibrate", records, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("policy.json").exists()


def test_records_must_suit_the_options(tmp_path: Path, run_command: Run, capsys: Captured) -> None:
    """Without confidences there is no scale for the thresholds, and records of one answer have no fallback."""
    asked = ("--target-risk", 0.1, "--cost", "wrong=20,abstain=4,fallback=1")
    without = write(tmp_path / "without.jsonl", draw(200, 0, confidence=None))
    assert run_command("calibrate", without, *asked) == 2
    assert 'expected a "confidence" of both answers in every line' in capsys.readouterr().err
    single = write(tmp_path / "single.jsonl", [{"selection_score": -1.0, "correct": True}])
    assert run_command("calibrate", single, *asked) == 2
    assert 'expected "stages" to hold "answer" and "fallback"' in capsys.readouterr().err
    assert run_command("calibrate", single, "--target-risk", 0.1, "--review", "sqlite:///r.db") == 2
    assert "expected --review with two stages" in capsys.readouterr().err
