"""Whether the model can read the records: told before training or answering, not in its third hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aspire_guard.errors import InputError
from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_trainers.record import QARecord

if TYPE_CHECKING:
    from aspire_trainers.config import FitConfig, TrainingConfig
    from aspire_trainers.training_data import TrainingData


def expect_room(aspire: AspireLM, config: TrainingConfig, data: TrainingData) -> None:
    """Make sure that every record, with its longest answer and the adapters, fits into the base model's window.

    Raises:
        InputError: one does not; it is named.
    """
    adapters = 0 if aspire.task is not None else _tokens(aspire, config.task, None)  # else `lengths` counts θp
    adapters += _tokens(aspire, config.self_evaluation, aspire.self_eval)
    for record in (*data.train, *data.validation):
        given = data.given_of([record])
        answers = [*record.answers[:1], *(given[0].texts if given else ())]
        longest = max([config.sampling.max_new_tokens, *(len(aspire.answer_ids(answer)) for answer in answers)])
        _expect_fit(aspire, record, longest + adapters)


def expect_room_to_answer(aspire: AspireLM, records: Sequence[QARecord], max_new_tokens: int) -> None:
    """Make sure that every record, with the longest answer and θs after it, fits into the model's window.

    Raises:
        InputError: one does not; it is named.
    """
    suffix = 0 if aspire.self_eval is None else len(aspire.self_eval.vectors(aspire.lm, "", ""))
    for record in records:
        _expect_fit(aspire, record, max_new_tokens + suffix)


def _expect_fit(aspire: AspireLM, record: QARecord, after: int) -> None:
    """With so many tokens after the prompt."""
    window = aspire.lm.max_length
    if (found := sum(aspire.lengths(record.question, record.context, "")) + after) > window:
        raise InputError(
            f"{record.id}: expected at most {window} tokens of context, question, answer and adapters, "
            f"found {found}; shorten its context, leave it out, or take a base model with a longer window"
        )


def _tokens(aspire: AspireLM, config: FitConfig, start: Adapter | None) -> int:
    """Of an adapter that goes on from `start`, or is made anew."""
    if start is not None:
        return len(start.vectors(aspire.lm, "", ""))
    if config.method == "soft_prompt":
        return config.length
    return len(aspire.lm.token_ids(config.text)) if config.method == "lora" else 0
