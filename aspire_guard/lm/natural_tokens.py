"""Tokens of a piece of text that are the same as inside a longer text.

A prompt is tokenised in pieces. Some tokenizers put a space before every text that they are given, as if it were the
beginning of a document. Inside a prompt the model would then read spaces that nobody wrote.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

_TEXTS = (("a", " a"), ("a", "\n", "a"))


def stop_adding_spaces(tokenizer: Any) -> None:
    """Let a tokenizer of `transformers` add no space before a text, if it adds one.

    Raises:
        ValueError: the tokens of pieces still don't add up to those of the whole text.
    """
    if _adds_up(tokenizer):
        return
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        settings = json.loads(backend.to_str())
        settings["normalizer"] = _drop_prepending(settings["normalizer"])
        settings["pre_tokenizer"] = _drop_prepending(settings["pre_tokenizer"])
        changed = Tokenizer.from_str(json.dumps(settings))
        backend.normalizer = changed.normalizer
        backend.pre_tokenizer = changed.pre_tokenizer
    if not _adds_up(tokenizer):
        raise ValueError(
            "expected a tokenizer that reads pieces of a text as it reads the whole, found one that does not"
        )


def _adds_up(tokenizer: Any) -> bool:
    """Tell whether the tokens of a text's pieces are the tokens of the text."""
    for pieces in _TEXTS:
        ids: list[int] = []
        for piece in pieces:
            ids += tokenizer(piece, add_special_tokens=False).input_ids
        if ids != tokenizer("".join(pieces), add_special_tokens=False).input_ids:
            return False
    return True


def _drop_prepending(part: Any) -> Any:
    """Return the settings of a normalizer or a pre-tokenizer without those that put something before a text."""
    if part is None or part["type"] == "Prepend":
        return None
    changed = dict(part)
    if "prepend_scheme" in part:
        changed["prepend_scheme"] = "never"
    if "add_prefix_space" in part:
        changed["add_prefix_space"] = False
    for parts in ("normalizers", "pretokenizers"):
        if parts in part:
            kept = [_drop_prepending(inner) for inner in part[parts]]
            changed[parts] = [inner for inner in kept if inner is not None]
    return changed
