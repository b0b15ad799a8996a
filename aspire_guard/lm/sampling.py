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
        tokens: `(batch, n, longest)`: token ids, the end token included where it was drawn.
        lengths: `(batch, n)`: how many of the tokens count.
        log_likelihoods: `(batch, n)`: mean log-probability of the tokens at temperature 1, in nats, with an end token
            also after a sample that was cut at the most tokens: log f_norm of the paper.
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
        prompts: states with a single branch a row.
        n: continuations a prompt.
        max_new_tokens: the most tokens of one, the end token included.
        temperature: divides the logits; 1 draws from the model as it is, towards 0 the likeliest token wins.
        seeds: one a row: equal seeds draw equal continuations, whatever else is in the batch.

    Raises:
        InputError: the temperature is not positive.
    """
    if temperature <= 0:
        raise InputError(
            f"expected a temperature above 0, found {temperature}; decode with beams for the likeliest"
        )
    device, end = prompts.visible.device, lm.end_id
    chances = [random.Random(seed) for seed in seeds]
    states = prompts.fork(n)
    tokens = torch.zeros(len(chances), n, 0, dtype=torch.long, device=device)
    sums = torch.zeros(len(chances), n, device=device)
    lengths = torch.zeros(len(chances), n, dtype=torch.long, device=device)
    going = torch.ones(len(chances), n, dtype=torch.bool, device=device)
    while going.any() and tokens.shape[-1] < max_new_tokens:
        logits = lm.logits(states.hidden)
        # One number a branch, also for those that have ended, so that no branch depends on another.
        uniform = torch.tensor(
            [[chance.random() for _ in range(n)] for chance in chances], device=device
        )
        drawn = _inverse_cdf((logits / temperature).softmax(-1), uniform)
        sums += logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0] * going
        lengths += going
        tokens = torch.cat([tokens, torch.where(going, drawn, end)[..., None]], dim=-1)
        going = going & (drawn != end)
        if going.any():
            states, _ = lm.extend(states, lm.embed(tokens[..., -1:]), going[..., None])
    return Samples(
        tokens, lengths, add_end_token(lm, sums / lengths, lengths, states.hidden, going)
    )


def _inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The entry of `probabilities` `(…, vocabulary)` in which `uniform` `(…)`, in [0, 1), falls."""
    cumulative = probabilities.double().cumsum(-1)
    target = uniform.double()[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True)[..., 0].clamp(
        max=probabilities.shape[-1] - 1
    )
