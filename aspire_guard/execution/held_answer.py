"""The part of a streamed answer that has not left yet: its text, and all else that its chunks carry.

Reasoning, citations, metadata and tool calls of the chunks wait for the end of the answer, because
they may tell of sentences that have not been judged.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks

from aspire_guard.sentences import find_finished_end

# A longer text is searched only after it has grown by an eighth, so that the time stays linear.
_ALWAYS_SEARCHED = 2_000

_PLAIN = object()


class HeldAnswer:
    """A streamed answer, held back until parts of it are taken out.

    Attributes:
        is_message: True if its chunks are messages, False if they are strings.
        has_tool_calls: True if a chunk has a part of a tool call, which may turn out to be unreadable.
    """

    def __init__(self) -> None:
        self.is_message = False
        self.has_tool_calls = False
        self._texts: list[str] = []
        self._length = 0
        # The length of each part of the text, with the index of its content block, or with `_PLAIN`
        # if the part is a string.
        self._parts: deque[tuple[int, Any]] = deque()
        self._without_texts: list[AIMessageChunk] = []
        self._next_search = 0

    def add(self, chunk: str | AIMessageChunk) -> None:
        """Add a chunk of the chain."""
        if isinstance(chunk, str):
            self._add_text(chunk, _PLAIN)
            return
        self.is_message = True
        self.has_tool_calls = self.has_tool_calls or bool(chunk.tool_call_chunks)
        other_blocks: list[Any] = []
        contents = chunk.content if isinstance(chunk.content, list) else [chunk.content]
        for block in contents:
            if isinstance(block, str):
                self._add_text(block, _PLAIN)
                continue
            other_block = block
            if block.get("type") == "text" and isinstance(block.get("text"), str):
                self._add_text(block["text"], block.get("index"))
                other_block = {**block, "text": ""}
            if other_block.keys() - {"type", "text", "index"}:
                other_blocks.append(other_block)
        without_text = chunk.model_copy(update={"content": other_blocks or ""})
        self._without_texts.append(without_text)

    def find_finished(self) -> str:
        """Return the finished sentences at the beginning, without the white space after them."""
        if self._length < self._next_search:
            return ""
        text = self.text
        finished = text[: find_finished_end(text)].rstrip()
        if not finished and self._length > _ALWAYS_SEARCHED:
            self._next_search = self._length + self._length // 8
        return finished

    def take(self, length: int) -> str | list[Any]:
        """Take text out at the beginning, and return it as the content of a message.

        Returns:
            A string, or a list of text blocks if the chunks had text blocks.
        """
        text = self.text
        taken, rest = text[:length], text[length:]
        self._texts, self._length, self._next_search = [rest], len(rest), 0
        blocks: list[Any] = []
        start = 0
        while start < len(taken):
            part_length, index = self._parts.popleft()
            end = min(start + part_length, len(taken))
            if end < start + part_length:
                self._parts.appendleft((start + part_length - end, index))
            blocks.append(_make_block(taken[start:end], index))
            start = end
        return taken if all(isinstance(block, str) for block in blocks) else blocks

    def make_message(self) -> AIMessageChunk:
        """Make the sum of all chunks without their texts."""
        first, *others = self._without_texts
        return add_ai_message_chunks(first, *others)

    @property
    def text(self) -> str:
        """The text that is held back."""
        self._texts = ["".join(self._texts)]
        return self._texts[0]

    @property
    def id(self) -> str | None:
        """The id of the message."""
        ids = (chunk.id for chunk in self._without_texts)
        return next((id_ for id_ in ids if id_), None)

    def _add_text(self, text: str, index: Any) -> None:
        if not text:
            return
        self._texts.append(text)
        self._length += len(text)
        if self._parts and self._parts[-1][1] == index:
            length, _ = self._parts.pop()
            self._parts.append((length + len(text), index))
        else:
            self._parts.append((len(text), index))


def _make_block(text: str, index: Any) -> str | dict[str, Any]:
    """Make a part of a message's content from a text and the index of its block."""
    if index is _PLAIN:
        return text
    block = {"type": "text", "text": text}
    return block if index is None else {**block, "index": index}
