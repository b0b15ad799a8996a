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
    elif not _belongs_to(run_file, run):
        raise InputError(
            f"expected the settings and data of the unfinished run in {work}, found others; "
            "repeat that run's command, choose another output, or delete the folder"
        )
    return work


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


def _belongs_to(run_file: Path, run: Mapping[str, Any]) -> bool:
    saved = json.loads(run_file.read_text(encoding="utf-8"))
    return bool(saved == run)
