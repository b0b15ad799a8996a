"""Checks that records fit the model's window. They run before training or answering, not hours into it."""

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
    """Check that every prompt, the longest answer and the text read after it fit into the model's window.

    Raises:
        InputError: a record does not fit. The message names it.
    """
    aspire = prompting.aspire
    follow_up_tokens = suite.count_follow_up_tokens(prompting, max_new_tokens)
    for record in records:
        self_eval_tokens = count_adapter_tokens(
            aspire, None, aspire.self_eval, record.question, max_new_tokens
        )
        check_fit(prompting, record, max_new_tokens + max(follow_up_tokens, self_eval_tokens))


def check_fit(prompting: Prompting, record: QARecord, tokens_after: int) -> None:
    """Check that the record's prompt and `tokens_after` more tokens fit into the model's window.

    Raises:
        InputError: they do not fit.
    """
    window = prompting.aspire.lm.max_length
    tokens = prompting.count_tokens(record) + tokens_after
    if tokens > window:
        raise InputError(
            f"{record.id}: expected at most {window} tokens of context, question, answer and the text read after them, "
            f"found {tokens}; shorten its context, leave it out, or take a base model with a longer window"
        )


def count_adapter_tokens(
    aspire: AspireLM,
    config: FitConfig | None,
    start: Adapter | None,
    question: str = "",
    answer_tokens: int = 0,
) -> int:
    """Count the tokens of an adapter that continues from `start`, or is made from `config`.

    Args:
        start: the adapter, or None to make one.
        config: settings of an adapter to make. Without `config` and `start` there is no adapter.
        question: the question, which the adapter's text may repeat.
        answer_tokens: tokens of the answer, which the adapter's text may repeat.
    """
    if start is not None:
        repetitions = start.text.count(ANSWER_PLACEHOLDER)
        return len(start.vectors(aspire.lm, question, "")) + repetitions * answer_tokens
    if config is None or config.method not in ("soft_prompt", "lora"):
        return 0
    if config.method == "soft_prompt":
        return config.length
    text = fill_text(config.text, question, "")
    repetitions = config.text.count(ANSWER_PLACEHOLDER)
    return len(aspire.lm.token_ids(text)) + repetitions * answer_tokens


def count_longest_answer(aspire: AspireLM, answers: Iterable[str]) -> int:
    """Count the tokens of the longest of these answers, or return 0 if there are no answers."""
    return max((len(aspire.answer_ids(answer)) for answer in answers), default=0)
