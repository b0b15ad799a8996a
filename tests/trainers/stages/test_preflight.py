"""The checks before training: what a stage can't do is said before the first stage."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Olmo2Config, PhimoeConfig, PreTrainedConfig

from aspire_guard.errors import BaseModelError, InputError
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.testing import tiny_evaluator, tiny_lm
from aspire_trainers.config import TrainingConfig
from aspire_trainers.stages.preflight import check_adapters

SMALL: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def _make_aspire(config: PreTrainedConfig) -> AspireLM:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return AspireLM(LanguageModel(model, tiny_lm().tokenizer))


def test_the_default_recipe_suits_a_model_that_peft_does_not_know() -> None:
    """A LoRA then changes all linear layers, and both adapters of the recipe can be trained."""
    check_adapters(_make_aspire(Olmo2Config(**SMALL)), TrainingConfig())


@pytest.mark.parametrize("method", ["soft_prompt", "lora"])
def test_nothing_is_left_of_the_check(method: Any) -> None:
    """A start evaluator's θp is what it was, frozen and without a gradient."""
    aspire = tiny_evaluator(task=method, self_eval=method).aspire
    assert aspire.task is not None
    before = {name: value.clone() for name, value in aspire.task.named_parameters()}
    check_adapters(aspire, TrainingConfig())
    for name, value in aspire.task.named_parameters():
        assert torch.equal(value, before[name])
        assert value.grad is None
        assert not value.requires_grad


def test_modules_that_can_t_be_trained_are_refused() -> None:
    """PhiMoE's router is a linear layer of two results, which fails under a LoRA. One line says so."""
    settings = SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2}
    aspire = _make_aspire(PhimoeConfig(**settings))
    check_adapters(aspire, TrainingConfig())
    recipe = {"self_evaluation": {"target_modules": "all-linear"}}
    with pytest.raises(BaseModelError, match="whose adapters can be trained, found Attr") as error:
        check_adapters(aspire, TrainingConfig.model_validate(recipe))
    assert str(error.value).endswith("; choose another model, method or target_modules")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["task", "self_evaluation"])
@pytest.mark.parametrize("method", ["soft_prompt", "lora"])
def test_an_adapter_without_a_token_is_refused(name: str, method: str) -> None:
    """A LoRA that only repeats an empty answer would have nothing to be read with."""
    recipe = {name: {"method": method, "text": "{answer}"}}
    with pytest.raises(InputError, match=rf"expected a text with a token in \[{name}\], found"):
        check_adapters(AspireLM(tiny_lm()), TrainingConfig.model_validate(recipe))


def test_stages_that_make_no_adapter_are_not_checked() -> None:
    """Without stage 1 the text of θp is not read."""
    recipe = {"task": {"method": "none", "text": "{answer}"}}
    check_adapters(AspireLM(tiny_lm()), TrainingConfig.model_validate(recipe))
