"""A frozen causal language model, seen as one operation: extend a prefix by tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from aspire_guard.errors import InputError
from aspire_guard.lm.prefix_states import PrefixStates, gather_branches


@dataclass(frozen=True)
class LanguageModel:
    """A causal model of `transformers` and its tokenizer, with gradients switched off for the weights.

    Args:
        model: any decoder with rotary or learned absolute positions.
        tokenizer: its tokenizer.
        end: the text whose (last) token ends an answer; None: the tokenizer's end token.
    """

    model: Any
    tokenizer: Any
    end: str | None = None

    def __post_init__(self) -> None:
        self.model.eval().requires_grad_(False)
        # A tokenizer keeps the settings of its last call: set once and never changed, it serves several threads.
        self._encode("")

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.embedding_weight.device

    def to(self, dtype: torch.dtype) -> LanguageModel:
        """The same model with its weights in `dtype`; this one stays as it is."""
        if self.embedding_weight.dtype == dtype:
            return self
        return replace(self, model=copy.deepcopy(self.model).to(dtype))

    @property
    def embedding_weight(self) -> Tensor:
        """`(vocabulary, dim)`: the input embeddings."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens, that every layer sees whole: a sliding window ends it."""
        config = self.model.config
        windows = [config.sliding_window] if "sliding_attention" in (getattr(config, "layer_types", None) or []) else []
        return int(min(getattr(config, "max_position_embeddings", 2**31), *windows, 2**31))

    @property
    def start_ids(self) -> Tensor:
        """`(tokens,)`: the special tokens that begin every sequence; none for many models."""
        return self._encode("", add_special_tokens=True)

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""
        return int(self.tokenizer.eos_token_id if self.end is None else self._encode(self.end)[-1])

    def token_ids(self, text: str) -> Tensor:
        """`(tokens,)`: the ids of `text`, without special tokens, whatever markers the text may hold."""
        return self._encode(text)

    def embed(self, ids: Tensor) -> Tensor:
        """`(…, dim)`: the input embeddings of `ids` `(…,)`."""
        embeddings: Tensor = self.model.get_input_embeddings()(ids)
        return embeddings

    def logits(self, hidden: Tensor) -> Tensor:
        """`(…, vocabulary)`: next-token logits after `hidden` `(…, hidden)`, in float32."""
        return self.capped(self.model.get_output_embeddings()(hidden))

    def capped(self, logits: Tensor) -> Tensor:
        """Raw logits as the model means them, in float32: some architectures bound them."""
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return logits.float() if cap is None else cap * (logits.float() / cap).tanh()

    def empty(self, batch: int) -> PrefixStates:
        """The states before any token."""
        hidden = torch.zeros(batch, 1, 1, device=self.device)
        return PrefixStates((), torch.zeros(batch, 1, 0, dtype=torch.bool, device=self.device), hidden)

    def prefill(self, rows: Sequence[Tensor]) -> PrefixStates:
        """States of one prefix a row, each given as embeddings `(tokens, dim)` of any length."""
        embeddings, mask = pad(rows)
        return self.extend(self.empty(len(rows)), embeddings[:, None], mask[:, None])[0]

    def extend(self, states: PrefixStates, embeddings: Tensor, mask: Tensor) -> tuple[PrefixStates, Tensor]:
        """Run more tokens after every branch.

        Args:
            states: what has been computed so far, `branches` branches a row.
            embeddings: `(batch, branches, tokens, dim)`.
            mask: `(batch, branches, tokens)`, False at padding, which may stand anywhere.

        Returns:
            The longer states, and the final hidden states `(batch, branches, tokens, hidden)`.

        Raises:
            InputError: a branch would grow beyond the model's positions.
        """
        _, branches, tokens, _ = embeddings.shape
        positions = states.lengths[..., None] + mask.cumsum(-1) - 1
        self._check_length(int(positions.max()) + 1)
        seen = _visibility(states.visible, mask)
        past: Any = DynamicCache(states.layers) if states.layers else DynamicCache()
        output = self.model.base_model(
            inputs_embeds=embeddings.flatten(1, 2),
            attention_mask=_additive(seen, embeddings.dtype),
            position_ids=positions.clamp(min=0).flatten(1, 2),
            past_key_values=past,
            use_cache=True,
        )
        hidden = output.last_hidden_state.unflatten(1, (branches, tokens))
        layers = tuple((layer.keys, layer.values) for layer in past.layers)
        own = torch.eye(branches, dtype=torch.bool, device=mask.device)[None, :, :, None] & mask[:, None]
        visible = torch.cat([states.visible, own.flatten(2)], dim=-1)
        return PrefixStates(layers, visible, _last_hidden(states, hidden, mask)), hidden

    def _encode(self, text: str, *, add_special_tokens: bool = False) -> Tensor:
        ids = self.tokenizer(text, add_special_tokens=add_special_tokens, split_special_tokens=True).input_ids
        return torch.tensor(ids, dtype=torch.long, device=self.device)

    def _check_length(self, tokens: int) -> None:
        if tokens > self.max_length:
            raise InputError(
                f"expected at most {self.max_length} tokens of question, context and answer, found {tokens}; "
                "shorten the context or use an evaluator whose base model has a longer window"
            )


def pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack `rows` `(tokens, …)` of differing lengths: values `(batch, longest, …)` and mask `(batch, longest)`."""
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    values = pad_sequence(list(rows), batch_first=True)
    return values, torch.arange(values.shape[1], device=lengths.device) < lengths[:, None]


def _visibility(visible: Tensor, mask: Tensor) -> Tensor:
    """`(batch, branches × tokens, slots + branches × tokens)`: what each new token attends to."""
    _, branches, tokens = mask.shape
    before = visible[:, :, None].expand(-1, -1, tokens, -1).flatten(1, 2)
    order = torch.arange(tokens, device=mask.device)
    same_branch = torch.eye(branches, dtype=torch.bool, device=mask.device)
    causal = same_branch[:, None, :, None] & (order[:, None, None] >= order)
    among = (causal & mask[:, None, None]).flatten(3, 4).flatten(1, 2)
    # A padding token may see nothing else: it sees itself, or the softmax over nothing would be NaN.
    among = among | torch.eye(branches * tokens, dtype=torch.bool, device=mask.device)
    return torch.cat([before, among], dim=-1)


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask in the form that every attention implementation takes: `(batch, 1, queries, keys)`, 0 or −∞."""
    bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return bias.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def _last_hidden(states: PrefixStates, hidden: Tensor, mask: Tensor) -> Tensor:
    """`(batch, branches, hidden)` at each branch's last real token; a branch that got none keeps what it had."""
    order = torch.arange(mask.shape[-1], device=mask.device)
    last = (mask * order).argmax(-1)
    new = gather_branches(hidden.flatten(0, 1), last.flatten()[:, None])[:, 0].view(*last.shape, -1)
    if not states.layers:
        return new
    return torch.where(mask.any(-1, keepdim=True), new, states.hidden)
