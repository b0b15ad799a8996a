"""The answers of one question that stage 3 learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aspire_guard.lm.aspire_lm import Answer
from aspire_trainers.record import QARecord

DEFAULT_WRONG_ANSWER = ""


@dataclass(frozen=True)
class SampledAnswers:
    """The answers of one question; beams stand best first.

    Attributes:
        texts: without repetitions.
        log_likelihoods: log f_norm of each, in nats; None where the model that answered reported none.
    """

    record: QARecord
    texts: tuple[str, ...]
    log_likelihoods: tuple[float | None, ...]

    def labelled(
        self, grades: Sequence[bool], reference: str | None = None
    ) -> tuple[list[str], list[str]]:
        """S_c and S_w of the paper.

        Args:
            grades: whether each of the texts is right.
            reference: stands in front in S_c, if it isn't there already.
        """
        right = [text for text, is_right in zip(self.texts, grades, strict=True) if is_right]
        if reference is not None and reference not in right:
            right.insert(0, reference)
        wrong = [text for text in self.texts if text not in right]
        if not wrong and self.record.answerable:
            wrong.append(DEFAULT_WRONG_ANSWER)
        return right, wrong


def drop_repetitions(beams: Sequence[Answer]) -> dict[str, float]:
    """Text → log f_norm; of answers with the same text the first stays, of beams the best."""
    answers: dict[str, float] = {}
    for beam in beams:
        answers.setdefault(beam.text, beam.log_likelihood)
    return answers
