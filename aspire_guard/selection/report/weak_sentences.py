"""The sentences of an answer that make it doubtful: those whose confidence is below a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from aspire_guard.selection.calibration import Threshold
from aspire_guard.selection.scored_answers import ScoredAnswers
from aspire_guard.selection.scored_sentences import ScoredSentence

# The lowest confidence of a sentence that is not weak, if no threshold says otherwise.
DEFAULT_LIMIT = 0.5


class AnswerPart(NamedTuple):
    """A part of an answer's text, with its confidence if it is a weak sentence, or None."""

    text: str
    confidence: float | None = None


def find_sentence_limit(threshold: Threshold | None, answers: ScoredAnswers) -> float:
    """Return the lowest confidence of a sentence that is not weak, on the scale of the confidences in the lines.

    Sentences keep the confidence that the evaluator gave when it scored, and a threshold may have been chosen on
    another scale since. The selection scores and the confidences of the answers lead from one scale to the other.
    """
    if threshold is None or not threshold.releases:
        return DEFAULT_LIMIT
    if threshold.confidence == 0 or threshold.selection_score is None or answers.confidence is None:
        return threshold.confidence
    lowest_first = np.argsort(answers.selection_score, kind="stable")
    scores = answers.selection_score[lowest_first]  # (n,)
    confidences = answers.confidence[lowest_first]  # (n,)
    return float(np.interp(threshold.selection_score, scores, confidences))


def split_answer(
    answer: str, sentences: Sequence[ScoredSentence], limit: float
) -> list[AnswerPart]:
    """Split an answer into its weak sentences and the text between them. Sentences are cut with the answer."""
    parts = []
    position = 0
    for sentence in sentences:
        if sentence.confidence >= limit or sentence.start >= len(answer):
            continue
        if position < sentence.start:
            parts.append(AnswerPart(answer[position : sentence.start]))
        parts.append(AnswerPart(answer[sentence.start : sentence.end], sentence.confidence))
        position = sentence.end
    if position < len(answer):
        parts.append(AnswerPart(answer[position:]))
    return parts
