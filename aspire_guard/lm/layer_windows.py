"""The windows of a model's layers: how far back each layer lets a token look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class LayerWindow:
    """The tokens that a layer shows to a token, among those before it.

    Attributes:
        size: their number, in tokens, the token itself among them.
        is_chunk: a text is cut into chunks of `size` tokens, and a token sees those of its own chunk. Otherwise it
            sees the last `size` tokens.
    """

    size: int
    is_chunk: bool = False

    def covers(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Tell for each query whether the window reaches each key, bool `(batch, queries, keys)`.

        Args:
            queries: the positions of the tokens that look, `(batch, queries)`.
            keys: the positions of the tokens that are looked at, `(batch, keys)`.
        """
        if self.is_chunk:
            return (queries // self.size)[:, :, None] == (keys // self.size)[:, None]
        return queries[:, :, None] - keys[:, None] < self.size


def list_layer_windows(config: Any) -> dict[str, LayerWindow | None]:
    """Map each type of layer of a model to its window, or to None if its layers see everything.

    The types have the names that `transformers` gives them. A model takes one mask for each if there are several.
    """
    sliding = getattr(config, "sliding_window", None)
    chunk = getattr(config, "attention_chunk_size", None)
    windows = {
        "sliding_attention": LayerWindow(sliding) if sliding else None,
        "chunked_attention": LayerWindow(chunk, is_chunk=True) if chunk else None,
    }
    layer_types = getattr(config, "layer_types", None)
    if layer_types is None:
        is_sliding = getattr(config, "use_sliding_window", True)
        layer_types = ["sliding_attention" if is_sliding else "full_attention"]
    return {layer_type: windows.get(layer_type) for layer_type in layer_types}
