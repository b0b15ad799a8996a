"""Whether the model can read the records: told before training or answering, not in its third hour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aspire_guard.errors import InputError
from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.lora import ANSWER_PLACEHOLDER, fill_text
from aspire_trainers.evaluation.prompting import Prompting
from aspire_trainers.record import QARecord

if TYPE_CHECKING:
    from aspire_trainers.config import FitConfig
    from aspire_trainers.evaluation.baselines import Suite


def check_answering_window(
    prompting: Prompting, records: Sequence[QARecord], max_new_tokens: int, suite: Suite
) -> None:
    """Make sure that every prompt, with the longest answer and what is read after it, fits into the model's window.

    Raises:
        InputError: one does not; it is named.
    """
    aspire, asked = prompting.aspire, suite.follow_up_tokens(prompting, max_new_tokens)
    for record in records:
        suffix = max(
            asked,
            count_adapter_tokens(aspire, None, aspire.self_eval, record.question, max_new_tokens),
        )
        check_fit(prompting, record, max_new_tokens + suffix)


def check_fit(prompting: Prompting, record: QARecord, after: int) -> None:
    """With so many tokens after the prompt."""
    window = prompting.aspire.lm.max_length
    if (found := prompting.length(record) + after) > window:
        raise InputError(
            f"{record.id}: expected at most {window} tokens of context, question, answer and what is read with them, "
            f"found {found}; shorten its context, leave it out, or take a base model with a longer window"
        )


def count_adapter_tokens(
    aspire: AspireLM,
    config: FitConfig | None,
    start: Adapter | None,
    question: str = "",
    answer: int = 0,
) -> int:
    """Of an adapter that goes on from `start`, or is made anew, where the answer has so many tokens."""
    if start is not None:
        return (
            len(start.vectors(aspire.lm, question, ""))
            + start.text.count(ANSWER_PLACEHOLDER) * answer
        )
    if config is None or config.method not in ("soft_prompt", "lora"):
        return 0
    if config.method == "soft_prompt":
        return config.length
    return (
        len(aspire.lm.token_ids(fill_text(config.text, question, "")))
        + config.text.count(ANSWER_PLACEHOLDER) * answer
    )


def count_longest_answer(aspire: AspireLM, answers: Iterable[str]) -> int:
    """Count the tokens of the longest of these answers."""
    return max((len(aspire.answer_ids(answer)) for answer in answers), default=0)
