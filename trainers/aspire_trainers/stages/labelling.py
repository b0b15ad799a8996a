"""What stage 3 learns from: sampled answers with their labels and their weights in the loss."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest

from aspire_guard.lm.shared_prefixes import find_first_turns
from aspire_trainers.config import SelfEvaluationConfig
from aspire_trainers.correctness import Correctness
from aspire_trainers.data.batching import group_by_context
from aspire_trainers.data.sampled_answers import SampledAnswers


@dataclass(frozen=True)
class LabelledAnswers:
    """The answers of one question that θs learns from, each with its weight in the loss.

    Attributes:
        texts: right and wrong answers.
        is_right: their labels.
        weights: what each counts for in the loss.
    """

    question: str
    context: str | None
    texts: tuple[str, ...]
    is_right: tuple[bool, ...]
    weights: tuple[float, ...]


def label_answers(
    sampled: Sequence[SampledAnswers],
    config: SelfEvaluationConfig,
    correctness: Correctness,
    *,
    seed: int,
    refusal: str | None = None,
) -> list[list[LabelledAnswers]]:
    """Batches of labelled answers, at most `config.answers` a question; `refusal` stands in for a missing reference."""
    grades = iter(
        correctness.grade([(answers.record, text) for answers in sampled for text in answers.texts])
    )
    graded = {
        answers.record.id: (answers, list(islice(grades, len(answers.texts))))
        for answers in sampled
    }
    batches = group_by_context([answers.record for answers in sampled], config.batch_size, seed)
    return [
        [_label(*graded[record.id], config, seed, refusal) for record in batch] for batch in batches
    ]


def add_distractors(
    sampled: Sequence[SampledAnswers], n: int, *, seed: int
) -> list[SampledAnswers]:
    """The answers of each question and, behind them, `n` references of other questions about its passage, if it has.

    Of a conversation that are the other turns' references.
    """
    first = find_first_turns(answers.record.context for answers in sampled)
    references: dict[str | None, list[str]] = {}
    for answers in sampled:
        if answers.record.context is not None and answers.record.answerable:
            references.setdefault(first[answers.record.context], []).append(
                answers.record.references[0]
            )
    extended = []
    for answers in sampled:
        chance = random.Random(f"{seed}/{answers.record.id}")
        known = {*answers.texts, *answers.record.references}
        of_passage = dict.fromkeys(references.get(first[answers.record.context], []))
        others = [text for text in of_passage if text not in known]
        texts = (*answers.texts, *chance.sample(others, min(n, len(others))))
        likelihoods = (*answers.log_likelihoods, *[None] * (len(texts) - len(answers.texts)))
        extended.append(replace(answers, texts=texts, log_likelihoods=likelihoods))
    return extended


def group_by_passage(batch: Sequence[LabelledAnswers]) -> list[list[LabelledAnswers]]:
    """The questions of a batch, those about one passage or in one conversation together."""
    first = find_first_turns(item.context for item in batch)
    passages: dict[str | None, list[LabelledAnswers]] = {}
    for item in batch:
        passages.setdefault(first[item.context], []).append(item)
    return list(passages.values())


def _label(
    answers: SampledAnswers,
    grades: Sequence[bool],
    config: SelfEvaluationConfig,
    seed: int,
    refusal: str | None,
) -> LabelledAnswers:
    """Right and wrong answers in turn, each kind in random order but for its first, `config.answers` at most."""
    chance = random.Random(f"{seed}/{answers.record.id}")
    # What weighs most may not be left out, where the reference stands before it.
    ahead = answers.texts[:1] if config.weighting == "best_answer" else ()
    reference = answers.record.references[0] if answers.record.answerable else refusal
    labelled = answers.labelled(grades, reference if config.references else None)
    right, wrong = (
        [(text, is_right) for text in _in_random_order(kind, ahead, chance)]
        for kind, is_right in zip(labelled, (True, False), strict=True)
    )
    in_turn = [item for item in chain.from_iterable(zip_longest(right, wrong)) if item is not None][
        : config.answers
    ]
    texts, labels = zip(*in_turn, strict=True)
    if config.weighting == "balanced":
        # 1/|S_c| and 1/|S_w|: the two expectations of the paper's objective.
        weights = [1 / labels.count(label) for label in labels]
    else:
        weights = [
            1.0 if text == answers.texts[0] else 1 / max(1, len(texts) - 1) for text in texts
        ]
    return LabelledAnswers(
        answers.record.question, answers.record.context, texts, labels, tuple(weights)
    )


def _in_random_order(kind: Sequence[str], ahead: Sequence[str], chance: random.Random) -> list[str]:
    """Those of `ahead` in front, then the first, then all others at random."""
    front = list(dict.fromkeys([*(text for text in ahead if text in kind), *kind[:1]]))
    others = [text for text in kind if text not in front]
    return front + chance.sample(others, len(others))
