"""Beam search over prefix states: the prompt is computed once, whatever the number of beams."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from aspire_guard.lm.language_model import LanguageModel, add_end_token
from aspire_guard.lm.prefix_states import PrefixStates, gather_branches

_IMPOSSIBLE = -1.0e9


@dataclass(frozen=True)
class Beams:
    """The `k` best continuations of each prompt, best first.

    Attributes:
        tokens: token ids, `(batch, k, longest)`, with the end token if the beam reached it.
        lengths: the number of tokens that count, `(batch, k)`.
        scores: mean log-probability of the tokens, in nats, by which the beams are ranked, `(batch, k)`.
        log_likelihoods: the same with an end token even if the beam was cut at the token limit:
            log f_norm of the paper, as for an answer that is read. `(batch, k)`.
        states: one branch per beam, with the prompt and the beam's tokens but without the end token.
    """

    tokens: Tensor
    lengths: Tensor
    scores: Tensor
    log_likelihoods: Tensor
    states: PrefixStates


def beam_search(
    lm: LanguageModel,
    prompts: PrefixStates,
    *,
    k: int,
    max_new_tokens: int,
) -> Beams:
    """Decode `k` continuations of every prompt.

    The search for a prompt stops as soon as it has `k` ended beams, as in `transformers.generate`
    with `early_stopping=True`.

    Args:
        lm: the model that has computed `prompts`.
        prompts: states with a single branch in each row.
        k: the number of beams, all of them returned.
        max_new_tokens: the most tokens of a beam, the end token included.

    Returns:
        The beams by falling score (mean log-probability, a length penalty of 1).
    """
    states = prompts.fork(k)
    finished = _FinishedBeams.make_empty(states, max_new_tokens, lm.end_id)
    running = finished.tokens[..., :0]  # (batch, k, tokens so far)
    # All beams of a prompt are equal at first, so only one of them counts.
    sums = finished.scores.clone()
    sums[:, 0] = 0.0
    is_likely = torch.arange(2 * k, device=sums.device) < k
    one_token = torch.ones_like(sums, dtype=torch.bool)[..., None]
    for length in range(1, max_new_tokens + 1):
        logits = lm.logits(states.hidden)  # (batch, k, vocabulary)
        totals, parents, tokens = _find_candidates(logits, sums)  # (batch, 2 k) each
        parent_tokens = gather_branches(running, parents)
        new_token = tokens[..., None]
        candidates = torch.cat([parent_tokens, new_token], dim=-1)
        has_ended = (tokens == lm.end_id) | (length == max_new_tokens)

        # The less likely half of the candidates only keeps k beams running. It may not end.
        is_open = ~finished.exists.all(-1, keepdim=True)
        finished.add(
            candidates,
            scores=totals / length,
            counts=has_ended & is_likely & is_open,
            visible=gather_branches(states.visible, parents),
        )
        if length == max_new_tokens or finished.exists.all():
            break

        penalties = has_ended * _IMPOSSIBLE
        best = (totals + penalties).topk(k, dim=-1)
        keep = best.indices  # (batch, k)
        sums = totals.gather(1, keep) + penalties.gather(1, keep)
        running = gather_branches(candidates, keep)
        kept_parents = gather_branches(parents, keep)
        states, _ = lm.extend(
            states.select_branches(kept_parents),
            lm.embed(running[..., -1:]),
            one_token,
        )
    return _compute_states(lm, states, finished)


@dataclass
class _FinishedBeams:
    """The best `k` beams of each prompt that have ended.

    Attributes:
        tokens: token ids, filled with the end token, `(batch, k, max_new_tokens)`.
        lengths: the number of tokens that count, `(batch, k)`.
        scores: mean log-probability of the tokens, in nats, `(batch, k)`.
        exists: False at the places of beams that are still missing, `(batch, k)`.
        visible: the slots of the cache that each beam sees, `(batch, k, slots)`.
        end: the end token.
    """

    tokens: Tensor
    lengths: Tensor
    scores: Tensor
    exists: Tensor
    visible: Tensor
    end: int

    @classmethod
    def make_empty(
        cls,
        states: PrefixStates,
        max_new_tokens: int,
        end: int,
    ) -> _FinishedBeams:
        """Make a place for each branch of `states`."""
        batch, k = states.visible.shape[:2]
        shape = (batch, k, max_new_tokens)
        lengths = torch.zeros(batch, k, dtype=torch.long, device=states.visible.device)
        return cls(
            tokens=torch.full(shape, end, device=lengths.device),
            lengths=lengths,
            scores=torch.full_like(lengths, _IMPOSSIBLE, dtype=torch.float32),
            exists=torch.zeros_like(lengths, dtype=torch.bool),
            visible=states.visible,
            end=end,
        )

    def add(
        self,
        candidates: Tensor,
        *,
        scores: Tensor,
        counts: Tensor,
        visible: Tensor,
    ) -> None:
        """Merge candidates into the finished beams and keep the `k` best.

        Args:
            candidates: token ids, `(batch, n, length)`.
            scores: mean log-probabilities in nats, `(batch, n)`.
            counts: False at the candidates to leave out, `(batch, n)`.
            visible: the slots that each candidate sees, `(batch, n, slots)`.
        """
        k, longest = self.tokens.shape[1:]
        length = candidates.shape[-1]
        new_scores = scores + ~counts * _IMPOSSIBLE
        all_scores = torch.cat([self.scores, new_scores], dim=1)
        self.scores, best = all_scores.topk(k, dim=-1)

        def merge(old: Tensor, new: Tensor) -> Tensor:
            both = torch.cat([old, new], dim=1)
            return gather_branches(both, best)

        missing = longest - length
        self.tokens = merge(self.tokens, pad(candidates, (0, missing), value=self.end))
        new_lengths = torch.full_like(counts, length, dtype=torch.long)
        self.lengths = merge(self.lengths, new_lengths)
        self.exists = merge(self.exists, counts)
        old_visible = _pad_slots(self.visible, slots=visible.shape[-1])
        self.visible = merge(old_visible, visible)


def _find_candidates(logits: Tensor, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the `2 k` likeliest continuations by one token over all beams of a row.

    Args:
        logits: of the next token, `(batch, k, vocabulary)`.
        sums: summed log-probabilities of the beams, `(batch, k)`.

    Returns:
        The summed log-probabilities, the beams and the token ids of the continuations, likeliest
        first, `(batch, 2 k)` each.
    """
    k, vocabulary = logits.shape[1:]
    # Each of them is among the first 2 k of its own beam, so the vocabulary is searched only once, and
    # only what is found there is normalised.
    width = min(2 * k, vocabulary)
    values, ids = logits.topk(width, dim=-1)  # (batch, k, width)
    log_p = values - logits.logsumexp(-1, keepdim=True)
    totals = log_p + sums[..., None]
    totals = totals.flatten(1)  # (batch, k * width)
    top, index = totals.topk(2 * k, dim=-1)
    parents = index // width
    tokens = ids.flatten(1).gather(1, index)
    return top, parents, tokens


def _compute_states(
    lm: LanguageModel,
    states: PrefixStates,
    finished: _FinishedBeams,
) -> Beams:
    """Give each finished beam its states.

    The last token of a beam that was cut at the token limit has not been run yet.
    """
    ended = PrefixStates(
        layers=states.layers,
        visible=_pad_slots(finished.visible, slots=states.visible.shape[-1]),
        # The hidden states of the beams were not kept: to go on from a beam is to run more tokens after it.
        hidden=torch.zeros_like(states.hidden),
    )
    last_place = (finished.lengths - 1).clamp(min=0)
    last_token = finished.tokens.gather(-1, last_place[..., None])  # (batch, k, 1)
    has_no_end = last_token != finished.end
    was_cut = has_no_end & finished.exists[..., None]
    log_likelihoods = finished.scores
    if was_cut.any():
        ended, _ = lm.extend(ended, lm.embed(last_token), was_cut)
        log_likelihoods = add_end_token(
            lm,
            means=log_likelihoods,
            lengths=finished.lengths,
            hidden=ended.hidden,
            cut=was_cut[..., 0],
        )
    longest = int(finished.lengths.max())
    return Beams(
        tokens=finished.tokens[..., :longest],
        lengths=finished.lengths,
        scores=finished.scores,
        log_likelihoods=log_likelihoods,
        states=ended,
    )


def _pad_slots(visible: Tensor, slots: int) -> Tensor:
    """Extend `visible` `(batch, branches, …)` to `slots` slots, of which no branch sees the new ones."""
    missing = slots - visible.shape[-1]
    return pad(visible, (0, missing))
