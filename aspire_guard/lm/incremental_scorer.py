"""Scores an answer that is still being written, and runs each of its tokens once."""

from __future__ import annotations

import torch

from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_guard.lm.prompt_reader import common


class IncrementalScorer:
    """The answer to one prompt, from its first token on.

    It belongs to one call and is not safe to share between threads.

    Args:
        aspire: the model with θp and θs.
        question: the question that is answered.
        prompt: the states of `[θp ; x]`, one row without padding.
    """

    def __init__(self, aspire: AspireLM, question: str, prompt: PrefixStates) -> None:
        self._aspire, self._question, self._text = aspire, question, ""
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
            Its mean log-probability with the end token (log f_norm) and log P(z_c | x, ŷ), in nats:
            what `AspireLM.score` gives for the whole answer.
        """
        self._text += text
        log_likelihood = self._read_answer()
        texts = [[(self._question, self._text)]]
        log_p = self._aspire.verdict_logits(self._states, texts).log_softmax(-1)
        return log_likelihood, float(log_p[0, 0])

    def _read_answer(self) -> float:
        """Run the tokens that have changed since the last call; return log f_norm of the answer."""
        ids = self._aspire.answer_ids(self._text)
        # More text can change the last tokens, so only those before the first difference stay.
        kept = common(self._ids, ids)
        new = ids[kept:]
        predictors = self._predictors[: kept + 1]
        self._states = self._states.first(self._prompt_slots + kept, predictors[None, -1:])
        if len(new):
            predictors = torch.cat([predictors, self._run(new)])
        log_p = torch.cat([self._log_p[:kept], self._log_probabilities(predictors[kept:], new)])
        self._ids, self._predictors, self._log_p = ids, predictors, log_p[:-1]
        return float(log_p.mean())

    def _run(self, ids: torch.Tensor) -> torch.Tensor:
        """Extend the states by `ids` `(new,)`; return the final hidden states `(new, hidden)`."""
        embeddings = self._aspire.lm.embed(ids)[None, None]
        mask = torch.ones(1, 1, len(ids), dtype=torch.bool, device=ids.device)
        self._states, hidden = self._aspire.answering.extend(self._states, embeddings, mask)
        return hidden[0, 0]

    def _log_probabilities(self, predictors: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """`(new + 1,)`: log-probability of each of `ids` and of the end token after them."""
        lm = self._aspire.lm
        targets = torch.cat([ids, torch.tensor([lm.end_id], device=ids.device)])
        return lm.logits(predictors).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
