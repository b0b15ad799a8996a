"""Stand-ins for messages that repeat a rejected answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

_KINDS: tuple[type[BaseMessage], ...] = (
    AIMessageChunk,
    AIMessage,
    ToolMessage,
    HumanMessage,
    SystemMessage,
    FunctionMessage,
    ChatMessage,
)
# The parts that say which message it is. All others may hold the answer in a form of the model's provider.
_KEPT = ("id", "name", "tool_call_id", "status", "role")


def make_stand_in(message: BaseMessage, text: str, cleared: Mapping[str, Any]) -> BaseMessage:
    """Make a message of the same kind with another text.

    The id stays, so that a graph's state replaces the rejected message instead of keeping both. The calls of tools
    stay with cleared arguments: without the calls, the results that follow would belong to no call.

    Args:
        message: the message that repeats a rejected answer.
        text: the text of the stand-in.
        cleared: the attributes of the message after clearing.
    """
    kind = next(kind for kind in _KINDS if isinstance(message, kind))
    kept: dict[str, Any] = {}
    for name in _KEPT:
        part = getattr(message, name, None)
        if part is not None and cleared.get(name) is part:
            kept[name] = part
    if isinstance(message, ToolMessage):
        kept.setdefault("tool_call_id", "")
    if isinstance(message, ChatMessage):
        kept.setdefault("role", "")
    if isinstance(message, FunctionMessage):
        kept.setdefault("name", "")
    if isinstance(message, AIMessage):
        kept["usage_metadata"] = _keep_counts(message)
        calls = cleared.get("tool_calls") or ()
        kept["tool_calls"] = [_restore_call(call) for call in calls if isinstance(call, dict)]
    return kind(content=text, **kept)


def _keep_counts(message: AIMessage) -> Any:
    """Return the token counts of a message if they hold nothing but numbers, or None."""
    waiting: list[Any] = [message.usage_metadata]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting.extend(part.values())
        elif part is not None and not isinstance(part, int):
            return None
    return message.usage_metadata


def _restore_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call of a tool whose cleared parts have the types that a call needs."""
    name, args, call_id = call.get("name"), call.get("args"), call.get("id")
    return {"name": name or "", "args": args if isinstance(args, dict) else {}, "id": call_id}
