"""The states that a language model has computed for a prefix.

A prefix is a tree: every row of the batch holds one key-value cache, and each of the
row's branches sees its own part of the cached slots. Beams, sampled answers and the
self-evaluation suffix are all branches of the prompt they share, so the prompt is
computed once and never copied per branch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Layers = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class PrefixStates:
    """Immutable states of a batch of prefixes.

    Attributes:
        layers: the cached keys and values of every layer, each `(batch, kv_heads, slots, head_dim)`.
        visible: the slots that a branch attends to, bool `(batch, branches, slots)`. No branch sees padding.
        hidden: the final hidden state of each branch's last token, `(batch, branches, hidden)`.
    """

    layers: Layers
    visible: Tensor
    hidden: Tensor

    @property
    def lengths(self) -> Tensor:
        """The number of tokens in each branch, `(batch, branches)`: also the position of its next token."""
        return self.visible.sum(-1)

    def select_rows(self, index: Tensor) -> PrefixStates:
        """Return the rows at `index` `(rows,)`.

        A row may be selected several times. Its cache is then copied.
        """
        return PrefixStates(
            layers=self._map_layers(lambda values: values.index_select(0, index)),
            visible=self.visible.index_select(0, index),
            hidden=self.hidden.index_select(0, index),
        )

    def select_branches(self, index: Tensor) -> PrefixStates:
        """Return the branches at `index` `(batch, n)` of each row. They share the cache, without a copy."""
        return PrefixStates(
            layers=self.layers,
            visible=gather_branches(self.visible, index),
            hidden=gather_branches(self.hidden, index),
        )

    def split_into_rows(self, index: Tensor) -> PrefixStates:
        """Copy branches into rows of their own, each with only the slots that it sees.

        Running many tokens after many branches costs less this way, since attention then skips the
        slots that only other branches see.

        Args:
            index: the row and the branch of each new row, `(n, 2)`.
        """
        rows, branches = index.unbind(-1)
        visible = self.visible[rows, branches]  # (n, slots)
        longest = int(visible.sum(-1).max())
        # A stable sort moves the visible slots to the end and keeps their order.
        order = visible.int().sort(dim=-1, stable=True)
        seen = order.indices[:, visible.shape[-1] - longest :]  # (n, longest)
        seen_visible = visible.gather(1, seen)  # False at the padding of shorter branches
        hidden = self.hidden[rows, branches]  # (n, hidden)

        def copy_slots(values: Tensor) -> Tensor:
            copied = values[rows[:, None], :, seen]  # (n, longest, kv_heads, head_dim)
            return copied.transpose(1, 2)

        return PrefixStates(
            layers=self._map_layers(copy_slots),
            visible=seen_visible[:, None],
            hidden=hidden[:, None],
        )

    def truncate_branches(self, lengths: Tensor) -> PrefixStates:
        """End each branch after the first `lengths` `(batch, branches)` of its tokens.

        A prefix does not depend on what follows it, so the states of a text serve every text that
        it starts with. `hidden` stays as it is and no longer belongs to the last tokens.
        """
        position = self.visible.cumsum(-1)  # (batch, branches, slots), counted from 1
        is_kept = position <= lengths[..., None]
        return replace(self, visible=self.visible & is_kept)

    def truncate_slots(self, slots: int, hidden: Tensor) -> PrefixStates:
        """Return to the states after the first `slots` slots.

        Args:
            slots: the number of slots to keep.
            hidden: the hidden states of the branches at that time, `(batch, branches, hidden)`.
        """
        return PrefixStates(
            layers=self._map_layers(lambda values: values[:, :, :slots]),
            visible=self.visible[..., :slots],
            hidden=hidden,
        )

    def average_values(self, row: int, tokens: int) -> tuple[Tensor, ...]:
        """Average the cached values of the last `tokens` tokens of a row's first branch.

        Returns:
            A vector for each layer, `(kv_heads * head_dim,)`, or nothing if there are no tokens.
        """
        if tokens == 0:
            return ()
        slots = self.visible[row, 0].nonzero()[-tokens:, 0]
        return tuple(values[row][:, slots].mean(1).flatten() for _, values in self.layers)

    def fork(self, n: int) -> PrefixStates:
        """Make `n` equal branches of a single one."""
        batch = len(self.visible)
        first = self.visible.new_zeros(batch, n, dtype=torch.long)
        return self.select_branches(first)

    def append_layers(self, new: Layers) -> Layers:
        """Return the keys and values of every layer with `new` ones in the slots after them."""
        if not self.layers:
            return new
        longer: list[tuple[Tensor, Tensor]] = []
        for (keys, values), (new_keys, new_values) in zip(self.layers, new, strict=True):
            both_keys = torch.cat([keys, new_keys], dim=-2)
            longer.append((both_keys, torch.cat([values, new_values], dim=-2)))
        return tuple(longer)

    def _map_layers(self, change: Callable[[Tensor], Tensor]) -> Layers:
        """Change the keys and the values of every layer in the same way."""
        return tuple((change(keys), change(values)) for keys, values in self.layers)


def gather_branches(values: Tensor, index: Tensor) -> Tensor:
    """Select along dimension 1 of `values` `(batch, branches, …)` with `index` `(batch, n)`."""
    rows = torch.arange(len(values), device=values.device)
    return values[rows[:, None], index]
