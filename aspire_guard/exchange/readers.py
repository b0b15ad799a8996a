"""Reading an exchange where the caller says: by a key or a function, in place of the usual keys."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from pydantic import BaseModel

from aspire_guard.errors import ExchangeError
from aspire_guard.exchange.exchange import Exchange
from aspire_guard.exchange.extraction import (
    answer_text,
    context_text,
    describe_shape,
    find_context,
    message_text,
    question_text,
)

FieldReader = str | Callable[..., Any]


@dataclass(frozen=True)
class ExchangeReader:
    """Where question, context and answer are; None: at the usual places, as `Exchange.from_run` says.

    Attributes:
        question: a key of the chain's input, or a function of the input.
        context: a key of the input, or else of the output, or a function of both.
        answer: a key of the chain's output, or a function of input and output. What is no text is judged as JSON.
    """

    question: FieldReader | None = None
    context: FieldReader | None = None
    answer: FieldReader | None = None

    def exchange(self, input: Any, output: Any, documents: Sequence[Document] = ()) -> Exchange:
        """The exchange that a chain's input and output hold.

        Raises:
            ExchangeError: question or answer is not where it should be, or a function raised.
        """
        return Exchange(
            question=question_text(input)
            if self.question is None
            else self._question(self.question, input),
            context=find_context(input, output, documents)
            if self.context is None
            else self._context(self.context, input, output),
            answer=answer_text(output)
            if self.answer is None
            else self._answer(self.answer, input, output),
        )

    @staticmethod
    def _question(reader: FieldReader, input: Any) -> str:
        value = (
            _field(input, reader) if isinstance(reader, str) else _called("question", reader, input)
        )
        return _required(value, "question", reader, "input", input)

    @staticmethod
    def _context(reader: FieldReader, input: Any, output: Any) -> str | None:
        if not isinstance(reader, str):
            value = _called("context", reader, input, output)
        elif (value := _field(input, reader)) is None:
            value = _field(output, reader)
        return context_text(value)

    @staticmethod
    def _answer(reader: FieldReader, input: Any, output: Any) -> str:
        value = (
            _field(output, reader)
            if isinstance(reader, str)
            else _called("answer", reader, input, output)
        )
        return _required(value, "answer", reader, "output", output)


def _field(value: Any, key: str) -> Any:
    """What stands under a key, or in a field; None where there is no such thing."""
    return value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)


def _called(name: str, reader: Callable[..., Any], *values: Any) -> Any:
    try:
        value = reader(*values)
    except Exception as error:
        # Only its type, and not as the cause: its message may quote the answer.
        raise ExchangeError(
            f"expected the function given as {name}= to find the {name}, found that it raised {type(error).__name__}; "
            f"it is called with {'input' if len(values) == 1 else 'input and output'}"
        ) from None
    if inspect.isawaitable(value):
        raise ExchangeError(
            f"expected the {name} from the function given as {name}=, found an awaitable; make it no async"
        )
    return value


def _required(value: Any, name: str, reader: FieldReader, side: str, whole: Any) -> str:
    text = None if value is None else _text(value)
    if text is None or (name == "question" and not text.strip()):
        expected = (
            f"under the key {reader!r}" if isinstance(reader, str) else "from the function given"
        )
        raise ExchangeError(
            f"no {name} found in the chain's {side}: expected it {expected}; found {describe_shape(whole)}; "
            f"fix what you pass as {name}="
        )
    return text


def _text(value: Any) -> str:
    """A text as it is; of a message its text; anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, BaseMessage):
        return message_text(value)
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)
