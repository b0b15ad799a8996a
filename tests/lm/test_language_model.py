"""A language model: text to tokens, weights frozen, usable from several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.testing import END_TOKEN, Family, tiny_lm


@pytest.mark.parametrize("text", ["", " ", "a correct b", "  two\n\tlines ", "한국어 中文 🙂", f"x {END_TOKEN} y"])
def test_tokens_give_the_text_back(lm: LanguageModel, text: str) -> None:
    """The tiny tokenizer round-trips any text, markers of special tokens among it."""
    assert lm.tokenizer.decode(lm.token_ids(text)) == text


def test_verdict_words_are_single_tokens(lm: LanguageModel) -> None:
    """They are ordinary tokens, which the text around them does not change."""
    for word in (" correct", " wrong", " true", " false"):
        ids = lm.token_ids(f"It is{word}.").tolist()
        assert len(ids) == len("It is.") + 1
        assert lm.tokenizer.decode(ids, skip_special_tokens=True) == f"It is{word}."


def test_start_ids_are_what_the_tokenizer_begins_with(family: Family, lm: LanguageModel) -> None:
    """OPT begins with a token of its own, the other two families with none."""
    assert lm.start_ids.tolist() == ([lm.tokenizer.bos_token_id] if family == "opt" else [])


def test_the_weights_are_frozen(family: Family) -> None:
    """No parameter of the base model asks for a gradient, and dropout is off."""
    lm = tiny_lm(family)
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert not lm.model.training


def test_tokenising_from_several_threads_keeps_markers_as_text(lm: LanguageModel) -> None:
    """The tokenizer's settings are not switched to and fro between calls."""
    text = f"a {END_TOKEN} b " * 20
    expected = lm.token_ids(text)

    def tokenise(_: int) -> bool:
        return torch.equal(lm.token_ids(text), expected) and len(lm.start_ids) <= 1

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(tokenise, range(400)))
