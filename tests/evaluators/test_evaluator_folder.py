"""The evaluator folder: written whole, read back to the bit, and refused with one clear error where it is not sound."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aspire_guard.errors import (
    BaseModelError,
    BaseModelMismatchError,
    CorruptEvaluatorError,
    EvaluatorFolderError,
    InputError,
    SchemaVersionError,
)
from aspire_guard.evaluators.evaluator_folder import (
    add_metrics,
    read_calibration,
    read_manifest,
    save_calibration,
    save_evaluator,
    seal_evaluator,
)
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.exchange import Exchange
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_guard.testing import FAMILIES, Family, tiny_evaluator, tiny_lm

SEALED = (
    "calibration.json",
    "self_eval/adapter_config.json",
    "self_eval/adapter_model.safetensors",
    "task/adapter_config.json",
    "task/adapter_model.safetensors",
)
METRICS = {
    "squad_dev": {
        "n": 500,
        "accuracy": {"value": 0.613, "low": 0.57, "high": 0.655},
        "coverage": 0.25,
        "selective_accuracy": 0.904,
        "scores": {
            "aspire": {
                "auroc": {"value": 0.8025, "low": 0.78, "high": 0.82},
                "auacc": {"value": 0.9263, "low": 0.91, "high": 0.94},
            }
        },
    }
}


def _save(evaluator: SelfEvaluator, folder: Path) -> Path:
    save_evaluator(folder, evaluator.aspire, evaluator.manifest, evaluator.calibration)
    return folder


def _load(folder: Path) -> SelfEvaluator:
    return SelfEvaluator.from_pretrained(folder, lm=tiny_lm())


def _read_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _edit(folder: Path, **values: Any) -> None:
    path = folder / "aspire.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _save(tiny_evaluator(), tmp_path / "evaluator")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_evaluator_scores_as_the_saved_one(
    family: Family, tmp_path: Path, exchanges: list[Exchange]
) -> None:
    """Every score is equal to the last bit, and so are α, template and threshold."""
    saved = tiny_evaluator(family, alpha=0.4, threshold=0.625)
    folder = _save(saved, tmp_path / "evaluator")
    loaded = SelfEvaluator.from_pretrained(folder, lm=tiny_lm(family))
    assert loaded.score(exchanges) == saved.score(exchanges)
    assert loaded.answer("Who?", "Ada.") == saved.answer("Who?", "Ada.")
    assert loaded.threshold == 0.625
    assert loaded.manifest.model_copy(update={"files": {}, "seal": ""}) == saved.manifest
    assert loaded.calibration == saved.calibration


def test_the_base_model_is_loaded_by_its_name(tmp_path: Path, exchanges: list[Exchange]) -> None:
    """If no model is given, the model that the manifest names is loaded."""
    saved = tiny_evaluator()
    base = tmp_path / "base"
    saved.aspire.lm.model.save_pretrained(base)
    saved.aspire.lm.tokenizer.save_pretrained(base)
    name = saved.manifest.base_model.model_copy(update={"name": str(base)})
    saved.manifest = saved.manifest.model_copy(update={"base_model": name})
    loaded = SelfEvaluator.from_pretrained(str(_save(saved, tmp_path / "evaluator")))
    # To rounding: a model that is loaded runs another attention kernel than one that is made in memory.
    for found, expected in zip(loaded.score(exchanges), saved.score(exchanges), strict=True):
        assert found.selection_score == pytest.approx(expected.selection_score, abs=1e-4)


def test_a_base_model_that_is_gone_is_a_base_model_error(folder: Path) -> None:
    """The folder itself is sound, only the model is missing."""
    _edit(
        folder, base_model={"name": "/nowhere/model", "fingerprint": "0" * 64, "likelihood": -1.0}
    )
    seal_evaluator(folder)
    with pytest.raises(BaseModelError, match="found nothing at '/nowhere/model'"):
        SelfEvaluator.from_pretrained(folder)


def test_an_evaluator_without_the_likelihood_of_its_base_model_loads(folder: Path) -> None:
    """An older evaluator has no such likelihood, and is still checked by its weights."""
    base = tiny_evaluator().manifest.base_model
    _edit(folder, base_model=base.model_dump(exclude={"likelihood"}))
    seal_evaluator(folder)
    assert (
        SelfEvaluator.from_pretrained(folder, lm=tiny_lm()).manifest.base_model.likelihood is None
    )


def test_all_users_may_read_the_files(folder: Path) -> None:
    """A service may run under another user than training, so the files are as readable as the process allows."""
    mode = (folder / "aspire.json").stat().st_mode
    assert {(folder / name).stat().st_mode for name in SEALED} == {mode}


def test_the_folder_holds_what_the_design_says(folder: Path) -> None:
    """The files are JSON, safetensors and Markdown only, so there is no pickle."""
    files = _read_files(folder)
    assert set(files) >= {"aspire.json", "README.md", *SEALED}
    assert {Path(name).suffix for name in files} == {".json", ".safetensors", ".md"}
    assert not any(content.startswith((b"\x80", b"PK\x03\x04")) for content in files.values())
    assert set(json.loads(files["aspire.json"])["files"]) == set(SEALED)


def test_another_base_model_is_refused(folder: Path) -> None:
    """The error names the expected model, both fingerprints and the way out."""
    expected = tiny_evaluator().manifest.base_model.fingerprint[:12]
    message = f"expected the base model tiny-llama with fingerprint {expected}, found [0-9a-f]{{12}}; load the model"
    with pytest.raises(BaseModelMismatchError, match=message):
        SelfEvaluator.from_pretrained(folder, lm=tiny_lm(seed=1))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)


def _flip_last(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x80
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, _flip_middle) for name in SEALED),
        ("task/adapter_model.safetensors", _truncate),
        ("task/adapter_model.safetensors", _flip_last),
        ("calibration.json", _empty),
        ("calibration.json", Path.unlink),
    ],
)
def test_a_damaged_file_is_refused(folder: Path, name: str, damage: Callable[[Path], None]) -> None:
    """The error names the file and the way out, whether it is truncated, emptied, altered or missing."""
    damage(folder / name)
    with pytest.raises(CorruptEvaluatorError) as error:
        _load(folder)
    assert f"expected an intact evaluator file {folder / name}, found" in str(error.value)
    assert "; restore the evaluator or train it again" in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"\xff\xfe"],
    ids=["empty", "list", "no version", "not UTF-8"],
)
def test_a_file_that_is_not_a_manifest_is_refused(folder: Path, content: bytes) -> None:
    """Only a JSON object with a schema version can be an evaluator."""
    (folder / "aspire.json").write_bytes(content)
    with pytest.raises(
        CorruptEvaluatorError,
        match=r"aspire\.json, found .*; restore the evaluator or train it again",
    ):
        _load(folder)


@pytest.mark.parametrize("version", [2, "1"])
def test_a_foreign_schema_version_is_refused(folder: Path, version: object) -> None:
    """The error tells both versions and which release reads the found one."""
    _edit(folder, schema_version=version)
    with pytest.raises(SchemaVersionError) as error:
        _load(folder)
    assert (
        f"expected an evaluator of schema version 1, found {version!r} in {folder / 'aspire.json'}"
        in str(error.value)
    )
    assert "use the release of aspire-guard that wrote it" in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", 5),
        ("alpha", -0.1),
        ("num_beams", 0),
        ("template", {"context": "no placeholder"}),
        ("unknown", 1),
    ],
)
def test_a_manifest_with_an_impossible_value_is_refused(
    folder: Path, field: str, value: object
) -> None:
    """The error names the file and the field."""
    _edit(folder, **{field: value})
    with pytest.raises(
        CorruptEvaluatorError,
        match=rf"aspire\.json, found {field}.*; restore the evaluator or train it again",
    ):
        _load(folder)


def test_an_adapter_is_checked_even_if_its_digest_is_right(folder: Path) -> None:
    """A truncated tensor file that was sealed is one clear error."""
    _truncate(folder / "task" / "adapter_model.safetensors")
    seal_evaluator(folder)
    with pytest.raises(CorruptEvaluatorError, match=r"task.adapter_model\.safetensors"):
        _load(folder)


def test_an_impossible_calibration_gets_no_seal(folder: Path) -> None:
    """The error names the file and the field, and the manifest stays."""
    before = (folder / "aspire.json").read_bytes()
    path = folder / "calibration.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["calibrator"]["slope"] = -1
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(CorruptEvaluatorError, match=r"calibration\.json, found calibrator"):
        seal_evaluator(folder)
    assert (folder / "aspire.json").read_bytes() == before


def _list_threshold_of_zero(folder: Path) -> None:
    path = folder / "calibration.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["thresholds"][0]["confidence"] = 0.0
    path.write_text(json.dumps(values), encoding="utf-8")
    files = json.loads((folder / "aspire.json").read_text(encoding="utf-8"))["files"]
    _edit(folder, files={name: files[name] for name in files if name != "calibration.json"})


@pytest.mark.parametrize(
    "alter",
    [
        lambda folder: _edit(folder, alpha=0.26),
        lambda folder: _edit(folder, correct=" wrong", wrong=" correct"),
        lambda folder: _edit(folder, template={"context": "Text: {context}\n"}),
        lambda folder: _edit(folder, num_beams=1),
        lambda folder: _edit(folder, files={}),
        _list_threshold_of_zero,
    ],
    ids=["alpha", "verdicts", "template", "beams", "no digests", "unlisted threshold"],
)
def test_an_altered_manifest_is_refused(folder: Path, alter: Callable[[Path], None]) -> None:
    """A possible value is refused too if it is not the saved one, even if the calibration alone is read."""
    alter(folder)
    with pytest.raises(CorruptEvaluatorError, match=r"aspire\.json, found .*altered"):
        _load(folder)
    with pytest.raises(CorruptEvaluatorError, match=r"aspire\.json, found .*altered"):
        read_calibration(folder)


def test_an_evaluator_without_a_seal_is_refused_until_it_is_sealed(
    folder: Path, exchanges: list[Exchange]
) -> None:
    """The error names the command, and the sealed folder scores as before."""
    _edit(folder, seal="")
    with pytest.raises(CorruptEvaluatorError, match=r"found none .*; .*run aspire-guard seal"):
        _load(folder)
    seal_evaluator(folder)
    assert _load(folder).score(exchanges) == tiny_evaluator().score(exchanges)


@pytest.mark.parametrize(
    "weight", [torch.zeros(3, 16), torch.full((3, 32), torch.inf)], ids=["shape", "infinite"]
)
def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path, weight: torch.Tensor) -> None:
    """The shape and the values of a tensor are checked even if its digest is right."""
    evaluator = tiny_evaluator()
    evaluator.aspire = replace(evaluator.aspire, self_eval=SoftPrompt(weight))
    folder = _save(evaluator, tmp_path / "evaluator")
    with pytest.raises(
        CorruptEvaluatorError,
        match=r"expected finite embeddings of shape \(length, 32\) in .*self_eval",
    ):
        _load(folder)


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_a_manifest_is_not_an_evaluator(tmp_path: Path, name: str) -> None:
    """A missing folder and any other folder give the same error, which names the path."""
    with pytest.raises(
        EvaluatorFolderError, match=r"expected an evaluator folder with aspire\.json, found none at"
    ) as error:
        SelfEvaluator.from_pretrained(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert type(error.value) is EvaluatorFolderError


def test_saving_replaces_an_existing_folder_whole(folder: Path, exchanges: list[Exchange]) -> None:
    """Nothing of the old evaluator is left, and no other file lies next to the new one."""
    (folder / "old.json").write_text("{}", encoding="utf-8")
    other = tiny_evaluator(alpha=0.75, threshold=0.9)
    _save(other, folder)
    assert _load(folder).score(exchanges) == other.score(exchanges)
    assert "old.json" not in _read_files(folder)
    assert list(folder.parent.iterdir()) == [folder]


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """An evaluator folder is a function of the evaluator."""
    first, second = (
        _read_files(_save(tiny_evaluator(), tmp_path / name)) for name in ("one", "two")
    )
    assert first == second


def test_an_evaluator_without_self_evaluation_is_not_saved(folder: Path) -> None:
    """It is refused, and the evaluator in the folder stays."""
    before = _read_files(folder)
    evaluator = tiny_evaluator()
    evaluator.aspire = replace(evaluator.aspire, self_eval=None)
    with pytest.raises(InputError, match="expected an evaluator with θs, found one without"):
        _save(evaluator, folder)
    assert _read_files(folder) == before


def test_a_save_that_fails_midway_leaves_the_old_evaluator(folder: Path) -> None:
    """An error while writing leaves no incomplete evaluator and no other file."""
    before = _read_files(folder)
    evaluator = tiny_evaluator(alpha=0.75)
    evaluator.manifest = evaluator.manifest.model_copy(
        update={"metrics": {"squad_dev": "not a report"}}
    )
    with pytest.raises(TypeError):
        _save(evaluator, folder)
    assert _read_files(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_metrics_are_added_to_manifest_and_card(folder: Path, exchanges: list[Exchange]) -> None:
    """The evaluator stays loadable and scores as before. A second dataset joins the first."""
    add_metrics(folder, METRICS)
    add_metrics(folder, {"handbook": METRICS["squad_dev"]})
    assert read_manifest(folder).metrics == METRICS | {"handbook": METRICS["squad_dev"]}
    card = (folder / "README.md").read_text(encoding="utf-8")
    row = "| squad_dev | 500 | 61.3 [57.0, 65.5] | 25.0 (90.4) | aspire | 80.2 [78.0, 82.0] | 92.6 [91.0, 94.0] |"
    assert row in card
    assert "| handbook | 500 |" in card
    assert _load(folder).score(exchanges) == tiny_evaluator().score(exchanges)


def test_the_calibration_is_read_as_it_was_written(folder: Path) -> None:
    """Every field comes back."""
    assert read_calibration(folder) == tiny_evaluator().calibration


def test_a_new_calibration_takes_the_place_of_the_old_one(
    folder: Path, exchanges: list[Exchange]
) -> None:
    """Digests and card change with the calibration, while results and weights stay."""
    add_metrics(folder, METRICS)
    before = _read_files(folder)
    calibration = tiny_evaluator(threshold=0.875).calibration
    save_calibration(folder, calibration)
    after = _read_files(folder)
    assert {name for name in before if before[name] != after[name]} == {
        "calibration.json",
        "aspire.json",
        "README.md",
    }
    assert set(after) == set(before)
    assert read_calibration(folder) == calibration
    assert read_manifest(folder).metrics == METRICS
    assert "confidence ≥ 0.875" in after["README.md"].decode()
    assert _load(folder).threshold == 0.875
    assert _load(folder).score(exchanges) == tiny_evaluator().score(exchanges)
    assert list(folder.parent.iterdir()) == [folder]


def test_a_damaged_evaluator_gets_no_new_calibration(folder: Path) -> None:
    """New digests would hide the damage, so everything stays as it is."""
    _truncate(folder / "task" / "adapter_model.safetensors")
    before = _read_files(folder)
    with pytest.raises(CorruptEvaluatorError, match=r"task.adapter_model\.safetensors"):
        save_calibration(folder, tiny_evaluator().calibration)
    assert _read_files(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_new_calibration_that_can_t_be_written_leaves_the_old_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk shows nothing half-written."""
    before = _read_files(folder)

    def full(self: Path, *_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            save_calibration(folder, tiny_evaluator(threshold=0.9).calibration)
    assert _read_files(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_an_interrupt_while_a_folder_is_replaced_leaves_the_old_evaluator(
    folder: Path, exchanges: list[Exchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt between the two renames brings the old folder back."""
    renames = 0

    def interrupted(source: Path, target: Path) -> None:
        nonlocal renames
        renames += 1
        if renames == 2:
            raise KeyboardInterrupt
        rename(source, target)

    rename = os.rename
    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _save(tiny_evaluator(alpha=0.75), folder)
    assert _load(folder).score(exchanges) == tiny_evaluator().score(exchanges)
    assert list(folder.parent.iterdir()) == [folder]
