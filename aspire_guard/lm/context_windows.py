"""Contexts that are longer than the model's window: they are read in parts, each sentence of an answer by its own.

A context is cut into windows of whole passages. Each sentence of the answer chooses the window that shares the most
words with it, and the answer is read after every chosen window. A window that no sentence chooses costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from aspire_guard.errors import InputError
from aspire_guard.lm.answer_reading import AnswerReading, read_answers
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.plain_answer import Sentence
from aspire_guard.lm.prompt_reader import AnsweredPrompt
from aspire_guard.sentences import split_sentences

LONGEST_CONTEXT = 64_000
# In tokens. Small windows cost less in all, and a small model finds more in them.
_WINDOW = 2048

_WORD = re.compile(r"\w+")
_PASSAGE_END = re.compile(r"\n\s*\n")


def read_in_windows(aspire: AspireLM, exchange: AnsweredPrompt) -> AnswerReading:
    """Read an answer after the windows of its context that its sentences choose.

    Each sentence keeps the reading after the window under which it is likeliest.

    Raises:
        InputError: the context has more than `LONGEST_CONTEXT` tokens, or the question and the answer alone don't fit.
    """
    question, context, answer = exchange
    assert context is not None
    windows = split_into_windows(aspire, question, context, answer)
    sentences = aspire.reader.split_answer(answer)
    chosen = [windows[i] for i in choose_windows(windows, sentences)]
    # One after the other, so that the memory is that of one window.
    readings = [read_answers(aspire, [(question, window, answer)])[0] for window in chosen]
    best_parts = []
    for parts in zip(*(reading.sentences for reading in readings), strict=True):
        best_parts.append(max(parts, key=lambda part: float(part.log_p.sum())))
    likeliest = max(readings, key=lambda reading: reading.log_likelihood)
    return replace(likeliest, sentences=tuple(best_parts))


def choose_windows(windows: Sequence[str], sentences: Sequence[Sentence]) -> list[int]:
    """Return the indices of the windows that share the most words with the whole answer or one of its sentences."""
    window_words = [find_words(window) for window in windows]
    texts = [sentence.text for sentence in sentences]
    chosen: set[int] = set()
    for text in [" ".join(texts), *texts]:
        words = find_words(text)
        shared = [len(words & found) for found in window_words]
        chosen.add(shared.index(max(shared)))
    return sorted(chosen)


def split_into_windows(aspire: AspireLM, question: str, context: str, answer: str) -> list[str]:
    """Cut a context into windows of whole passages, as many as fit into one window.

    Raises:
        InputError: the context is too long, or there is no room for it beside the question and the answer.
    """
    reader = aspire.reader
    tokens = len(reader.context_ids(context))
    if tokens > LONGEST_CONTEXT:
        raise InputError(
            f"expected a context of at most {LONGEST_CONTEXT:,} tokens, found {tokens:,}; pass on fewer passages"
        )
    head, rest = aspire.lengths(question, None, answer)
    room = min(_WINDOW, aspire.lm.max_length - head - rest - aspire.suffix_length(question, answer))
    if room < 16:
        raise InputError(
            f"expected a question and an answer that leave room for a context in {aspire.lm.max_length} tokens, found "
            f"{rest} tokens; shorten them or use an evaluator whose base model has a longer window"
        )
    windows: list[str] = []
    for passage in _split_passages(context):
        joined = f"{windows[-1]}\n\n{passage}" if windows else passage
        if windows and len(reader.context_ids(joined)) <= room:
            windows[-1] = joined
        else:
            windows += _cut(aspire, passage, room)
    return windows


def find_words(text: str) -> set[str]:
    """Return the different words of a text, in lower case."""
    return set(_WORD.findall(text.lower()))


def _split_passages(context: str) -> list[str]:
    passages = [passage.strip() for passage in _PASSAGE_END.split(context)]
    return [passage for passage in passages if passage]


def _cut(aspire: AspireLM, passage: str, room: int) -> Iterator[str]:
    """Cut a passage that does not fit into a window after a sentence, or between words if a sentence is too long."""
    rest = passage
    while len(ids := aspire.reader.context_ids(rest)) > room:
        # The characters that fit, if all tokens are about equally long.
        fit = max(1, len(rest) * room // len(ids))
        while len(aspire.reader.context_ids(rest[:fit])) > room:
            fit = fit * 9 // 10
        ends = [end for _, end in split_sentences(rest[:fit])[:-1]]
        cut = ends[-1] if ends else rest.rfind(" ", 1, fit)
        cut = cut if cut > 0 else fit
        yield rest[:cut].strip()
        rest = rest[cut:].strip()
    if rest:
        yield rest
