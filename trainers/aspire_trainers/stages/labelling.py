"""The training data of stage 3: sampled answers with their labels and their weights in the loss."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest

from aspire_guard.lm.shared_prefixes import find_first_turns
from aspire_trainers.config import SelfEvaluationConfig
from aspire_trainers.correctness import Correctness
from aspire_trainers.data.batching import group_by_context
from aspire_trainers.data.sampled_answers import SampledAnswers


@dataclass(frozen=True)
class LabelledAnswers:
    """The answers to a question that θs learns from.

    Attributes:
        question: the text of the question.
        context: the passage to answer from, or None for a closed-book question.
        texts: right and wrong answers.
        is_right: the label of each answer.
        weights: the weight of each answer in the loss.
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
    """Make batches of labelled answers, at most `config.answers` per question.

    Args:
        sampled: the answers to each question.
        config: the settings of stage 3.
        correctness: grades the answers, all in one call.
        seed: seed of the batches and of the choice of answers.
        refusal: the right answer to a question without a reference.
    """
    answers_to_grade = [(answers.record, text) for answers in sampled for text in answers.texts]
    grades = iter(correctness.grade(answers_to_grade))
    labelled: dict[str, LabelledAnswers] = {}
    for answers in sampled:
        own_grades = list(islice(grades, len(answers.texts)))
        labelled[answers.record.id] = _label(answers, own_grades, config, seed, refusal)

    records = [answers.record for answers in sampled]
    batches: list[list[LabelledAnswers]] = []
    for batch in group_by_context(records, config.batch_size, seed):
        batches.append([labelled[record.id] for record in batch])
    return batches


def _label(
    answers: SampledAnswers,
    grades: Sequence[bool],
    config: SelfEvaluationConfig,
    seed: int,
    refusal: str | None,
) -> LabelledAnswers:
    """Choose at most `config.answers` right and wrong answers in turn.

    Each kind is in random order after its first answer.
    """
    record = answers.record
    rng = random.Random(f"{seed}/{record.id}")
    reference = record.references[0] if record.answerable else refusal
    if not config.references or record.is_open:
        reference = None
    right, wrong = answers.split_right_from_wrong(grades, reference)
    # The answer that weighs most must not be left out, even if the reference comes before it.
    first = answers.texts[:1] if config.weighting == "best_answer" else ()
    right = _shuffle_after_first(right, first, rng)
    wrong = _shuffle_after_first(wrong, first, rng)
    in_turn = _take_in_turn(right, wrong)
    texts, labels = zip(*in_turn[: config.answers], strict=True)
    if config.weighting == "balanced":
        # 1/|S_c| and 1/|S_w|: the two expectations of the paper's objective.
        weights = [1 / labels.count(label) for label in labels]
    else:
        share = 1 / max(1, len(texts) - 1)
        weights = [1.0 if text == answers.texts[0] else share for text in texts]
    return LabelledAnswers(record.question, record.context, texts, labels, tuple(weights))


def _shuffle_after_first(
    texts: Sequence[str], first: Sequence[str], rng: random.Random
) -> list[str]:
    """Return the texts that are in `first`, then the first text, then all others in random order."""
    front = [text for text in first if text in texts]
    front = list(dict.fromkeys([*front, *texts[:1]]))
    others = [text for text in texts if text not in front]
    return front + rng.sample(others, len(others))


def _take_in_turn(right: Sequence[str], wrong: Sequence[str]) -> list[tuple[str, bool]]:
    """Pair the answers with their labels, a right and a wrong one in turn, then the rest of the longer list."""
    in_turn: list[tuple[str, bool]] = []
    for right_text, wrong_text in zip_longest(right, wrong):
        if right_text is not None:
            in_turn.append((right_text, True))
        if wrong_text is not None:
            in_turn.append((wrong_text, False))
    return in_turn


def add_distractors(
    sampled: Sequence[SampledAnswers], n: int, *, seed: int
) -> list[SampledAnswers]:
    """Add to each question's answers at most `n` references of other questions about its passage.

    For a question in a conversation, these are references of the other turns.
    """
    first_turns = find_first_turns(answers.record.context for answers in sampled)
    references_by_passage: dict[str | None, list[str]] = {}
    for answers in sampled:
        record = answers.record
        if record.context is not None and record.answerable:
            passage = first_turns[record.context]
            references_by_passage.setdefault(passage, []).append(record.references[0])
    extended = []
    for answers in sampled:
        passage = first_turns[answers.record.context]
        references = references_by_passage.get(passage, [])
        extended.append(_add_references(answers, references, n, seed))
    return extended


def _add_references(
    answers: SampledAnswers, references: Sequence[str], n: int, seed: int
) -> SampledAnswers:
    rng = random.Random(f"{seed}/{answers.record.id}")
    known = {*answers.texts, *answers.record.references}
    others = [text for text in dict.fromkeys(references) if text not in known]
    distractors = rng.sample(others, min(n, len(others)))
    return replace(
        answers,
        texts=(*answers.texts, *distractors),
        log_likelihoods=(*answers.log_likelihoods, *[None] * len(distractors)),
    )


def group_by_passage(batch: Sequence[LabelledAnswers]) -> list[list[LabelledAnswers]]:
    """Group the questions of a batch that are about the same passage or in the same conversation."""
    first_turns = find_first_turns(item.context for item in batch)
    passages: dict[str | None, list[LabelledAnswers]] = {}
    for item in batch:
        passages.setdefault(first_turns[item.context], []).append(item)
    return list(passages.values())
