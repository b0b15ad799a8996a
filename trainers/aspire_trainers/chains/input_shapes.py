"""The shapes in which a chain may take a question: chains name their inputs in many ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import HumanMessage
from langchain_core.runnables import Runnable

from aspire_trainers.record import QARecord

# Errors that the same input raises again.
PERMANENT_ERRORS = (
    AttributeError,
    TypeError,
    KeyError,
    NameError,
    ImportError,
    NotImplementedError,
)

_KEYS = ("input", "query", "user_input", "text")


@dataclass(frozen=True)
class InputShape:
    """A shape of a chain's input.

    Attributes:
        name: its description for people.
        make: makes the input from a question.
        has_context: True if a record's context has a place in it.
    """

    name: str
    make: Callable[[QARecord], Any]
    has_context: bool = False


def list_shapes(chain: Runnable[Any, Any]) -> list[InputShape]:
    """List the shapes that the chain's input schema allows, the likeliest first."""
    schema = _read_schema(chain)
    kinds = _list_types(schema)
    question = make_keyed("question")
    text = InputShape("a string", lambda record: record.question)
    messages = InputShape('{"messages": …}', lambda record: {"messages": _make_messages(record)})
    message_list = InputShape("a list of messages", _make_messages)
    if not kinds:
        return [question, text, *map(make_keyed, _KEYS), messages, message_list]
    shapes: list[InputShape] = []
    if "object" in kinds:
        named = _list_named_shapes(schema, [question, messages])
        shapes += named or [question, *map(make_keyed, _KEYS), messages]
    if "string" in kinds:
        shapes.append(text)
    if "array" in kinds:
        shapes.append(message_list)
    return shapes or [question]


def is_shape_error(error: object) -> bool:
    """Tell whether an error may come from an input of another shape than the chain takes."""
    if isinstance(error, OutputParserException):
        return False  # A model has answered.
    # Chat models and prompts refuse an input of the wrong type with a ValueError.
    return isinstance(error, (*PERMANENT_ERRORS, ValueError, IndexError))


def describe_failures(errors: dict[str, Exception]) -> str:
    """Return the shapes that were tried, each with its error, on one line."""
    tried = [f"{name} ({type(error).__name__}: {error!s:.80})" for name, error in errors.items()]
    return " ".join(", ".join(tried).split())


def _read_schema(chain: Runnable[Any, Any]) -> dict[str, Any]:
    """Return the JSON schema of a chain's input, or an empty one if it has none."""
    try:
        return chain.get_input_jsonschema()
    except Exception:  # Some types have no JSON schema, and each raises an error of its own.
        return {}


def _list_types(schema: dict[str, Any]) -> set[str]:
    """List the JSON types that a schema allows at its top."""
    branches = schema.get("anyOf") or schema.get("oneOf") or [schema]
    types: set[str] = set()
    for branch in branches:
        kind = branch.get("type")
        types.update(kind if isinstance(kind, list) else [kind])
    return types - {None, "null"}


def _list_named_shapes(schema: dict[str, Any], known: list[InputShape]) -> list[InputShape]:
    """List the mappings that have the keys a schema names, if it names any."""
    keys = schema.get("properties", {})
    required = [key for key in schema.get("required", keys) if key != "context"]
    if not keys:
        return []
    if "question" in keys:
        return [known[0]]
    if "messages" in keys:
        return [known[1]]
    first = [key for key in _KEYS if key in keys]
    return [make_keyed(key) for key in [*first, *required][:1]]


def make_keyed(key: str) -> InputShape:
    """Make the shape of a dict that holds the question under this key."""

    def make(record: QARecord) -> Any:
        context = {} if record.context is None else {"context": record.context}
        return {key: record.question, **context}

    return InputShape(f'{{"{key}": …}}', make, has_context=True)


def _make_messages(record: QARecord) -> Any:
    return [HumanMessage(record.question)]
