"""The load probe: a base model reads batches, branches and caches as plain passes do, or it is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    FuyuConfig,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    PersimmonConfig,
    PreTrainedConfig,
    RwkvConfig,
)

from aspire_guard.errors import BaseModelError
from aspire_guard.lm.base_model import load_base_model
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.load_probe import compare_readings
from aspire_guard.lm.lora import Lora
from aspire_guard.testing import tiny_lm

SMALL: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
ATTENTION: dict[str, Any] = SMALL | {
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def _save(config: PreTrainedConfig, folder: Path) -> str:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    tiny_lm().tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_model_reads_as_in_plain_passes(lm: LanguageModel) -> None:
    """In every family, each way of reading gives the log-probabilities of plain passes to 1e-4."""
    differences = compare_readings(lm, "eager")
    assert len({difference.case for difference in differences}) == 4
    assert all(difference.nats < 1e-4 for difference in differences)
    assert not any(difference.is_large for difference in differences)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (BertConfig(is_decoder=False, **ATTENTION), r"differs by \d.* nats in a text without"),
        (MambaConfig(state_size=8, **SMALL), "which fails: RuntimeError: "),
        (RwkvConfig(attention_hidden_size=32, **SMALL), r"differs by \d.* nats in several bran"),
        (
            Lfm2Config(layer_types=["conv", "full_attention"], num_key_value_heads=2, **ATTENTION),
            "which fails: ",
        ),
    ],
    ids=["both directions", "Mamba", "RWKV", "convolution"],
)
def test_a_model_that_reads_otherwise_is_refused(
    config: PreTrainedConfig, found: str, tmp_path: Path
) -> None:
    """One line says what differs, whether the model gives other numbers or fails."""
    with pytest.raises(BaseModelError, match=found) as error:
        load_base_model(_save(config, tmp_path))
    assert "expected a base model that reads batches, branches and caches as" in str(error.value)
    assert str(error.value).endswith("; choose another model")
    assert "\n" not in str(error.value)


def test_a_model_whose_text_part_has_a_config_of_its_own_works(tmp_path: Path) -> None:
    """A model that also sees keeps the settings of its text in a config inside its own."""
    text = PersimmonConfig(**ATTENTION)
    vision: dict[str, Any] = {"image_size": 4, "patch_size": 2, "num_channels": 1}
    lm = load_base_model(_save(FuyuConfig(text_config=text, **vision), tmp_path))
    assert lm.attention_heads == 4
    assert lm.max_length == 64


def test_a_model_without_some_of_its_weights_is_refused(tmp_path: Path) -> None:
    """Weights that no file holds would be random, and other ones in every process."""
    folder = _save(tiny_lm().model.config, tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    found = r"found none for model\.layers\.0\.mlp\.up_proj\.weight, which would be random"
    with pytest.raises(BaseModelError, match=found):
        load_base_model(folder)


def test_a_model_with_adapters_is_refused(tmp_path: Path) -> None:
    """A θs would be added to the adapters that are there, in place of the frozen weights."""
    lm = tiny_lm()
    Lora.from_text(lm, "Well?", rank=2, seed=0).save(tmp_path, lm)
    lm.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match=r"found adapters of PEFT in .*; merge them into the"):
        load_base_model(str(tmp_path))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    """A token without an embedding is noticed before anything is read."""
    config = LlamaConfig(**ATTENTION | {"vocab_size": 40})
    with pytest.raises(BaseModelError, match="which fails: IndexError: "):
        load_base_model(_save(config, tmp_path))
