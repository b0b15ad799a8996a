"""Soft prompts: their start from a text, and their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file

from aspire_guard.errors import CorruptEvaluatorError
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_guard.testing import Family, tiny_lm


def _make_random(length: int = 5) -> SoftPrompt:
    return SoftPrompt(torch.randn(length, 32, generator=torch.Generator().manual_seed(0)))


# PEFT asks transformers for this by its old name.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_peft_reads_a_saved_soft_prompt(family: Family, tmp_path: Path) -> None:
    """`PeftModel.from_pretrained(base, folder)` gives the logits of our states."""
    lm, prompt = tiny_lm(family), _make_random()
    prompt.save(tmp_path, lm)
    ids = torch.randint(0, 256, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = lm.logits(lm.prefill([torch.cat([prompt.weight, lm.embed(ids[0])])]).hidden)[0, 0]
        peft = PeftModel.from_pretrained(tiny_lm(family).model, str(tmp_path))
        expected = peft(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_saving_and_loading_keeps_every_bit(tmp_path: Path) -> None:
    """The weights come back as they were, in two files and without a pickle."""
    lm = tiny_lm()
    prompt = _make_random()
    prompt.save(tmp_path / "task", lm)
    assert torch.equal(SoftPrompt.load(tmp_path / "task", lm).weight, prompt.weight)
    files = list((tmp_path / "task").iterdir())
    assert {path.name for path in files} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}
    config = json.loads((tmp_path / "task" / "adapter_config.json").read_text())
    assert config["num_virtual_tokens"] == 5


@pytest.mark.parametrize("length", [1, 5, 13])
def test_a_soft_prompt_starts_from_a_text(length: int) -> None:
    """The text's embeddings are repeated from its end backwards, so that the last word stays last."""
    lm = tiny_lm()
    prompt = SoftPrompt.from_text(lm, "It is", length)
    expected = ("It is" * 3)[-length:]
    assert len(prompt) == length
    assert torch.equal(prompt.weight, lm.embed(lm.token_ids(expected)))
    assert prompt.weight.requires_grad


def test_a_soft_prompt_is_float32_whatever_it_is_made_from() -> None:
    """Training in half precision would lose small steps."""
    assert SoftPrompt(torch.ones(2, 32, dtype=torch.bfloat16)).weight.dtype == torch.float32


def test_a_missing_soft_prompt_is_a_corrupt_evaluator(tmp_path: Path) -> None:
    """The message names the file and a way out."""
    with pytest.raises(
        CorruptEvaluatorError, match=r"adapter_model\.safetensors, found .*; restore the evaluator"
    ):
        SoftPrompt.load(tmp_path, tiny_lm())


@pytest.mark.parametrize(
    "tensors",
    [
        {"prompt_embeddings": torch.zeros(5, 31)},
        {"prompt_embeddings": torch.zeros(32)},
        {"prompt_embeddings": torch.full((5, 32), torch.nan)},
        {"lora_A": torch.zeros(5, 32)},
    ],
    ids=["another width", "one dimension", "not a number", "another tensor"],
)
def test_a_tensor_that_does_not_fit_is_a_corrupt_evaluator(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    """Shape, name and values are checked before anything is computed with them."""
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(
        CorruptEvaluatorError, match=r"adapter_model\.safetensors, found .*; restore the evaluator"
    ):
        SoftPrompt.load(tmp_path, tiny_lm())
