"""Checks before training: every record must fit the model's window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.shared_prefixes import find_first_turns
from aspire_trainers.evaluation.context_window import (
    check_fit,
    count_adapter_tokens,
    count_longest_answer,
)
from aspire_trainers.evaluation.prompting import AdaptedPrompting
from aspire_trainers.record import QARecord
from aspire_trainers.stages.adversarial import ANSWER, NEUTRAL, TRAINING

if TYPE_CHECKING:
    from aspire_trainers.config import TrainingConfig
    from aspire_trainers.data.training_data import TrainingData


def check_context_window(aspire: AspireLM, config: TrainingConfig, data: TrainingData) -> None:
    """Make sure that every record, with the adapters and the longest answer that θs may be shown, fits the window.

    Raises:
        InputError: one does not; it is named.
    """
    stage = config.self_evaluation
    start = None if stage.from_scratch else aspire.self_eval
    task = (
        0 if aspire.task is not None else count_adapter_tokens(aspire, config.task, None)
    )  # else the prompt's length counts θp
    of_passage = _longest_references(aspire, data.train) if stage.distractors else {}
    neutral, all_additions = (_additions(aspire, families) for families in ([NEUTRAL], TRAINING))
    is_read = stage.references or config.task.method != "none"
    for is_trained_on, records in ((True, data.train), (False, data.validation)):
        for record in records:
            given = data.given_of([record])
            right = (
                count_longest_answer(aspire, [*record.references[:1], config.task.refusal or ""])
                if is_read
                else 0
            )
            other = max(
                config.sampling.max_new_tokens,
                count_longest_answer(aspire, given[0].texts if given else ()),
            )
            if is_trained_on:
                other = max(other, of_passage.get(record.id, 0))
            if is_trained_on and stage.persuasion:  # no right answer argues
                right, other = _with_addition(right, neutral), _with_addition(other, all_additions)
            answer = max(right, other)
            suffix = count_adapter_tokens(aspire, stage, start, record.question, answer)
            check_fit(AdaptedPrompting(aspire), record, task + answer + suffix)


def _longest_references(aspire: AspireLM, records: Sequence[QARecord]) -> dict[str, int]:
    """By record id the tokens of the longest reference that a question about its passage has."""
    first = find_first_turns(record.context for record in records)
    longest: dict[str | None, int] = {}
    for record in records:
        if record.context is not None:
            place = first[record.context]
            longest[place] = max(
                longest.get(place, 0), count_longest_answer(aspire, record.references[:1])
            )
    return {record.id: longest.get(first[record.context], 0) for record in records}


def _additions(aspire: AspireLM, families: Iterable[str]) -> list[tuple[int, int]]:
    """Of each phrase that is added to an answer its tokens, and how often it repeats the answer."""
    phrases = (phrase for family in families for phrase in TRAINING[family])
    return [
        (count_longest_answer(aspire, [phrase.replace(ANSWER, "")]), phrase.count(ANSWER))
        for phrase in phrases
    ]


def _with_addition(answer: int, additions: Sequence[tuple[int, int]]) -> int:
    """The tokens of an answer of so many with the longest of the additions."""
    return max(tokens + times * answer for tokens, times in additions)
