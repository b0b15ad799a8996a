"""A chat model behind an OpenAI-compatible server, and an agent on it, under the starter evaluator, without fakes.

The server is `transformers serve` with SmolLM2-135M, on loopback, and the client is langchain-openai.
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
    """The client options for a server that runs during the tests of this module."""
    model = str(find_local_smollm2() or HUB_ID)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = [sys.executable, "-m", "transformers.cli.transformers"]
    serve = [*program, "serve", model, "--device", "cpu", "--port", port]
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
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
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


def find_leaked_words(answer: str, *shown: Any) -> set[str]:
    """Return the words in `shown` that can only come from the answer."""
    expected_words = set(re.findall(r"\w+", f"{QUESTION} {ABSTENTION}"))
    answer_words = set(re.findall(r"\w{4,}", answer)) - expected_words
    assert answer_words, f"every word of {answer!r} is in the question"
    return {word for word in answer_words if word in str(shown)}


def make_guard(model: Runnable[Any, Any], threshold: float) -> AspireGuard:
    chain = PROMPT | model | StrOutputParser()
    return AspireGuard(chain, policy=RoutingPolicy(threshold=threshold))


def test_a_chain_on_it_is_guarded(server: dict[str, Any]) -> None:
    """invoke, stream and ainvoke give the model's answer if it is trusted, else the abstention and no word of it."""
    reply = AspireGuard(PROMPT | client(server), policy=RoutingPolicy(threshold=0.0)).invoke(INPUTS)
    confidence = reply.response_metadata["aspire_guard"]["confidence"]
    assert 0.0 < confidence < 1.0
    below, above = confidence / 2, (1 + confidence) / 2

    async def run_asynchronously() -> tuple[Any, Any, list[Any]]:
        async with DefaultAsyncHttpxClient() as connections:
            model = client(server, http_async_client=connections)
            trusting, withholding = make_guard(model, below), make_guard(model, above)
            events = [event async for event in withholding.astream_events(INPUTS, version="v2")]
            return await trusting.ainvoke(INPUTS), await withholding.ainvoke(INPUTS), events

    released, withheld, events = asyncio.run(run_asynchronously())
    assert released == reply.content
    assert withheld == ABSTENTION
    assert find_leaked_words(reply.content, events) == set()
    model = client(server)
    for answer, threshold in ((reply.content, below), (ABSTENTION, above)):
        guard = make_guard(model, threshold)
        assert guard.invoke(INPUTS) == answer
        assert "".join(guard.stream(INPUTS)) == answer


def make_agent(server: dict[str, Any], threshold: float, **options: Any) -> Any:
    policy = RoutingPolicy(threshold=threshold)
    middleware = AspireGuardMiddleware(evaluator=SelfEvaluator.starter(), policy=policy)
    return create_agent(client(server), [look_up], middleware=[middleware], **options)


def test_an_agent_on_it_is_guarded(server: dict[str, Any]) -> None:
    """Its final answer is released with the verdict, or else is in no message, state, checkpoint or stream."""
    reply = make_agent(server, 0.0).invoke(ASKED)["messages"][-1]
    unguarded: Any = create_agent(client(server), [look_up])
    unguarded_stream = list(unguarded.stream(ASKED, stream_mode=MODES))
    assert find_leaked_words(reply.content, unguarded_stream) != set()
    verdict = reply.response_metadata["aspire_guard"]
    assert verdict["accepted"]
    assert 0.0 < verdict["confidence"] < 1.0

    saver = InMemorySaver()
    withholding = make_agent(server, (1 + verdict["confidence"]) / 2, checkpointer=saver)
    result = withholding.invoke(ASKED, THREAD)
    message = result["messages"][-1]
    assert message.content == ABSTENTION
    assert message.response_metadata["aspire_guard"]["confidence"] == verdict["confidence"]
    history = list(withholding.get_state_history(THREAD))
    checkpoints = [saver.storage, saver.writes, saver.blobs]
    stream = list(withholding.stream(ASKED, OTHER_THREAD, stream_mode=MODES))
    assert ABSTENTION in str(stream)
    assert find_leaked_words(reply.content, result, history, checkpoints, stream) == set()
