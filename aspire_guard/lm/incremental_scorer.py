"""A scorer for an answer that is still being written. Each of its tokens is run once."""

from __future__ import annotations

import torch
from torch import Tensor

from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_guard.lm.shared_prefixes import count_common_prefix


class IncrementalScorer:
    """The answer to one prompt, from its first token on.

    It belongs to one call and is not safe to share between threads.

    Args:
        aspire: the model with θp and θs.
        question: the question that is answered.
        prompt: the states of `[θp ; x]`, one row without padding.
    """

    def __init__(
        self,
        aspire: AspireLM,
        question: str,
        prompt: PrefixStates,
    ) -> None:
        self._aspire = aspire
        self._question = question
        self._text = ""
        self._states = prompt
        self._prompt_slots = prompt.visible.shape[-1]
        # (tokens,): the answer so far.
        self._ids = aspire.answer_ids("")
        # (tokens + 1, hidden): the states that predict each token and the one after the last.
        self._predictors = prompt.hidden[0]
        # (tokens,): log-probability of each token of the answer, without an end token.
        self._log_p = torch.zeros(0, device=prompt.hidden.device)

    @torch.inference_mode()
    def extend(self, text: str) -> tuple[float, float]:
        """Append `text` to the answer and score the answer as if it ended there.

        Returns:
            The answer's mean log-probability with the end token (log f_norm) and log P(z_c | x, ŷ),
            in nats: the same as `AspireLM.score` returns for the whole answer.
        """
        self._text += text
        log_likelihood = self._read_answer()
        texts = [[(self._question, self._text)]]
        logits = self._aspire.verdict_logits(self._states, texts)  # (1, 2)
        log_p = logits.log_softmax(-1)
        return log_likelihood, float(log_p[0, 0])

    def _read_answer(self) -> float:
        """Run the tokens that have changed since the last call, and return log f_norm of the answer."""
        ids = self._aspire.answer_ids(self._text)
        # More text can change the last tokens, so only the tokens before the first difference stay.
        kept = count_common_prefix(self._ids, ids)
        new_ids = ids[kept:]
        predictors = self._predictors[: kept + 1]
        self._states = self._states.truncate_slots(
            self._prompt_slots + kept,
            hidden=predictors[None, -1:],
        )
        if len(new_ids):
            predictors = torch.cat([predictors, self._run(new_ids)])
        new_log_p = self._log_probabilities(predictors[kept:], new_ids)
        log_p = torch.cat([self._log_p[:kept], new_log_p])
        self._ids = ids
        self._predictors = predictors
        self._log_p = log_p[:-1]
        return float(log_p.mean())

    def _run(self, ids: Tensor) -> Tensor:
        """Extend the states by `ids` `(new,)` and return the final hidden states `(new, hidden)`."""
        embeddings = self._aspire.lm.embed(ids)
        mask = torch.ones_like(ids, dtype=torch.bool)
        self._states, hidden = self._aspire.answering_lm.extend(
            self._states,
            embeddings[None, None],
            mask[None, None],
        )
        return hidden[0, 0]

    def _log_probabilities(self, predictors: Tensor, ids: Tensor) -> Tensor:
        """Return the log-probability of each of `ids` and of the end token after them, `(new + 1,)`."""
        lm = self._aspire.lm
        end = torch.tensor([lm.end_id], device=ids.device)
        targets = torch.cat([ids, end])
        log_p = lm.logits(predictors).log_softmax(-1)  # (new + 1, vocabulary)
        log_p_targets = log_p.gather(-1, targets[:, None])
        return log_p_targets[:, 0]
