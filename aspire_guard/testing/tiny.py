"""Test doubles: language models and evaluators that are tiny, random and made in memory.

They run the same code as real ones, without a download and in milliseconds, so they serve the tests of
this library and of applications built on it. Their answers make no sense, but a seed always gives the
same answers.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from aspire_guard.evaluators.evaluator_folder import BaseModelId, Manifest
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.lora import Lora
from aspire_guard.lm.soft_prompt import SoftPrompt
from aspire_guard.selection.calibration import Calibration, Threshold
from aspire_guard.selection.calibrators import PlattCalibrator

Family = Literal["llama", "gpt2", "opt", "qwen", "gemma"]
FAMILIES: tuple[Family, ...] = get_args(Family)

END_TOKEN = "<|end|>"
START_TOKEN = "<|start|>"
MAX_LENGTH = 512

_ROTARY: dict[Family, Any] = {"llama": LlamaConfig, "qwen": Qwen3Config, "gemma": Gemma2Config}
_VERDICTS = ("correct", "wrong", "true", "false")
_WIDTH, _LAYERS, _HEADS = 32, 2, 4
_WINDOW = 16
_SPREAD = 0.3


def tiny_lm(family: Family = "llama", *, seed: int = 0) -> LanguageModel:
    """Make a causal language model of two layers with random weights.

    The tokenizer is byte-level, so it takes any text and gives it back. " correct", " wrong", " true"
    and " false" are single tokens of it. The window is 512 tokens, so it holds about 400 characters
    in addition to two soft prompts.

    Args:
        family: the architecture. llama, qwen and gemma have rotary positions and shared key-value
            heads, gpt2 and opt have absolute positions. Only opt begins every sequence with a start
            token. gemma (Gemma 2) caps its logits, and every second layer has a sliding window of 16 tokens.
        seed: the seed of the weights. The global random state is left alone.
    """
    tokenizer = _make_tokenizer(has_start=family == "opt")
    config = _make_config(family, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        # A random model would hardly ever end an answer. A longer row makes the end likely after some tokens.
        output_weight = model.get_output_embeddings().weight
        output_weight[tokenizer.eos_token_id] *= 3
    return LanguageModel(model, tokenizer)


def tiny_evaluator(
    family: Family = "llama",
    *,
    alpha: float = 0.25,
    threshold: float = 0.5,
    num_beams: int = 3,
    max_new_tokens: int = 8,
    seed: int = 0,
    task: Literal["soft_prompt", "lora", "none"] = "soft_prompt",
    self_eval: Literal["soft_prompt", "lora"] = "soft_prompt",
) -> SelfEvaluator:
    """Make an evaluator on `tiny_lm(family, seed=seed)` with random adapters.

    The adapters are soft prompts of 4 (θp) and 3 (θs) embeddings, or LoRAs of rank 2.

    Args:
        family: the architecture of its base model.
        alpha: α of the selection score.
        threshold: the lowest confidence of an accepted answer.
        num_beams: the number of beams that decode an answer.
        max_new_tokens: the longest answer, in tokens.
        seed: the seed of all weights.
        task: the kind of θp, or "none" if the base model answers without an adapter.
        self_eval: the kind of θs.
    """
    lm = tiny_lm(family, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    aspire = AspireLM(
        lm,
        task=_make_adapter(lm, task, 4, "Well:", generator),
        self_eval=_make_adapter(lm, self_eval, 3, "\n{question} {answer}\nWell?", generator),
    )
    manifest = Manifest(
        base_model=BaseModelId.from_model(f"tiny-{family}", lm),
        template=aspire.template,
        correct=aspire.correct,
        wrong=aspire.wrong,
        alpha=alpha,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        provenance={"weights": f"random, seed {seed}"},
    )
    calibration = Calibration(
        calibrator=PlattCalibrator(slope=0.5, intercept=1.0),
        thresholds=(Threshold(confidence=threshold, objective="accuracy", target=0.8),),
        n=100,
        date="2024-01-31",
    )
    return SelfEvaluator(aspire, manifest, calibration)


def _make_adapter(
    lm: LanguageModel,
    method: str,
    length: int,
    text: str,
    generator: torch.Generator,
) -> Adapter | None:
    if method == "none":
        return None
    if method == "soft_prompt":
        vectors = torch.randn(length, _WIDTH, generator=generator)
        return SoftPrompt(_SPREAD * vectors).requires_grad_(False)
    adapter = Lora.from_text(lm, text, rank=2, seed=0).requires_grad_(False)
    for _, matrix in adapter.named_parameters():
        values = torch.randn(matrix.shape, generator=generator)
        matrix.copy_(_SPREAD * values)
    return adapter


def _make_tokenizer(*, has_start: bool) -> PreTrainedTokenizerFast:
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in _VERDICTS:
        # "Ġ" is the space in a byte-level vocabulary. Letter by letter the word becomes one token.
        piece = "Ġ"
        for letter in word:
            merges.append((piece, letter))
            piece += letter
            pieces.append(piece)
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([START_TOKEN, END_TOKEN])
    if has_start:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{START_TOKEN} $A",
            special_tokens=[(START_TOKEN, tokenizer.token_to_id(START_TOKEN))],
        )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=START_TOKEN,
        eos_token=END_TOKEN,
        pad_token=END_TOKEN,
        clean_up_tokenization_spaces=False,
    )


def _make_config(family: Family, tokenizer: PreTrainedTokenizerFast) -> Any:
    settings = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # With tied embeddings a random model mostly repeats its last token.
        "tie_word_embeddings": False,
    }
    if family in _ROTARY:
        return _ROTARY[family](
            hidden_size=_WIDTH,
            intermediate_size=48,
            num_hidden_layers=_LAYERS,
            num_attention_heads=_HEADS,
            num_key_value_heads=_HEADS // 2,
            head_dim=_WIDTH // _HEADS,
            max_position_embeddings=MAX_LENGTH,
            initializer_range=_SPREAD,
            # Only Gemma 2 has a window.
            sliding_window=_WINDOW if family == "gemma" else None,
            **settings,
        )
    if family == "gpt2":
        return GPT2Config(
            n_embd=_WIDTH,
            n_layer=_LAYERS,
            n_head=_HEADS,
            n_positions=MAX_LENGTH,
            initializer_range=_SPREAD,
            **settings,
        )
    return OPTConfig(
        hidden_size=_WIDTH,
        word_embed_proj_dim=_WIDTH,
        ffn_dim=48,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        max_position_embeddings=MAX_LENGTH,
        init_std=_SPREAD,
        **settings,
    )
