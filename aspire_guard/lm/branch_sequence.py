"""The new tokens of all branches of a row as one sequence, and what each of them sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from aspire_guard.lm.layer_windows import LayerWindow
from aspire_guard.lm.prefix_states import PrefixStates, gather_branches


@dataclass(frozen=True)
class BranchSequence:
    """The tokens of each row's branches, laid end to end and without most of their padding.

    Attributes:
        order: places of the tokens among the row's `branches * tokens` places, `(batch, run)`.
        branch: the branch of each token, `(batch, run)`.
        positions: the position of each token in its branch, `(batch, run)`.
        is_real: False at the padding of rows with fewer tokens than others, `(batch, run)`.
    """

    order: Tensor
    branch: Tensor
    positions: Tensor
    is_real: Tensor

    @classmethod
    def from_branches(cls, states: PrefixStates, mask: Tensor) -> BranchSequence:
        """Lay the branches of `mask` `(batch, branches, tokens)` end to end without the padding between them.

        Answers of very different lengths are branches of one row. Their padding is not run.

        Args:
            states: the states that the tokens follow.
            mask: False at padding, which may stand anywhere.
        """
        order, is_real = sort_padding_out(mask.flatten(1))
        positions = states.lengths[..., None] + mask.cumsum(-1) - 1  # (batch, branches, tokens)
        return cls(
            order=order,
            branch=order // mask.shape[-1],
            # Padding before the first token of a branch would get position -1.
            positions=positions.flatten(1).gather(1, order).clamp(min=0),
            is_real=is_real,
        )

    def select(self, values: Tensor) -> Tensor:
        """Select the tokens' values `(batch, run, dim)` of `values` `(batch, branches, tokens, dim)`."""
        flat = values.flatten(1, 2)
        return flat.gather(1, expand_index(self.order, flat))

    def restore(self, run: Tensor, branches: int, tokens: int) -> Tensor:
        """Put `run` `(batch, run, dim)` back in its places, `(batch, branches, tokens, dim)`."""
        batch, _, dim = run.shape
        places = expand_index(self.order, run)
        values = run.new_zeros(batch, branches * tokens, dim).scatter(1, places, run)
        return values.view(batch, branches, tokens, dim)

    def extend_visible(self, visible: Tensor) -> Tensor:
        """Let each branch see the slots of its own new tokens, `(batch, branches, slots + run)`."""
        numbers = torch.arange(visible.shape[1], device=visible.device)
        is_own = self.branch[:, None] == numbers[:, None]  # (batch, branches, run)
        new_visible = is_own & self.is_real[:, None]
        return torch.cat([visible, new_visible], dim=-1)


def make_attention_masks(
    states: PrefixStates,
    sequence: BranchSequence,
    windows: Mapping[str, LayerWindow | None],
    dtype: torch.dtype,
) -> dict[str, Tensor] | Tensor | None:
    """Return masks in the form that every attention implementation takes, or None for plain causal order.

    Single sequences from their start need causal order alone, which a model restricts to the windows of its layers by
    itself. Without a mask the fastest kernel then leaves out the half that is not seen.

    Args:
        states: the states that the tokens follow.
        sequence: the tokens.
        windows: the window of each type of layer; see `list_layer_windows`.
        dtype: the precision of the model.

    Returns:
        A mask for all layers, or one for each type of layer if they differ, each `(batch, 1, queries, keys)`: 0 if the
        query sees the key, else the lowest number of `dtype`.
    """
    if not states.layers and states.visible.shape[1] == 1:
        return None
    sees = _find_seen_keys(states, sequence)
    reach = [window.size for window in windows.values() if window is not None]
    if not reach or int(sequence.positions.max()) < min(reach):
        return _make_mask(sees, dtype)
    keys = torch.cat([_find_slot_positions(states), sequence.positions], dim=-1)
    masks: dict[str, Tensor] = {}
    for layer_type, window in windows.items():
        seen = sees if window is None else sees & window.covers(sequence.positions, keys)
        masks[layer_type] = _make_mask(seen, dtype)
    # Models whose layers are all alike know no masks by type.
    return masks if len(masks) > 1 else next(iter(masks.values()))


def sort_padding_out(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sort the real places of each row of `mask` `(batch, places)` to its front, in their order.

    Returns:
        The places, as many as the longest row has, `(batch, longest)`, and False at those that are still padding.
    """
    longest = int(mask.sum(-1).max())
    real_first = mask.int().sort(
        dim=-1,
        descending=True,
        stable=True,  # keeps their order
    )
    order = real_first.indices[:, : max(1, longest)]
    return order, mask.gather(1, order)


def expand_index(index: Tensor, values: Tensor) -> Tensor:
    """Repeat `index` `(batch, n)` over the last dimension of `values` `(batch, …, dim)`, for gather and scatter."""
    dim = values.shape[-1]
    return index[..., None].expand(-1, -1, dim)


def _find_seen_keys(states: PrefixStates, sequence: BranchSequence) -> Tensor:
    """Tell which slots and which new tokens each token sees, bool `(batch, run, slots + run)`."""
    order, branch = sequence.order, sequence.branch
    sees_cache = gather_branches(states.visible, branch)  # (batch, run, slots)
    is_same_branch = branch[:, :, None] == branch[:, None]  # (batch, run, run)
    is_not_later = order[:, :, None] >= order[:, None]
    sees_token = is_same_branch & is_not_later & sequence.is_real[:, None]
    # A padding token may see nothing else, so it sees itself. A softmax over nothing would be NaN.
    places = torch.arange(order.shape[1], device=order.device)
    is_itself = places[:, None] == places
    return torch.cat([sees_cache, sees_token | is_itself], dim=-1)


def _find_slot_positions(states: PrefixStates) -> Tensor:
    """Return the position of each slot's token, `(batch, slots)`: it is the same in all branches that see the slot."""
    positions = states.visible.cumsum(-1) - 1  # (batch, branches, slots)
    return (positions * states.visible).amax(1)


def _make_mask(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn what each token sees `(batch, queries, keys)` into numbers that are added to the scores of all heads."""
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    mask.masked_fill_(~sees, torch.finfo(dtype).min)
    return mask[:, None]
