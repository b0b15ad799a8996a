"""The states before θs, kept from epoch to epoch: they don't change while θs is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_trainers.labelled_answers import LabelledAnswers, by_passage

_GIB = 2**30


class KeptStates:
    """The states of `[θp ; x ; ŷ]` for batches of answers, without gradient.

    Args:
        aspire: the model under θp.
        gib: memory to keep states in, in GiB; those of batches that find no room are computed at every call.
    """

    def __init__(self, aspire: AspireLM, gib: float) -> None:
        self._aspire = aspire
        self._room = gib * _GIB
        self._kept: dict[tuple[LabelledAnswers, ...], PrefixStates] = {}

    def of(self, batch: Sequence[LabelledAnswers]) -> PrefixStates:
        """A row a passage of the batch, a branch an answer, in the order of `by_passage`."""
        key = tuple(batch)
        if key in self._kept:
            return self._kept[key]
        states = answered_states(self._aspire, batch)
        size = sum(tensor.nbytes for layer in states.layers for tensor in layer)
        if size <= self._room:
            self._room -= size
            self._kept[key] = states
        return states


@torch.no_grad()
def answered_states(aspire: AspireLM, batch: Sequence[LabelledAnswers]) -> PrefixStates:
    """The states of one batch, computed now."""
    return aspire.answer_branches(
        [[(item.question, item.context, text) for item in items for text in item.texts] for items in by_passage(batch)]
    )
