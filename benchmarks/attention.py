"""The attention of a processor by the shape of the work, and branches in one row against rows of their own.

Run: `python benchmarks/attention.py [--pairs 5]`. First, with the heads of SmolLM2-135M, a few
tokens and whole prompts attend over prefixes of different lengths: ours, in milliseconds, beside the
two implementations of `transformers`, "sdpa" and "eager". Then a model of this size reads θs after
several answers to one question, side by side in one row and in rows of their own. The last column
is the way that the library chooses.
"""

from __future__ import annotations

import statistics
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from pairs import time_call
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import eager_attention_forward

from aspire_guard import SelfEvaluator
from aspire_guard.lm.aspire_lm import _is_cheaper_apart
from aspire_guard.lm.attention import attend_with_shared_heads
from aspire_guard.lm.language_model import LanguageModel

HEADS, KV_HEADS, HEAD_DIM = 9, 3, 64
SHAPES = [(1, 1000), (20, 1000), (1, 8000), (20, 8000), (256, 1000), (1000, 1000)]
ANSWERS = 10
ANSWER_TOKENS = 6
SUFFIXES = [(40, 1), (40, 20), (40, 50), (250, 1), (250, 50), (1000, 1), (1000, 50)]


def compare_attention(pairs: int) -> None:
    """Print the time of each implementation for each shape."""
    layer: Any = SimpleNamespace(
        num_key_value_groups=HEADS // KV_HEADS, is_causal=True, training=False
    )
    implementations: dict[str, Callable[..., Any]] = {
        "ours": attend_with_shared_heads,
        "sdpa": sdpa_attention_forward,
        "eager": eager_attention_forward,
    }
    print("| tokens | slots | " + " | ".join(implementations) + " |")
    print("|---|---|" + "---|" * len(implementations))
    for tokens, slots in SHAPES:
        query = torch.randn(1, HEADS, tokens, HEAD_DIM)
        key, value = torch.randn(2, 1, KV_HEADS, slots, HEAD_DIM)
        mask = make_causal_mask(tokens, slots)
        calls = [
            partial(attend, layer, query, key, value, mask, scaling=HEAD_DIM**-0.5)
            for attend in implementations.values()
        ]
        medians = [statistics.median(seconds) for seconds in time_calls(calls, pairs)]
        cells = [f"{seconds * 1000:.1f}" for seconds in medians]
        print(f"| {tokens:,} | {slots:,} | " + " | ".join(cells) + " |")


def make_causal_mask(tokens: int, slots: int) -> Tensor:
    """Return a mask `(1, 1, tokens, slots)` of the last tokens of a sequence, added to the scores."""
    lowest = torch.finfo(torch.float32).min
    hidden = torch.ones(tokens, slots, dtype=torch.bool).triu(slots - tokens + 1)
    return torch.zeros(1, 1, tokens, slots).masked_fill(hidden, lowest)


def compare_branches(lm: LanguageModel, pairs: int) -> None:
    """Print the time of θs after ten answers, in one row and in rows of their own."""
    print("| prompt | θs | one row | own rows | chosen |")
    print("|---|---|---|---|---|")
    index = torch.tensor([(0, branch) for branch in range(ANSWERS)])
    for prompt, tokens in SUFFIXES:
        states = lm.prefill([draw_tokens(lm, prompt)]).fork(ANSWERS)
        states = lm.extend_branches(
            states, [[draw_tokens(lm, ANSWER_TOKENS) for _ in range(ANSWERS)]]
        )
        suffix = draw_tokens(lm, tokens)

        def read_together(states: Any = states, suffix: Tensor = suffix) -> Tensor:
            return lm.read_after_branches(states, [[suffix] * ANSWERS])

        def read_apart(states: Any = states, suffix: Tensor = suffix) -> Tensor:
            rows = states.split_into_rows(index)
            return lm.read_after_branches(rows, [[suffix]] * ANSWERS)

        medians = [statistics.median(s) for s in time_calls([read_together, read_apart], pairs)]
        is_apart = _is_cheaper_apart(states, [[suffix] * ANSWERS], lm.attention_heads)
        chosen = "own rows" if is_apart else "one row"
        together, apart = (f"{seconds * 1000:.0f}" for seconds in medians)
        print(f"| {prompt:,} | {tokens} | {together} | {apart} | {chosen} |")


def draw_tokens(lm: LanguageModel, tokens: int) -> Tensor:
    """Return the embeddings of random tokens, `(tokens, dim)`."""
    vocabulary = lm.embedding_weight.shape[0]
    return lm.embed(torch.randint(vocabulary, (tokens,)))


def time_calls(calls: Sequence[Callable[[], Any]], pairs: int) -> list[list[float]]:
    """Return the seconds of `pairs` calls of each function, called in turn after a first one."""
    seconds: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(pairs):
        for own_seconds, call in zip(seconds, calls, strict=True):
            own_seconds.append(time_call(call))
    return seconds


@torch.inference_mode()
def main() -> None:
    """Print both tables."""
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="the number of calls of each side")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    compare_attention(arguments.pairs)
    print()
    compare_branches(SelfEvaluator.starter().aspire.lm, arguments.pairs)


if __name__ == "__main__":
    main()
