"""What is judged, and how it is read out of any chain's input, output and the runs inside it."""

from __future__ import annotations

from aspire_guard.exchange.exchange import Exchange
from aspire_guard.exchange.extraction import (
    INPUT_CONTEXT_KEYS,
    OUTPUT_CONTEXT_KEYS,
    QUESTION_KEYS,
    answer_in,
    answer_key,
    answer_text,
    context_text,
    message_text,
    question_text,
    reported_log_likelihood,
)
from aspire_guard.exchange.readers import ExchangeReader, FieldReader

__all__ = [
    "INPUT_CONTEXT_KEYS",
    "OUTPUT_CONTEXT_KEYS",
    "QUESTION_KEYS",
    "Exchange",
    "ExchangeReader",
    "FieldReader",
    "answer_in",
    "answer_key",
    "answer_text",
    "context_text",
    "message_text",
    "question_text",
    "reported_log_likelihood",
]
