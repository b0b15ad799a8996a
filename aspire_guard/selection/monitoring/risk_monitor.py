"""Says when a threshold's promise no longer holds: from reviewers' labels, and from the scores alone."""

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
    """All that a monitor knows, as it is saved.

    Attributes:
        delta: δ, the most probable a false alarm may be, ever, in (0, 0.2].
        errors: from labels.
        shift: from scores.
        batches: the names of the batches so far that had one.
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
        """`alarm` once either evidence has ever reached 2/δ; `warn` while either is at a quarter of that; else `ok`."""
        if max(self.errors.peak, self.shift.peak) >= self.alarm_at:
            return "alarm"
        return (
            "warn"
            if max(self.errors.e_value, self.shift.e_value) >= self.alarm_at / _WARN
            else "ok"
        )


class RiskMonitor:
    """Watches released answers: is the share of wrong ones still at most what was promised?

    Two tests run side by side, each at level δ/2 (see `e_processes`): reviewers' labels of
    released answers against the promised risk, and new selection scores against those of the calibration answers.
    While the promise holds and the scores have not shifted, the chance that the monitor ever raises the alarm is at
    most δ, however often it is asked. An alarm stays: calibrate on new answers and start a new monitor.

    Threads may share a monitor; a file belongs to one process.

    Args:
        record: what it knows; see `start` and `load`.
        path: where it is saved after every observation; None keeps it in memory.
    """

    def __init__(self, record: MonitorRecord, path: Path | None = None) -> None:
        self._record, self._path = record, path
        self._lock = threading.Lock()

    @classmethod
    def start(
        cls,
        calibration_scores: ArrayLike,
        *,
        target_risk: float,
        delta: float = 0.05,
        path: Path | None = None,
    ) -> RiskMonitor:
        """A monitor that has seen nothing yet; saved at once where there is a path.

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
        if path is not None and path.exists():
            raise InputError(
                f"{path}: expected a new file for the monitor, found one; load it, or choose another name"
            )
        errors, shift = (
            ErrorEvidence(target_risk=target_risk),
            ShiftEvidence.against(calibration_scores),
        )
        monitor = cls(MonitorRecord(delta=delta, errors=errors, shift=shift), path)
        monitor._save(monitor._record)
        return monitor

    @classmethod
    def load(cls, path: Path) -> RiskMonitor:
        """Go on where the monitor saved at `path` stopped.

        Raises:
            InputError: there is no such file, or it holds no monitor.
        """
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
                f"{path}: expected a monitor's file, found {found}; restore it or start anew"
            ) from error

    def observe_labels(self, correct: ArrayLike, *, batch: str | None = None) -> bool:
        """Count reviewers' labels, `(k,)` booleans, in the order they came.

        They must be labels of released answers, drawn for review at random: not only of those that users complain
        about.

        Args:
            correct: whether each answer is right.
            batch: a name of these labels; a batch whose name was seen before changes nothing, so that a call that is
                repeated after a kill counts nothing twice.

        Returns:
            Whether they were counted.

        Raises:
            InputError: the labels are no booleans.
        """
        with self._lock:
            if self._seen(batch):
                return False
            self._keep(
                self._record.model_copy(update={"errors": self._record.errors.after(correct)}),
                batch,
            )
            return True

    def observe_scores(self, scores: ArrayLike, *, batch: str | None = None) -> bool:
        """Count selection scores, `(k,)`, of all answers, released or not, in the order they came.

        Args:
            scores: in nats, from the same evaluator as the calibration scores.
            batch: as for `observe_labels`.

        Returns:
            Whether they were counted.

        Raises:
            InputError: a score is NaN.
        """
        with self._lock:
            if self._seen(batch):
                return False
            self._keep(
                self._record.model_copy(update={"shift": self._record.shift.after(scores)}), batch
            )
            return True

    @property
    def record(self) -> MonitorRecord:
        """All it knows, at this moment."""
        return self._record

    @property
    def state(self) -> State:
        """`ok`, `warn` or `alarm`; an alarm stays, a warning may pass."""
        return self._record.state

    def alarmed(self) -> bool:
        """Whether the alarm was raised: a condition for a routing policy."""
        return self.state == "alarm"

    def explain(self) -> str:
        """The state and what it rests on, a line each."""
        record = self._record
        return "\n".join(
            [f"{record.state}: {_summary(record)}", _labels_line(record), _scores_line(record)]
        )

    def _seen(self, batch: str | None) -> bool:
        return batch is not None and batch in self._record.batches

    def _keep(self, record: MonitorRecord, batch: str | None) -> None:
        if batch is not None:
            record = record.model_copy(update={"batches": (*record.batches, batch)})
        # Saved before it counts: what a caller has seen is never ahead of the file.
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


def _summary(record: MonitorRecord) -> str:
    alarmed = [
        what
        for what, evidence in (
            ("more released answers are wrong than was promised", record.errors),
            ("the scores are not those that were calibrated on", record.shift),
        )
        if evidence.peak >= record.alarm_at
    ]
    if alarmed:
        return f"{' and '.join(alarmed)}; the guarantee no longer holds, calibrate on new answers"
    if record.state == "warn":
        return "some evidence that the guarantee no longer holds; label more released answers"
    return "nothing speaks against the guarantee"


def _labels_line(record: MonitorRecord) -> str:
    errors = record.errors
    interval = errors.interval(record.delta)
    if interval is None:
        return f"labels: none yet; promised are at most {errors.target_risk:.1%} wrong"
    return (
        f"labels: {errors.wrong:,} of {errors.n:,} released answers wrong ({interval.value:.1%}), promised at most "
        f"{errors.target_risk:.1%}; their mean risk is between {interval.low:.1%} and {interval.high:.1%} "
        f"({1 - record.delta:.0%}, at every moment); {_evidence(errors, record)}"
    )


def _scores_line(record: MonitorRecord) -> str:
    shift = record.shift
    if shift.mean_rank is None:
        return "scores: none yet"
    return (
        f"scores: {shift.n:,}, on average above {shift.mean_rank:.0%} of the calibration scores (50 % without a "
        f"shift); {_evidence(shift, record)}"
    )


def _evidence(evidence: ErrorEvidence | ShiftEvidence, record: MonitorRecord) -> str:
    return f"evidence {evidence.e_value:.3g}, at most {evidence.peak:.3g} so far, alarm at {record.alarm_at:.3g}"
