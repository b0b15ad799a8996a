"""Whether the model can read the records: told before training or answering, not in its third hour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aspire_guard.errors import InputError
from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.conversation import first_turns
from aspire_guard.lm.lora import filled
from aspire_trainers.persuasion import ANSWER, NEUTRAL, TRAINING
from aspire_trainers.prompting import Adapted, Prompting
from aspire_trainers.record import QARecord

if TYPE_CHECKING:
    from aspire_trainers.baselines import Suite
    from aspire_trainers.config import FitConfig, TrainingConfig
    from aspire_trainers.training_data import TrainingData


def expect_room(aspire: AspireLM, config: TrainingConfig, data: TrainingData) -> None:
    """Make sure that every record, with the adapters and the longest answer that θs may be shown, fits the window.

    Raises:
        InputError: one does not; it is named.
    """
    stage = config.self_evaluation
    start = None if stage.from_scratch else aspire.self_eval
    task = 0 if aspire.task is not None else _tokens(aspire, config.task, None)  # else the prompt's length counts θp
    of_passage = _longest_references(aspire, data.train) if stage.distractors else {}
    neutral, all_additions = (_additions(aspire, families) for families in ([NEUTRAL], TRAINING))
    is_read = stage.references or config.task.method != "none"
    for is_trained_on, records in ((True, data.train), (False, data.validation)):
        for record in records:
            given = data.given_of([record])
            right = _longest(aspire, [*record.answers[:1], config.task.refusal or ""]) if is_read else 0
            other = max(config.sampling.max_new_tokens, _longest(aspire, given[0].texts if given else ()))
            if is_trained_on:
                other = max(other, of_passage.get(record.id, 0))
            if is_trained_on and stage.persuasion:  # no right answer argues
                right, other = _with_addition(right, neutral), _with_addition(other, all_additions)
            answer = max(right, other)
            suffix = _tokens(aspire, stage, start, record.question, answer)
            _expect_fit(Adapted(aspire), record, task + answer + suffix)


def expect_room_to_answer(prompting: Prompting, records: Sequence[QARecord], max_new_tokens: int, suite: Suite) -> None:
    """Make sure that every prompt, with the longest answer and what is read after it, fits into the model's window.

    Raises:
        InputError: one does not; it is named.
    """
    aspire, asked = prompting.aspire, suite.follow_up_tokens(prompting, max_new_tokens)
    for record in records:
        suffix = max(asked, _tokens(aspire, None, aspire.self_eval, record.question, max_new_tokens))
        _expect_fit(prompting, record, max_new_tokens + suffix)


def _expect_fit(prompting: Prompting, record: QARecord, after: int) -> None:
    """With so many tokens after the prompt."""
    window = prompting.aspire.lm.max_length
    if (found := prompting.length(record) + after) > window:
        raise InputError(
            f"{record.id}: expected at most {window} tokens of context, question, answer and what is read with them, "
            f"found {found}; shorten its context, leave it out, or take a base model with a longer window"
        )


def _tokens(
    aspire: AspireLM, config: FitConfig | None, start: Adapter | None, question: str = "", answer: int = 0
) -> int:
    """Of an adapter that goes on from `start`, or is made anew, where the answer has so many tokens."""
    if start is not None:
        return len(start.vectors(aspire.lm, question, "")) + start.text.count(ANSWER) * answer
    if config is None or config.method not in ("soft_prompt", "lora"):
        return 0
    if config.method == "soft_prompt":
        return config.length
    return len(aspire.lm.token_ids(filled(config.text, question, ""))) + config.text.count(ANSWER) * answer


def _longest(aspire: AspireLM, answers: Iterable[str]) -> int:
    return max((len(aspire.answer_ids(answer)) for answer in answers), default=0)


def _longest_references(aspire: AspireLM, records: Sequence[QARecord]) -> dict[str, int]:
    """By record id the tokens of the longest reference that a question about its passage has."""
    first = first_turns(record.context for record in records)
    longest: dict[str | None, int] = {}
    for record in records:
        if record.context is not None:
            place = first[record.context]
            longest[place] = max(longest.get(place, 0), _longest(aspire, record.answers[:1]))
    return {record.id: longest.get(first[record.context], 0) for record in records}


def _additions(aspire: AspireLM, families: Iterable[str]) -> list[tuple[int, int]]:
    """Of each phrase that is added to an answer its tokens, and how often it repeats the answer."""
    phrases = (phrase for family in families for phrase in TRAINING[family])
    return [(_longest(aspire, [phrase.replace(ANSWER, "")]), phrase.count(ANSWER)) for phrase in phrases]


def _with_addition(answer: int, additions: Sequence[tuple[int, int]]) -> int:
    """The tokens of an answer of so many with the longest of the additions."""
    return max(tokens + times * answer for tokens, times in additions)
