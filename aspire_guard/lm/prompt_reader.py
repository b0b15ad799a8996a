"""Prompts and answers as tokens, and their states: what several of them share is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from aspire_guard.lm.language_model import LanguageModel, pad
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_guard.lm.shared_prefixes import find_first_turns
from aspire_guard.lm.template import PromptTemplate, neutralize_markers


class _Part(NamedTuple):
    """How many slots of a head belong to a context, and ids `(tokens,)` of the context that follow them."""

    slots: int
    rest: Tensor


@dataclass(frozen=True)
class PromptReader:
    """A model that reads the prompt layout.

    Args:
        lm: the model, under θp where there is one.
        before: `(tokens, dim)`: what stands before every prompt.
        template: the layout.
        markers: what no line of a question, a context or an answer may begin with.
    """

    lm: LanguageModel
    before: Tensor
    template: PromptTemplate
    markers: tuple[str, ...]

    def context_ids(self, context: str | None) -> Tensor:
        """`(tokens,)`: the ids of the text before the question; none for a closed-book question."""
        return self.lm.token_ids(self.template.render_context(context and self._plain(context)))

    def question_ids(self, question: str) -> Tensor:
        """`(tokens,)`: the ids of the text from the question up to the answer."""
        return self.lm.token_ids(self.template.render_question(self._plain(question)))

    def answer_ids(self, answer: str) -> Tensor:
        """`(tokens,)`: the ids of an answer after its prompt, without the end token."""
        return self.lm.token_ids(self.template.render_answer(self._plain(answer)))

    def read(self, rows: Sequence[tuple[str | None, Tensor]]) -> tuple[PrefixStates, list[Tensor]]:
        """States of `[θp ; context ; ids]` a row, and the final hidden states `(tokens, hidden)` of each row's ids.

        A context that several rows share is computed once, and so are the turns of a conversation.
        """
        first = find_first_turns(context for context, _ in rows)
        groups = {
            turn: [context for context in first if first[context] == turn]
            for turn in first.values()
        }
        heads, parts = zip(*map(self._shared_head, groups.values()), strict=True)
        index = [list(groups).index(first[context]) for context, _ in rows]
        own = [parts[i][context] for i, (context, _) in zip(index, rows, strict=True)]
        tails = [
            self.lm.embed(torch.cat([part.rest, ids]))
            for part, (_, ids) in zip(own, rows, strict=True)
        ]
        if len(heads) == len(rows) or not any(map(len, heads)):
            before = self.lm.empty(len(rows))
            tails = [torch.cat([heads[i], tail]) for i, tail in zip(index, tails, strict=True)]
        else:
            before = self.lm.prefill(heads).rows(torch.tensor(index, device=self.lm.device))
            before = before.up_to(self._padded([[part.slots] for part in own]))
        values, mask = pad(tails)
        states, hidden = self.lm.extend(before, values[:, None], mask[:, None])
        ends = zip(hidden[:, 0], tails, rows, strict=True)
        return states, [h[len(tail) - len(ids) : len(tail)] for h, tail, (_, ids) in ends]

    def branches(self, rows: Sequence[Sequence[tuple[str, str | None, str]]]) -> PrefixStates:
        """States of `[θp ; x ; ŷ]`: see `AspireLM.answer_branches`."""
        prompts = [
            list(dict.fromkeys((question, context) for question, context, _ in row)) for row in rows
        ]
        heads, parts = zip(
            *(self._shared_head([context for _, context in row]) for row in prompts), strict=True
        )
        read = [
            [own[context] for _, context in row] for row, own in zip(prompts, parts, strict=True)
        ]
        asked = [
            [
                torch.cat([part.rest, self.question_ids(question)])
                for part, (question, _) in zip(*pair, strict=True)
            ]
            for pair in zip(read, prompts, strict=True)
        ]
        answers = [[self.answer_ids(answer) for _, _, answer in row] for row in rows]
        slots = self._padded([[part.slots for part in row] for row in read])
        index = self._padded(
            [[own.index(e[:2]) for e in row] for row, own in zip(rows, prompts, strict=True)]
        )
        states = self.lm.prefill(heads) if any(map(len, heads)) else self.lm.empty(len(heads))
        states = states.fork(slots.shape[1]).up_to(slots)
        states = after_branches(self.lm, states, self._embedded(asked))
        return after_branches(self.lm, states.branches(index), self._embedded(answers))

    def _shared_head(
        self, contexts: Sequence[str | None]
    ) -> tuple[Tensor, dict[str | None, _Part]]:
        """`[θp ; context]` `(tokens, dim)` of the longest context, and what of it belongs to each."""
        ids = {context: self.context_ids(context) for context in contexts}
        longest = max(ids.values(), key=len)
        shared = {context: common(part, longest) for context, part in ids.items()}
        parts = {
            context: _Part(len(self.before) + n, ids[context][n:]) for context, n in shared.items()
        }
        return torch.cat([self.before, self.lm.embed(longest)]), parts

    def _plain(self, text: str) -> str:
        return neutralize_markers(text, self.markers)

    def _padded(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return pad([torch.tensor(row, device=self.lm.device) for row in rows])[0]

    def _embedded(self, ids: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        return [[self.lm.embed(part) for part in row] for row in ids]


def after_branches(
    lm: LanguageModel, states: PrefixStates, parts: Sequence[Sequence[Tensor]]
) -> PrefixStates:
    """`states` with `parts[row][branch]` `(tokens, dim)` after each branch; those beyond the given ones stay."""
    branches = states.visible.shape[1]
    nothing = next(part for row in parts for part in row)[:0]
    values, mask = pad(
        [part for row in parts for part in (*row, *[nothing] * (branches - len(row)))]
    )
    if not values.shape[1]:  # all parts are empty
        return states
    return lm.extend(
        states, *(part.view(-1, branches, *part.shape[1:]) for part in (values, mask))
    )[0]


def common(ids: Tensor, others: Tensor) -> int:
    """How many tokens both begin with."""
    n = min(len(ids), len(others))
    return int((ids[:n] == others[:n]).cumprod(0).sum())
