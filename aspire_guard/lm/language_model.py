"""A frozen causal language model, used through one operation: extend a prefix by tokens."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache, DynamicLayer

from aspire_guard.errors import InputError
from aspire_guard.lm.attention import choose_attention
from aspire_guard.lm.prefix_states import PrefixStates, gather_branches

_UNLIMITED = 2**31


@dataclass(frozen=True)
class LanguageModel:
    """A causal model of `transformers` and its tokenizer, with gradients switched off for the weights.

    Args:
        model: any decoder with rotary or learned absolute positions.
        tokenizer: its tokenizer.
        end: the text whose (last) token ends an answer, or None for the tokenizer's end token.
    """

    model: Any
    tokenizer: Any
    end: str | None = None

    def __post_init__(self) -> None:
        self.model.eval().requires_grad_(False)
        choose_attention(self.model)
        # A tokenizer keeps the settings of its last call. Set once and never changed, it serves several threads.
        self._encode("")

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.embedding_weight.device

    def to(self, dtype: torch.dtype) -> LanguageModel:
        """Return the same model with its weights in `dtype`, without changing this one."""
        if self.embedding_weight.dtype == dtype:
            return self
        model = copy.deepcopy(self.model)
        return replace(self, model=model.to(dtype))

    @property
    def embedding_weight(self) -> Tensor:
        """The input embeddings, `(vocabulary, dim)`."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    @property
    def attention_heads(self) -> int:
        """The number of query heads in each layer."""
        return int(self.model.config.num_attention_heads)

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens, that every layer sees as a whole: a sliding window limits it."""
        config = self.model.config
        positions = getattr(config, "max_position_embeddings", _UNLIMITED)
        limits = [positions, _UNLIMITED]
        window = getattr(config, "sliding_window", None)
        if window is not None and _has_sliding_layers(config):
            limits.append(window)
        return int(min(limits))

    @property
    def start_ids(self) -> Tensor:
        """The special tokens that begin every sequence, `(tokens,)`. Many models have no such tokens."""
        # An empty text would not show whether special tokens begin or end the sequence.
        whole = self._encode("a", add_special_tokens=True)
        text = self._encode("a")
        for start in range(len(whole)):
            if torch.equal(whole[start : start + len(text)], text):
                return whole[:start]
        return whole[:0]

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""
        if self.end is None:
            return int(self.tokenizer.eos_token_id)
        return int(self._encode(self.end)[-1])

    def token_ids(self, text: str) -> Tensor:
        """Return the ids of `text`, `(tokens,)`, without special tokens, even if the text spells some."""
        return self._encode(text)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the first character of each token of `text` and the end of its last character."""
        if self.tokenizer.is_fast:
            encoding = self.tokenizer(
                text,
                add_special_tokens=False,
                split_special_tokens=True,
                return_offsets_mapping=True,
            )
            return [tuple(offsets) for offsets in encoding.offset_mapping]
        ids = self.token_ids(text).tolist()
        ends = [len(self.tokenizer.decode(ids[:end])) for end in range(1, len(ids) + 1)]
        return list(zip([0, *ends], ends, strict=False))

    def embed(self, ids: Tensor) -> Tensor:
        """Return the input embeddings `(…, dim)` of `ids` `(…,)`."""
        embeddings: Tensor = self.model.get_input_embeddings()(ids)
        return embeddings

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the next-token logits `(…, vocabulary)` after `hidden` `(…, hidden)`, in float32."""
        head_logits: Tensor = self.model.get_output_embeddings()(hidden)
        return self.scale_logits(head_logits)

    def scale_logits(self, logits: Tensor) -> Tensor:
        """Turn the output head's logits into the model's, in float32.

        Some architectures bound them (Gemma 2), multiply them (Cohere) or divide them (Granite).
        """
        config = self.model.config
        cap = getattr(config, "final_logit_softcapping", None)
        factor = getattr(config, "logit_scale", None) or 1.0
        divisor = getattr(config, "logits_scaling", None) or 1.0
        logits = logits.float() * factor / divisor
        if cap is not None:
            logits = cap * (logits / cap).tanh()
        return logits

    def empty_states(self, batch: int) -> PrefixStates:
        """Return the states before any token, with one branch in each row."""
        no_slots = torch.zeros(batch, 1, 0, device=self.device)
        return PrefixStates(
            layers=(),
            visible=no_slots.bool(),
            hidden=torch.zeros(batch, 1, 1, device=self.device),
        )

    def prefill(self, rows: Sequence[Tensor]) -> PrefixStates:
        """Compute the states of one prefix per row, given as embeddings `(tokens, dim)` of any length."""
        embeddings, mask = pad(rows)
        states, _ = self.extend(
            self.empty_states(len(rows)),
            embeddings[:, None],
            mask[:, None],
        )
        return states

    def extend(
        self,
        states: PrefixStates,
        embeddings: Tensor,
        mask: Tensor,
    ) -> tuple[PrefixStates, Tensor]:
        """Run more tokens after every branch.

        Args:
            states: the states so far, with `branches` branches in each row.
            embeddings: the tokens' input embeddings, `(batch, branches, tokens, dim)`.
            mask: `(batch, branches, tokens)`, False at padding, which may stand anywhere.

        Returns:
            The longer states, and the final hidden states `(batch, branches, tokens, hidden)`.

        Raises:
            InputError: a branch would grow beyond the model's positions.
        """
        cache = _make_cache(states, DynamicLayer)
        hidden, sequence = self._run(states, embeddings, mask, cache)
        longer = PrefixStates(
            layers=tuple((layer.keys, layer.values) for layer in cache.layers),
            visible=_extend_visible(states, sequence),
            hidden=_find_last_hidden(states, hidden, mask),
        )
        return longer, hidden

    def extend_branches(
        self,
        states: PrefixStates,
        parts: Sequence[Sequence[Tensor]],
    ) -> PrefixStates:
        """Run tokens of its own after each branch.

        Args:
            states: the states so far.
            parts: embeddings `(tokens, dim)` of any length for the first branches of each row. The
                branches beyond them stay as they are.
        """
        embeddings, mask = _pad_branches(states, parts)
        if not embeddings.shape[2]:
            return states
        longer, _ = self.extend(states, embeddings, mask)
        return longer

    def read_after_branches(
        self,
        states: PrefixStates,
        parts: Sequence[Sequence[Tensor]],
    ) -> Tensor:
        """Run tokens of its own after each branch, and keep nothing but where they lead.

        The keys and values of a layer are joined with those of the tokens only while the layer runs.
        A verdict over a long context therefore needs no second copy of the context's states.

        Args:
            states: the states so far.
            parts: as for `extend_branches`.

        Returns:
            The final hidden state of each branch's last token, `(batch, branches, hidden)`.
        """
        embeddings, mask = _pad_branches(states, parts)
        if not embeddings.shape[2]:
            return states.hidden
        cache = _make_cache(states, _PassingLayer)
        hidden, _ = self._run(states, embeddings, mask, cache)
        return _find_last_hidden(states, hidden, mask)

    def _run(
        self,
        states: PrefixStates,
        embeddings: Tensor,
        mask: Tensor,
        cache: Any,
    ) -> tuple[Tensor, _Sequence]:
        """Run `embeddings` `(batch, branches, tokens, dim)` after the states that `cache` continues.

        Returns:
            The final hidden states `(batch, branches, tokens, hidden)`, and how the tokens were run.
        """
        branches, tokens = mask.shape[1:]
        # The branches of a row are run as one sequence, laid end to end.
        sequence = _drop_padding(mask)
        positions = _find_positions(states, mask, sequence)  # (batch, run)
        self._check_length(int(positions.max()) + 1)

        inputs = embeddings.flatten(1, 2)  # (batch, branches * tokens, dim)
        inputs = inputs.gather(1, _expand_index(sequence.order, inputs))  # (batch, run, dim)
        _prepare_for_forks()
        output = self.model.base_model(
            inputs_embeds=inputs,
            attention_mask=_make_attention_mask(states, sequence, embeddings.dtype),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )

        # Put the hidden states of the tokens back in their places among the padding.
        run = output.last_hidden_state  # (batch, run, hidden)
        batch, _, dim = run.shape
        places = _expand_index(sequence.order, run)
        hidden = run.new_zeros(batch, branches * tokens, dim).scatter(1, places, run)
        return hidden.unflatten(1, (branches, tokens)), sequence

    def _encode(self, text: str, *, add_special_tokens: bool = False) -> Tensor:
        encoding = self.tokenizer(
            text,
            add_special_tokens=add_special_tokens,
            split_special_tokens=True,
        )
        return torch.tensor(
            encoding.input_ids,
            dtype=torch.long,  # also if the text is empty
            device=self.device,
        )

    def _check_length(self, tokens: int) -> None:
        if tokens > self.max_length:
            raise InputError(
                f"expected at most {self.max_length} tokens of question, context and answer, found {tokens}; "
                "shorten the context or use an evaluator whose base model has a longer window"
            )


@cache
def _prepare_for_forks() -> None:
    """Let a child that is forked from now on compute with one thread.

    It has none of the threads that torch has started in this process, and would wait for them forever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack rows `(tokens, …)` of different lengths.

    Returns:
        The values `(batch, longest, …)`, zero at the padding, and the mask `(batch, longest)`,
        False at the padding.
    """
    device = rows[0].device
    lengths = torch.tensor([len(row) for row in rows], device=device)
    values = pad_sequence(list(rows), batch_first=True)
    columns = torch.arange(values.shape[1], device=device)
    mask = columns < lengths[:, None]
    return values, mask


def add_end_token(
    lm: LanguageModel,
    *,
    means: Tensor,
    lengths: Tensor,
    hidden: Tensor,
    cut: Tensor,
) -> Tensor:
    """Include the end token in the mean log-probability of each answer that was cut before it.

    Otherwise a text would have one log f_norm where it is generated and another where it is read,
    and an answer would look better for having no end.

    Args:
        lm: the model that answered.
        means: mean log-probability of each answer's tokens, in nats, `(batch, k)`.
        lengths: the number of those tokens, `(batch, k)`.
        hidden: the hidden state that predicts the token after each answer, `(batch, k, hidden)`.
        cut: which answers were cut, bool `(batch, k)`.
    """
    log_p = lm.logits(hidden[cut]).log_softmax(-1)  # (cut answers, vocabulary)
    log_p_end = log_p[:, lm.end_id]
    tokens = lengths[cut]
    sums = means[cut] * tokens + log_p_end
    return means.masked_scatter(cut, sums / (tokens + 1))


@dataclass(frozen=True)
class _Sequence:
    """The tokens of each row's branches, laid end to end and without most of their padding.

    Attributes:
        order: places of the tokens among the row's `branches * tokens` places, `(batch, run)`.
        branch: the branch of each token, `(batch, run)`.
        is_real: False at the padding of rows with fewer tokens than others, `(batch, run)`.
    """

    order: Tensor
    branch: Tensor
    is_real: Tensor


def _drop_padding(mask: Tensor) -> _Sequence:
    """Lay the branches of `mask` `(batch, branches, tokens)` end to end without the padding between them.

    Answers of very different lengths are branches of one row. Their padding is not run.
    """
    flat = mask.flatten(1)  # (batch, branches * tokens)
    longest = int(flat.sum(-1).max())
    # A stable sort moves the real tokens to the front and keeps their order.
    real_first = flat.int().sort(
        dim=-1,
        descending=True,
        stable=True,
    )
    order = real_first.indices[:, : max(1, longest)]
    tokens = mask.shape[-1]
    return _Sequence(
        order=order,
        branch=order // tokens,
        is_real=flat.gather(1, order),
    )


def _expand_index(index: Tensor, values: Tensor) -> Tensor:
    """Repeat `index` `(batch, n)` over the last dimension of `values` `(batch, …, dim)`, for gather and scatter."""
    dim = values.shape[-1]
    return index[..., None].expand(-1, -1, dim)


class _PassingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer of a cache that shows new keys and values to the attention once, and forgets them."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        keys = torch.cat([self.keys, key_states], dim=-2)
        values = torch.cat([self.values, value_states], dim=-2)
        return keys, values


def _pad_branches(states: PrefixStates, parts: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
    """Stack the tokens that follow each branch, with no tokens after the branches beyond `parts`.

    Returns:
        Embeddings `(batch, branches, tokens, dim)` and their mask `(batch, branches, tokens)`.
    """
    branches = states.visible.shape[1]
    no_tokens = next(chain.from_iterable(parts))[:0]
    flat: list[Tensor] = []
    for row in parts:
        flat.extend(row)
        flat.extend([no_tokens] * (branches - len(row)))
    embeddings, mask = pad(flat)  # (batch * branches, tokens, dim)
    tokens, dim = embeddings.shape[1:]
    shape = (len(parts), branches, tokens)
    return embeddings.view(*shape, dim), mask.view(shape)


def _make_cache(states: PrefixStates, layer_type: type[DynamicLayer]) -> Any:
    """Make a cache that continues `states`.

    The cache's constructor would copy all of the states first.
    """
    cache: Any = DynamicCache()
    for keys, values in states.layers:
        layer: Any = layer_type()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def _make_attention_mask(
    states: PrefixStates,
    sequence: _Sequence,
    dtype: torch.dtype,
) -> Tensor | None:
    """Return a mask in the form that every attention implementation takes, or None for plain causal order.

    Single sequences from their start need causal order alone. Without a mask the fastest kernel then
    leaves out the half that is not seen.

    Returns:
        `(batch, 1, queries, keys)`: 0 if the query sees the key, else the lowest number of `dtype`.
    """
    if not states.layers and states.visible.shape[1] == 1:
        return None
    order, branch = sequence.order, sequence.branch
    sees_cache = gather_branches(states.visible, branch)  # (batch, run, slots)
    is_same_branch = branch[:, :, None] == branch[:, None]  # (batch, run, run)
    is_not_later = order[:, :, None] >= order[:, None]
    sees_token = is_same_branch & is_not_later & sequence.is_real[:, None]
    # A padding token may see nothing else, so it sees itself. A softmax over nothing would be NaN.
    places = torch.arange(order.shape[1], device=order.device)
    is_itself = places[:, None] == places
    sees = torch.cat([sees_cache, sees_token | is_itself], dim=-1)  # (batch, run, slots + run)
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    mask.masked_fill_(~sees, torch.finfo(dtype).min)
    return mask[:, None]


def _find_positions(states: PrefixStates, mask: Tensor, sequence: _Sequence) -> Tensor:
    """Return the position of each token in its branch, `(batch, run)`."""
    positions = states.lengths[..., None] + mask.cumsum(-1) - 1  # (batch, branches, tokens)
    positions = positions.flatten(1).gather(1, sequence.order)
    # Padding before the first token of a branch would get position -1.
    return positions.clamp(min=0)


def _extend_visible(states: PrefixStates, sequence: _Sequence) -> Tensor:
    """Let each branch see the slots of its own new tokens, `(batch, branches, slots + run)`."""
    branches = states.visible.shape[1]
    numbers = torch.arange(branches, device=sequence.branch.device)
    is_own = sequence.branch[:, None] == numbers[:, None]  # (batch, branches, run)
    new_visible = is_own & sequence.is_real[:, None]
    return torch.cat([states.visible, new_visible], dim=-1)


def _find_last_hidden(states: PrefixStates, hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the hidden states at each branch's last real token, `(batch, branches, hidden)`.

    A branch that got no token keeps its state.
    """
    batch, branches, tokens = mask.shape
    place = torch.arange(tokens, device=mask.device)
    last = (mask * place).argmax(-1)  # (batch, branches)
    flat = hidden.flatten(0, 1)  # (batch * branches, tokens, hidden)
    new = gather_branches(flat, last.flatten()[:, None])  # (batch * branches, 1, hidden)
    new = new.view(batch, branches, -1)
    if not states.layers:
        return new
    has_tokens = mask.any(-1, keepdim=True)
    return torch.where(has_tokens, new, states.hidden)


def _has_sliding_layers(config: Any) -> bool:
    """Tell whether some layer of a model with a sliding window uses it."""
    layer_types = getattr(config, "layer_types", None)
    if layer_types is None:
        return bool(getattr(config, "use_sliding_window", True))
    return "sliding_attention" in layer_types
