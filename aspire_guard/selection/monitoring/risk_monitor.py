"""The monitor of a threshold's promise: it watches reviewers' labels, and the scores alone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Literal

from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aspire_guard.errors import InputError
from aspire_guard.files import describe_validation_error, write_text
from aspire_guard.selection.monitoring.e_processes import ErrorEvidence, ShiftEvidence

State = Literal["ok", "warn", "alarm"]

_SOURCES = 2
_WARN = 4.0


class MonitorRecord(BaseModel):
    """The knowledge of a monitor, as it is saved.

    Attributes:
        delta: δ, the largest probability that there is ever a false alarm, in (0, 0.2].
        errors: the evidence from labels.
        shift: the evidence from scores.
        batches: the names of the named batches so far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    delta: Annotated[float, Field(gt=0, le=0.2)]
    errors: ErrorEvidence
    shift: ShiftEvidence
    batches: tuple[str, ...] = ()

    @property
    def alarm_at(self) -> float:
        """The evidence that raises the alarm: 2/δ, so that each of the two sources has half of δ."""
        return _SOURCES / self.delta

    @property
    def state(self) -> State:
        """`alarm` once either evidence has ever reached 2/δ, `warn` while either is at a quarter of that, else `ok`."""
        if max(self.errors.peak, self.shift.peak) >= self.alarm_at:
            return "alarm"
        if max(self.errors.e_value, self.shift.e_value) >= self.alarm_at / _WARN:
            return "warn"
        return "ok"


class RiskMonitor:
    """A monitor of released answers: is the share of wrong answers still at most what was promised?

    Two tests run side by side, each at level δ/2 (see `e_processes`): reviewers' labels of released answers against
    the promised risk, and new selection scores against those of the calibration answers. While the promise holds and
    the scores have not shifted, the chance that the monitor ever raises the alarm is at most δ, however often it is
    asked. An alarm stays: calibrate on new answers and start a new monitor.

    Threads may share a monitor. A file belongs to one process.

    Args:
        record: the knowledge so far, as from `start` or `load`.
        path: the file to save to after every observation, or None to stay in memory.
    """

    def __init__(self, record: MonitorRecord, path: str | Path | None = None) -> None:
        self._record = record
        self._path = None if path is None else Path(path)
        self._lock = threading.Lock()

    @classmethod
    def start(
        cls,
        calibration_scores: ArrayLike,
        *,
        target_risk: float,
        delta: float = 0.05,
        path: str | Path | None = None,
    ) -> RiskMonitor:
        """Start a monitor that has seen nothing yet. It is saved at once if there is a path.

        Args:
            calibration_scores: the selection scores of all answers that the threshold was calibrated on, `(n,)`.
            target_risk: the promised share of wrong answers among the released ones, in (0, 1).
            delta: δ, in (0, 0.2].
            path: a file that does not exist yet.

        Raises:
            InputError: a number is out of its range, a score is not finite, or the file exists.
        """
        if not (0 < target_risk < 1 and 0 < delta <= 0.2):
            found = f"{target_risk} and {delta}"
            raise InputError(
                f"monitor: expected 0 < target risk < 1 and 0 < δ ≤ 0.2, found {found}; fix the options"
            )
        if path is not None and Path(path).exists():
            raise InputError(
                f"{path}: expected a new file for the monitor, found one; load it, or choose another name"
            )
        record = MonitorRecord(
            delta=delta,
            errors=ErrorEvidence(target_risk=target_risk),
            shift=ShiftEvidence.from_calibration(calibration_scores),
        )
        monitor = cls(record, path)
        monitor._save(record)
        return monitor

    @classmethod
    def load(cls, path: str | Path) -> RiskMonitor:
        """Load the monitor saved at `path`. It continues from there.

        Raises:
            InputError: there is no such file, or it holds no monitor.
        """
        path = Path(path)
        try:
            return cls(MonitorRecord.model_validate_json(path.read_bytes()), path)
        except OSError as error:
            found = error.strerror or str(error)
            raise InputError(
                f"{path}: expected a monitor's file, found: {found}; start one with its calibration answers"
            ) from error
        except ValidationError as error:
            found = describe_validation_error(error)
            raise InputError(
                f"{path}: expected a monitor's file, found {found}; restore it or start a new one"
            ) from error

    def observe_labels(self, correct: ArrayLike, *, batch: str | None = None) -> bool:
        """Count reviewers' labels, `(k,)` booleans, in the order they came.

        They must be labels of released answers, drawn for review at random: not only of answers that users complain
        about.

        Args:
            correct: whether each answer is right.
            batch: a name for these labels. A batch whose name was counted before changes nothing, so a call that is
                repeated after a kill counts nothing twice.

        Returns:
            True if they were counted.

        Raises:
            InputError: the labels are not booleans.
        """
        with self._lock:
            if self._has_counted(batch):
                return False
            errors = self._record.errors.add_labels(correct)
            self._store(self._record.model_copy(update={"errors": errors}), batch)
            return True

    def observe_scores(self, scores: ArrayLike, *, batch: str | None = None) -> bool:
        """Count selection scores, `(k,)`, of all answers, released or not, in the order they came.

        Args:
            scores: in nats, from the same evaluator as the calibration scores.
            batch: as for `observe_labels`.

        Returns:
            True if they were counted.

        Raises:
            InputError: a score is NaN.
        """
        with self._lock:
            if self._has_counted(batch):
                return False
            shift = self._record.shift.add_scores(scores)
            self._store(self._record.model_copy(update={"shift": shift}), batch)
            return True

    @property
    def record(self) -> MonitorRecord:
        """The knowledge at this moment."""
        return self._record

    @property
    def state(self) -> State:
        """The state: `ok`, `warn` or `alarm`. An alarm stays, a warning may pass."""
        return self._record.state

    def is_alarmed(self) -> bool:
        """Tell whether the alarm was raised."""
        return self.state == "alarm"

    def explain(self) -> str:
        """Return the state and the evidence behind it, a line each."""
        record = self._record
        lines = (
            f"{record.state}: {_summarize(record)}",
            _describe_labels(record),
            _describe_scores(record),
        )
        return "\n".join(lines)

    def _has_counted(self, batch: str | None) -> bool:
        return batch is not None and batch in self._record.batches

    def _store(self, record: MonitorRecord, batch: str | None) -> None:
        if batch is not None:
            record = record.model_copy(update={"batches": (*record.batches, batch)})
        # The record is saved before it counts, so that a caller never sees a state that is not in the file.
        self._save(record)
        self._record = record

    def _save(self, record: MonitorRecord) -> None:
        if self._path is None:
            return
        try:
            write_text(self._path, record.model_dump_json(indent=2) + "\n")
        except OSError as error:
            found = error.strerror or str(error)
            raise InputError(
                f"{self._path}: expected to save the monitor, found: {found}; fix the path"
            ) from error


def _summarize(record: MonitorRecord) -> str:
    alarms = []
    if record.errors.peak >= record.alarm_at:
        alarms.append("more released answers are wrong than was promised")
    if record.shift.peak >= record.alarm_at:
        alarms.append("the scores are not like the calibration scores")
    if alarms:
        return f"{' and '.join(alarms)}; the guarantee no longer holds, calibrate on new answers"
    if record.state == "warn":
        return "some evidence that the guarantee no longer holds; label more released answers"
    return "nothing speaks against the guarantee"


def _describe_labels(record: MonitorRecord) -> str:
    errors = record.errors
    interval = errors.interval(record.delta)
    if interval is None:
        return f"labels: none yet; promised are at most {errors.target_risk:.1%} wrong"
    return (
        f"labels: {errors.wrong:,} of {errors.n:,} released answers wrong ({interval.value:.1%}), promised at most "
        f"{errors.target_risk:.1%}; their mean risk is between {interval.low:.1%} and {interval.high:.1%} "
        f"({1 - record.delta:.0%}, at every moment); {_describe_evidence(errors, record)}"
    )


def _describe_scores(record: MonitorRecord) -> str:
    shift = record.shift
    if shift.mean_rank is None:
        return "scores: none yet"
    return (
        f"scores: {shift.n:,}, on average above {shift.mean_rank:.0%} of the calibration scores (50 % without a "
        f"shift); {_describe_evidence(shift, record)}"
    )


def _describe_evidence(evidence: ErrorEvidence | ShiftEvidence, record: MonitorRecord) -> str:
    return f"evidence {evidence.e_value:.3g}, at most {evidence.peak:.3g} so far, alarm at {record.alarm_at:.3g}"
