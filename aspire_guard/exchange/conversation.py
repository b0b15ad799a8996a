"""Messages of a conversation: the question of the last turn, and the results of the tools since then."""

from __future__ import annotations

import re
from collections.abc import Sequence

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    convert_to_messages,
)

# The tools by which supervisors and swarms of agents hand a conversation on. Their results state no facts.
_HANDOFF_TOOL = re.compile(r"(transfer|hand_?off|delegate)(_back)?_to_")
_HANDOFF_METADATA = {"__is_handoff_back", "__handoff_destination"}


def parse_messages(value: object) -> list[BaseMessage]:
    """Parse a list of messages, in any notation that chat models take.

    Returns:
        The messages, or an empty list if `value` is anything else.
    """
    if not isinstance(value, list | tuple):
        return []
    try:
        return convert_to_messages(value)
    except (ValueError, NotImplementedError):  # either is raised for an item that is not a message
        return []


def get_message_text(message: BaseMessage) -> str:
    """Return the text of a message, without its images, reasoning and tool calls."""
    return str(message.text)


def find_last_question(messages: Sequence[BaseMessage]) -> str | None:
    """Find the text of the last human message.

    If that message has no text, for example because it is an image, an earlier one of the same turn is taken. The
    question of an earlier turn was answered already.

    Returns:
        The text, or None if the last turn asks nothing in words.
    """
    has_human = False
    for message in reversed(messages):
        if is_from_human(message):
            text = get_message_text(message)
            if text.strip():
                return text
            has_human = True
        elif has_human and isinstance(message, AIMessage):
            return None
    return None


def is_from_human(message: BaseMessage) -> bool:
    """Tell whether a person wrote a message. LangChain's summaries of a conversation are human messages too."""
    is_summary = message.additional_kwargs.get("lc_source") == "summarization"
    return isinstance(message, HumanMessage) and not is_summary


def find_tool_results(messages: Sequence[BaseMessage], question: str | None = None) -> list[str]:
    """Return the texts that tools returned since the question, without errors and notes of a hand-off.

    Args:
        messages: the conversation.
        question: the question, or None for the last human message. A graph may have added human messages after the
            question, such as a critique of a draft.
    """
    calls: dict[str | None, str] = {}
    results: list[str] = []
    for message in messages[_find_start(messages, question) :]:
        if isinstance(message, AIMessage):
            calls.update({call["id"]: call["name"] for call in message.tool_calls})
        elif isinstance(message, ToolMessage):
            name = message.name or calls.get(message.tool_call_id)
            if states_facts(message) and not is_handoff_tool(name):
                results.append(get_message_text(message))
    return results


def states_facts(message: ToolMessage) -> bool:
    """Tell whether a tool's message has a text that is neither an error nor marked as the note of a hand-off."""
    if message.status == "error" or _HANDOFF_METADATA & message.response_metadata.keys():
        return False
    return bool(get_message_text(message).strip())


def is_handoff_tool(name: str | None) -> bool:
    """Tell by a tool's name whether it hands the conversation on to another agent."""
    return name is not None and _HANDOFF_TOOL.match(name) is not None


def _find_start(messages: Sequence[BaseMessage], question: str | None) -> int:
    """Find the index of the question, else of the last human message, else of the first message."""
    indices = [i for i, message in enumerate(messages) if is_from_human(message)]
    asked = [i for i in indices if get_message_text(messages[i]) == question]
    return (asked or indices or [0])[-1]
