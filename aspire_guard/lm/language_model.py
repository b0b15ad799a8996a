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
from transformers.cache_utils import DynamicLayer

from aspire_guard.errors import InputError
from aspire_guard.lm.attention import choose_attention
from aspire_guard.lm.branch_sequence import BranchSequence, make_attention_masks
from aspire_guard.lm.layer_windows import list_layer_windows
from aspire_guard.lm.own_rows import can_share_rows, run_in_own_rows
from aspire_guard.lm.prefix_states import Layers, PrefixStates, gather_branches
from aspire_guard.lm.rope_limit import find_rope_limit
from aspire_guard.lm.state_cache import PassingLayer, make_cache

_UNLIMITED = 2**31


@dataclass(frozen=True)
class LanguageModel:
    """A causal model of `transformers` and its tokenizer, with gradients switched off for the weights.

    Args:
        model: any decoder with attention over keys and values: rotary or learned positions, a bias for distances
            (ALiBi), windows.
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
        return int(self.config.num_attention_heads)

    @property
    def config(self) -> Any:
        """The settings of the text model. A model that also sees or hears keeps them inside its own."""
        return self.model.config.get_text_config()

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens, that the model has positions for."""
        positions = getattr(self.config, "max_position_embeddings", None)
        # MPT gives its bias for distances a size of its own.
        positions = positions or getattr(self.config, "max_seq_len", None) or _UNLIMITED
        return int(min(positions, find_rope_limit(self.config)))

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
        config = self.config
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
        sequence = BranchSequence.from_branches(states, mask)
        hidden, layers = self._run(states, embeddings, sequence, keep=True)
        longer = PrefixStates(
            layers=layers,
            visible=sequence.extend_visible(states.visible),
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
        sequence = BranchSequence.from_branches(states, mask)
        hidden, _ = self._run(states, embeddings, sequence, keep=False)
        return _find_last_hidden(states, hidden, mask)

    def _run(
        self,
        states: PrefixStates,
        embeddings: Tensor,
        sequence: BranchSequence,
        *,
        keep: bool,
    ) -> tuple[Tensor, Layers]:
        """Run `embeddings` `(batch, branches, tokens, dim)` after the states.

        Returns:
            The final hidden states `(batch, branches, tokens, hidden)`, and the longer keys and values of every layer
            if they are to be kept.
        """
        branches, tokens = embeddings.shape[1:3]
        self._check_length(int(sequence.positions.max()) + 1)
        _prepare_for_forks()
        decoder = self._decoder
        if can_share_rows(decoder):
            cache = make_cache(states, DynamicLayer if keep else PassingLayer)
            windows = list_layer_windows(self.config)
            output = decoder(
                inputs_embeds=sequence.select(embeddings),
                attention_mask=make_attention_masks(states, sequence, windows, embeddings.dtype),
                position_ids=sequence.positions,
                past_key_values=cache,
                use_cache=True,
            )
            run = output.last_hidden_state  # (batch, run, hidden)
            layers = tuple((layer.keys, layer.values) for layer in cache.layers)
        else:
            run, new_layers = run_in_own_rows(
                decoder, states, embeddings, sequence, self.max_length
            )
            layers = states.append_layers(new_layers) if keep else ()
        return sequence.restore(run, branches, tokens), layers

    @property
    def _decoder(self) -> Any:
        """The model without its output head."""
        decoder = self.model.base_model
        # Llama 4 doesn't name its decoder as other models do.
        return self.model.model if decoder is self.model else decoder

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
