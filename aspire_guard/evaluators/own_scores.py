"""The scores that models gave their own answers in this process, each kept for one exchange.

A model that answers and judges in the same pass keeps the score here, so that a guard need not ask the evaluator again.
Nothing that arrives from outside, such as the metadata of a message, is taken for a score.
"""

from __future__ import annotations

import hashlib
import json
from threading import Lock

from aspire_guard.evaluators.protocol import Evaluator, find_fingerprint
from aspire_guard.exchange import Exchange
from aspire_guard.verdict import Score

# The oldest score is dropped beyond this number, and the evaluator is then asked again.
_CAPACITY = 4096

_lock = Lock()
_scores: dict[bytes, Score] = {}


def keep_own_score(evaluator: Evaluator, exchange: Exchange, score: Score) -> None:
    """Keep the score that a model gave the answer of an exchange as it wrote it.

    Args:
        evaluator: the evaluator of the model. Without a fingerprint it keeps no scores.
        exchange: the question and the context that the model read, and its answer.
        score: the evaluator's score of that exchange.
    """
    digest = _make_digest(evaluator, exchange)
    if digest is None:
        return
    with _lock:
        _scores[digest] = score
        if len(_scores) > _CAPACITY:
            del _scores[next(iter(_scores))]


def find_own_score(evaluator: Evaluator, exchange: Exchange) -> Score | None:
    """Find the score of this very exchange under this evaluator, or None if no model of this process gave it."""
    digest = _make_digest(evaluator, exchange) if _scores else None
    return None if digest is None else _scores.get(digest)


def _make_digest(evaluator: Evaluator, exchange: Exchange) -> bytes | None:
    fingerprint = find_fingerprint(evaluator)
    if fingerprint is None:
        return None
    # White space around a text does not change what is judged, and parsers strip it.
    texts = (exchange.question, exchange.context or "", exchange.answer)
    contents = json.dumps([fingerprint, *(text.strip() for text in texts)])
    return hashlib.sha256(contents.encode()).digest()
