"""The signals that a selection score can be made of: named numbers, each higher for answers that are right more often.

log_likelihood  log f_norm, the mean log-probability of the answer's tokens with the end token, in nats
log_p_correct   log P(z_c | x, ŷ), the learned self-evaluation, in nats
claims_correct  the mean over the answer's claims of log P(z_c | x, ŷ up to the claim), in nats
support         the share of the answer's different words that stand in the context, in [0, 1]
explained       the share of the answer's surprise that the context explains: 1 − log p(ŷ | x) / log p(ŷ | question),
                in [−1, 1]
lead            the mean over the answer's facts of log p(fact) minus log p of what else the context could have put
                there, in nats, at least −12

The last four are measured on the answer's claims: the sentences that are not copied word for word from the context,
or all sentences if all are copied. So quoting the context beside a wrong claim does not make up for it.

A fact is a word of the context that the question does not hold: a number or a name, or any longer word if the answer
has no number and no name. Without a context, only the first three signals exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from aspire_guard.lm.answer_reading import AnswerReading, SentenceReading
from aspire_guard.lm.context_windows import find_words

LOG_LIKELIHOOD = "log_likelihood"
LOG_P_CORRECT = "log_p_correct"
CLAIMS_CORRECT = "claims_correct"
SUPPORT = "support"
EXPLAINED = "explained"
LEAD = "lead"

_WORD = re.compile(r"\w+")
_LONG_WORD = 5
_LEAST_LEAD = -12.0


def measure_signals(reading: AnswerReading, question: str) -> dict[str, float]:
    """Measure the signals of an answer, as far as they exist."""
    claims = _list_claims(reading.sentences)
    verdicts = [claim.log_p_correct for claim in claims] or [reading.log_p_correct]
    signals = {
        LOG_LIKELIHOOD: reading.log_likelihood,
        LOG_P_CORRECT: reading.log_p_correct,
        CLAIMS_CORRECT: sum(verdicts) / len(verdicts),
    }
    return signals | _compare_with_context(reading.sentences, claims, question)


def measure_sentence_signals(reading: SentenceReading, question: str) -> dict[str, float]:
    """Measure the signals of a sentence, as far as they exist. Its likelihood is that of its own tokens."""
    signals = {
        LOG_LIKELIHOOD: _mean(reading.log_p),
        LOG_P_CORRECT: reading.log_p_correct,
        CLAIMS_CORRECT: reading.log_p_correct,
    }
    return signals | _compare_with_context([reading], [reading], question)


def _list_claims(sentences: Sequence[SentenceReading]) -> Sequence[SentenceReading]:
    """List the sentences that are not copied word for word from the context, or all if all are."""
    return [each for each in sentences if not _is_copied(each)] or sentences


def _compare_with_context(
    sentences: Sequence[SentenceReading], claims: Sequence[SentenceReading], question: str
) -> dict[str, float]:
    contexts = {each.context for each in sentences if each.context}
    if not contexts:
        return {}
    context_words: set[str] = set()
    for context in contexts:
        context_words |= find_words(context)
    return {
        SUPPORT: _measure_support(claims, context_words),
        EXPLAINED: _measure_explained(claims),
        LEAD: _measure_lead(claims, context_words - find_words(question)),
    }


def _is_copied(reading: SentenceReading) -> bool:
    """Tell whether the words of a sentence stand in the context in the same order, side by side."""
    if not reading.context:
        return False
    return f" {_join_words(reading.sentence.text)} " in f" {_join_words(reading.context)} "


def _join_words(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _measure_support(sentences: Iterable[SentenceReading], context_words: set[str]) -> float:
    """Return the share of the different words that are among the context's, or 0 if there are no words."""
    words: set[str] = set()
    for each in sentences:
        words |= find_words(each.sentence.text)
    return len(words & context_words) / len(words) if words else 0.0


def _measure_explained(sentences: Iterable[SentenceReading]) -> float:
    total = alone = 0.0
    for each in sentences:
        assert each.log_p_alone is not None
        total += float(each.log_p.sum())
        alone += float(each.log_p_alone.sum())
    if alone == 0.0:
        return 0.0
    return min(max(1 - total / alone, -1.0), 1.0)


class _Word(NamedTuple):
    """A word of a sentence as the model read it.

    Attributes:
        text: the word.
        is_first: True if it begins the sentence, where every word has a capital letter.
        lead: the sum of its tokens' leads, in nats.
    """

    text: str
    is_first: bool
    lead: float


def _measure_lead(sentences: Iterable[SentenceReading], new_words: set[str]) -> float:
    """Return the mean lead of the facts, or the least lead if there are no facts.

    Args:
        sentences: the sentences of the answer.
        new_words: the words of the context that the question does not hold.
    """
    names: list[float] = []
    others: list[float] = []
    for each in sentences:
        for word in _list_words(each):
            if word.text.lower() not in new_words:
                continue
            if _is_name(word):
                names.append(word.lead)
            elif len(word.text) >= _LONG_WORD:
                others.append(word.lead)
    leads = names or others
    if not leads:
        return _LEAST_LEAD
    return max(sum(leads) / len(leads), _LEAST_LEAD)


def _list_words(reading: SentenceReading) -> Iterator[_Word]:
    assert reading.lead is not None
    token = 0
    first_word = True
    for match in _WORD.finditer(reading.text):
        lead = 0.0
        while token < len(reading.offsets) and reading.offsets[token][1] <= match.start():
            token += 1
        last = token
        while last < len(reading.offsets) and reading.offsets[last][0] < match.end():
            lead += float(reading.lead[last])
            last += 1
        yield _Word(match.group(), first_word, lead)
        first_word = False


def _is_name(word: _Word) -> bool:
    """Tell whether a word is a number or a name."""
    if any(letter.isdigit() for letter in word.text):
        return True
    return word.text[0].isupper() and not word.is_first


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0
