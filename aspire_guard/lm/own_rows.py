"""Branches in rows of their own, for models that can't be told the positions of tokens.

A model with a bias for the distance of two tokens (ALiBi), or with windows that it cuts itself (GPT-Neo), counts the
slots of its cache. It can't run several branches as one sequence. Each branch is run in a row of its own instead, after
a copy of the slots that it sees, in the form that `transformers` generates batches in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from aspire_guard.lm.branch_sequence import BranchSequence, expand_index, sort_padding_out
from aspire_guard.lm.prefix_states import Layers, PrefixStates
from aspire_guard.lm.state_cache import make_cache


def can_share_rows(decoder: Any) -> bool:
    """Tell whether a model places tokens by the positions and masks that it is given, so that branches share a row."""
    config = decoder.config
    has_alibi = getattr(config, "alibi", False)
    cuts_windows = "local" in (getattr(config, "attention_layers", None) or ())
    return _takes_positions(type(decoder).forward) and not has_alibi and not cuts_windows


@cache
def _takes_positions(forward: Callable[..., Any]) -> bool:
    """Tell whether a model can be told the positions of tokens."""
    return "position_ids" in inspect.signature(forward).parameters


def run_in_own_rows(
    decoder: Any,
    states: PrefixStates,
    embeddings: Tensor,
    sequence: BranchSequence,
    max_length: int,
) -> tuple[Tensor, Layers]:
    """Run tokens after every branch.

    Args:
        decoder: the model without its output head.
        states: the states so far.
        embeddings: the tokens, `(batch, branches, tokens, dim)`.
        sequence: their order as one sequence for each row.
        max_length: the most slots that a row may have, padding among them.

    Returns:
        The final hidden states `(batch, run, hidden)`, and the tokens' keys and values in every layer, each
        `(batch, kv_heads, run, head_dim)`, both in the order of `sequence`.
    """
    batch, branches, tokens = embeddings.shape[:3]
    is_token = sequence.restore(sequence.is_real[..., None], branches, tokens)[..., 0]
    has_tokens = is_token.any(-1)  # (batch, branches)
    has_tokens[0, 0] |= ~has_tokens.any()  # some row must be run
    index = has_tokens.nonzero()  # (rows, 2)
    order, is_real = sort_padding_out(is_token[has_tokens])  # (rows, longest)
    inputs = embeddings[has_tokens]
    inputs = inputs.gather(1, expand_index(order, inputs))  # (rows, longest, dim)

    hidden: list[Tensor] = []
    layers: list[Layers] = []
    lengths = states.lengths[has_tokens].tolist()
    for group in _group_rows(lengths, is_real.sum(-1).tolist(), max_length):
        rows = states.split_into_rows(index[group])
        row_hidden, row_layers = _run_rows(decoder, rows, inputs[group], is_real[group])
        hidden.append(row_hidden)
        layers.append(row_layers)

    # The place of each token of the sequence among those of all rows, laid end to end.
    number = (has_tokens.flatten().cumsum(0) - 1).view(batch, branches, 1)
    rank = (is_token.cumsum(-1) - 1).clamp(min=0)  # (batch, branches, tokens)
    places = number * order.shape[1] + rank
    places = places.flatten(1).gather(1, sequence.order)  # (batch, run)

    def join_slots(*parts: Tensor) -> Tensor:
        """Join the keys or values of a layer, `(batch, kv_heads, run, head_dim)`."""
        by_slot = torch.cat(parts).transpose(1, 2)  # (rows, longest, kv_heads, head_dim)
        return by_slot.flatten(0, 1)[places].transpose(1, 2)

    joined: list[tuple[Tensor, Tensor]] = []
    for pairs in zip(*layers, strict=True):
        keys, values = zip(*pairs, strict=True)
        joined.append((join_slots(*keys), join_slots(*values)))
    return torch.cat(hidden).flatten(0, 1)[places], tuple(joined)


def _run_rows(
    decoder: Any, rows: PrefixStates, inputs: Tensor, is_real: Tensor
) -> tuple[Tensor, Layers]:
    """Run `inputs` `(rows, longest, dim)` after rows of a single branch each.

    The slots of a row stand right before its tokens, without padding between them, so that distances are right.

    Returns:
        The final hidden states `(rows, longest, hidden)`, and the keys and values of every layer, each
        `(rows, kv_heads, longest, head_dim)`.
    """
    slots = rows.visible.shape[-1]
    tokens = max(1, int(is_real.sum(-1).max()))
    is_real = is_real[:, :tokens]
    sees = torch.cat([rows.visible[:, 0], is_real], dim=-1)  # (rows, slots + tokens)
    # A row without any token sees its padding. A softmax over nothing would be NaN.
    sees[:, slots] |= ~sees.any(-1)
    positions = rows.lengths + is_real.cumsum(-1) - 1
    cache = make_cache(rows)
    output = decoder(
        inputs_embeds=inputs[:, :tokens],
        attention_mask=sees.long(),
        position_ids=positions.clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    )

    missing = inputs.shape[1] - tokens
    layers: list[tuple[Tensor, Tensor]] = []
    for layer in cache.layers:
        keys = pad(layer.keys[:, :, slots:], (0, 0, 0, missing))
        values = pad(layer.values[:, :, slots:], (0, 0, 0, missing))
        layers.append((keys, values))
    return pad(output.last_hidden_state, (0, 0, 0, missing)), tuple(layers)


def _group_rows(lengths: list[int], tokens: list[int], max_length: int) -> Iterator[slice]:
    """Group neighbouring rows whose longest prefix and most new tokens fit into one batch together."""
    start = 0
    for end in range(1, len(lengths) + 1):
        rows = slice(start, end + 1)
        if end == len(lengths) or max(lengths[rows]) + max(tokens[rows]) > max_length:
            yield slice(start, end)
            start = end
