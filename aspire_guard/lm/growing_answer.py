"""An answer that is still being written: its states and its likelihood, extended by what it grows by."""

from __future__ import annotations

import torch

from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_guard.lm.prompt_reader import common


class GrowingAnswer:
    """The answer to one prompt, from the first token on; belongs to one call, not to several threads.

    Args:
        aspire: the model with θp.
        prompt: the states of `[θp ; x]`: one row, without padding.

    Attributes:
        states: of `[θp ; x ; ŷ so far]`.
    """

    def __init__(self, aspire: AspireLM, prompt: PrefixStates) -> None:
        self.states = prompt
        self._aspire, self._prompt_slots = aspire, prompt.visible.shape[-1]
        self._ids = aspire.answer_ids("")
        # The hidden states that predict each token of the answer and what comes after it.
        self._predictors = prompt.hidden[0]
        self._log_p = torch.zeros(0, device=prompt.hidden.device)

    def become(self, text: str) -> float:
        """Let the answer so far be `text`; only the tokens from the first that differs on are run.

        Returns:
            The mean log-probability of its tokens and the end token in nats (log f_norm), as if it ended there.
        """
        lm, ids = self._aspire.lm, self._aspire.answer_ids(text)
        kept = common(self._ids, ids)
        new, predictors = ids[kept:], self._predictors[: kept + 1]
        self.states = self.states.first(self._prompt_slots + kept, predictors[None, -1:])
        if len(new):
            mask = torch.ones(1, 1, len(new), dtype=torch.bool, device=new.device)
            self.states, hidden = self._aspire.answering.extend(self.states, lm.embed(new)[None, None], mask)
            predictors = torch.cat([predictors, hidden[0, 0]])
        targets = torch.cat([new, torch.tensor([lm.end_id], device=new.device)])
        log_p = lm.logits(predictors[kept:]).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
        log_p = torch.cat([self._log_p[:kept], log_p])
        self._ids, self._predictors, self._log_p = ids, predictors, log_p[:-1]
        return float(log_p.mean())
