"""Beam search on prefix states against `transformers.generate` with the same settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from aspire_guard.lm.beam_search import Beams, beam_search
from aspire_guard.lm.language_model import LanguageModel

PROMPT_LENGTHS = (7, 3, 12)


def _draw_prompts() -> list[Tensor]:
    chance = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (length,), generator=chance) for length in PROMPT_LENGTHS]


def _search(lm: LanguageModel, prompts: list[Tensor], *, k: int, max_new_tokens: int) -> Beams:
    with torch.inference_mode():
        states = lm.prefill([lm.embed(prompt) for prompt in prompts])
        return beam_search(lm, states, k=k, max_new_tokens=max_new_tokens)


def _generate(lm: LanguageModel, prompt: Tensor, *, k: int, max_new_tokens: int) -> Any:
    return lm.model.generate(
        prompt[None],
        attention_mask=torch.ones_like(prompt)[None],
        num_beams=k,
        num_return_sequences=k,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        early_stopping=True,
        length_penalty=1.0,
        return_dict_in_generate=True,
        output_scores=True,
    )


def _list_tokens(beams: Beams, row: int) -> list[list[int]]:
    pairs = zip(beams.tokens[row].tolist(), beams.lengths[row].tolist(), strict=True)
    return [ids[:length] for ids, length in pairs]


def _cut_after_end(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids


@pytest.mark.parametrize(("k", "max_new_tokens"), [(2, 1), (5, 3), (5, 12)])
def test_beams_match_transformers(lm: LanguageModel, k: int, max_new_tokens: int) -> None:
    """The same sequences in the same order with the same scores, for three prompts in one batch."""
    end = lm.tokenizer.eos_token_id
    beams = _search(lm, _draw_prompts(), k=k, max_new_tokens=max_new_tokens)
    for row, prompt in enumerate(_draw_prompts()):
        expected = _generate(lm, prompt, k=k, max_new_tokens=max_new_tokens)
        sequences = [_cut_after_end(ids[len(prompt) :], end) for ids in expected.sequences.tolist()]
        assert _list_tokens(beams, row) == sequences
        torch.testing.assert_close(beams.scores[row], expected.sequences_scores, atol=1e-4, rtol=0)


def test_a_single_beam_is_greedy_decoding(lm: LanguageModel) -> None:
    """With k = 1 the likeliest token is taken until the end token."""
    beams = _search(lm, _draw_prompts(), k=1, max_new_tokens=12)
    for row, prompt in enumerate(_draw_prompts()):
        expected = lm.model.generate(
            prompt[None],
            attention_mask=torch.ones_like(prompt)[None],
            max_new_tokens=12,
            do_sample=False,
        )
        assert _list_tokens(beams, row) == [
            _cut_after_end(expected[0, len(prompt) :].tolist(), lm.tokenizer.eos_token_id)
        ]


def test_beams_end_by_themselves_and_at_the_limit(lm: LanguageModel) -> None:
    """The tiny models give both kinds, so both are compared above."""
    prompts = _draw_prompts()
    has_end: set[bool] = set()
    for max_new_tokens in (3, 12):
        beams = _search(lm, prompts, k=5, max_new_tokens=max_new_tokens)
        for row in range(3):
            has_end |= {ids[-1] == lm.tokenizer.eos_token_id for ids in _list_tokens(beams, row)}
    assert has_end == {True, False}


@pytest.mark.parametrize("max_new_tokens", [3, 12])
def test_states_of_beams_match_a_full_forward_pass(lm: LanguageModel, max_new_tokens: int) -> None:
    """Each beam's states hold the prompt and its tokens without the end token, and can be extended."""
    prompts = _draw_prompts()
    beams = _search(lm, prompts, k=4, max_new_tokens=max_new_tokens)
    suffix = torch.tensor([65, 66])
    tokens = lm.embed(suffix).expand(len(prompts), 4, -1, -1)
    longer, _ = lm.extend(beams.states, tokens, torch.ones(len(prompts), 4, 2, dtype=torch.bool))
    for row, prompt in enumerate(prompts):
        for beam, ids in enumerate(_list_tokens(beams, row)):
            answer = torch.tensor(
                [i for i in ids if i != lm.tokenizer.eos_token_id], dtype=torch.long
            )
            assert beams.states.lengths[row, beam] == len(prompt) + len(answer)
            expected = lm.model(torch.cat([prompt, answer, suffix])[None]).logits[0, -1]
            torch.testing.assert_close(
                lm.logits(longer.hidden)[row, beam], expected, atol=1e-4, rtol=0
            )


def test_a_score_is_the_mean_log_probability_of_the_tokens(lm: LanguageModel) -> None:
    """A full forward pass over prompt and beam, with the end token, gives the same score."""
    prompts = _draw_prompts()
    beams = _search(lm, prompts, k=3, max_new_tokens=8)
    for row, prompt in enumerate(prompts):
        for beam, ids in enumerate(_list_tokens(beams, row)):
            answer = torch.tensor(ids)
            logits = lm.model(torch.cat([prompt, answer])[None]).logits[0, len(prompt) - 1 : -1]
            expected = logits.log_softmax(-1).gather(-1, answer[:, None]).mean()
            torch.testing.assert_close(beams.scores[row, beam], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("max_new_tokens", [3, 12])
def test_a_likelihood_counts_the_end_token_of_every_beam(
    lm: LanguageModel, max_new_tokens: int
) -> None:
    """A full forward pass over prompt, beam and end token gives the same, even if the beam was cut."""
    prompts, end = _draw_prompts(), lm.tokenizer.eos_token_id
    beams = _search(lm, prompts, k=5, max_new_tokens=max_new_tokens)
    for row, prompt in enumerate(prompts):
        for beam, ids in enumerate(_list_tokens(beams, row)):
            answer = torch.tensor([*(i for i in ids if i != end), end])
            logits = lm.model(torch.cat([prompt, answer])[None]).logits[0, len(prompt) - 1 : -1]
            expected = logits.log_softmax(-1).gather(-1, answer[:, None]).mean()
            torch.testing.assert_close(
                beams.log_likelihoods[row, beam], expected, atol=1e-4, rtol=0
            )


def test_a_batch_gives_what_its_prompts_give_alone(lm: LanguageModel) -> None:
    """Sequences are equal, scores too to 1e-4, in any order of the batch."""
    prompts = _draw_prompts()
    for order in ([0, 1, 2], [2, 0, 1]):
        together = _search(lm, [prompts[i] for i in order], k=3, max_new_tokens=8)
        for row, i in enumerate(order):
            alone = _search(lm, [prompts[i]], k=3, max_new_tokens=8)
            assert _list_tokens(together, row) == _list_tokens(alone, 0)
            torch.testing.assert_close(together.scores[row], alone.scores[0], atol=1e-4, rtol=0)
