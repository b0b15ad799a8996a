"""Tokens of pieces: a tokenizer adds no space that nobody wrote, or its model is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from aspire_guard.lm.natural_tokens import stop_adding_spaces
from aspire_guard.testing import tiny_lm


def _make_tokenizer(kind: str) -> Any:
    """Make a tokenizer of letters that puts a space before every text, in one of the ways that there are."""
    letters = ["▁", "Ġ", "Ċ", "\n", *"Answer:Paris", "▁P", "ĠP"]
    vocabulary = {letter: number for number, letter in enumerate(dict.fromkeys(letters))}
    merges = [("▁", "P"), ("Ġ", "P")]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    replace = normalizers.Replace(" ", "▁")
    if kind == "normalizer":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    elif kind == "byte-level":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend)  # type: ignore[no-untyped-call]


def _split(tokenizer: Any, text: str) -> list[str]:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    tokens: list[str] = tokenizer.convert_ids_to_tokens(ids)
    return tokens


@pytest.mark.parametrize("kind", ["normalizer", "always", "first", "byte-level"])
def test_no_space_is_added(kind: str) -> None:
    """A piece has the tokens that it has inside a text, whatever the tokenizer's way of adding spaces."""
    tokenizer = _make_tokenizer(kind)
    space, line_end = ("Ġ", "Ċ") if kind == "byte-level" else ("▁", "\n")
    assert _split(tokenizer, "\nAnswer:")[0] == space
    stop_adding_spaces(tokenizer)
    assert _split(tokenizer, "\nAnswer:") == [line_end, *"Answer:"]
    assert _split(tokenizer, " Paris") == [f"{space}P", *"aris"]
    assert _split(tokenizer, "Paris") == [*"Paris"]


def test_a_tokenizer_that_adds_no_space_stays_as_it_is() -> None:
    """Nothing about it changes."""
    tokenizer = tiny_lm().tokenizer
    before = json.loads(tokenizer.backend_tokenizer.to_str())
    stop_adding_spaces(tokenizer)
    assert json.loads(tokenizer.backend_tokenizer.to_str()) == before


def test_pieces_that_never_add_up_are_an_error() -> None:
    """A tokenizer that begins every text in another way of its own can't be used."""
    tokenizer = _make_tokenizer("normalizer")
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("^"), "P")
    with pytest.raises(ValueError, match="expected a tokenizer that reads pieces of a text as it"):
        stop_adding_spaces(tokenizer)
