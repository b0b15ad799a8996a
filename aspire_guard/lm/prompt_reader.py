"""Prompts and answers as tokens, and their states: shared beginnings are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aspire_guard.lm.language_model import LanguageModel, pad
from aspire_guard.lm.plain_answer import Sentence, split_answer
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_guard.lm.shared_prefixes import count_common_prefix, find_first_turns
from aspire_guard.lm.template import PromptTemplate, neutralize_markers

# A question, and its context or None.
Prompt = tuple[str, str | None]
# A question, its context or None, and an answer.
AnsweredPrompt = tuple[str, str | None, str]


@dataclass(frozen=True)
class _SharedHead:
    """`[θp ; context]` of the longest of several contexts, and its part in each of them.

    Attributes:
        embeddings: the input embeddings of the head, `(tokens, dim)`.
        slots: the number of the head's first tokens that each context begins with.
        rests: the ids of each context's tokens after those, `(tokens,)`.
    """

    embeddings: Tensor
    slots: dict[str | None, int]
    rests: dict[str | None, Tensor]


@dataclass(frozen=True)
class PromptReader:
    """A model that reads the prompt layout.

    Args:
        lm: the model, under θp if there is one.
        before: the embeddings that stand before every prompt, `(tokens, dim)`.
        template: the layout.
        markers: the words that no line of a question, a context or an answer may begin with.
    """

    lm: LanguageModel
    before: Tensor
    template: PromptTemplate
    markers: tuple[str, ...]

    def context_ids(self, context: str | None) -> Tensor:
        """Return the ids of the text before the question, `(tokens,)`.

        A closed-book question has no such text.
        """
        plain = context and neutralize_markers(context, self.markers)
        return self.lm.token_ids(self.template.render_context(plain))

    def list_context_tokens(self, context: str | None) -> Tensor | None:
        """List the different tokens of a context, `(tokens,)`, or return None if there is no context."""
        return torch.unique(self.context_ids(context)) if context else None

    def question_ids(self, question: str) -> Tensor:
        """Return the ids of the text from the question up to the answer, `(tokens,)`."""
        plain = neutralize_markers(question, self.markers)
        return self.lm.token_ids(self.template.render_question(plain))

    def answer_ids(self, answer: str) -> Tensor:
        """Return the ids of an answer after its prompt, `(tokens,)`, without the end token."""
        pieces = [self.sentence_ids(sentence) for sentence in self.split_answer(answer)]
        return torch.cat(pieces) if pieces else self.lm.token_ids("")

    def split_answer(self, answer: str) -> list[Sentence]:
        """Split an answer into the sentences that are tokenised on their own.

        An answer that is not read as plain text is a single sentence.
        """
        if self.template.plain_answers:
            return split_answer(answer)
        return [Sentence(0, len(answer), answer)] if answer else []

    def sentence_ids(self, sentence: Sentence) -> Tensor:
        """Return the ids of a sentence of an answer, `(tokens,)`, with the white space before it."""
        return self.lm.token_ids(self.render_sentence(sentence))

    def render_sentence(self, sentence: Sentence) -> str:
        """Return the text of a sentence as the model reads it, with the white space before it."""
        plain = neutralize_markers(sentence.text, self.markers)
        return self.template.render_answer(plain)

    def read(
        self,
        rows: Sequence[tuple[str | None, Tensor]],
    ) -> tuple[PrefixStates, list[Tensor]]:
        """Compute the states of `[θp ; context ; ids]`.

        A context that several rows share is computed once, and so are the turns of a conversation.

        Args:
            rows: a context, and the ids `(tokens,)` after it.

        Returns:
            The states, one branch per row, and the final hidden states of each row's ids,
            `(tokens, hidden)`.
        """
        heads, head_numbers = self._share_heads([context for context, _ in rows])
        row_heads = [heads[number] for number in head_numbers]
        slots: list[list[int]] = []
        tails: list[Tensor] = []
        for head, (context, ids) in zip(row_heads, rows, strict=True):
            slots.append([head.slots[context]])
            tail = torch.cat([head.rests[context], ids])
            tails.append(self.lm.embed(tail))

        has_tokens = any(len(head.embeddings) for head in heads)
        if has_tokens and len(heads) < len(rows):
            index = torch.tensor(head_numbers, device=self.lm.device)
            states = self.lm.prefill([head.embeddings for head in heads])
            states = states.select_rows(index)
            states = states.truncate_branches(self._pad_numbers(slots))
        else:
            # No two rows share a token, so each row is read in one pass.
            states = self.lm.empty_states(len(rows))
            for row, head in enumerate(row_heads):
                tails[row] = torch.cat([head.embeddings, tails[row]])

        embeddings, mask = pad(tails)
        states, hidden = self.lm.extend(
            states,
            embeddings[:, None],
            mask[:, None],
        )
        hidden_of_ids: list[Tensor] = []
        for row, (_, ids) in enumerate(rows):
            end = len(tails[row])
            start = end - len(ids)
            hidden_of_ids.append(hidden[row, 0, start:end])
        return states, hidden_of_ids

    def read_branches(self, rows: Sequence[Sequence[AnsweredPrompt]]) -> PrefixStates:
        """Compute the states of `[θp ; x ; ŷ]`; see `AspireLM.answer_branches`."""
        row_prompts: list[list[Prompt]] = []
        places: list[list[int]] = []
        answers: list[list[Tensor]] = []
        for row in rows:
            asked = [(question, context) for question, context, _ in row]
            prompts = list(dict.fromkeys(asked))
            row_prompts.append(prompts)
            places.append([prompts.index(prompt) for prompt in asked])
            row_ids = [self.answer_ids(answer) for _, _, answer in row]
            answers.append([self.lm.embed(ids) for ids in row_ids])
        states = self.read_prompts(row_prompts)
        states = states.select_branches(self._pad_numbers(places))
        return self.lm.extend_branches(states, answers)

    def read_prompts(self, rows: Sequence[Sequence[Prompt]]) -> PrefixStates:
        """Compute the states of `[θp ; x]`, one branch per prompt of a row."""
        heads: list[Tensor] = []
        slots: list[list[int]] = []
        tails: list[list[Tensor]] = []
        for row in rows:
            head = self._share_head([context for _, context in row])
            heads.append(head.embeddings)
            row_slots: list[int] = []
            row_tails: list[Tensor] = []
            for question, context in row:
                row_slots.append(head.slots[context])
                question_ids = self.question_ids(question)
                tail = torch.cat([head.rests[context], question_ids])
                row_tails.append(self.lm.embed(tail))
            slots.append(row_slots)
            tails.append(row_tails)

        has_tokens = any(len(head) for head in heads)
        states = self.lm.prefill(heads) if has_tokens else self.lm.empty_states(len(heads))
        branch_slots = self._pad_numbers(slots)  # (rows, prompts)
        states = states.fork(branch_slots.shape[1])
        states = states.truncate_branches(branch_slots)
        return self.lm.extend_branches(states, tails)

    def _share_heads(
        self,
        contexts: Sequence[str | None],
    ) -> tuple[list[_SharedHead], list[int]]:
        """Make a head for each conversation, and number each context with its head."""
        first_turns = find_first_turns(contexts)
        conversations: dict[str | None, list[str | None]] = {}
        for context, first_turn in first_turns.items():
            conversations.setdefault(first_turn, []).append(context)
        heads = [self._share_head(turns) for turns in conversations.values()]
        numbers = {first_turn: number for number, first_turn in enumerate(conversations)}
        return heads, [numbers[first_turns[context]] for context in contexts]

    def _share_head(self, contexts: Sequence[str | None]) -> _SharedHead:
        """Make the head of the longest context, and find the part of it that each context begins with."""
        ids = {context: self.context_ids(context) for context in contexts}
        longest = max(ids.values(), key=len)
        slots: dict[str | None, int] = {}
        rests: dict[str | None, Tensor] = {}
        for context, context_ids in ids.items():
            shared = count_common_prefix(context_ids, longest)
            slots[context] = len(self.before) + shared
            rests[context] = context_ids[shared:]
        context_embeddings = self.lm.embed(longest)
        return _SharedHead(
            embeddings=torch.cat([self.before, context_embeddings]),
            slots=slots,
            rests=rests,
        )

    def _pad_numbers(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Stack rows of numbers, filled with zeros: `(rows, longest)`."""
        device = self.lm.device
        tensors = [torch.tensor(row, device=device) for row in rows]
        numbers, _ = pad(tensors)
        return numbers
