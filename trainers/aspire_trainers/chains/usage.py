"""Usage of the models inside a chain: their calls, and the tokens that they report."""

from __future__ import annotations

from itertools import chain
from threading import Lock
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult


class UsageCounter(BaseCallbackHandler):
    """Counts the calls of the models inside any number of runs. It may be called from several threads.

    LangChain's own handler counts no calls, and tokens only of models that report their name.

    Attributes:
        calls: model calls, including failed calls. It is 0 if the chain calls no model through LangChain.
        input_tokens: tokens that the models read, as far as they report it.
        output_tokens: tokens that the models wrote, as far as they report it.
    """

    run_inline = True
    ignore_chain = True

    def __init__(self) -> None:
        self._lock = Lock()
        self.calls = self.input_tokens = self.output_tokens = 0

    @property
    def summary(self) -> str:
        """The counts in words, for the progress bar."""
        if not self.input_tokens + self.output_tokens:
            return f"{self.calls:,} calls"
        return f"{self.calls:,} calls · {self.input_tokens:,} tokens in, {self.output_tokens:,} out"

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], **kwargs: Any
    ) -> None:
        """Count a call."""
        self._count_call()

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> None:
        """Count a call."""
        self._count_call()

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Count the tokens of an answer."""
        for generation in chain.from_iterable(response.generations):
            message = generation.message if isinstance(generation, ChatGeneration) else None
            usage = message.usage_metadata if isinstance(message, AIMessage) else None
            if usage is not None:
                with self._lock:
                    self.input_tokens += usage["input_tokens"]
                    self.output_tokens += usage["output_tokens"]

    def _count_call(self) -> None:
        with self._lock:
            self.calls += 1
