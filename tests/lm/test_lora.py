"""LoRA as θp and as θs: against PEFT itself, and the frozen model stays frozen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
)

from aspire_guard.errors import CorruptEvaluatorError, InputError
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.lora import Lora
from aspire_guard.testing import Family, tiny_lm

FILE = "adapter_model.safetensors"
SMALL: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 2,
}


def _make_random(lm: LanguageModel, text: str = "Right?", seed: int = 1) -> Lora:
    """Matrices that change something: an untrained LoRA does not."""
    adapter = Lora.from_text(lm, text, rank=2, seed=0).requires_grad_(False)
    chance = torch.Generator().manual_seed(seed)
    for _, weight in adapter.named_parameters():
        weight.copy_(0.3 * torch.randn(weight.shape, generator=chance))
    return adapter


def _compute_hidden(lm: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return lm.prefill([lm.embed(ids)]).hidden[0, 0]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_peft_reads_a_saved_lora(family: Family, tmp_path: Path) -> None:
    """`PeftModel.from_pretrained(base, folder)` gives the logits of our adapted model."""
    lm = tiny_lm(family)
    adapter = _make_random(lm)
    adapter.save(tmp_path, lm)
    ids = torch.randint(0, 256, (9,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        peft = PeftModel.from_pretrained(tiny_lm(family).model, str(tmp_path))
        expected = peft(input_ids=ids[None]).logits[0, -1]
    torch.testing.assert_close(
        lm.logits(_compute_hidden(adapter.adapt(lm), ids)), expected, atol=1e-4, rtol=0
    )


def test_the_frozen_model_does_not_see_its_adapters(family: Family) -> None:
    """Two LoRAs and their base model give three results. The base model's own is bit by bit what it was."""
    lm, ids = tiny_lm(family), torch.arange(9)
    names = set(lm.model.state_dict())
    before = _compute_hidden(lm, ids)
    one, two = _make_random(lm), _make_random(lm, seed=2)
    changed = [_compute_hidden(adapter.adapt(lm), ids) for adapter in (one, two)]
    assert torch.equal(_compute_hidden(lm, ids), before)
    assert set(lm.model.state_dict()) == names
    assert not any(torch.equal(value, before) for value in changed)
    assert not torch.equal(*changed)


def test_the_frozen_weights_are_shared_not_copied(family: Family) -> None:
    """A second adapter costs its own matrices and no more memory."""
    lm = tiny_lm(family)
    own = {tensor.data_ptr() for tensor in lm.model.parameters()}
    adapter = _make_random(lm)
    matrices = {weight.data_ptr() for _, weight in adapter.named_parameters()}
    assert {tensor.data_ptr() for tensor in adapter.adapt(lm).model.parameters()} == own | matrices


def test_a_new_lora_changes_nothing_and_can_be_trained(family: Family) -> None:
    """It starts from the frozen model, and gradients reach only its matrices."""
    lm, ids = tiny_lm(family), torch.arange(9)
    adapter = Lora.from_text(lm, "Right?", rank=2, seed=0)
    torch.testing.assert_close(
        _compute_hidden(adapter.adapt(lm), ids), _compute_hidden(lm, ids), atol=1e-6, rtol=0
    )
    assert all(
        weight.requires_grad and weight.dtype == torch.float32
        for _, weight in adapter.named_parameters()
    )
    trained = {
        name for name, weight in adapter.adapt(lm).model.named_parameters() if weight.requires_grad
    }
    assert trained == {name for name, _ in adapter.named_parameters()}


@pytest.mark.parametrize(
    ("config", "modules"),
    [
        (LlamaConfig(**SMALL), {"q_proj", "v_proj"}),
        (
            Olmo2Config(**SMALL),
            {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
        ),
        (Phi3Config(**SMALL), {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
    ],
    ids=["known", "unknown", "fused"],
)
def test_modules_are_those_that_peft_knows_or_else_all_linear_layers(
    config: PreTrainedConfig, modules: set[str], tmp_path: Path
) -> None:
    """A kind of model that PEFT has no default for gets a LoRA all the same, which is saved and loaded."""
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    lm = LanguageModel(model, tiny_lm().tokenizer)
    adapter = _make_random(lm)
    names = {name.split(".lora_")[0].rpartition(".")[2] for name, _ in adapter.named_parameters()}
    assert names == modules
    adapter.save(tmp_path, lm)
    ids = torch.arange(9)
    loaded = Lora.load(tmp_path, lm)
    assert torch.equal(
        _compute_hidden(loaded.adapt(lm), ids), _compute_hidden(adapter.adapt(lm), ids)
    )


def test_a_model_without_linear_layers_gets_no_lora() -> None:
    """One line names the way out."""
    lm = tiny_lm()
    with pytest.raises(
        InputError, match="expected a model with linear layers for a LoRA, found Ll"
    ):
        Lora.from_text(lm, "?", rank=2, seed=0, target_modules="no_such_module")


def test_equal_seeds_give_equal_adapters_and_others_don_t(lm: LanguageModel) -> None:
    """The global random state is left alone."""
    state = torch.get_rng_state()
    one, two, other = (
        dict(Lora.from_text(lm, "Right?", rank=2, seed=seed).named_parameters())
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_its_vectors_are_the_embeddings_of_its_text() -> None:
    """An adapter without a text adds no vectors."""
    lm = tiny_lm()
    assert torch.equal(_make_random(lm).vectors(lm), lm.embed(lm.token_ids("Right?")))
    assert _make_random(lm, text="").vectors(lm).shape == (0, 32)


def test_its_text_may_repeat_question_and_answer() -> None:
    """Each replaces its placeholder, and a placeholder within them is plain text."""
    lm = tiny_lm()
    found = _make_random(lm, text="{question} {answer}? {answer}!").vectors(
        lm, "{answer}", "{question}"
    )
    assert torch.equal(found, lm.embed(lm.token_ids("{answer} {question}? {question}!")))


def test_saving_and_loading_keeps_every_bit(family: Family, tmp_path: Path) -> None:
    """Matrices and text come back as they were, in two files and no pickle, and are frozen."""
    lm = tiny_lm(family)
    adapter = _make_random(lm, text="Ist das\nrichtig?")
    adapter.save(tmp_path, lm)
    loaded = Lora.load(tmp_path, lm)
    found, expected = (dict(one.named_parameters()) for one in (loaded, adapter))
    assert loaded.text == "Ist das\nrichtig?"
    assert found.keys() == expected.keys()
    assert all(
        torch.equal(found[name], expected[name]) and not found[name].requires_grad
        for name in expected
    )
    assert torch.equal(
        _compute_hidden(loaded.adapt(lm), torch.arange(5)),
        _compute_hidden(adapter.adapt(lm), torch.arange(5)),
    )
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", FILE}
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["target_modules"] == sorted(config["target_modules"])


def _truncate(folder: Path) -> None:
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:200])


def _remove_a_matrix(folder: Path) -> None:
    tensors = load_file(folder / FILE)
    del tensors[min(tensors)]
    save_file(tensors, folder / FILE, metadata={"text": "Right?"})


def _narrow_the_matrices(folder: Path) -> None:
    tensors = load_file(folder / FILE)
    narrow = {name: matrix[:, :-1].contiguous() for name, matrix in tensors.items()}
    save_file(narrow, folder / FILE, metadata={"text": "Right?"})


def _set_to_nan(folder: Path) -> None:
    tensors = load_file(folder / FILE)
    not_finite = {name: matrix * torch.nan for name, matrix in tensors.items()}
    save_file(not_finite, folder / FILE, metadata={"text": "Right?"})


def _remove_the_text(folder: Path) -> None:
    save_file(load_file(folder / FILE), folder / FILE)


def _remove_the_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def _name_other_modules(folder: Path) -> None:
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"] = ["nothing_of_that_name"]
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _remove_a_matrix,
        _narrow_the_matrices,
        _set_to_nan,
        _remove_the_text,
        _remove_the_config,
        _name_other_modules,
        lambda folder: (folder / FILE).unlink(),
    ],
)
def test_what_does_not_fit_is_a_corrupt_evaluator(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Names, shapes and values are checked before anything is computed with them. The error names the way out."""
    lm = tiny_lm()
    _make_random(lm).save(tmp_path, lm)
    damage(tmp_path)
    with pytest.raises(
        CorruptEvaluatorError, match=r"expected .*, found .*; restore the evaluator folder"
    ):
        Lora.load(tmp_path, lm)
