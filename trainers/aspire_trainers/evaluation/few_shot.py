"""The pre-trained model, prompted as well as it can be: by a few questions with short answers to follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jinja2 import TemplateError
from torch import Tensor

from aspire_guard.errors import InputError
from aspire_guard.lm.aspire_lm import Answer, AspireLM
from aspire_guard.lm.language_model import LanguageModel, pad
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_guard.lm.template import PromptTemplate, neutralize_markers
from aspire_trainers.evaluation.prompting import VERDICT, Decoded
from aspire_trainers.record import QARecord

_OPEN_BOOK = "Answer each question with a few words copied from its passage, and nothing else."
_CLOSED_BOOK = "Answer each question with a few words, and nothing else."

# Without the model's chat template an answer is a line.
_PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ 'Answer: ' if message.role == 'assistant' }}{{ message.content }}\n"
    "{{ '\n' if message.role != 'user' }}{% endfor %}{{ 'Answer:' if add_generation_prompt }}"
)

# Where a user's texts go in the rendered chat: they are tokenised apart, so that no marker in them counts as one.
_CONTEXT, _QUESTION, _ANSWER, _FOLLOW_UP = " {context}", " {question}", "{answer}", "{follow_up}"


@dataclass(frozen=True)
class FewShotExample:
    """A question that is shown with its answer; each can be answered without its passage too."""

    passage: str
    question: str
    answer: str


EXAMPLES = (
    FewShotExample(
        "The Danube rises in the Black Forest and flows east through ten countries into the Black Sea. It is the "
        "second-longest river of Europe, after the Volga.",
        "What is the longest river of Europe?",
        "Volga",
    ),
    FewShotExample(
        "In 1903 Marie Curie shared the Nobel Prize in Physics with her husband Pierre and with Henri Becquerel. "
        "In 1911 she won the prize in Chemistry, alone.",
        "In which year did Marie Curie win the Nobel Prize in Chemistry?",
        "1911",
    ),
    FewShotExample(
        "Honey bees tell one another where food is by a dance. The angle of the dance shows the direction relative "
        "to the sun, and its length shows the distance.",
        "How do honey bees tell one another where food is?",
        "by a dance",
    ),
    FewShotExample(
        "Mount Kilimanjaro, in Tanzania, is the highest mountain of Africa. Hans Meyer and Ludwig Purtscheller "
        "reached its summit in 1889.",
        "Which country is Mount Kilimanjaro in?",
        "Tanzania",
    ),
)


@dataclass(frozen=True)
class _Pieces:
    """The chat around one kind of question, as text: before its passage, before its question, and after it."""

    head: str
    between: str
    tail: str


class FewShot:
    """The pre-trained model with examples before every question; an answer is its first line.

    As plain text, where the end of the line ends an answer, or as a chat. SmolLM2-135M answers in sentences when it
    is asked in its chat template, and is right far more often as plain text.

    Args:
        lm: the pre-trained model.
        examples: what it is shown first; as many of them as leave half of the model's window free.
        chat: ask in the model's own chat template.

    Raises:
        InputError: the model has no chat template.
    """

    def __init__(
        self,
        lm: LanguageModel,
        examples: Sequence[FewShotExample] = EXAMPLES,
        *,
        chat: bool = False,
    ) -> None:
        if chat and not lm.tokenizer.chat_template:
            raise InputError(
                "expected a model with a chat template, found none; ask it in plain text"
            )
        self._template = lm.tokenizer.chat_template if chat else _PLAIN_TEMPLATE
        self._start = lm.start_ids[:0] if chat else lm.start_ids
        layout = PromptTemplate(answer="{answer}" if chat else " {answer}")
        self.aspire = AspireLM(lm if chat else replace(lm, end=_line_end(lm)), template=layout)
        self._examples = list(examples)
        # Half of a small window is kept for the question.
        while (
            self._examples
            and len(self._marked_ids(self._render(self._chat(open_book=True)))) > lm.max_length // 2
        ):
            self._examples.pop()

    def length(self, record: QARecord) -> int:
        """Tokens of the prompt, the examples included."""
        kind = int(record.context is None)
        return (
            int(self._heads.lengths[kind, 0])
            + len(self._passage_ids(record.context))
            + len(self._question_ids(record))
        )

    def states(self, records: Sequence[QARecord]) -> PrefixStates:
        """States of the prompts; the examples are computed once for all calls, a passage once a call."""
        lm = self.aspire.lm
        contexts = list(dict.fromkeys(record.context for record in records))
        kinds = torch.tensor([int(context is None) for context in contexts], device=lm.device)
        passages = [self._passage_ids(context) for context in contexts]
        states = self._extended(self._heads.select_rows(kinds), passages)
        index = torch.tensor(
            [contexts.index(record.context) for record in records], device=lm.device
        )
        return self._extended(
            states.select_rows(index), [self._question_ids(record) for record in records]
        )

    def decode(self, records: Sequence[QARecord], *, k: int, max_new_tokens: int) -> Decoded:
        """Answer by beam search; the first line of the best beam is read again, since the beam may go on after it."""
        prompts = self.states(records)
        beams = self.aspire.decode(prompts, k=k, max_new_tokens=max_new_tokens)[0]
        beams = [_first_lines(row) for row in beams]
        texts = [row[0].text for row in beams]
        states, totals, counts = self.aspire.answer_states(prompts, [[text] for text in texts])
        return Decoded(prompts, beams, texts, (totals / counts)[:, 0].tolist(), states)

    def sample(
        self,
        prompts: PrefixStates,
        *,
        n: int,
        max_new_tokens: int,
        temperature: float,
        seeds: Sequence[str],
    ) -> list[list[Answer]]:
        """`n` answers to each prompt, the first line of each; the likelihood is that of all that was drawn."""
        drawn = self.aspire.sample(
            prompts, n=n, max_new_tokens=max_new_tokens, temperature=temperature, seeds=seeds
        )
        return [_first_lines(row) for row in drawn]

    def follow_up(self, text: str) -> Tensor:
        """The user's next turn, and the assistant's reply to it."""
        before, after = self._turn
        reply = self.aspire.template.render_answer(VERDICT)
        ids = self.aspire.lm.token_ids
        return torch.cat([self._marked_ids(before), ids(text), self._marked_ids(after), ids(reply)])

    @cached_property
    def _heads(self) -> PrefixStates:
        """Two rows: what stands before the passage, and before a question without one."""
        embed = self.aspire.lm.embed
        rows = [
            embed(torch.cat([self._start, self._marked_ids(kind.head)])) for kind in self._pieces
        ]
        with torch.inference_mode():
            return self.aspire.lm.prefill(rows)

    @cached_property
    def _pieces(self) -> tuple[_Pieces, _Pieces]:
        """With a passage, and without."""
        head, _, rest = self._render(self._chat(open_book=True)).partition(_CONTEXT)
        between, _, tail = rest.partition(_QUESTION)
        closed_head, _, closed_tail = self._render(self._chat(open_book=False)).partition(_QUESTION)
        return _Pieces(head, between, tail), _Pieces(closed_head, "", closed_tail)

    @cached_property
    def _turn(self) -> tuple[str, str]:
        """What stands between an answer and the next turn's text, and after that."""
        turns = [("assistant", _ANSWER), ("user", _FOLLOW_UP)]
        _, _, rest = self._render([*self._chat(open_book=True), *turns]).partition(_ANSWER)
        before, _, after = rest.partition(_FOLLOW_UP)
        return before, after

    def _chat(self, *, open_book: bool) -> list[tuple[str, str]]:
        chat = [("system", _OPEN_BOOK if open_book else _CLOSED_BOOK)]
        for example in self._examples:
            chat += [
                ("user", _ask(f" {example.passage}" if open_book else None, f" {example.question}"))
            ]
            chat += [("assistant", example.answer)]
        return [*chat, ("user", _ask(_CONTEXT if open_book else None, _QUESTION))]

    def _render(self, chat: Sequence[tuple[str, str]]) -> str:
        try:
            return self._rendered(chat)
        except TemplateError:
            # Some templates know no system line: it opens the first turn then.
            (_, line), (role, first), *others = chat
            return self._rendered([(role, f"{line}\n\n{first}"), *others])

    def _rendered(self, chat: Sequence[tuple[str, str]]) -> str:
        messages = [{"role": role, "content": text} for role, text in chat]
        return str(
            self.aspire.lm.tokenizer.apply_chat_template(
                messages, chat_template=self._template, tokenize=False, add_generation_prompt=True
            )
        )

    def _passage_ids(self, context: str | None) -> Tensor:
        return self.aspire.lm.token_ids(f" {self._plain(context)}" if context else "")

    def _question_ids(self, record: QARecord) -> Tensor:
        pieces = self._pieces[record.context is None]
        question = self.aspire.lm.token_ids(f" {self._plain(record.question)}")
        return torch.cat(
            [self._marked_ids(pieces.between), question, self._marked_ids(pieces.tail)]
        )

    def _plain(self, text: str) -> str:
        """Without lines that would pass for the layout."""
        return neutralize_markers(text, self.aspire.template.markers)

    def _marked_ids(self, text: str) -> Tensor:
        """Ids of a piece of the template, whose markers are special tokens."""
        ids = self.aspire.lm.tokenizer(
            text, add_special_tokens=False, split_special_tokens=False
        ).input_ids
        return torch.tensor(ids, dtype=torch.long, device=self.aspire.lm.device)

    def _extended(self, states: PrefixStates, ids: Sequence[Tensor]) -> PrefixStates:
        tokens, mask = pad(ids)
        if not tokens.numel():
            return states
        return self.aspire.lm.extend(states, self.aspire.lm.embed(tokens)[:, None], mask[:, None])[
            0
        ]


def _ask(passage: str | None, question: str) -> str:
    asked = f"Question:{question}"
    return asked if passage is None else f"Passage:{passage}\n{asked}"


def _line_end(lm: LanguageModel) -> str | None:
    """What the first token after an answer of the examples says: the lines' end, or the empty line's after it, too.

    None where the tokenizer drops the ends of lines.
    """
    tokens = (lm.tokenizer.decode([token]) for token in lm.token_ids("Volga\n\nPassage").tolist())
    return next(
        (token for token in tokens if "\n" in token), "\n" if len(lm.token_ids("\n")) else None
    )


def _first_lines(answers: Sequence[Answer]) -> list[Answer]:
    return [replace(answer, text=answer.text.partition("\n")[0].strip()) for answer in answers]
