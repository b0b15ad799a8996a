"""Reading an exchange from the places that the caller names: a key or a function instead of the usual keys."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from pydantic import BaseModel

from aspire_guard.errors import ExchangeError, name_error_type
from aspire_guard.exchange.conversation import get_message_text
from aspire_guard.exchange.exchange import Exchange
from aspire_guard.exchange.extraction import (
    FoundContext,
    describe_shape,
    find_context,
    read_answer,
    read_passages,
    read_question,
)
from aspire_guard.exchange.passages import join_passages

FieldReader = str | Callable[..., Any]


@dataclass(frozen=True)
class ExchangeReader:
    """The places of question, context and answer. None means the usual places, as in `Exchange.from_run`.

    Attributes:
        question: a key of the chain's input, or a function of the input.
        context: a key of the input, or else of the output, or a function of both. An empty list or a blank text
            there means that there is no context.
        answer: a key of the chain's output, or a function of input and output. A value that is not text is
            judged as JSON.
    """

    question: FieldReader | None = None
    context: FieldReader | None = None
    answer: FieldReader | None = None

    def read(self, input: Any, output: Any, documents: Sequence[Document] = ()) -> Exchange:
        """Read the exchange from a chain's input and output.

        Raises:
            ExchangeError: the question, the context or the answer is not where it should be, or a function raised.
        """
        question = self._read_question(input)
        found = self._read_context(input, output, documents)
        return Exchange(
            question=question,
            context=None if found is None else found.text,
            answer=self._read_answer(input, output),
            context_source=None if found is None else found.source,
        )

    def _read_question(self, input: Any) -> str:
        reader = self.question
        if reader is None:
            return read_question(input)
        text = _convert_to_text(_apply_reader("question", reader, input, input))
        if text is None or not text.strip():
            raise _make_missing_error("question", reader, "input", input)
        return text

    def _read_context(
        self, input: Any, output: Any, documents: Sequence[Document]
    ) -> FoundContext | None:
        reader = self.context
        if reader is None:
            return find_context(input, output, documents)
        if isinstance(reader, str):
            value = _get_field(input, reader)
            value = _get_field(output, reader) if value is None else value
            place = f"under the key {reader!r} given as context="
        else:
            value = _call_reader("context", reader, input, output)
            place = "in the result of the function given as context="
        if value is None:
            raise _make_missing_context_error(reader, input, output)
        text = join_passages(read_passages(value, place))
        return None if text is None else FoundContext(text, "reader")

    def _read_answer(self, input: Any, output: Any) -> str:
        reader = self.answer
        if reader is None:
            return read_answer(output)
        text = _convert_to_text(_apply_reader("answer", reader, output, input, output))
        if text is None:
            raise _make_missing_error("answer", reader, "output", output)
        return text


def _apply_reader(name: str, reader: FieldReader, searched: Any, *arguments: Any) -> Any:
    """Return the field of `searched` that the reader names, or the value that its function returns."""
    if isinstance(reader, str):
        return _get_field(searched, reader)
    return _call_reader(name, reader, *arguments)


def _get_field(value: Any, key: str) -> Any:
    """Return the value under a key or in an attribute, or None if there is no such key or attribute."""
    return value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)


def _call_reader(name: str, reader: Callable[..., Any], *arguments: Any) -> Any:
    try:
        value = reader(*arguments)
    except Exception as error:
        # Report only its type, and leave it out as the cause: its message may quote the answer.
        signature = "input" if len(arguments) == 1 else "input and output"
        raise ExchangeError(
            f"expected the function given as {name}= to find the {name}, found that it raised "
            f"{name_error_type(error)}; it is called with {signature}"
        ) from None
    if inspect.isawaitable(value):
        raise ExchangeError(
            f"expected the {name} from the function given as {name}=, found an awaitable; make the function sync"
        )
    return value


def _make_missing_error(name: str, reader: FieldReader, side: str, searched: Any) -> ExchangeError:
    return ExchangeError(
        f"no {name} found in the chain's {side}: expected it {_describe_place(reader)}; found "
        f"{describe_shape(searched)}; fix what you pass as {name}="
    )


def _make_missing_context_error(reader: FieldReader, input: Any, output: Any) -> ExchangeError:
    return ExchangeError(
        f"no context found in the chain's input or output: expected it {_describe_place(reader)}; found "
        f"{describe_shape(input)} and {describe_shape(output)}; fix what you pass as context=, and return or hand on "
        "[] if there is no context"
    )


def _describe_place(reader: FieldReader) -> str:
    return f"under the key {reader!r}" if isinstance(reader, str) else "from the function given"


def _convert_to_text(value: Any) -> str | None:
    """Return a string as it is, a message's text, or any other value as JSON. None stays None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, BaseMessage):
        return get_message_text(value)
    return json.dumps(value, ensure_ascii=False, default=_convert_to_json_value)


def _convert_to_json_value(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)
