"""Scoring of many exchanges in one call, with a result for each of them whatever the evaluator does."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter

from aspire_guard.errors import (
    AspireGuardError,
    EvaluationError,
    ExchangeError,
    name_error_type,
)
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange
from aspire_guard.langgraph_compat import is_interrupt
from aspire_guard.verdict import Score, is_comparable

logger = logging.getLogger(__name__)

# A shared run of this many letters is taken for a quotation of the answer.
_QUOTED_LETTERS = 4


@dataclass(frozen=True)
class ScoringResult:
    """The score of an exchange, or the error in its place.

    Attributes:
        score: the evaluator's score, or None if it failed.
        error: the reason for the failure, or None if there is a score.
        seconds: the time spent, in seconds. In a batch, an even share of it.
    """

    score: Score | None = None
    error: AspireGuardError | None = None
    seconds: float | None = None


def score_exchanges(evaluator: Evaluator, exchanges: Sequence[Exchange]) -> list[ScoringResult]:
    """Return one result per exchange.

    All exchanges are scored in one call of the evaluator. If that call fails, each gets a call of its own. An exchange
    without a question is not scored.
    """
    if not all(exchange.question.strip() for exchange in exchanges):
        return _score_with_questions(evaluator, exchanges)
    if not all(exchange.context for exchange in exchanges):
        warn_of_missing_context()
    started = perf_counter()
    try:
        scores = list(evaluator.score(exchanges))
    except Exception as error:
        if is_interrupt(error):
            raise
        if len(exchanges) > 1:
            return _score_one_by_one(evaluator, exchanges)
        errors = [_make_safe_error(error, exchange) for exchange in exchanges]
        return _make_failures(errors, started)
    if len(scores) != len(exchanges):
        miscount = EvaluationError(
            f"expected one score per exchange, {len(exchanges)} in all; the evaluator gave {len(scores)}; fix it"
        )
        return _make_failures([miscount] * len(exchanges), started)
    seconds = (perf_counter() - started) / len(exchanges)
    results = [_check_score(score, seconds) for score in scores]
    if any(result.score is not None and result.score.out_of_domain for result in results):
        warn_of_unusual_answers()
    return results


@cache
def warn_of_unusual_answers() -> None:
    """Log, once per process, that answers are out of domain. `Verdict.out_of_domain` tells it of each answer."""
    logger.warning(
        "answers are unlike those that the evaluator's confidence was calibrated on, in length, script or repetition; "
        "fit the evaluator to answers of your chain (aspire-guard fit), or set RoutingPolicy(out_of_domain='judge')"
    )


@cache
def warn_of_missing_context() -> None:
    """Log, once per process, that answers are judged without a context. `Verdict.context` tells it of each answer."""
    logger.warning(
        "answers are judged without a context, because no passages were found in the chain's input, its output or its "
        "steps; if the chain does have a context, tell the guard where it is: context='...', a key or a function"
    )


def _score_with_questions(
    evaluator: Evaluator, exchanges: Sequence[Exchange]
) -> list[ScoringResult]:
    """Score the exchanges that have a question, and return an error for the others."""
    asked = [exchange for exchange in exchanges if exchange.question.strip()]
    scored = iter(score_exchanges(evaluator, asked) if asked else [])
    unasked = ScoringResult(
        error=ExchangeError(
            "expected a question in words to judge the answer by, found none in this turn of the conversation; ask in "
            "words, or tell the guard where the question is"
        )
    )
    return [next(scored) if exchange.question.strip() else unasked for exchange in exchanges]


def _score_one_by_one(evaluator: Evaluator, exchanges: Sequence[Exchange]) -> list[ScoringResult]:
    # If one exchange can't be scored, for example because its context is too long, the others must
    # still get their answers.
    results: list[ScoringResult] = []
    for exchange in exchanges:
        results += score_exchanges(evaluator, [exchange])
    return results


def _make_failures(errors: Sequence[AspireGuardError], started: float) -> list[ScoringResult]:
    seconds = (perf_counter() - started) / len(errors)
    return [ScoringResult(error=error, seconds=seconds) for error in errors]


def _check_score(score: object, seconds: float) -> ScoringResult:
    if isinstance(score, Score) and is_comparable(score):
        return ScoringResult(score, seconds=seconds)
    found = type(score).__name__
    if isinstance(score, Score):
        found = f"{score.confidence} and {score.selection_score}"
        if score.declined is not None:
            found += f", and {score.declined} for a probability of declining"
    error = EvaluationError(
        f"expected a confidence in [0, 1] and a selection score; found {found}; fix the evaluator"
    )
    return ScoringResult(error=error, seconds=seconds)


def _make_safe_error(error: Exception, exchange: Exchange) -> AspireGuardError:
    """Make an error for the verdict, without the evaluator's own words if they may quote the answer."""
    may_quote = _may_quote(error, exchange.answer)
    if isinstance(error, AspireGuardError) and not may_quote:
        return error
    found = name_error_type(error)
    if not may_quote:
        found = f"{found}: {error}"
    safe_error = EvaluationError(f"expected a score; the evaluator raised {found}")
    # A cause is printed with the error, so an error that may quote the answer is not attached.
    safe_error.__cause__ = None if may_quote else error
    return safe_error


def _may_quote(error: Exception, answer: str) -> bool:
    """Tell whether an error's message may give the answer away.

    Four letters of the answer in a row are enough, or a whole word of it if the word is shorter. Text beyond ASCII
    may be escaped in the message and so be unrecognisable: then any message may quote it.
    """
    if not answer.isascii():
        return True
    message = str(error).casefold()
    message_words = set(re.findall(r"\w+", message))
    for word in re.findall(r"\w+", answer.casefold()):
        if len(word) < _QUOTED_LETTERS:
            if word in message_words:
                return True
        elif _shares_letters(word, message):
            return True
    return False


def _shares_letters(word: str, message: str) -> bool:
    starts = range(len(word) - _QUOTED_LETTERS + 1)
    return any(word[start : start + _QUOTED_LETTERS] in message for start in starts)
