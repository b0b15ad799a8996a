"""Test doubles: language models and evaluators that are tiny, random and made in memory.

They take the paths of real ones, without a download and in milliseconds, so they serve the tests of this
library and of what is built on it. Their answers make no sense, but the same seed always gives the same ones.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, OPTConfig, PreTrainedTokenizerFast

from aspire_guard.evaluators.folder import BaseModelId, Manifest
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.base_model import fingerprint
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_guard.selection.calibration import Calibration

Family = Literal["llama", "gpt2", "opt"]
FAMILIES: tuple[Family, ...] = ("llama", "gpt2", "opt")

END_TOKEN = "<|end|>"
START_TOKEN = "<|start|>"
MAX_LENGTH = 512

_VERDICTS = ("correct", "wrong", "true", "false")
_WIDTH, _LAYERS, _HEADS = 32, 2, 4
_SPREAD = 0.3


def tiny_lm(family: Family = "llama", *, seed: int = 0) -> LanguageModel:
    """A causal language model of two layers with random weights.

    The tokenizer is byte-level, so it takes any text and gives it back; " correct", " wrong", " true" and " false"
    are single tokens of it. The window is 512 tokens, so it holds about 400 characters beside two soft prompts.

    Args:
        family: the architecture: llama has rotary positions and shared key-value heads, gpt2 and opt have absolute
            positions; opt begins every sequence with a start token, the other two don't.
        seed: of the weights; the global random state is left alone.
    """
    tokenizer = _tokenizer(start=family == "opt")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_config(family, tokenizer))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        # A random model would hardly ever end an answer; a longer row makes the end likely after some tokens.
        model.get_output_embeddings().weight[tokenizer.eos_token_id] *= 3
    return LanguageModel(model, tokenizer)


def tiny_evaluator(
    family: Family = "llama",
    *,
    alpha: float = 0.25,
    threshold: float = 0.5,
    num_beams: int = 3,
    max_new_tokens: int = 8,
    seed: int = 0,
) -> SelfEvaluator:
    """An evaluator on `tiny_lm(family, seed=seed)`, with a random θp of 4 and a random θs of 3 embeddings.

    Args:
        family: the architecture of its base model.
        alpha: α of the selection score.
        threshold: the least confidence that is released.
        num_beams: beams that decode an answer.
        max_new_tokens: the longest answer, in tokens.
        seed: of all weights.
    """
    lm = tiny_lm(family, seed=seed)
    chance = torch.Generator().manual_seed(seed)
    task, self_eval = (SoftPrompt(_SPREAD * torch.randn(n, _WIDTH, generator=chance)) for n in (4, 3))
    aspire = AspireLM(lm, task=task.requires_grad_(False), self_eval=self_eval.requires_grad_(False))
    manifest = Manifest(
        base_model=BaseModelId(name=f"tiny-{family}", fingerprint=fingerprint(lm)),
        template=aspire.template,
        correct=aspire.correct,
        wrong=aspire.wrong,
        alpha=alpha,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        provenance={"weights": f"random, seed {seed}"},
    )
    calibration = Calibration(
        slope=0.5, intercept=1.0, threshold=threshold, target_accuracy=0.8, n=100, date="2024-01-31"
    )
    return SelfEvaluator(aspire, manifest, calibration)


def _tokenizer(*, start: bool) -> PreTrainedTokenizerFast:
    words = [f"Ġ{word}" for word in _VERDICTS]
    merges = [(word[:i], word[i]) for word in words for i in range(1, len(word))]
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(left + right for left, right in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([START_TOKEN, END_TOKEN])
    if start:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{START_TOKEN} $A", special_tokens=[(START_TOKEN, tokenizer.token_to_id(START_TOKEN))]
        )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=START_TOKEN,
        eos_token=END_TOKEN,
        pad_token=END_TOKEN,
        clean_up_tokenization_spaces=False,
    )


def _config(family: Family, tokenizer: PreTrainedTokenizerFast) -> Any:
    common = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # With tied embeddings a random model mostly repeats its last token.
        "tie_word_embeddings": False,
    }
    if family == "llama":
        return LlamaConfig(
            hidden_size=_WIDTH,
            intermediate_size=48,
            num_hidden_layers=_LAYERS,
            num_attention_heads=_HEADS,
            num_key_value_heads=_HEADS // 2,
            max_position_embeddings=MAX_LENGTH,
            initializer_range=_SPREAD,
            **common,
        )
    if family == "gpt2":
        return GPT2Config(
            n_embd=_WIDTH,
            n_layer=_LAYERS,
            n_head=_HEADS,
            n_positions=MAX_LENGTH,
            initializer_range=_SPREAD,
            **common,
        )
    return OPTConfig(
        hidden_size=_WIDTH,
        word_embed_proj_dim=_WIDTH,
        ffn_dim=48,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        max_position_embeddings=MAX_LENGTH,
        init_std=_SPREAD,
        **common,
    )
