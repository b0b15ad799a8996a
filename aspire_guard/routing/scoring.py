"""Scoring many exchanges in one call, with a result for each whatever the evaluator does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from aspire_guard.errors import AspireGuardError, EvaluationError
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange
from aspire_guard.langgraph_compat import is_interrupt
from aspire_guard.verdict import Score, is_number


@dataclass(frozen=True)
class ScoringResult:
    """How scoring one exchange went: a score, or the error in its place.

    Attributes:
        score: what the evaluator said; None where it failed.
        error: why it failed; None where it did not.
        seconds: time spent, in seconds; of a batch an even share.
    """

    score: Score | None = None
    error: AspireGuardError | None = None
    seconds: float | None = None


def score_exchanges(evaluator: Evaluator, exchanges: Sequence[Exchange]) -> list[ScoringResult]:
    """One result an exchange, from one call of the evaluator where it succeeds, else from a call each."""
    started = perf_counter()
    try:
        scores = list(evaluator.score(exchanges))
    except Exception as error:
        if is_interrupt(error):
            raise
        if len(exchanges) > 1:
            # One exchange that can't be scored, a context too long say, must not cost the others their answers.
            return [
                result
                for exchange in exchanges
                for result in score_exchanges(evaluator, [exchange])
            ]
        errors = [_failure(error, exchange) for exchange in exchanges]
    else:
        errors = (
            []
            if len(scores) == len(exchanges)
            else [_miscounted(len(exchanges), len(scores))] * len(exchanges)
        )
    seconds = (perf_counter() - started) / len(exchanges)
    if errors:
        return [ScoringResult(error=error, seconds=seconds) for error in errors]
    return [_checked(score, seconds) for score in scores]


def _checked(score: object, seconds: float) -> ScoringResult:
    if isinstance(score, Score) and is_number(score):
        return ScoringResult(score, seconds=seconds)
    found = (
        f"{score.confidence} and {score.selection_score}"
        if isinstance(score, Score)
        else type(score).__name__
    )
    error = EvaluationError(
        f"expected a confidence in [0, 1] and a selection score; found {found}; fix the evaluator"
    )
    return ScoringResult(error=error, seconds=seconds)


def _miscounted(expected: int, found: int) -> AspireGuardError:
    return EvaluationError(
        f"expected one score an exchange, {expected} in all; the evaluator gave {found}; fix it"
    )


def _failure(error: Exception, exchange: Exchange) -> AspireGuardError:
    quotes = _quotes(error, exchange.answer)
    if isinstance(error, AspireGuardError) and not quotes:
        return error
    found = type(error).__name__ if quotes else f"{type(error).__name__}: {error}"
    failure = EvaluationError(f"expected a score; the evaluator raised {found}")
    # A cause is printed with the error: one that may quote the answer is left out of both.
    failure.__cause__ = None if quotes else error
    return failure


def _quotes(error: Exception, answer: str) -> bool:
    """Whether an error's message may give the answer away: four letters in a row, or a shorter word, are enough.

    Text beyond ASCII may stand there escaped, past recognition, so any message may quote it.
    """
    if not answer.isascii():
        return True
    message = str(error).casefold()
    words = set(re.findall(r"\w+", message))
    return any(
        word in words
        if len(word) < 4
        else any(word[at : at + 4] in message for at in range(len(word) - 3))
        for word in re.findall(r"\w+", answer.casefold())
    )
