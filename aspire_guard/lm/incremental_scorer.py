"""A scorer for an answer that is still being written. Each of its tokens is run once."""

from __future__ import annotations

import torch
from torch import Tensor

from aspire_guard.lm.answer_reading import AnswerReading, TokenReading, join_reading, measure_tokens
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_guard.lm.shared_prefixes import count_common_prefix


class IncrementalScorer:
    """The answer to one prompt, from its first token on.

    It belongs to one call and is not safe to share between threads.

    Args:
        aspire: the model with θp and θs.
        question: the question that is answered.
        context: the passage to answer from, or None.
        compare: also read the answer after the question alone, if there is a context.
    """

    def __init__(
        self, aspire: AspireLM, question: str, context: str | None, *, compare: bool
    ) -> None:
        self._aspire = aspire
        self._question = question
        self._context = context
        self._text = ""
        context_ids = aspire.reader.list_context_tokens(context)
        prompt = aspire.prompt_states([(question, context)])
        self._answer = _GrowingAnswer(aspire, prompt, context_ids)
        self._alone: _GrowingAnswer | None = None
        if compare and context:
            self._alone = _GrowingAnswer(aspire, aspire.prompt_states([(question, None)]), None)
        # log P(z_c) of the answer's first tokens, by the number of these tokens.
        self._verdicts: dict[int, float] = {}

    @torch.inference_mode()
    def extend(self, text: str) -> AnswerReading:
        """Append `text` to the answer, and read the answer as if it ended there: the same as `read_answers` does."""
        self._text += text
        reader = self._aspire.reader
        sentences = reader.split_answer(self._text)
        pieces = [reader.sentence_ids(sentence) for sentence in sentences]
        ids = torch.cat([self._answer.ids[:0], *pieces])
        kept = self._answer.read(ids)
        self._verdicts = {end: value for end, value in self._verdicts.items() if end <= kept}
        if self._alone is not None:
            self._alone.read(ids)
        return join_reading(
            reader,
            sentences,
            pieces,
            tokens=self._answer.tokens,
            alone=None if self._alone is None else self._alone.tokens,
            verdicts=self._ask_after(pieces),
            context=self._context,
            values=(self._alone or self._answer).average_values(),
        )

    def _ask_after(self, pieces: list[Tensor]) -> list[float]:
        """Return log P(z_c) after each sentence, or after the prompt if the answer is empty."""
        lengths = torch.tensor([len(ids) for ids in pieces] or [0])
        ends: list[int] = lengths.cumsum(0).tolist()
        missing = [end for end in ends if end not in self._verdicts]
        if missing:
            states = self._answer.cut_branches(missing)
            texts = [[(self._question, self._text)] * len(missing)]
            logits = self._aspire.verdict_logits(states, texts)  # (missing, 2)
            log_p = logits.log_softmax(-1)[:, 0].tolist()
            self._verdicts.update(zip(missing, log_p, strict=True))
        return [self._verdicts[end] for end in ends]


class _GrowingAnswer:
    """The tokens of an answer after one prompt.

    Attributes:
        ids: the answer so far, `(tokens,)`.
        tokens: the reading of these tokens and of the end token after them.

    Args:
        aspire: the model that reads.
        prompt: the states of the prompt, one row without padding.
        context_ids: the different tokens of the context, or None if there is no context.
    """

    def __init__(self, aspire: AspireLM, prompt: PrefixStates, context_ids: Tensor | None) -> None:
        self._lm = aspire.reading_lm
        self._states = prompt
        self._prompt_slots = prompt.visible.shape[-1]
        self._context_ids = context_ids
        self.ids = aspire.answer_ids("")
        # (tokens + 1, hidden): the states that predict each token and the one after the last.
        self._predictors = prompt.hidden[0]
        self.tokens = measure_tokens(self._lm, self._predictors, self.ids, context_ids)

    def read(self, ids: Tensor) -> int:
        """Run the tokens that have changed since the last call.

        Returns:
            The number of tokens that have stayed.
        """
        # More text can change the last tokens, so only the tokens before the first difference stay.
        kept = count_common_prefix(self.ids, ids)
        new_ids = ids[kept:]
        predictors = self._predictors[: kept + 1]
        self._states = self._states.truncate_slots(
            self._prompt_slots + kept,
            hidden=predictors[None, -1:],
        )
        if len(new_ids):
            predictors = torch.cat([predictors, self._run(new_ids)])
        new = measure_tokens(self._lm, predictors[kept:], new_ids, self._context_ids)
        lead = new.lead
        if self.tokens.lead is not None and lead is not None:
            lead = torch.cat([self.tokens.lead[:kept], lead])
        self.ids = ids
        self._predictors = predictors
        self.tokens = TokenReading(torch.cat([self.tokens.log_p[:kept], new.log_p]), lead)
        return kept

    def average_values(self) -> tuple[Tensor, ...]:
        """Average the cached values of the answer's tokens; see `PrefixStates.average_values`."""
        return self._states.average_values(0, len(self.ids))

    def cut_branches(self, ends: list[int]) -> PrefixStates:
        """Return a branch for the answer up to each number of tokens."""
        lengths = torch.tensor([ends], device=self.ids.device)  # (1, ends)
        branches = self._states.fork(len(ends))
        return branches.truncate_branches(self._prompt_slots + lengths)

    def _run(self, ids: Tensor) -> Tensor:
        """Extend the states by `ids` `(new,)` and return the final hidden states `(new, hidden)`."""
        mask = torch.ones_like(ids, dtype=torch.bool)
        self._states, hidden = self._lm.extend(
            self._states,
            self._lm.embed(ids)[None, None],
            mask[None, None],
        )
        return hidden[0, 0]
