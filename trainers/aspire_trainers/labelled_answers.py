"""What stage 3 learns from: sampled answers with their labels and their weights in the loss."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

from aspire_trainers.answer_sampling import SampledAnswers
from aspire_trainers.batches import by_context
from aspire_trainers.config import SelfEvaluationConfig
from aspire_trainers.correctness import Correctness


@dataclass(frozen=True)
class LabelledAnswers:
    """The answers of one question that θs learns from, each with its weight in the loss.

    Attributes:
        texts: right and wrong answers.
        is_right: their labels.
    """

    question: str
    context: str | None
    texts: tuple[str, ...]
    is_right: tuple[bool, ...]

    @property
    def weights(self) -> list[float]:
        """1/|S_c| for right answers, 1/|S_w| for wrong ones: the two expectations of the objective."""
        n_right = sum(self.is_right)
        n_wrong = len(self.is_right) - n_right
        return [1 / n_right if right else 1 / n_wrong for right in self.is_right]


def label_answers(
    sampled: Sequence[SampledAnswers],
    config: SelfEvaluationConfig,
    correctness: Correctness,
    *,
    seed: int,
    refusal: str | None = None,
) -> list[list[LabelledAnswers]]:
    """Batches of labelled answers, at most `config.answers` a question; `refusal` stands in for a missing reference."""
    grades = iter(correctness.grade([(answers.record, text) for answers in sampled for text in answers.texts]))
    graded = {answers.record.id: (answers, list(islice(grades, len(answers.texts)))) for answers in sampled}
    batches = by_context([answers.record for answers in sampled], config.batch_size, seed)
    return [[_label(*graded[record.id], config, seed, refusal) for record in batch] for batch in batches]


def by_passage(batch: Sequence[LabelledAnswers]) -> list[list[LabelledAnswers]]:
    """The questions of a batch, those about one passage together."""
    passages: dict[str | None, list[LabelledAnswers]] = {}
    for item in batch:
        passages.setdefault(item.context, []).append(item)
    return list(passages.values())


def _label(
    answers: SampledAnswers, grades: Sequence[bool], config: SelfEvaluationConfig, seed: int, refusal: str | None
) -> LabelledAnswers:
    """Right and wrong answers in turn, each kind in random order but for its first, `config.answers` at most."""
    chance = random.Random(f"{seed}/{answers.record.id}")
    reference = answers.record.answers[0] if answers.record.answerable else refusal
    labelled = answers.labelled(grades, reference if config.references else None)
    right, wrong = (
        [(text, is_right) for text in (kind[:1] + chance.sample(kind[1:], len(kind) - 1) if kind else [])]
        for kind, is_right in zip(labelled, (True, False), strict=True)
    )
    in_turn = [item for item in chain.from_iterable(zip_longest(right, wrong)) if item is not None][: config.answers]
    texts, labels = zip(*in_turn, strict=True)
    return LabelledAnswers(answers.record.question, answers.record.context, texts, labels)
