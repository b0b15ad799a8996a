"""A language model: text to tokens, weights frozen, usable from several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma3Config,
    GraniteConfig,
    MistralConfig,
    MptConfig,
    PreTrainedConfig,
)

from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.testing import END_TOKEN, Family, tiny_lm

SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    "text", ["", " ", "a correct b", "  two\n\tlines ", "한국어 中文 🙂", f"x {END_TOKEN} y"]
)
def test_tokens_give_the_text_back(text: str) -> None:
    """The tiny tokenizer round-trips any text, markers of special tokens among it."""
    lm = tiny_lm()
    assert lm.tokenizer.decode(lm.token_ids(text)) == text


def test_verdict_words_are_single_tokens() -> None:
    """They are ordinary tokens, which the text around them does not change."""
    lm = tiny_lm()
    for word in (" correct", " wrong", " true", " false"):
        ids = lm.token_ids(f"It is{word}.").tolist()
        assert len(ids) == len("It is.") + 1
        assert lm.tokenizer.decode(ids, skip_special_tokens=True) == f"It is{word}."


def test_start_ids_are_what_the_tokenizer_begins_with(family: Family, lm: LanguageModel) -> None:
    """OPT begins with a token of its own, the other families begin without one."""
    assert lm.start_ids.tolist() == ([lm.tokenizer.bos_token_id] if family == "opt" else [])


def test_a_token_that_ends_every_sequence_does_not_begin_one() -> None:
    """Tokenizers with `add_eos_token` end sequences in this way."""
    lm = tiny_lm()
    end = (END_TOKEN, lm.tokenizer.eos_token_id)
    lm.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END_TOKEN}", special_tokens=[end]
    )
    assert lm.tokenizer("a").input_ids[-1] == lm.tokenizer.eos_token_id
    assert lm.start_ids.tolist() == []


def test_the_weights_are_frozen(family: Family) -> None:
    """No parameter of the base model asks for a gradient, and dropout is off."""
    lm = tiny_lm(family)
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert not lm.model.training


def test_tokenising_from_several_threads_keeps_markers_as_text() -> None:
    """The tokenizer's settings are not switched back and forth between calls."""
    lm = tiny_lm()
    text = f"a {END_TOKEN} b " * 20
    expected = lm.token_ids(text)

    def tokenise(_: int) -> bool:
        return torch.equal(lm.token_ids(text), expected) and len(lm.start_ids) <= 1

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(tokenise, range(400)))


@pytest.mark.parametrize(
    "config",
    [
        GraniteConfig(logits_scaling=8.0, embedding_multiplier=3.0, **SMALL),
        CohereConfig(logit_scale=0.25, **SMALL),
        MistralConfig(sliding_window=None, **SMALL),
    ],
    ids=lambda config: str(config.model_type),
)
def test_logits_match_the_model(config: PreTrainedConfig) -> None:
    """They are equal even if the model scales them after its output head."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    lm, ids = LanguageModel(model, tiny_lm().tokenizer), torch.arange(5, 12)
    with torch.inference_mode():
        expected = model(input_ids=ids[None]).logits[0, -1]
        states = lm.prefill([lm.embed(ids)])
        assert torch.allclose(lm.logits(states.hidden)[0, 0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        (MistralConfig(sliding_window=16, **SMALL), 64),
        (MptConfig(d_model=16, n_heads=2, n_layers=1, max_seq_len=48), 48),
        (BloomConfig(hidden_size=16, n_head=2, n_layer=1), 2**31),
        (Gemma3Config(text_config={"sliding_window": 16, **SMALL}), 64),
    ],
    ids=lambda value: str(getattr(value, "model_type", value)),
)
def test_a_text_may_be_as_long_as_the_positions_reach(
    config: PreTrainedConfig, length: int
) -> None:
    """Windows don't limit it. Some models have no positions, and models that also see name them in their text part."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    lm = LanguageModel(model, tiny_lm().tokenizer)
    assert lm.max_length == length
