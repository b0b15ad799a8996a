"""The folders of a training run: the evaluator that it makes, and next to it the work that survives a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aspire_guard.errors import InputError
from aspire_guard.evaluators.evaluator_folder import MANIFEST, read_manifest
from aspire_guard.files import write_text
from aspire_trainers.config import TrainingConfig
from aspire_trainers.run.append_log import lock_file

_RUN_FILE = "run.json"
# The settings that a stage is the first to use, and the files that it has written once it has begun.
_STAGES = (
    ({"task"}, "task*.safetensors"),
    ({"sampling"}, "task-without-*.safetensors"),
    ({"sampling"}, "answers-*.jsonl"),
    ({"correctness"}, "grades-*.jsonl"),
    ({"self_evaluation"}, "self_eval.safetensors"),
)
# The settings that only the end of the run uses.
_LAST_SETTINGS = {"alpha", "target_accuracy", "num_beams", "licences"}


def is_finished(output: Path, run: Mapping[str, Any]) -> bool:
    """Tell whether `output` already holds the evaluator that this run would make.

    Raises:
        InputError: `output` holds another evaluator.
    """
    if not (output / MANIFEST).exists():
        return False
    manifest = read_manifest(output)
    provenance = manifest.provenance
    found = {
        "config": _upgrade_settings(provenance.get("config")),
        "data": provenance.get("data_digest"),
        "model": manifest.base_model.fingerprint,
        "start": provenance.get("went_on_from"),
    }
    start = run["start"].get("provenance") if run["start"] else None
    if found == {**run, "start": start}:
        return True
    raise InputError(
        f"expected a new folder, found another evaluator in {output}; choose another output or delete it"
    )


def _upgrade_settings(saved: Any) -> Any:
    """Return a run's settings under today's names, with defaults for settings that an earlier version lacked."""
    try:
        return TrainingConfig.model_validate(saved).model_dump(mode="json")
    except ValidationError:
        return saved


def open_work_folder(output: Path, run: Mapping[str, Any]) -> Path:
    """Return the folder of this run's unfinished work: a new folder, or the one that an earlier call of the run left.

    Settings of stages that have not begun may differ from those of the earlier call.

    Raises:
        InputError: the folder belongs to a run with other settings or data, or `output` holds other files.
    """
    if output.exists() and not output.is_dir():
        raise InputError(
            f"expected a new or empty folder, found a file at {output}; choose another output"
        )
    if output.exists() and any(output.iterdir()):
        raise InputError(
            f"expected a new or empty folder, found files in {output}; choose another output"
        )
    work = _locate_work_folder(output)
    run_file = work / _RUN_FILE
    if not run_file.exists():
        # No work starts before run.json is complete, so a folder without it holds nothing worth keeping.
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_text(run_file, json.dumps(run, indent=2))
    else:
        _check_run(work, run)
    return work


def save_settings(work: Path, run: Mapping[str, Any]) -> None:
    """Write down the settings that unfinished work goes on with. The caller holds the lock of the run.

    Raises:
        InputError: a stage has begun with other settings in the meantime.
    """
    _check_run(work, run)
    write_text(work / _RUN_FILE, json.dumps(run, indent=2))


def remove_work(output: Path, run: Mapping[str, Any]) -> None:
    """Remove this run's work folder, if there is one. Another run's work folder stays."""
    run_file = _locate_work_folder(output) / _RUN_FILE
    if run_file.exists() and _belongs_to(run_file, run):
        shutil.rmtree(run_file.parent)


def lock_run(work: Path, lock_holder: ExitStack) -> None:
    """Lock the work for this process until `lock_holder` closes.

    Two processes in the same run would overwrite each other's checkpoints.

    Raises:
        InputError: another process holds the lock.
    """
    lock_holder.enter_context(lock_file(work / "lock"))


def _locate_work_folder(output: Path) -> Path:
    return output.with_name(f".{output.name}.work")


def _check_run(work: Path, run: Mapping[str, Any]) -> None:
    """Check that unfinished work can go on as `run`.

    Raises:
        InputError: the work has other data, another model, or other settings of a stage that has begun.
    """
    saved = json.loads((work / _RUN_FILE).read_text(encoding="utf-8"))
    parts = {"data": "other data", "model": "another base model", "start": "another start"}
    found = [description for name, description in parts.items() if saved.get(name) != run[name]]
    found += _list_other_settings(saved.get("config"), run["config"], _list_open_settings(work))
    if found:
        raise InputError(
            f"expected the settings and data of the unfinished run in {work}, found others ({', '.join(found)}); "
            "repeat that run's command, choose another output, or delete the folder"
        )


def _list_open_settings(work: Path) -> set[str]:
    """List the settings that nothing in `work` depends on yet."""
    settings = set(_LAST_SETTINGS)
    for names, pattern in reversed(_STAGES):
        if any(work.glob(pattern)):
            return settings
        settings |= names
    return set(TrainingConfig.model_fields)


def _list_other_settings(saved: Any, config: Mapping[str, Any], allowed: set[str]) -> list[str]:
    """Describe the settings that differ, such as "task.rank 4 instead of 8", except the allowed ones."""
    saved = _upgrade_settings(saved)
    if not isinstance(saved, dict):
        return ["other settings"]
    others: list[str] = []
    for name, value in config.items():
        if name in allowed or saved.get(name) == value:
            continue
        if not isinstance(value, dict) or not isinstance(saved.get(name), dict):
            others.append(f"{name} {value} instead of {saved.get(name)}")
            continue
        for inner, inner_value in value.items():
            if saved[name].get(inner) != inner_value:
                others.append(f"{name}.{inner} {inner_value} instead of {saved[name].get(inner)}")
    return others


def _belongs_to(run_file: Path, run: Mapping[str, Any]) -> bool:
    saved = json.loads(run_file.read_text(encoding="utf-8"))
    return bool(saved == run)
