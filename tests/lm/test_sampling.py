"""Multinomial sampling over prefix states."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from aspire_guard.errors import InputError
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.language_model import LanguageModel
from aspire_guard.lm.sampling import Samples, sample_continuations
from aspire_guard.testing import tiny_lm

PROMPTS = (tuple(range(7)), (3, 1), tuple(range(20, 32)))


def _sample(lm: LanguageModel, rows: tuple[int, ...] = (0, 1, 2), **settings: float) -> Samples:
    values = {"n": 4, "max_new_tokens": 6, "temperature": 1.0} | settings
    with torch.inference_mode():
        return sample_continuations(
            lm,
            lm.prefill([lm.embed(torch.tensor(PROMPTS[row])) for row in rows]),
            n=int(values["n"]),
            max_new_tokens=int(values["max_new_tokens"]),
            temperature=values["temperature"],
            seeds=[f"seed/{row}" for row in rows],
        )


def test_first_tokens_are_drawn_as_often_as_the_model_says(lm: LanguageModel) -> None:
    """1,000 draws of one token: every likely token's share is within five standard errors of its probability."""
    n = 1000
    drawn = Counter(_sample(lm, (0,), n=n, max_new_tokens=1).tokens.flatten().tolist())
    with torch.inference_mode():
        probabilities = lm.model(torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    for token in probabilities.topk(5).indices.tolist():
        p = float(probabilities[token])
        assert abs(drawn[token] / n - p) <= 5 * (p * (1 - p) / n) ** 0.5


def test_likelihoods_are_mean_log_probabilities_at_temperature_one(lm: LanguageModel) -> None:
    """A full forward pass over prompt, sample and end token gives the same, even if the sample was cut."""
    samples, end = _sample(lm, n=32, temperature=2.0), lm.tokenizer.eos_token_id
    for row, prompt in enumerate(PROMPTS):
        for ids, expected in zip(
            _list_counted_tokens(samples, row), samples.log_likelihoods[row], strict=True
        ):
            sequence = torch.tensor([*prompt, *(i for i in ids if i != end), end])
            with torch.inference_mode():
                log_p = lm.model(sequence[None]).logits[0].log_softmax(-1)
            steps = torch.arange(len(prompt) - 1, len(sequence) - 1)
            torch.testing.assert_close(
                log_p[steps, sequence[len(prompt) :]].mean(), expected, atol=1e-4, rtol=0
            )


def test_a_sample_ends_at_the_end_token_or_the_limit(lm: LanguageModel) -> None:
    """The end token can only be the last of the counted tokens. A sample without it has the full length."""
    end = lm.tokenizer.eos_token_id
    samples = _sample(lm, n=64, max_new_tokens=6)
    for ids, length in zip(
        samples.tokens.flatten(0, 1).tolist(), samples.lengths.flatten().tolist(), strict=True
    ):
        assert end not in ids[: length - 1]
        assert ids[length - 1] == end or length == 6


def test_equal_seeds_draw_equal_samples_in_any_batch(lm: LanguageModel) -> None:
    """A prompt gives the same tokens alone and after others. Another seed gives others."""
    together, alone = _sample(lm, temperature=20.0), _sample(lm, (2,), temperature=20.0)
    assert _list_counted_tokens(together, 2) == _list_counted_tokens(alone, 0)
    assert _list_counted_tokens(together, 0) != _list_counted_tokens(together, 1)


def test_a_low_temperature_takes_the_likeliest_token(lm: LanguageModel) -> None:
    """Towards temperature 0 all samples are the greedy continuation."""
    samples = _sample(lm, temperature=1e-4, max_new_tokens=1)
    for row, prompt in enumerate(PROMPTS):
        with torch.inference_mode():
            likeliest = int(lm.model(torch.tensor([prompt])).logits[0, -1].argmax())
        assert samples.tokens[row, :, 0].tolist() == [likeliest] * 4


def test_answers_are_decoded_with_their_likelihood(aspire: AspireLM) -> None:
    """`AspireLM.sample` gives texts without end tokens, and repeats itself under the same seeds."""
    prompts = aspire.prompt_states([("Who?", "Ada keeps it."), ("When?", None)])
    first, again = (
        aspire.sample(prompts, n=3, max_new_tokens=5, temperature=1.0, seeds=["a", "b"])
        for _ in range(2)
    )
    assert first == again
    assert [len(row) for row in first] == [3, 3]
    assert all(answer.log_likelihood <= 0 for row in first for answer in row)
    assert all(aspire.lm.tokenizer.eos_token not in answer.text for row in first for answer in row)


def test_a_temperature_of_zero_is_refused() -> None:
    """Zero has no distribution, and the error names the way out."""
    with pytest.raises(InputError, match="temperature above 0, found 0"):
        _sample(tiny_lm(), temperature=0.0)


def _list_counted_tokens(samples: Samples, row: int) -> list[list[int]]:
    pairs = zip(samples.tokens[row].tolist(), samples.lengths[row].tolist(), strict=True)
    return [ids[:length] for ids, length in pairs]
