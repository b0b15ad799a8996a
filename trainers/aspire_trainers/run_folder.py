"""The folders of a training run: the evaluator that it makes, and beside it the work that survives a kill."""

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

_RUN = "run.json"


def is_finished(output: Path, run: Mapping[str, Any]) -> bool:
    """Whether `output` holds the evaluator that this run would make.

    Raises:
        InputError: it holds another one.
    """
    if not (output / MANIFEST).exists():
        return False
    manifest = read_manifest(output)
    provenance = manifest.provenance
    found = (
        _settings(provenance.get("config")),
        provenance.get("data_digest"),
        manifest.base_model.fingerprint,
    )
    start = run["start"].get("provenance") if run["start"] else None
    if (*found, provenance.get("went_on_from")) == (
        run["config"],
        run["data"],
        run["model"],
        start,
    ):
        return True
    raise InputError(
        f"expected a new folder, found another evaluator in {output}; choose another output or delete it"
    )


def _settings(saved: Any) -> Any:
    """A run's settings under the names of today; what an earlier version had no name for was as by default."""
    try:
        return TrainingConfig.model_validate(saved).model_dump(mode="json")
    except ValidationError:
        return saved


def open_work_folder(output: Path, run: Mapping[str, Any]) -> Path:
    """The folder of this run's unfinished work, new or left by an earlier call with the same settings and data.

    Raises:
        InputError: it is of a run with others, or `output` holds other files.
    """
    work = _work_folder(output)
    record = work / _RUN
    if output.exists() and not output.is_dir():
        raise InputError(
            f"expected a new or empty folder, found a file at {output}; choose another output"
        )
    if output.exists() and any(output.iterdir()):
        raise InputError(
            f"expected a new or empty folder, found files in {output}; choose another output"
        )
    if not record.exists():
        # Nothing is done before run.json is whole, so a folder without it holds nothing worth keeping.
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_text(record, json.dumps(run, indent=2))
    elif json.loads(record.read_text(encoding="utf-8")) != run:
        raise InputError(
            f"expected the settings and data of the unfinished run in {work}, found others; "
            "repeat that run's command, choose another output, or delete the folder"
        )
    return work


def remove_work(output: Path, run: Mapping[str, Any]) -> None:
    """Remove this run's work folder, if it is there; that of another run stays."""
    record = _work_folder(output) / _RUN
    if record.exists() and json.loads(record.read_text(encoding="utf-8")) == run:
        shutil.rmtree(record.parent)


def _work_folder(output: Path) -> Path:
    return output.with_name(f".{output.name}.work")


def lock_run(work: Path, held: ExitStack) -> None:
    """Keep the work to this process while `held` is open: two at one run would tread on each other's checkpoints.

    Raises:
        InputError: another process has it.
    """
    held.enter_context(lock_file(work / "lock"))
