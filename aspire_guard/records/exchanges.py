"""Exchanges from the values that people have in memory: dicts, frames and datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aspire_guard.exchange import Exchange
from aspire_guard.jsonl import RecordNumber, RowNumber
from aspire_guard.records.fields import parse_exchange
from aspire_guard.records.tables import convert_row, is_frame, read_frame_rows

# An exchange, a dict with its fields, many of them, or a frame of pandas, polars or pyarrow, which have no common type.
Exchanges = Exchange | Mapping[str, Any] | Iterable[Exchange | Mapping[str, Any]]


def to_exchanges(exchanges: Exchanges) -> Sequence[Exchange]:
    """Return exchanges from one exchange, a dict with `question`, `answer` and `context`, many of these, or a frame.

    Raises:
        DatasetError: a dict or a row lacks a question or an answer, or holds a malformed field.
    """
    if isinstance(exchanges, Exchange):
        return [exchanges]
    if isinstance(exchanges, Mapping):
        return [_parse(RecordNumber(1), exchanges)]
    if is_frame(exchanges):
        rows = enumerate(read_frame_rows(exchanges), start=1)
        return [_parse(RowNumber(number), convert_row(row)) for number, row in rows]
    items = enumerate(exchanges, start=1)
    return [
        item if isinstance(item, Exchange) else _parse(RecordNumber(number), item)
        for number, item in items
    ]


def _parse(number: int, fields: Mapping[str, Any]) -> Exchange:
    return parse_exchange(Path("exchanges"), number, dict(fields))
