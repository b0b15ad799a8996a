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
        tokens: `(batch, k, longest)`: token ids, the end token included where the beam reached it.
        lengths: `(batch, k)`: how many of the tokens count.
        scores: `(batch, k)`: mean log-probability of the tokens, in nats, by which the beams are ranked.
        log_likelihoods: `(batch, k)`: the same with an end token also after a beam that was cut at the most tokens: log
            f_norm of the paper, as for an answer that is read.
        states: one branch a beam: the prompt and the beam's tokens without the end token.
    """

    tokens: Tensor
    lengths: Tensor
    scores: Tensor
    log_likelihoods: Tensor
    states: PrefixStates


@dataclass
class _Finished:
    """The best `k` beams that have ended, with the slots of the cache that each of them sees."""

    tokens: Tensor
    lengths: Tensor
    scores: Tensor
    done: Tensor
    visible: Tensor


def beam_search(
    lm: LanguageModel,
    prompts: PrefixStates,
    *,
    k: int,
    max_new_tokens: int,
    early_stopping: bool = False,
) -> Beams:
    """Decode `k` continuations of every prompt, as `transformers.generate` does with the same settings.

    Args:
        lm: the model that has computed `prompts`.
        prompts: states with a single branch a row.
        k: the number of beams, all of them returned.
        max_new_tokens: the most tokens a beam may hold, the end token included.
        early_stopping: stop a prompt as soon as it has `k` ended beams, instead of when no running beam can improve.

    Returns:
        The beams by falling score (mean log-probability, a length penalty of 1).
    """
    batch, device = len(prompts.visible), prompts.visible.device
    end = lm.end_id
    states = prompts.fork(k)
    running = torch.zeros(batch, k, 0, dtype=torch.long, device=device)
    sums = torch.full((batch, k), _IMPOSSIBLE, device=device)
    sums[:, 0] = 0.0
    finished = _Finished(
        tokens=torch.full((batch, k, max_new_tokens), end, device=device),
        lengths=torch.zeros(batch, k, dtype=torch.long, device=device),
        scores=torch.full((batch, k), _IMPOSSIBLE, device=device),
        done=torch.zeros(batch, k, dtype=torch.bool, device=device),
        visible=states.visible,
    )
    open_rows = torch.ones(batch, 1, dtype=torch.bool, device=device)
    for length in range(1, max_new_tokens + 1):
        top, parents, tokens = _candidates(lm.logits(states.hidden), sums)
        candidates = torch.cat([gather_branches(running, parents), tokens[..., None]], dim=-1)
        ends = (tokens == end) | (length == max_new_tokens)

        # The lower half of the candidates only keeps k beams running; it may not end.
        countable = ends & (torch.arange(2 * k, device=device) < k) & open_rows
        if early_stopping:
            countable &= ~finished.done.all(-1, keepdim=True)
        _keep_best(
            finished,
            candidates,
            countable,
            top / length,
            gather_branches(states.visible, parents),
            end,
        )

        keep = (top + ends * _IMPOSSIBLE).topk(k, dim=-1).indices
        running, sums = (
            gather_branches(candidates, keep),
            top.gather(1, keep) + ends.gather(1, keep) * _IMPOSSIBLE,
        )
        best_possible = sums[:, :1] / length
        worst = torch.where(
            finished.done, finished.scores.min(-1, keepdim=True).values, _IMPOSSIBLE
        )
        open_rows &= (best_possible > worst).any(-1, keepdim=True)
        stop = finished.done.all() if early_stopping else torch.zeros((), dtype=torch.bool)
        if length == max_new_tokens or stop or not open_rows.any():
            break
        states = states.branches(gather_branches(parents, keep))
        states, _ = lm.extend(
            states,
            lm.embed(running[..., -1:]),
            torch.ones(batch, k, 1, dtype=torch.bool, device=device),
        )
    return _with_states(lm, states, finished, end)


def _candidates(logits: Tensor, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The `2 k` likeliest next tokens over all beams of a row: their summed log-probabilities, beams and ids."""
    k, vocabulary = logits.shape[1:]
    # None of them is beyond the first 2 k of its own beam, so the vocabulary is sifted once and normalised nowhere.
    values, ids = logits.topk(min(2 * k, vocabulary), dim=-1)
    totals = values - logits.logsumexp(-1, keepdim=True) + sums[..., None]
    top, index = totals.flatten(1).topk(2 * k, dim=-1)
    return top, index // values.shape[-1], ids.flatten(1).gather(1, index)


def _keep_best(
    finished: _Finished,
    candidates: Tensor,
    countable: Tensor,
    scores: Tensor,
    visible: Tensor,
    end: int,
) -> None:
    """Merge newly ended candidates into `finished`, keeping the `k` best."""
    k, longest = finished.tokens.shape[1:]
    slots, length = visible.shape[-1], candidates.shape[-1]
    scores = scores + ~countable * _IMPOSSIBLE
    finished.scores, order = torch.cat([finished.scores, scores], dim=1).topk(k, dim=-1)
    old_visible = pad(finished.visible, (0, slots - finished.visible.shape[-1]))
    lengths = torch.full_like(countable, length, dtype=torch.long)
    merged = (
        (finished.tokens, pad(candidates, (0, longest - length), value=end)),
        (finished.lengths, lengths),
        (finished.done, countable),
        (old_visible, visible),
    )
    finished.tokens, finished.lengths, finished.done, finished.visible = (
        gather_branches(torch.cat(pair, dim=1), order) for pair in merged
    )


def _with_states(lm: LanguageModel, states: PrefixStates, finished: _Finished, end: int) -> Beams:
    """Give each ended beam its states; one that was cut at the length limit still has its last token to run."""
    slots = states.visible.shape[-1]
    visible = pad(finished.visible, (0, slots - finished.visible.shape[-1]))
    last = finished.tokens.gather(-1, (finished.lengths - 1).clamp(min=0)[..., None])
    cut = (last != end) & finished.done[..., None]
    hidden = states.hidden.new_zeros(*visible.shape[:2], states.hidden.shape[-1])
    ended = PrefixStates(states.layers, visible, hidden)
    log_likelihoods = finished.scores
    if cut.any():
        ended, _ = lm.extend(ended, lm.embed(last), cut)
        log_likelihoods = add_end_token(
            lm, log_likelihoods, finished.lengths, ended.hidden, cut[..., 0]
        )
    longest = int(finished.lengths.max())
    return Beams(
        finished.tokens[..., :longest], finished.lengths, finished.scores, log_likelihoods, ended
    )
