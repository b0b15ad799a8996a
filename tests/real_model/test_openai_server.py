"""A chat model behind an OpenAI-compatible server, and an agent on it, under the starter evaluator: nothing is faked.

The server is `transformers serve` with SmolLM2-135M, on loopback; the client is langchain-openai.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from openai import DefaultAsyncHttpxClient
from pydantic import SecretStr

from aspire_guard import AspireGuard, RoutingPolicy, SelfEvaluator
from aspire_guard.lm.smollm2 import HUB_ID, find_local_smollm2
from aspire_integrations.middleware import AspireGuardMiddleware

QUESTION = "What is the capital of France?"
PROMPT = ChatPromptTemplate.from_template("{question}")
INPUTS = {"question": QUESTION}
ASKED = {"messages": [HumanMessage(QUESTION)]}
ABSTENTION = RoutingPolicy().abstention
THREAD: Any = {"configurable": {"thread_id": "1"}}
OTHER_THREAD: Any = {"configurable": {"thread_id": "2"}}
MODES: list[Any] = ["messages", "updates", "values", "debug"]
SECONDS_TO_START = 300


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a client has to know of the server, which runs while this module does."""
    model = str(find_local_smollm2() or HUB_ID)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    serve = [
        sys.executable,
        "-m",
        "transformers.cli.transformers",
        "serve",
        model,
        "--device",
        "cpu",
        "--port",
        port,
    ]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    log = tmp_path_factory.mktemp("server") / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(serve, env=offline, stdout=out, stderr=out) as process,
    ):
        try:
            wait_for(f"http://localhost:{port}/health", process, log)
            yield {"model": model, "base_url": f"http://localhost:{port}/v1"}
        finally:
            process.kill()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    over = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < over and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")


def client(server: dict[str, Any], **options: Any) -> ChatOpenAI:
    """A chat model that answers the same question the same way each time."""
    return ChatOpenAI(
        **server, api_key=SecretStr("none"), temperature=0, extra_body={"max_tokens": 16}, **options
    )


@tool
def look_up(topic: str) -> str:
    """Look a topic up in the handbook."""
    return f"The handbook does not tell of {topic}."


def seen_of(answer: str, *shown: Any) -> set[str]:
    """The words by which the answer is known that stand in what was shown."""
    telling = set(re.findall(r"\w{4,}", answer)) - set(
        re.findall(r"\w+", f"{QUESTION} {ABSTENTION}")
    )
    assert telling, f"every word of {answer!r} stands in the question"
    return {word for word in telling if word in str(shown)}


def guarded(model: Runnable[Any, Any], threshold: float) -> AspireGuard:
    return AspireGuard(
        PROMPT | model | StrOutputParser(), policy=RoutingPolicy(threshold=threshold)
    )


def test_a_chain_on_it_is_guarded(server: dict[str, Any]) -> None:
    """By invoke, stream and ainvoke: the model's answer where it is trusted, else the abstention and no word of it."""
    said = AspireGuard(PROMPT | client(server), policy=RoutingPolicy(threshold=0.0)).invoke(INPUTS)
    confidence = said.response_metadata["aspire_guard"]["confidence"]
    assert 0.0 < confidence < 1.0
    below, above = confidence / 2, (1 + confidence) / 2

    async def asynchronous() -> list[Any]:
        async with DefaultAsyncHttpxClient() as connections:
            model = client(server, http_async_client=connections)
            events = [
                event async for event in guarded(model, above).astream_events(INPUTS, version="v2")
            ]
            return [
                await guarded(model, below).ainvoke(INPUTS),
                await guarded(model, above).ainvoke(INPUTS),
                events,
            ]

    released, withheld, events = asyncio.run(asynchronous())
    model = client(server)
    for answer, threshold, other_way in (
        (said.content, below, released),
        (ABSTENTION, above, withheld),
    ):
        guard = guarded(model, threshold)
        assert guard.invoke(INPUTS) == "".join(guard.stream(INPUTS)) == other_way == answer
    assert seen_of(said.content, events) == set()


def agent(server: dict[str, Any], threshold: float, **options: Any) -> Any:
    middleware = AspireGuardMiddleware(
        evaluator=SelfEvaluator.starter(), policy=RoutingPolicy(threshold=threshold)
    )
    return create_agent(client(server), [look_up], middleware=[middleware], **options)


def test_an_agent_on_it_is_guarded(server: dict[str, Any]) -> None:
    """Its final answer is released with the verdict, or nowhere: not in messages, state, checkpoints or streams."""
    said = agent(server, 0.0).invoke(ASKED)["messages"][-1]
    unguarded: Any = create_agent(client(server), [look_up])
    assert seen_of(said.content, list(unguarded.stream(ASKED, stream_mode=MODES))) != set()
    verdict = said.response_metadata["aspire_guard"]
    assert verdict["accepted"]
    assert 0.0 < verdict["confidence"] < 1.0

    saver = InMemorySaver()
    withholding = agent(server, (1 + verdict["confidence"]) / 2, checkpointer=saver)
    result = withholding.invoke(ASKED, THREAD)
    assert result["messages"][-1].content == ABSTENTION
    assert (
        result["messages"][-1].response_metadata["aspire_guard"]["confidence"]
        == verdict["confidence"]
    )
    kept = [
        result,
        list(withholding.get_state_history(THREAD)),
        saver.storage,
        saver.writes,
        saver.blobs,
    ]
    streamed = list(withholding.stream(ASKED, OTHER_THREAD, stream_mode=MODES))
    assert ABSTENTION in str(streamed)
    assert seen_of(said.content, kept, streamed) == set()
