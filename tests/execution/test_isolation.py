"""Callback handlers of a guarded chain: pages show no token of it, and everything else still works."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import Any

import pytest
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.messages import AIMessage
from langchain_core.outputs import LLMResult

from aspire_guard.guard import AspireGuard
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel

MODEL = ScriptedChatModel("Zanq keeps it.", streaming=True)
REFUSING = ConstantEvaluator(confidence=0.0)
GUARD = AspireGuard(MODEL, evaluator=REFUSING)


class QueueHandler(BaseCallbackHandler):
    """A handler as pages are written with it: each token goes to a queue, and the end is a signal."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.ended = 0

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        """Show the token."""
        self.shown.append(token)

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Signal the end. The attribute is bound anew."""
        self.ended = self.ended + 1


class AsyncQueueHandler(AsyncCallbackHandler):
    """A handler of a page, for async chains."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.ended = 0

    async def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        """Show the token."""
        self.shown.append(token)

    async def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Signal the end."""
        self.ended = self.ended + 1


class SlottedHandler(BaseCallbackHandler):
    """A handler whose state can't be shared."""

    __slots__ = ("shown",)

    def __init__(self) -> None:
        self.shown: list[str] = []

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        """Show the token."""
        self.shown.append(token)


def call(chain: Any, way: str, handler: Any) -> None:
    """Call a chain with a handler."""
    config: Any = {"callbacks": [handler]}
    if way == "sync":
        chain.invoke("Who?", config)
    else:
        asyncio.run(chain.ainvoke("Who?", config))


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("handler_type", [QueueHandler, AsyncQueueHandler])
def test_a_handler_that_shows_tokens_gets_none_and_all_else(handler_type: Any, way: str) -> None:
    """The handler still learns that the model has ended, and is not changed for other runs."""
    handler = handler_type()
    call(GUARD, way, handler)
    assert (handler.shown, handler.ended) == ([], 1)
    call(MODEL, way, handler)
    assert ("".join(handler.shown), handler.ended) == ("Zanq keeps it.", 2)


def test_a_handler_that_can_not_be_told_apart_from_its_tokens_is_left_out() -> None:
    """An object with slots has no state to share, so it does not see the run."""
    handler = SlottedHandler()
    call(GUARD, "sync", handler)
    assert handler.shown == []


@pytest.mark.parametrize("module", ["streamlit.external.langchain", "chainlit.langchain.callbacks"])
def test_handlers_of_page_libraries_are_left_out(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They show the ends of runs as well, so they see nothing of a guarded run."""
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    page = type("Page", (QueueHandler,), {"__module__": module})()
    call(GUARD, "sync", page)
    assert (page.shown, page.ended) == ([], 0)


def test_a_handler_from_a_context_counts_once() -> None:
    """LangChain adds such a handler to each run, and must not add it twice."""
    message = AIMessage(
        "Zanq keeps it.",
        usage_metadata={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
        response_metadata={"model_name": "scripted"},
    )

    class Careful(UsageMetadataCallbackHandler):
        def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
            """Do nothing."""

    guard = AspireGuard(ScriptedChatModel(message), evaluator=REFUSING)
    with get_usage_metadata_callback() as usage:
        guard.invoke("Who?")
    assert usage.usage_metadata["scripted"]["total_tokens"] == 7
    careful = Careful()
    call(guard, "sync", careful)
    assert careful.usage_metadata["scripted"]["total_tokens"] == 7
