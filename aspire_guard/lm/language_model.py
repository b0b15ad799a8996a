"""A frozen causal language model, seen as one operation: extend a prefix by tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache, DynamicLayer

from aspire_guard.errors import InputError
from aspire_guard.lm.prefix_states import PrefixStates, gather_branches

# What follows the output head: a bound (Gemma 2), a factor (Cohere), a divisor (Granite).
_AFTER_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling")


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
        window, layers = (
            getattr(config, "sliding_window", None),
            getattr(config, "layer_types", None),
        )
        slides = (
            getattr(config, "use_sliding_window", True)
            if layers is None
            else "sliding_attention" in layers
        )
        windows = [window] if window is not None and slides else []
        return int(min(getattr(config, "max_position_embeddings", 2**31), *windows, 2**31))

    @property
    def start_ids(self) -> Tensor:
        """`(tokens,)`: the special tokens that begin every sequence; none for many models."""
        # Of "" alone one could not tell them from special tokens that end every sequence.
        whole, text = (self._encode("a", add_special_tokens=special) for special in (True, False))
        places = (n for n in range(len(whole)) if torch.equal(whole[n : n + len(text)], text))
        return whole[: next(places, 0)]

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
        return self.scale_logits(self.model.get_output_embeddings()(hidden))

    def scale_logits(self, logits: Tensor) -> Tensor:
        """Raw logits as the model means them, in float32: some architectures scale or bound them after the head."""
        cap, times, by = (getattr(self.model.config, name, None) for name in _AFTER_HEAD)
        logits = logits.float() * (times or 1.0) / (by or 1.0)
        return logits if cap is None else cap * (logits / cap).tanh()

    def empty(self, batch: int) -> PrefixStates:
        """The states before any token."""
        hidden = torch.zeros(batch, 1, 1, device=self.device)
        return PrefixStates(
            (), torch.zeros(batch, 1, 0, dtype=torch.bool, device=self.device), hidden
        )

    def prefill(self, rows: Sequence[Tensor]) -> PrefixStates:
        """States of one prefix a row, each given as embeddings `(tokens, dim)` of any length."""
        embeddings, mask = pad(rows)
        return self.extend(self.empty(len(rows)), embeddings[:, None], mask[:, None])[0]

    def extend(
        self, states: PrefixStates, embeddings: Tensor, mask: Tensor
    ) -> tuple[PrefixStates, Tensor]:
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
        branches, tokens = mask.shape[1:]
        order, real = _without_padding(mask)
        branch = order // tokens
        positions = (
            (states.lengths[..., None] + mask.cumsum(-1) - 1)
            .flatten(1)
            .gather(1, order)
            .clamp(min=0)
        )
        self._check_length(int(positions.max()) + 1)
        past = _cache(states)
        output = self.model.base_model(
            inputs_embeds=embeddings.flatten(1, 2).gather(1, _along(order, embeddings)),
            attention_mask=_attention_mask(states, order, branch, real, embeddings.dtype),
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
        )
        run = output.last_hidden_state
        hidden = run.new_zeros(len(run), branches * tokens, run.shape[-1]).scatter(
            1, _along(order, run), run
        )
        hidden = hidden.unflatten(1, (branches, tokens))
        layers = tuple((layer.keys, layer.values) for layer in past.layers)
        own = (branch[:, None] == torch.arange(branches, device=branch.device)[:, None]) & real[
            :, None
        ]
        visible = torch.cat([states.visible, own], dim=-1)
        return PrefixStates(layers, visible, _last_hidden(states, hidden, mask)), hidden

    def _encode(self, text: str, *, add_special_tokens: bool = False) -> Tensor:
        ids = self.tokenizer(
            text, add_special_tokens=add_special_tokens, split_special_tokens=True
        ).input_ids
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


def _cache(states: PrefixStates) -> Any:
    """A cache that goes on from `states`; given to its constructor, all of them would be copied first."""
    cache: Any = DynamicCache()
    for keys, values in states.layers:
        layer: Any = DynamicLayer()  # type: ignore[no-untyped-call]
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def _without_padding(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The places of each row's tokens in its branches laid end to end, and which of them count, `(batch, most)` each.

    Answers of very different lengths are branches of one row: their padding is left out, not run.
    """
    flat = mask.flatten(1)
    most = max(1, int(flat.sum(-1).max()))
    order = flat.int().sort(dim=-1, descending=True, stable=True).indices[:, :most]
    return order, flat.gather(1, order)


def _along(order: Tensor, values: Tensor) -> Tensor:
    """`order` `(batch, n)` as an index into the last but one dimension of `values` `(…, dim)`."""
    return order[..., None].expand(-1, -1, values.shape[-1])


def _attention_mask(
    states: PrefixStates, order: Tensor, branch: Tensor, real: Tensor, dtype: torch.dtype
) -> Tensor | None:
    """What every attention implementation takes: `(batch, 1, queries, keys)`, 0 or −∞.

    None where causal order alone decides, in single sequences from their start: the fastest kernel then leaves out
    the half that is not seen.
    """
    if not states.layers and states.visible.shape[1] == 1:
        return None
    before = gather_branches(states.visible, branch)
    among = (
        (branch[:, :, None] == branch[:, None])
        & (order[:, :, None] >= order[:, None])
        & real[:, None]
    )
    # A padding token may see nothing else: it sees itself, or the softmax over nothing would be NaN.
    among = among | torch.eye(order.shape[1], dtype=torch.bool, device=order.device)
    seen = torch.cat([before, among], dim=-1)
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


def add_end_token(
    lm: LanguageModel, means: Tensor, lengths: Tensor, hidden: Tensor, cut: Tensor
) -> Tensor:
    """Mean log-probabilities of answers, the end token's included also after those that were cut before it.

    Without it a text would have another log f_norm where it is generated than where it is read, and an answer would
    look the better for not having come to its end.

    Args:
        lm: the model that answered.
        means: `(batch, k)`: mean log-probability of each answer's tokens, in nats.
        lengths: `(batch, k)`: how many tokens that is.
        hidden: `(batch, k, hidden)`: what predicts the token after each.
        cut: `(batch, k)`: which answers were cut.
    """
    log_end = lm.logits(hidden[cut]).log_softmax(-1)[:, lm.end_id]
    n = lengths[cut]
    return means.masked_scatter(cut, (means[cut] * n + log_end) / (n + 1))
