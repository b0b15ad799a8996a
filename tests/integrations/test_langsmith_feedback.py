"""Feedback for LangSmith, against a server on this machine that stands in for its API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.runnables import RunnableLambda
from langsmith import Client

from aspire_guard.observe import AspireCallbackHandler
from aspire_guard.testing import ConstantEvaluator
from aspire_integrations.langsmith_feedback import langsmith_feedback


@pytest.fixture
def api() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    posted: list[tuple[str, Any]] = []

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"{}")

        def do_POST(self) -> None:
            posted.append(
                (self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            )
            self._answer(b"{}")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", posted
    server.shutdown()
    thread.join()
    server.server_close()


def test_each_score_is_feedback_on_its_run(api: tuple[str, list[tuple[str, Any]]]) -> None:
    """With the run's id, the confidence as the score, and all that the evaluator said as the value."""
    url, posted = api
    client = Client(api_url=url, api_key="none", auto_batch_tracing=False)
    run_id, project = uuid4(), uuid4()
    with AspireCallbackHandler(
        ConstantEvaluator(0.25), on_score=langsmith_feedback(client, session_id=project)
    ) as handler:
        chain: RunnableLambda[Any, Any] = RunnableLambda(lambda question: "Ada")
        assert chain.invoke("Who?", {"callbacks": [handler], "run_id": run_id}) == "Ada"
    ((path, feedback),) = [(path, body) for path, body in posted if "feedback" in path]
    assert path == "/feedback"
    assert (feedback["run_id"], feedback["key"], feedback["score"]) == (
        str(run_id),
        "aspire_confidence",
        0.25,
    )
    assert feedback["value"]["confidence"] == 0.25
    assert handler.failed == 0


def test_a_langsmith_that_is_down_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The chain answers all the same."""
    client = Client(
        api_url="http://127.0.0.1:9", api_key="none", auto_batch_tracing=False, retry_config=None
    )
    with AspireCallbackHandler(
        ConstantEvaluator(0.25), on_score=langsmith_feedback(client, session_id=uuid4())
    ) as handler:
        chain: RunnableLambda[Any, Any] = RunnableLambda(lambda question: "Ada")
        assert chain.invoke("Who?", {"callbacks": [handler]}) == "Ada"
    assert handler.failed == 1
