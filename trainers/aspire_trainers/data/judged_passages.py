"""The batches that a judge learns from: passages, each with labelled answers about it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from aspire_guard.lm.plain_answer import Sentence, split_answer
from aspire_trainers.data.rated_answers import RatedAnswer, RatedPart


@dataclass(frozen=True)
class JudgedAnswer:
    """A labelled answer to a question about a passage.

    Attributes:
        question: the question.
        text: the answer.
        correct: True if all of it is right.
        labels: the label of each sentence that the evaluator reads, or nothing if only the answer has a label.
    """

    question: str
    text: str
    correct: bool
    labels: tuple[bool, ...]


@dataclass(frozen=True)
class JudgedPassage:
    """A passage with answers about it, which are read in one go.

    Attributes:
        context: the passage, or None for answers without a context.
        answers: the answers. Those to one question stand side by side.
    """

    context: str | None
    answers: tuple[JudgedAnswer, ...]


def split_groups(
    answers: Sequence[RatedAnswer], share: float, *, seed: int
) -> tuple[list[RatedAnswer], list[RatedAnswer]]:
    """Split answers into those to learn from and a share that is held out. No group is divided."""
    groups = sorted({(answer.file, answer.group) for answer in answers})
    random.Random(seed).shuffle(groups)
    held_out = set(groups[: max(1, round(share * len(groups)))])
    parts: tuple[list[RatedAnswer], list[RatedAnswer]] = ([], [])
    for answer in answers:
        parts[(answer.file, answer.group) in held_out].append(answer)
    return parts


def group_into_passages(
    answers: Sequence[RatedAnswer],
    *,
    count_tokens: Callable[[str], int],
    token_budget: int,
    seed: int,
) -> list[JudgedPassage]:
    """Put the answers about each passage into parts of at most `token_budget` tokens, the passage included.

    Args:
        answers: the answers. An empty answer is left out.
        count_tokens: counts the tokens of a text.
        token_budget: the most tokens of a part. A part has at least two answers, if the passage has two.
        seed: the seed of the order of the questions, and of the parts.
    """
    by_context: dict[str | None, dict[str, list[JudgedAnswer]]] = {}
    for answer in answers:
        judged = _label_sentences(answer)
        if judged is not None:
            questions = by_context.setdefault(answer.exchange.context or None, {})
            questions.setdefault(judged.question, []).append(judged)
    rng = random.Random(seed)
    passages: list[JudgedPassage] = []
    for context, questions in by_context.items():
        groups = list(questions.values())
        rng.shuffle(groups)
        room = token_budget - count_tokens(context or "")
        for part in _divide(groups, count_tokens, room):
            passages.append(JudgedPassage(context, tuple(part)))
    rng.shuffle(passages)
    return passages


def _divide(
    groups: Iterable[Sequence[JudgedAnswer]], count_tokens: Callable[[str], int], room: int
) -> Iterator[list[JudgedAnswer]]:
    """Divide the answers to the questions about a passage into parts of at most `room` tokens, or two answers."""
    part: list[JudgedAnswer] = []
    used = 0
    for answers in groups:
        for answer in answers:
            tokens = count_tokens(answer.text)
            if len(part) >= 2 and used + tokens > room:
                yield part
                part, used = [], 0
            if not part or part[-1].question != answer.question:
                tokens += count_tokens(answer.question)
            part.append(answer)
            used += tokens
    if part:
        yield part


def _label_sentences(answer: RatedAnswer) -> JudgedAnswer | None:
    """Return an answer with the labels of its sentences, or None if it is empty."""
    exchange = answer.exchange
    sentences = split_answer(exchange.answer)
    if not sentences:
        return None
    labels: tuple[bool, ...] = ()
    if answer.sentences:
        labels = tuple(_is_right(sentence, answer.sentences) for sentence in sentences)
    return JudgedAnswer(exchange.question, exchange.answer, answer.correct, labels)


def _is_right(sentence: Sentence, parts: Sequence[RatedPart]) -> bool:
    """Tell whether all labelled parts that a sentence touches are right."""
    touched = [part for part in parts if part.start < sentence.end and sentence.start < part.end]
    return all(part.correct for part in touched)
