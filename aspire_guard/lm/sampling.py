"""Multinomial sampling over prefix states: answers drawn from the model's own distribution."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aspire_guard.errors import InputError
from aspire_guard.lm.language_model import LanguageModel, add_end_token
from aspire_guard.lm.prefix_states import PrefixStates


@dataclass(frozen=True)
class Samples:
    """`n` continuations of each prompt, in the order they were drawn.

    Attributes:
        tokens: token ids, `(batch, n, longest)`, with the end token if it was drawn.
        lengths: the number of tokens that count, `(batch, n)`.
        log_likelihoods: mean log-probability of the tokens at temperature 1, in nats, `(batch, n)`. It
            includes an end token even if the sample was cut at the token limit: log f_norm of the paper.
    """

    tokens: Tensor
    lengths: Tensor
    log_likelihoods: Tensor


def sample_continuations(
    lm: LanguageModel,
    prompts: PrefixStates,
    *,
    n: int,
    max_new_tokens: int,
    temperature: float,
    seeds: Sequence[str],
) -> Samples:
    """Draw `n` continuations of every prompt.

    Args:
        lm: the model that has computed `prompts`.
        prompts: states with a single branch in each row.
        n: the number of continuations per prompt.
        max_new_tokens: the most tokens of a continuation, the end token included.
        temperature: the divisor of the logits. 1 draws from the model's own distribution, and near 0
            the likeliest token always wins.
        seeds: one seed per row. Equal seeds draw equal continuations, whatever else is in the batch.

    Raises:
        InputError: the temperature is not positive.
    """
    if temperature <= 0:
        raise InputError(
            f"expected a temperature above 0, found {temperature}; decode with beams for the likeliest"
        )
    end = lm.end_id
    generators = [random.Random(seed) for seed in seeds]
    states = prompts.fork(n)
    sums = torch.zeros(len(seeds), n, device=states.visible.device)
    lengths = torch.zeros_like(sums, dtype=torch.long)
    running = torch.ones_like(sums, dtype=torch.bool)
    tokens = lengths.new_zeros(*lengths.shape, 0)  # (batch, n, tokens so far)
    while running.any() and tokens.shape[-1] < max_new_tokens:
        logits = lm.logits(states.hidden)  # (batch, n, vocabulary)
        uniform = _draw_uniform(generators, n).to(sums.device)
        probabilities = (logits / temperature).softmax(-1)
        drawn = _invert_cdf(probabilities, uniform)  # (batch, n)
        log_p = logits.log_softmax(-1)
        log_p_drawn = log_p.gather(-1, drawn[..., None])  # (batch, n, 1)
        sums += log_p_drawn[..., 0] * running
        lengths += running

        new_token = torch.where(running, drawn, end)[..., None]
        tokens = torch.cat([tokens, new_token], dim=-1)
        running = running & (drawn != end)
        if running.any():
            states, _ = lm.extend(
                states,
                lm.embed(new_token),
                running[..., None],
            )
    log_likelihoods = add_end_token(
        lm,
        means=sums / lengths,
        lengths=lengths,
        hidden=states.hidden,
        cut=running,
    )
    return Samples(tokens, lengths, log_likelihoods)


def _draw_uniform(generators: Sequence[random.Random], n: int) -> Tensor:
    """Draw `n` numbers in [0, 1) from each generator, `(generators, n)`.

    Samples that have ended get a number too, so that no sample depends on another one.
    """
    rows: list[list[float]] = []
    for generator in generators:
        rows.append([generator.random() for _ in range(n)])
    return torch.tensor(rows)


def _invert_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return the entry of `probabilities` `(…, vocabulary)` that each of `uniform` `(…)`, in [0, 1), falls into."""
    cumulative = probabilities.double().cumsum(-1)
    total = cumulative[..., -1:]
    target = uniform.double()[..., None] * total
    entry = torch.searchsorted(cumulative, target, right=True)
    last = probabilities.shape[-1] - 1
    return entry[..., 0].clamp(max=last)
