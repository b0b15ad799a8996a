"""What the models inside a chain were used for: calls, and the tokens that they report."""

from __future__ import annotations

from threading import Lock
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult


class UsageCounter(BaseCallbackHandler):
    """Counts the calls of the models inside any number of runs; safe to be called from several threads.

    LangChain's own handler counts tokens of models only that say their name, and no calls.

    Attributes:
        calls: of models, those that failed included; 0 where the chain calls none through LangChain.
        input_tokens: read by them, as far as they report it.
        output_tokens: written by them, as far as they report it.
    """

    run_inline = True
    ignore_chain = True

    def __init__(self) -> None:
        self._lock = Lock()
        self.calls = self.input_tokens = self.output_tokens = 0

    @property
    def summary(self) -> str:
        """For the progress bar."""
        if not self.input_tokens + self.output_tokens:
            return f"{self.calls:,} calls"
        return f"{self.calls:,} calls · {self.input_tokens:,} tokens in, {self.output_tokens:,} out"

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], **kwargs: Any
    ) -> None:
        """Counts a call."""
        self._called()

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> None:
        """Counts a call."""
        self._called()

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Counts the tokens of an answer."""
        for generation in (generation for row in response.generations for generation in row):
            message = generation.message if isinstance(generation, ChatGeneration) else None
            usage = message.usage_metadata if isinstance(message, AIMessage) else None
            if usage is not None:
                with self._lock:
                    self.input_tokens += usage["input_tokens"]
                    self.output_tokens += usage["output_tokens"]

    def _called(self) -> None:
        with self._lock:
            self.calls += 1
