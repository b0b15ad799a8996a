"""The reading of a finished answer: how its tokens follow from the context, and what θs says after each sentence.

All of it comes from one pass over `[θp ; x ; ŷ]`, θs on the states of that pass, and a short pass over the question
and the answer without the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.language_model import LanguageModel, pad
from aspire_guard.lm.plain_answer import Sentence
from aspire_guard.lm.prefix_states import PrefixStates
from aspire_guard.lm.prompt_reader import AnsweredPrompt, PromptReader

_TOKENS_PER_PART = 256


@dataclass(frozen=True)
class SentenceReading:
    """The reading of a sentence.

    Attributes:
        sentence: its place in the answer, and its plain text.
        text: the text that the model read, with the white space before it.
        offsets: the first character of each token in `text` and the end of its last character.
        log_p: log-probability of each token after `[θp ; x]` and the answer before it, in nats, `(tokens,)`.
        log_p_alone: the same without the context, or None if there is no context.
        lead: log-probability of each token minus that of the likeliest token that the context holds, in nats,
            `(tokens,)`, or None if there is no context. It is 0 if the model would have copied the same token.
        log_p_correct: log P(z_c) of the answer up to the end of the sentence, in nats.
        context: the context that it was read after, or None. It is a part of a context that is too long to be read
            at once.
    """

    sentence: Sentence
    text: str
    offsets: list[tuple[int, int]]
    log_p: Tensor
    log_p_alone: Tensor | None
    lead: Tensor | None
    log_p_correct: float
    context: str | None


@dataclass(frozen=True)
class AnswerReading:
    """The reading of an answer.

    Attributes:
        sentences: the readings of its sentences, which are empty if the answer is empty.
        end_log_p: log-probability of the end token after the answer, in nats.
        log_p_correct: log P(z_c) of the whole answer, in nats.
        values: the mean over the answer's tokens of the values that each layer cached for them after the question
            alone, `(kv_heads * head_dim,)` each, or nothing if the answer is empty.
    """

    sentences: tuple[SentenceReading, ...]
    end_log_p: float
    log_p_correct: float
    values: tuple[Tensor, ...] = ()

    @property
    def text(self) -> str:
        """The plain text of the answer."""
        return " ".join(each.sentence.text for each in self.sentences)

    @property
    def log_likelihood(self) -> float:
        """The mean log-probability of the answer's tokens with the end token (log f_norm), in nats."""
        total = self.end_log_p + sum(float(each.log_p.sum()) for each in self.sentences)
        return total / (1 + sum(len(each.log_p) for each in self.sentences))


@dataclass(frozen=True)
class TokenReading:
    """The log-probabilities of the tokens of an answer; see `SentenceReading`.

    Attributes:
        log_p: with the end token, `(tokens + 1,)`.
        lead: `(tokens + 1,)`, or None if there is no context.
    """

    log_p: Tensor
    lead: Tensor | None


@torch.inference_mode()
def read_answers(aspire: AspireLM, exchanges: Sequence[AnsweredPrompt]) -> list[AnswerReading]:
    """Read finished answers, each context once.

    Args:
        aspire: the model with θp and θs.
        exchanges: (question, context, answer) each.
    """
    reader = aspire.reader
    sentences = [reader.split_answer(answer) for _, _, answer in exchanges]
    pieces = [list(map(reader.sentence_ids, row)) for row in sentences]
    states, with_context = _read_tokens(reader, exchanges, pieces)
    questions = [(question, None, "") for question, _, _ in exchanges]
    states_alone, alone = _read_tokens(reader, questions, pieces)
    verdicts = _ask_after_sentences(aspire, exchanges, states, pieces)
    readings: list[AnswerReading] = []
    for i, (_, context, _) in enumerate(exchanges):
        readings.append(
            join_reading(
                reader,
                sentences[i],
                pieces[i],
                tokens=with_context[i],
                alone=alone[i] if context else None,
                verdicts=verdicts[i],
                context=context,
                values=states_alone.average_values(i, sum(map(len, pieces[i]))),
            )
        )
    return readings


def join_reading(
    reader: PromptReader,
    sentences: Sequence[Sentence],
    pieces: Sequence[Tensor],
    *,
    tokens: TokenReading,
    alone: TokenReading | None,
    verdicts: Sequence[float],
    context: str | None,
    values: tuple[Tensor, ...],
) -> AnswerReading:
    """Divide the readings of an answer's tokens among its sentences.

    Args:
        reader: the reader of the prompt layout.
        sentences: the sentences of the answer.
        pieces: the ids of each sentence, `(tokens,)`.
        tokens: the reading of all tokens after the context and the question.
        alone: the reading after the question alone, or None if there is no context.
        verdicts: log P(z_c) after each sentence, in nats, or after the prompt if the answer is empty.
        context: the context, or None.
        values: the mean values of the answer after the question alone; see `AnswerReading`.
    """
    readings: list[SentenceReading] = []
    start = 0
    for sentence, ids, verdict in zip(sentences, pieces, verdicts, strict=False):
        part = slice(start, start + len(ids))
        text = reader.render_sentence(sentence)
        reading = SentenceReading(
            sentence=sentence,
            text=text,
            offsets=reader.lm.token_offsets(text),
            log_p=tokens.log_p[part],
            log_p_alone=None if alone is None else alone.log_p[part],
            lead=None if tokens.lead is None else tokens.lead[part],
            log_p_correct=verdict,
            context=context,
        )
        readings.append(reading)
        start = part.stop
    return AnswerReading(tuple(readings), float(tokens.log_p[-1]), verdicts[-1], values)


def measure_tokens(
    lm: LanguageModel, predictors: Tensor, ids: Tensor, context_ids: Tensor | None
) -> TokenReading:
    """Measure how likely the tokens `ids` `(tokens,)` and the end token after them are.

    Args:
        lm: the model that read them.
        predictors: the hidden states that predict them, `(tokens + 1, hidden)`.
        context_ids: the tokens of the context, or None if there is no context.
    """
    end = torch.tensor([lm.end_id], device=ids.device)
    targets = torch.cat([ids, end])
    chosen: list[Tensor] = []
    leads: list[Tensor] = []
    # A part at a time, since every token has a row of the whole vocabulary.
    parts = zip(
        torch.split(predictors, _TOKENS_PER_PART),
        torch.split(targets, _TOKENS_PER_PART),
        strict=True,
    )
    for hidden, tokens in parts:
        log_p = lm.logits(hidden).log_softmax(-1)  # (part, vocabulary)
        chosen.append(log_p.gather(-1, tokens[:, None])[:, 0])
        if context_ids is not None:
            likeliest = log_p[:, context_ids].amax(-1)  # (part,)
            # A token that the context does not hold may be likelier than all that it holds.
            leads.append((chosen[-1] - likeliest).clamp(max=0.0))
    return TokenReading(torch.cat(chosen), torch.cat(leads) if leads else None)


def _read_tokens(
    reader: PromptReader, exchanges: Sequence[AnsweredPrompt], pieces: Sequence[Sequence[Tensor]]
) -> tuple[PrefixStates, list[TokenReading]]:
    """Read the answers after their prompts. Their texts are given as the ids of their sentences."""
    rows: list[tuple[str | None, Tensor]] = []
    question_lengths: list[int] = []
    answers: list[Tensor] = []
    for (question, context, _), parts in zip(exchanges, pieces, strict=True):
        question_ids = reader.question_ids(question)
        answer_ids = torch.cat([question_ids[:0], *parts])
        question_lengths.append(len(question_ids))
        answers.append(answer_ids)
        rows.append((context, torch.cat([question_ids, answer_ids])))
    states, hidden = reader.read(rows)
    readings: list[TokenReading] = []
    for i, (_, context, _) in enumerate(exchanges):
        # The last token of the question predicts the first token of the answer.
        predictors = hidden[i][question_lengths[i] - 1 :]
        context_ids = reader.list_context_tokens(context)
        readings.append(measure_tokens(reader.lm, predictors, answers[i], context_ids))
    return states, readings


def _ask_after_sentences(
    aspire: AspireLM,
    exchanges: Sequence[AnsweredPrompt],
    states: PrefixStates,
    pieces: Sequence[Sequence[Tensor]],
) -> list[list[float]]:
    """Return log P(z_c) after each sentence of each answer, or after the prompt of an empty answer."""
    ends: list[Tensor] = []
    texts: list[list[tuple[str, str]]] = []
    for i, (question, _, answer) in enumerate(exchanges):
        lengths = torch.tensor([len(ids) for ids in pieces[i]] or [0])
        prompt = int(states.lengths[i, 0]) - int(lengths.sum())
        ends.append(prompt + lengths.cumsum(0))
        texts.append([(question, answer)] * len(lengths))
    branch_ends, _ = pad(ends)  # (batch, most sentences)
    branches = states.fork(branch_ends.shape[1])
    branches = branches.truncate_branches(branch_ends.to(states.visible.device))
    logits = aspire.verdict_logits(branches, texts)  # (sentences of all answers, 2)
    flat = logits.log_softmax(-1)[:, 0].tolist()
    verdicts: list[list[float]] = []
    for row in texts:
        verdicts.append(flat[: len(row)])
        flat = flat[len(row) :]
    return verdicts
