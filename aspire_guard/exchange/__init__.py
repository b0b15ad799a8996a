"""Exchanges to judge, and how they are read from any chain's input, its output and the runs inside it."""

from __future__ import annotations

from aspire_guard.exchange.conversation import get_message_text
from aspire_guard.exchange.exchange import Exchange
from aspire_guard.exchange.extraction import (
    find_answer,
    find_answer_key,
    read_answer,
    read_log_likelihood,
)
from aspire_guard.exchange.readers import ExchangeReader, FieldReader

__all__ = [
    "Exchange",
    "ExchangeReader",
    "FieldReader",
    "find_answer",
    "find_answer_key",
    "get_message_text",
    "read_answer",
    "read_log_likelihood",
]
