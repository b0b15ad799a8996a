"""The fit of a whole evaluator to rated answers: its adapters stay, its selection rule and calibration are new."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from aspire_guard.errors import InputError
from aspire_guard.evaluators.answer_domain import fit_domain
from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_guard.evaluators.evaluator_folder import Manifest, save_evaluator
from aspire_guard.evaluators.selection_rule import SignalWeights
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.records.columns import NO_COLUMNS, Columns
from aspire_guard.selection.calibrators import PlattCalibrator
from aspire_trainers.data.rated_answers import RatedAnswer, read_rated_answers, sample_groups
from aspire_trainers.run.append_log import AppendOnlyJsonl
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.rule_fitting import (
    SIGNALS,
    FittedRule,
    MeasuredAnswer,
    fit_rule,
)
from aspire_trainers.stages.rule_reports import FileReport, report_files

_ANSWERS_PER_PART = 32


class FitConfig(BaseModel):
    """The settings of a fit.

    Attributes:
        target_accuracy: the wanted share of right answers among the released ones.
        calibrate_on: the names of the files that the confidence and the threshold are fitted on, or nothing for all.
        limit: draw whole groups until there are this many answers of each file, or None for all answers.
        attribution: the sources and licences of the answers, for the evaluator's card.
    """

    model_config = ConfigDict(frozen=True)

    target_accuracy: float = 0.9
    limit: int | None = None
    attribution: str = ""
    calibrate_on: tuple[str, ...] = ()


def fit_evaluator(
    data: Sequence[Path],
    output: Path,
    config: FitConfig,
    *,
    evaluator: SelfEvaluator,
    signal_file: Path | None = None,
    columns: Columns = NO_COLUMNS,
) -> list[FileReport]:
    """Fit an evaluator to rated answers, and write the evaluator folder.

    Args:
        data: files of rated answers.
        output: the folder to write.
        config: the settings.
        evaluator: the evaluator whose adapters are used.
        columns: the columns that hold the fields of an answer.
        signal_file: a JSONL file that keeps the signals, or None. Another run with it measures only what is missing.

    Returns:
        The results on each file, for answers that the rule was not fitted on.

    Raises:
        DatasetError: a file is missing or has a bad line.
        InputError: two files have the same name, or a file to calibrate on is not among them.
    """
    answers = _read_files(data, config, columns)
    names = [path.name for path in data]
    fitted, reports = fit_to_answers(answers, names, config, evaluator, signal_file=signal_file)
    save_evaluator(output, fitted.aspire, fitted.manifest, fitted.calibration)
    return reports


def fit_to_answers(
    answers: Sequence[RatedAnswer],
    names: Sequence[str],
    config: FitConfig,
    evaluator: SelfEvaluator,
    *,
    signal_file: Path | None = None,
) -> tuple[SelfEvaluator, list[FileReport]]:
    """Fit an evaluator to rated answers.

    Args:
        answers: the answers.
        names: the names of their files.
        config: the settings.
        evaluator: the evaluator whose adapters are used.
        signal_file: see `fit_evaluator`.

    Returns:
        The fitted evaluator, and the results on each file for answers that the rule was not fitted on.
    """
    default = _keep_confidence(evaluator)
    reading = _read_plain_answers(evaluator)
    measured = _measure(reading, answers, signal_file)
    fitted = fit_rule(
        measured,
        default,
        target_accuracy=config.target_accuracy,
        names=SIGNALS[evaluator.aspire.reach],
        calibrate_on=config.calibrate_on,
    )
    reports = report_files(measured, fitted, alpha=evaluator.manifest.alpha)
    manifest = _make_manifest(reading.manifest, measured, fitted, config, names)
    metrics = {report.file: report.model_dump(exclude={"file"}) for report in reports}
    manifest = manifest.model_copy(update={"metrics": metrics})
    return SelfEvaluator(reading.aspire, manifest, fitted.calibration), reports


def _read_files(paths: Sequence[Path], config: FitConfig, columns: Columns) -> list[RatedAnswer]:
    names = [path.stem for path in paths]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise InputError(
            f"expected files of different names, found {repeated[0]} twice; rename one of the two"
        )
    unknown = [name for name in config.calibrate_on if name not in names]
    if unknown:
        raise InputError(
            f"expected the files to calibrate on to be among {', '.join(names)}, found {unknown[0]}; use these names"
        )
    answers: list[RatedAnswer] = []
    for path in paths:
        answers += sample_groups(read_rated_answers(path, columns), config.limit)
    return answers


def _keep_confidence(evaluator: SelfEvaluator) -> SignalWeights:
    """Return the log-odds that the evaluator's confidence in an answer without a context stands for today.

    Raises:
        InputError: the evaluator's confidence is not a logistic function of its score.
    """
    calibrator = evaluator.calibration.calibrator
    if not isinstance(calibrator, PlattCalibrator):
        raise InputError(
            f"expected an evaluator with a calibrator of the method platt, found {calibrator.method}; calibrate it "
            "with --method platt first"
        )
    alpha = evaluator.manifest.alpha
    g = SignalWeights(weights={"log_likelihood": 1 - alpha, "log_p_correct": alpha}, intercept=0.0)
    weights = evaluator.manifest.rule.closed_book if evaluator.manifest.rule else g
    slope = calibrator.slope
    return SignalWeights(
        weights={name: slope * weight for name, weight in weights.weights.items()},
        intercept=slope * weights.intercept + calibrator.intercept,
    )


def _read_plain_answers(evaluator: SelfEvaluator) -> SelfEvaluator:
    """Return the evaluator as it reads the plain text of answers, sentence by sentence.

    Raises:
        InputError: the evaluator was fitted to the log-likelihoods of a chain.
    """
    evaluator.check_own_likelihood()
    return evaluator.with_plain_answers()


def _measure(
    evaluator: SelfEvaluator, answers: Sequence[RatedAnswer], path: Path | None
) -> list[MeasuredAnswer]:
    known: dict[tuple[str, str], dict[str, Any]] = {}
    log = None if path is None else AppendOnlyJsonl(path)
    for line in log.values if log else ():
        if line["evaluator"] == evaluator.fingerprint:
            known[line["file"], line["id"]] = line
    missing = [answer for answer in answers if answer.key not in known]
    # Answers over one passage are read together.
    missing.sort(key=lambda answer: (answer.exchange.context or "", answer.exchange.question))
    with Progress("signals", "answers") as progress, log or nullcontext():
        progress.start(len(missing))
        for start in range(0, len(missing), _ANSWERS_PER_PART):
            part = missing[start : start + _ANSWERS_PER_PART]
            for line in _measure_part(evaluator, part):
                known[line["file"], line["id"]] = line
                if log is not None:
                    log.append(line)
            progress.advance(by=len(part))
    return [_as_measured(answer, known[answer.key]) for answer in answers]


def _measure_part(evaluator: SelfEvaluator, answers: Sequence[RatedAnswer]) -> list[dict[str, Any]]:
    readings = evaluator.measure([answer.exchange for answer in answers])
    lines = []
    for answer, (text, signals) in zip(answers, readings, strict=True):
        line = {
            "file": answer.file,
            "id": answer.id,
            "evaluator": evaluator.fingerprint,
            "text": text,
            "signals": signals,
        }
        lines.append(line)
    return lines


def _as_measured(answer: RatedAnswer, line: dict[str, Any]) -> MeasuredAnswer:
    return MeasuredAnswer(
        text=line["text"],
        signals=line["signals"],
        correct=answer.correct,
        file=answer.file,
        group=answer.group,
    )


def _make_manifest(
    manifest: Manifest,
    answers: Sequence[MeasuredAnswer],
    fitted: FittedRule,
    config: FitConfig,
    names: Sequence[str],
) -> Manifest:
    """Return the manifest of the fitted evaluator. Its provenance keeps that of the adapters."""
    provenance = {
        "date": datetime.now(UTC).date().isoformat(),
        "datasets": list(names),
        "rated_answers": len(answers),
        "config": config.model_dump(mode="json"),
        "adapters": dict(manifest.provenance),
    }
    return manifest.model_copy(
        update={
            "rule": fitted.rule,
            "domain": fit_domain([answer.text for answer in answers]),
            "correctness": CorrectnessRule(method=names[0]),
            "provenance": provenance,
        }
    )
