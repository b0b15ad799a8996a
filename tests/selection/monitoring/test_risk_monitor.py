"""The monitor: false alarms are as rare as promised, changes are found, and nothing is lost or counted twice."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aspire_guard.errors import InputError
from aspire_guard.selection.monitoring.e_processes import ErrorEvidence, ShiftEvidence
from aspire_guard.selection.monitoring.risk_monitor import MonitorRecord, RiskMonitor

CALIBRATION = np.linspace(-3, 0, 200)
MONITORS = 300
# Three standard errors above the share that is allowed: a sound test fails here once in 700 seeds.
ALLOWED = 0.1 + 3 * math.sqrt(0.1 * 0.9 / MONITORS)


def _monitor(path: str | Path | None = None, delta: float = 0.05) -> RiskMonitor:
    return RiskMonitor.start(CALIBRATION, target_risk=0.1, delta=delta, path=path)


@given(st.lists(st.booleans(), max_size=30))
@settings(max_examples=30)
def test_the_next_label_changes_no_evidence_on_average_at_the_promised_risk(
    labels: list[bool],
) -> None:
    """At a risk of exactly the target the evidence is a martingale: (1 − r)·E(right) + r·E(wrong) = E."""
    now = ErrorEvidence(target_risk=0.1).add_labels(labels)
    expected = 0.9 * now.add_labels([True]).e_value + 0.1 * now.add_labels([False]).e_value
    assert expected == pytest.approx(now.e_value, rel=1e-12)


@given(st.lists(st.floats(-4, 1), max_size=30), st.integers(1, 50))
@settings(max_examples=30)
def test_the_next_score_changes_no_evidence_on_average_without_a_shift(
    scores: list[float], n: int
) -> None:
    """Averaged over the bins, with the chances that exchangeability gives them, the evidence stays what it is."""
    now = ShiftEvidence.from_calibration(CALIBRATION[:n]).add_scores(scores)
    chances = (np.array(now.gaps) + np.array(now.counts)) / (n + 1 + now.n)
    between = np.array([-np.inf, *(edge for edge, _ in now.edges), np.inf])
    # Distinct calibration scores: a score just below an edge lies in the bin that the edge closes.
    inside = [*np.nextafter(between[1:-1], -np.inf), np.inf]
    assert chances.sum() == pytest.approx(1)
    after = [now.add_scores([score]).e_value for score in inside]
    assert chances @ after == pytest.approx(now.e_value, rel=1e-12)


def test_one_wrong_label_by_hand() -> None:
    """Half of the capital is bet: ½·mean of e^λ / (1 − r + r·e^λ), and ½ is kept."""
    odds = np.exp(np.geomspace(0.01, 6, 40))
    expected = 0.5 * (odds / (0.9 + 0.1 * odds)).mean() + 0.5
    assert ErrorEvidence(target_risk=0.1).add_labels([False]).e_value == pytest.approx(
        expected, rel=1e-12
    )


def test_before_anything_is_seen_all_is_well() -> None:
    """No labels, no scores: evidence of 1, no bounds, state ok."""
    monitor = _monitor()
    assert (monitor.record.errors.e_value, monitor.record.shift.e_value) == (1.0, 1.0)
    assert monitor.record.errors.interval(0.05) is None
    assert monitor.state == "ok"
    assert not monitor.is_alarmed()
    assert monitor.explain().splitlines() == [
        "ok: nothing speaks against the guarantee",
        "labels: none yet; promised are at most 10.0% wrong",
        "scores: none yet",
    ]


def test_labels_at_the_promised_risk_rarely_raise_the_alarm() -> None:
    """At most δ/2 + 3 standard errors of 300 monitors at δ = 0.2 do, each asked after every one of 1,000 labels.

    The risk is at the target, and in the middle part far below: good times must not buy a false alarm later.
    """
    rng = np.random.default_rng(0)
    risk = np.repeat([0.1, 0.01, 0.1], [300, 300, 400])
    peaks = [
        ErrorEvidence(target_risk=0.1).add_labels(rng.random(1000) >= risk).peak
        for _ in range(MONITORS)
    ]
    alarms = np.mean(np.array(peaks) >= 2 / 0.2)
    assert 0 < alarms <= ALLOWED


@pytest.mark.parametrize(("n", "decimals"), [(20, 0), (300, 1)])
def test_scores_like_those_calibrated_on_rarely_raise_the_alarm(n: int, decimals: int) -> None:
    """If calibration sets are drawn too, small and tied ones, at most δ/2 + 3 standard errors of 300 monitors alarm."""
    rng = np.random.default_rng(1)
    peaks = []
    for _ in range(MONITORS):
        scores = rng.normal(size=n + 800).round(decimals)
        peaks.append(ShiftEvidence.from_calibration(scores[:n]).add_scores(scores[n:]).peak)
    assert np.mean(np.array(peaks) >= 2 / 0.2) <= ALLOWED


def test_the_bounds_on_risk_hold_at_every_moment_while_the_risk_moves() -> None:
    """In at most δ + 3 standard errors of 100 runs the mean risk so far ever leaves the 80 % bounds."""
    rng = np.random.default_rng(2)
    risk = np.tile(np.repeat([0.02, 0.3], 60), 4)
    mean_risk = np.cumsum(risk) / np.arange(1, 481)
    missed = 0
    for _ in range(100):
        evidence, inside = ErrorEvidence(target_risk=0.1), True
        for start in range(0, 480, 40):
            evidence = evidence.add_labels(rng.random(40) >= risk[start : start + 40])
            bounds = evidence.interval(0.2)
            assert bounds is not None
            inside &= bounds.low <= mean_risk[start + 39] <= bounds.high
        missed += not inside
    assert missed / 100 <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / 100)


def test_bounds_close_in_on_the_risk() -> None:
    """After 10,000 labels with 500 wrong ones, 95 % bounds lie within a percentage point of 5 %."""
    labels = np.ones(10_000, dtype=bool)
    labels[::20] = False
    bounds = ErrorEvidence(target_risk=0.1).add_labels(labels).interval(0.05)
    assert bounds is not None
    assert 0.04 < bounds.low < bounds.value == 0.05 < bounds.high < 0.06


@pytest.mark.parametrize("wrong", [True, False])
def test_bounds_reach_the_end_if_all_labels_agree(wrong: bool) -> None:
    """If all are right, the low bound is 0. If all are wrong, the high bound is 1. The labels set the other bound."""
    bounds = ErrorEvidence(target_risk=0.1).add_labels([not wrong] * 100).interval(0.05)
    assert bounds is not None
    assert (bounds.high if wrong else bounds.low) == wrong
    assert 0.03 < (1 - bounds.low if wrong else bounds.high) < 0.07


def test_a_risk_that_triples_is_found() -> None:
    """After 500 labels at 3 % wrong, 300 at 30 % (10 % were promised) raise the alarm in 39 of 40 monitors or more."""
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        monitor = _monitor()
        monitor.observe_labels(rng.random(500) >= 0.03)
        assert monitor.state == "ok"
        monitor.observe_labels(rng.random(300) >= 0.3)
        found += monitor.is_alarmed()
    assert found >= 39


@pytest.mark.parametrize(("move", "spread"), [(-0.5, 1), (0.5, 1), (0, 2), (0, 0.5)])
def test_scores_that_sink_rise_scatter_or_gather_are_found(move: float, spread: float) -> None:
    """After 1,000 scores like those calibrated on, 400 others raise the alarm, without any label."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        monitor = RiskMonitor.start(rng.normal(size=1000), target_risk=0.1)
        monitor.observe_scores(rng.normal(size=1000))
        assert monitor.state == "ok"
        monitor.observe_scores(rng.normal(move, spread, size=400))
        assert monitor.is_alarmed()


def test_an_alarm_stays_and_a_warning_passes() -> None:
    """A few wrong labels in a row warn, and many right labels end the warning. An alarm stays an alarm."""
    monitor, states = _monitor(), []
    for labels in ([False, False, True, False], [True] * 50, [False] * 20, [True] * 1000):
        monitor.observe_labels(labels)
        states.append(monitor.state)
    assert states == ["warn", "ok", "alarm", "alarm"]
    assert monitor.record.errors.e_value < 1


def test_it_explains_an_alarm() -> None:
    """The first line says what happened and what to do, the next ones what was seen."""
    monitor = _monitor()
    monitor.observe_labels([False] * 20)
    monitor.observe_scores([-2.9, -2.5, -1.5, -0.2])
    state, labels, scores = monitor.explain().splitlines()
    assert state == (
        "alarm: more released answers are wrong than was promised; the guarantee no longer holds, "
        "calibrate on new answers"
    )
    assert labels.startswith(
        "labels: 20 of 20 released answers wrong (100.0%), promised at most 10.0%; their mean"
    )
    assert scores.startswith("scores: 4, on average above 41% of the calibration scores")


def test_it_continues_from_its_last_state(tmp_path: Path) -> None:
    """A monitor loaded before every batch ends as the one that stayed in memory, to the last bit."""
    rng = np.random.default_rng(3)
    path = tmp_path / "monitor.json"
    stayed = _monitor()
    _monitor(str(path))
    for _ in range(5):
        scores, labels = rng.normal(-1.5, 1, size=37).round(1), rng.random(11) >= 0.2
        for monitor in (stayed, RiskMonitor.load(str(path))):
            monitor.observe_scores(scores)
            monitor.observe_labels(labels)
    assert RiskMonitor.load(path).record == stayed.record


def test_how_the_stream_is_cut_into_batches_does_not_matter() -> None:
    """One call with all answers and a call for each give the same evidence, tied scores too."""
    rng = np.random.default_rng(4)
    scores, labels = rng.normal(-1.5, 1, size=120).round(1), rng.random(120) >= 0.2
    at_once, one_by_one = _monitor(), _monitor()
    at_once.observe_scores(scores)
    at_once.observe_labels(labels)
    for score, right in zip(scores.tolist(), labels.tolist(), strict=True):
        one_by_one.observe_scores([score])
        one_by_one.observe_labels([right])
    assert one_by_one.record.shift.counts == at_once.record.shift.counts
    assert one_by_one.record.shift.capital == pytest.approx(at_once.record.shift.capital, rel=1e-9)
    assert one_by_one.record.errors == at_once.record.errors


def test_a_batch_counts_once(tmp_path: Path) -> None:
    """A call that is repeated under the same name, after a restart too, changes nothing."""
    path = tmp_path / "monitor.json"
    assert _monitor(path).observe_labels([True, False], batch="monday")
    again = RiskMonitor.load(path)
    assert not again.observe_labels([True, False], batch="monday")
    assert not again.observe_scores([0.0], batch="monday")
    assert again.observe_labels([True, False], batch="tuesday")
    assert (again.record.errors.n, again.record.shift.n) == (4, 0)


def test_what_could_not_be_saved_does_not_count(tmp_path: Path) -> None:
    """If the file can't be written, the call fails and the monitor is as before. A later call works."""
    folder = tmp_path / "folder"
    folder.mkdir()
    monitor = _monitor(folder / "monitor.json")
    folder.rename(tmp_path / "away")
    with pytest.raises(
        InputError, match="expected to save the monitor, found: No such file or directory"
    ):
        monitor.observe_labels([True])
    assert monitor.record.errors.n == 0
    (tmp_path / "away").rename(folder)
    monitor.observe_labels([True])
    assert RiskMonitor.load(folder / "monitor.json").record == monitor.record
    assert [path.name for path in folder.iterdir()] == ["monitor.json"]


def test_a_torn_write_leaves_the_last_whole_state(tmp_path: Path) -> None:
    """The remains of a killed write lie next to the file and are never read."""
    path = tmp_path / "monitor.json"
    whole = _monitor(path).record
    (tmp_path / ".monitor.json.0.partial").write_text('{"schema_version": 1, "del')
    monitor = RiskMonitor.load(path)
    assert monitor.record == whole
    monitor.observe_labels([True])
    assert RiskMonitor.load(path).record.errors.n == 1


def test_threads_lose_nothing(tmp_path: Path) -> None:
    """Eight threads that observe at once are all counted, in memory and in the file."""
    path = tmp_path / "monitor.json"
    monitor = _monitor(path)

    def observe() -> None:
        for _ in range(10):
            monitor.observe_labels([True, False])
            monitor.observe_scores([-1.0])

    threads = [threading.Thread(target=observe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = RiskMonitor.load(path).record
    assert record == monitor.record
    assert (record.errors.n, record.errors.wrong, record.shift.n) == (160, 80, 80)


def test_numbers_stay_finite_when_everything_is_wrong() -> None:
    """10,000 wrong labels and 10,000 scores below all others: an alarm that can be saved and loaded."""
    monitor = _monitor()
    monitor.observe_labels([False] * 10_000)
    monitor.observe_scores([-math.inf] * 10_000)
    record = monitor.record
    assert record.errors.e_value > 1e98
    assert MonitorRecord.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    ("target_risk", "delta"),
    [(0.0, 0.05), (1.0, 0.05), (0.1, 0.0), (0.1, 0.21), (math.nan, 0.05)],
)
def test_numbers_out_of_range_are_refused(target_risk: float, delta: float) -> None:
    """Neither a risk of nothing nor a δ of everything can be watched."""
    with pytest.raises(InputError, match="expected 0 < target risk < 1 and 0 < δ"):
        RiskMonitor.start(CALIBRATION, target_risk=target_risk, delta=delta)


@pytest.mark.parametrize(("scores", "found"), [([], "none"), ([0.0, math.inf], "an infinite one")])
def test_calibration_scores_are_finite_numbers(scores: list[float], found: str) -> None:
    """Without them there is nothing to compare with."""
    with pytest.raises(
        InputError, match=f"calibration scores: expected finite numbers, found {found}"
    ):
        RiskMonitor.start(scores, target_risk=0.1)


def test_a_bad_score_or_label_is_refused_and_not_counted() -> None:
    """NaN, text and the numbers 0 and 1 (which of them is right?) change nothing."""
    monitor = _monitor()
    with pytest.raises(InputError, match="expected a list of numbers, found 1 NaN"):
        monitor.observe_scores([0.0, math.nan])
    with pytest.raises(InputError, match="expected numbers, found: could not convert"):
        monitor.observe_scores(["high"])
    with pytest.raises(InputError, match="expected a list of booleans, found int64"):
        monitor.observe_labels([0, 1])
    assert monitor.record == _monitor().record


def test_a_file_is_not_written_over(tmp_path: Path) -> None:
    """Starting where a monitor already is would forget its alarm."""
    path = tmp_path / "monitor.json"
    _monitor(path)
    with pytest.raises(InputError, match="expected a new file for the monitor, found one"):
        _monitor(path)


def test_a_file_that_is_not_a_monitor_is_refused(tmp_path: Path) -> None:
    """No file, no JSON, and impossible counts are each named on one line."""
    path = tmp_path / "monitor.json"
    with pytest.raises(
        InputError, match="found: No such file or directory; start one with its cal"
    ):
        RiskMonitor.load(path)
    path.write_text("{")
    with pytest.raises(InputError, match="expected a monitor's file, found the file: Invalid JSON"):
        RiskMonitor.load(path)
    values = json.loads(_monitor().record.model_dump_json())
    path.write_text(json.dumps(values | {"errors": values["errors"] | {"n": 1, "wrong": 2}}))
    with pytest.raises(InputError, match="found errors: Value error, 2 wrong of 1 labels"):
        RiskMonitor.load(path)
    path.write_text(json.dumps(values | {"shift": values["shift"] | {"n": 1}}))
    with pytest.raises(InputError, match="found shift: Value error, 1 scores in 20 bins"):
        RiskMonitor.load(path)
