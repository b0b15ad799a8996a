"""The sampled answers to a question, from which stage 3 learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aspire_guard.lm.aspire_lm import Answer
from aspire_trainers.record import QARecord

DEFAULT_WRONG_ANSWER = ""


@dataclass(frozen=True)
class SampledAnswers:
    """The sampled answers to a question.

    Attributes:
        record: the question.
        texts: the answers without repetitions. Beams are sorted, the best first.
        log_likelihoods: log f_norm of each answer in nats, or None if the answering model reported none.
    """

    record: QARecord
    texts: tuple[str, ...]
    log_likelihoods: tuple[float | None, ...]

    def split_right_from_wrong(
        self, grades: Sequence[bool], reference: str | None = None
    ) -> tuple[list[str], list[str]]:
        """Return S_c and S_w of the paper, the right and the wrong answers.

        Args:
            grades: for each of the texts, whether it is right.
            reference: a right answer to put in front of S_c if it isn't in S_c already.
        """
        graded = zip(self.texts, grades, strict=True)
        right = [text for text, is_right in graded if is_right]
        if reference is not None and reference not in right:
            right.insert(0, reference)
        wrong = [text for text in self.texts if text not in right]
        if not wrong and self.record.answerable:
            wrong.append(DEFAULT_WRONG_ANSWER)
        return right, wrong


def drop_repetitions(beams: Sequence[Answer]) -> dict[str, float]:
    """Map each text to its log f_norm. The first of the answers with the same text counts, which is the best beam."""
    likelihoods: dict[str, float] = {}
    for beam in beams:
        likelihoods.setdefault(beam.text, beam.log_likelihood)
    return likelihoods
