"""The attention that base models run with on a processor.

`transformers` offers two for a processor. "eager" writes the whole matrix of queries and keys, so
its memory grows with the square of the context. "sdpa" is fused and needs no such matrix, but it
first copies the cached keys and values once for every query head that shares them, and these copies
cost more than the attention itself if a few tokens (beams, θs) are read after a long prefix. Here
the query heads share their keys and values inside PyTorch's fused kernel, for a few tokens and for
whole prompts. `benchmarks/attention.py` measures it beside both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

SHARED_HEADS = "aspire_guard_shared_heads"

# For so few tokens reading the keys and values takes longest, and the query heads that share them are
# laid side by side as further tokens, so that the kernel reads them once. More tokens are faster apart.
_FEW_TOKENS = 8


def choose_attention(model: Any) -> None:
    """Switch a model on a processor to the fused attention that shares key-value heads.

    A model stays as it is if it runs on another device, or if its attention is more than a masked
    softmax (a bound on the scores, sinks, biases), which `transformers` runs by "eager" then.
    """
    config = model.config
    is_plain = config._attn_implementation in ("sdpa", "eager") and model._supports_sdpa
    is_bounded = getattr(config, "attn_logit_softcapping", None) is not None
    if model.device.type == "cpu" and is_plain and not is_bounded:
        model.set_attn_implementation(SHARED_HEADS)


def attend_with_shared_heads(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute attention in the form of `transformers`' attention functions.

    Args:
        module: the attention layer.
        query: `(batch, heads, tokens, head_dim)`.
        key: `(batch, kv_heads, slots, head_dim)`; `heads` is a multiple of `kv_heads`.
        value: like `key`.
        attention_mask: `(batch, 1, tokens, slots)`, added to the scores of every head, or True at the
            slots that a token sees. None if each token sees the tokens before it, and nothing else was
            cached.
        dropout: the share of weights dropped in training.
        scaling: the factor on the scores; by default 1 / √head_dim.
        is_causal: tells whether tokens see only those before them; by default as the layer says.

    Returns:
        `(batch, tokens, heads, head_dim)`, and None in the place of the weights.
    """
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    batch, heads, tokens, head_dim = query.shape
    groups = heads // key.shape[1]
    if query.requires_grad and query.dtype == torch.bfloat16 and attention_mask is not None:
        scale = head_dim**-0.5 if scaling is None else scaling
        return _attend_by_products(query, key, value, attention_mask, scale), None
    is_packed = attention_mask is not None and tokens <= _FEW_TOKENS and groups > 1
    if attention_mask is not None and is_packed:
        query = query.reshape(batch, -1, groups * tokens, head_dim)
        if tokens > 1:  # else the heads share the mask of the token
            attention_mask = attention_mask.repeat(1, 1, groups, 1)
    output = scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        scale=scaling,
        is_causal=is_causal and attention_mask is None and tokens > 1,
        enable_gqa=groups > 1 and not is_packed,
    )
    output = output.reshape(batch, heads, tokens, -1)
    return output.transpose(1, 2).contiguous(), None


def _attend_by_products(
    query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, scale: float
) -> Tensor:
    """Compute the attention as two matrix products around a softmax, which keeps the whole matrix of weights.

    In bfloat16, its gradient takes a third of the time of the fused kernel's. The arguments and the result are those of
    `attend_with_shared_heads`.
    """
    batch, heads, tokens, head_dim = query.shape
    kv_heads, slots = key.shape[1:3]
    groups = heads // kv_heads
    rows = query.reshape(batch * kv_heads, groups * tokens, head_dim)
    # (batch * kv_heads, groups * tokens, slots): the heads of a group see the same slots.
    mask = attention_mask[:, :, None].expand(batch, kv_heads, groups, tokens, slots)
    mask = mask.reshape(batch * kv_heads, groups * tokens, slots)
    keys, values = key.flatten(0, 1), value.flatten(0, 1)  # (batch * kv_heads, slots, head_dim)
    scores = torch.baddbmm(mask, rows, keys.transpose(1, 2), alpha=scale)
    output = torch.bmm(scores.softmax(-1), values).view(batch, heads, tokens, -1)
    return output.transpose(1, 2).contiguous()


AttentionInterface.register(SHARED_HEADS, attend_with_shared_heads)
AttentionMaskInterface.register(SHARED_HEADS, sdpa_mask)
