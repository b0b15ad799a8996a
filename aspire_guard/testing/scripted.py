"""A chat model for tests that follows a script."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from time import sleep
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable

Reply = str | AIMessage


class ScriptedChatModel(BaseChatModel):
    """A chat model that says what its script tells it, in one piece or streamed word by word.

    It may be bound to tools.

    Attributes:
        says: its answer to anything, or a function that returns its answer to the messages it is sent.
        pause: seconds before each word, streamed or not.
        streaming: True if it streams to its callbacks even if its caller does not ask for a stream.
    """

    # Reply | Callable[[list[BaseMessage]], Reply], but AIMessage's own validator fails on a function.
    says: Any
    pause: float = 0.0
    streaming: bool = False

    def __init__(self, says: Reply | Callable[[list[BaseMessage]], Reply], **kwargs: Any) -> None:
        fields: dict[str, Any] = {"says": says, **kwargs}
        super().__init__(**fields)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Return the model itself: the script says which tools are called."""
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = self._make_message(messages)
        sleep(self.pause * len(_split_into_chunks(message)))
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = self._make_message(messages)
        await asyncio.sleep(self.pause * len(_split_into_chunks(message)))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _split_into_chunks(self._make_message(messages)):
            sleep(self.pause)
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _split_into_chunks(self._make_message(messages)):
            await asyncio.sleep(self.pause)
            if run_manager:
                await run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    def _make_message(self, messages: list[BaseMessage]) -> AIMessage:
        reply: Reply = self.says(messages) if callable(self.says) else self.says
        if isinstance(reply, str):
            return AIMessage(reply)
        # LangChain sets the id of a message in place, so the script's own message is copied.
        return reply.model_copy()


def _split_into_chunks(message: AIMessage) -> list[ChatGenerationChunk]:
    """Split a message into its words, each with the space before it, and a last chunk with any tool calls."""
    words = re.findall(r"\s*\S+|\s+$", str(message.text))
    chunks = [AIMessageChunk(content=word, id=message.id) for word in words]
    if message.tool_calls or not chunks:
        calls = [
            tool_call_chunk(
                name=call["name"],
                args=json.dumps(call["args"]),
                id=call["id"],
                index=place,
            )
            for place, call in enumerate(message.tool_calls)
        ]
        chunks.append(AIMessageChunk(content="", id=message.id, tool_call_chunks=calls))
    return [ChatGenerationChunk(message=chunk) for chunk in chunks]
