"""The pre-trained model, prompted as well as possible: a few questions with short answers come before each question.

The prompt is plain text, and the end of the line ends an answer. Asked in its chat template, SmolLM2-135M answers in
sentences, and is right far less often.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from aspire_guard.lm.aspire_lm import Answer, AspireLM
from aspire_guard.lm.language_model import LanguageModel, pad
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_guard.lm.template import neutralize_markers
from aspire_trainers.evaluation.prompting import VERDICT, DecodedAnswers
from aspire_trainers.record import QARecord

_OPEN_BOOK = "Answer each question with a few words copied from its passage, and nothing else."
_CLOSED_BOOK = "Answer each question with a few words, and nothing else."

_PASSAGE, _QUESTION, _ANSWER = "Passage:", "Question:", "Answer:"


@dataclass(frozen=True)
class FewShotExample:
    """A question that is shown with its answer. It can also be answered without its passage."""

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


class FewShotPrompting:
    """The pre-trained model with examples before every question. An answer is its first line.

    Args:
        lm: the pre-trained model.
        examples: the examples to show, as many of them as leave half of the model's window free.
    """

    def __init__(self, lm: LanguageModel, examples: Sequence[FewShotExample] = EXAMPLES) -> None:
        self.aspire = AspireLM(replace(lm, end=_find_line_end(lm)))
        self._examples = _choose_examples(lm, examples)

    def count_tokens(self, record: QARecord) -> int:
        """Count the tokens of the prompt, including the examples."""
        row = int(record.context is None)
        head_tokens = int(self._heads.lengths[row, 0])
        return (
            head_tokens
            + len(self._encode_passage(record.context))
            + len(self._encode_question(record))
        )

    def compute_states(self, records: Sequence[QARecord]) -> PrefixStates:
        """Return the states of the prompts.

        The examples are computed once for all calls, and each passage once per call.
        """
        device = self.aspire.lm.device
        contexts = list(dict.fromkeys(record.context for record in records))
        head_index = torch.tensor([int(context is None) for context in contexts], device=device)
        passages = [self._encode_passage(context) for context in contexts]
        context_states = self._extend(self._heads.select_rows(head_index), passages)
        context_index = [contexts.index(record.context) for record in records]
        states = context_states.select_rows(torch.tensor(context_index, device=device))
        return self._extend(states, [self._encode_question(record) for record in records])

    def decode(self, records: Sequence[QARecord], *, k: int, max_new_tokens: int) -> DecodedAnswers:
        """Answer by beam search, and read the first line of the best beam again.

        The beam may go on after that line, and then its states and likelihood would cover more than the answer.
        """
        prompts = self.compute_states(records)
        beams, _ = self.aspire.decode(prompts, k=k, max_new_tokens=max_new_tokens)
        first_lines = [self.trim_answers(row) for row in beams]
        texts = [row[0].text for row in first_lines]
        states, totals, counts = self.aspire.answer_states(prompts, [[text] for text in texts])
        means = totals / counts  # (batch, 1)
        return DecodedAnswers(
            prompts=prompts,
            beams=first_lines,
            texts=texts,
            log_likelihoods=means[:, 0].tolist(),
            states=states,
        )

    def trim_answers(self, answers: Sequence[Answer]) -> list[Answer]:
        """Return the first line of each answer. Its likelihood is still the likelihood of all generated tokens."""
        return [replace(answer, text=answer.text.partition("\n")[0].strip()) for answer in answers]

    def encode_follow_up(self, text: str) -> Tensor:
        """Return the ids of a question after the answer, laid out as the examples are, and of the reply to it."""
        token_ids = self.aspire.lm.token_ids
        pieces = ("\n\n", text, f"\n{_ANSWER}", f" {VERDICT}")
        return torch.cat([token_ids(piece) for piece in pieces])

    @cached_property
    def _heads(self) -> PrefixStates:
        """States of two rows: the text before a passage, and the text before a question without a passage."""
        lm = self.aspire.lm
        embeddings = []
        for is_open_book in (True, False):
            head = lm.token_ids(_render_head(self._examples, is_open_book=is_open_book))
            embeddings.append(lm.embed(torch.cat([lm.start_ids, head])))
        with torch.inference_mode():
            return lm.prefill(embeddings)

    def _encode_passage(self, context: str | None) -> Tensor:
        return self.aspire.lm.token_ids(f" {self._neutralize(context)}" if context else "")

    def _encode_question(self, record: QARecord) -> Tensor:
        """Return the ids from the end of the head, or of the passage, up to the answer."""
        token_ids = self.aspire.lm.token_ids
        before = "" if record.context is None else f"\n{_QUESTION}"
        pieces = (before, f" {self._neutralize(record.question)}", f"\n{_ANSWER}")
        return torch.cat([token_ids(piece) for piece in pieces])

    def _neutralize(self, text: str) -> str:
        """Return the text without lines that would pass for the layout."""
        return neutralize_markers(text, self.aspire.template.markers)

    def _extend(self, states: PrefixStates, rows: Sequence[Tensor]) -> PrefixStates:
        tokens, mask = pad(rows)  # (batch, tokens)
        if not tokens.numel():
            return states
        embeddings = self.aspire.lm.embed(tokens)  # (batch, tokens, dim)
        longer, _ = self.aspire.lm.extend(states, embeddings[:, None], mask[:, None])
        return longer


def _choose_examples(
    lm: LanguageModel, examples: Iterable[FewShotExample]
) -> Sequence[FewShotExample]:
    """Return the first examples, as many as leave half of the model's window free for a question."""
    chosen = list(examples)
    while chosen:
        head = _render_head(chosen, is_open_book=True)
        # Placeholders serve as a short passage and a short question.
        prompt = f"{head} {{context}}\n{_QUESTION} {{question}}\n{_ANSWER}"
        if len(lm.token_ids(prompt)) <= lm.max_length // 2:
            break
        chosen.pop()
    return chosen


def _render_head(examples: Sequence[FewShotExample], *, is_open_book: bool) -> str:
    """Return the text before a passage, or before a question without a passage: the instruction and the examples."""
    instruction = _OPEN_BOOK if is_open_book else _CLOSED_BOOK
    turns = [f"{instruction}\n\n"]
    for example in examples:
        if is_open_book:
            turns.append(f"{_PASSAGE} {example.passage}\n")
        turns.append(f"{_QUESTION} {example.question}\n{_ANSWER} {example.answer}\n\n")
    turns.append(_PASSAGE if is_open_book else _QUESTION)
    return "".join(turns)


def _find_line_end(lm: LanguageModel) -> str | None:
    """Return the text of the first token after an answer of the examples, or None if the tokenizer drops line ends.

    It is the end of the line, in some tokenizers together with the empty line after it.
    """
    for token in lm.token_ids("Volga\n\nPassage").tolist():
        text = str(lm.tokenizer.decode([token]))
        if "\n" in text:
            return text
    return "\n" if len(lm.token_ids("\n")) else None
