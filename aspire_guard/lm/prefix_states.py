"""The states that a language model has computed for a prefix, and what may be read after it.

A prefix is a tree: every row of the batch holds one key-value cache, and each of the
row's branches sees its own part of the cached slots. Beams, sampled answers and the
self-evaluation suffix are all branches of the prompt they share, so the prompt is
computed once and never copied per branch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class PrefixStates:
    """Immutable states of a batch of prefixes.

    Attributes:
        layers: for every layer the cached keys and values, each `(batch, kv_heads, slots, head_dim)`.
        visible: `(batch, branches, slots)`, bool: the slots that a branch attends to. Padding is visible to none.
        hidden: `(batch, branches, hidden)`: the final hidden state of each branch's last token.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    visible: Tensor
    hidden: Tensor

    @property
    def lengths(self) -> Tensor:
        """`(batch, branches)`: tokens of each branch, which is the position of its next token."""
        return self.visible.sum(-1)

    def rows(self, index: Tensor) -> PrefixStates:
        """The rows at `index` `(rows,)`; a row may be taken several times (its cache is then copied)."""
        layers = tuple((k.index_select(0, index), v.index_select(0, index)) for k, v in self.layers)
        return PrefixStates(
            layers, self.visible.index_select(0, index), self.hidden.index_select(0, index)
        )

    def branches(self, index: Tensor) -> PrefixStates:
        """The branches at `index` `(batch, n)` of each row; the cache is shared, not copied."""
        return replace(
            self,
            visible=gather_branches(self.visible, index),
            hidden=gather_branches(self.hidden, index),
        )

    def separate(self, index: Tensor) -> PrefixStates:
        """The branches at `index` `(n, 2)`, of (row, branch), as rows of their own: copies of the slots each sees.

        Many tokens after many branches cost less this way, since attention goes over no slot that only others see.
        """
        rows, branches = index.unbind(-1)
        visible = self.visible[rows, branches]
        seen = visible.sum(-1)
        slots = (
            visible.int().sort(dim=-1, descending=True, stable=True).indices[:, : int(seen.max())]
        )
        layers = tuple(
            (k[rows[:, None], :, slots].transpose(1, 2), v[rows[:, None], :, slots].transpose(1, 2))
            for k, v in self.layers
        )
        return PrefixStates(
            layers, visible.gather(1, slots)[:, None], self.hidden[rows, branches][:, None]
        )

    def up_to(self, lengths: Tensor) -> PrefixStates:
        """Branches that end after `lengths` `(batch, branches)` of their tokens; `hidden` stays, and is theirs no more.

        As a prefix has no part in what follows it, the states of a text serve all texts that it begins with.
        """
        return replace(self, visible=self.visible & (self.visible.cumsum(-1) <= lengths[..., None]))

    def first(self, slots: int, hidden: Tensor) -> PrefixStates:
        """The states as they were after the first `slots` slots, with the `hidden` that each branch had then."""
        layers = tuple((k[:, :, :slots], v[:, :, :slots]) for k, v in self.layers)
        return PrefixStates(layers, self.visible[..., :slots], hidden)

    def fork(self, n: int) -> PrefixStates:
        """`n` equal branches out of a single one."""
        return self.branches(
            torch.zeros(len(self.visible), n, dtype=torch.long, device=self.visible.device)
        )


def gather_branches(values: Tensor, index: Tensor) -> Tensor:
    """Pick along dimension 1 of `values` `(batch, branches, …)` with `index` `(batch, n)`."""
    rows = torch.arange(len(values), device=values.device)[:, None]
    return values[rows, index]
