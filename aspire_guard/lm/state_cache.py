"""The caches of `transformers` that continue prefix states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from aspire_guard.lm.prefix_states import PrefixStates


class PassingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer of a cache that shows new keys and values to the attention once, and forgets them."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the keys and values of the layer with the new ones after them."""
        assert self.keys is not None
        assert self.values is not None
        keys = torch.cat([self.keys, key_states], dim=-2)
        values = torch.cat([self.values, value_states], dim=-2)
        return keys, values


def make_cache(states: PrefixStates, layer_type: type[DynamicLayer] = DynamicLayer) -> Any:
    """Make a cache that continues `states`.

    Every layer keeps all tokens, those with a window among them. The cache's constructor would copy all of the states
    first.
    """
    cache: Any = DynamicCache()
    for keys, values in states.layers:
        layer: Any = layer_type()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache
