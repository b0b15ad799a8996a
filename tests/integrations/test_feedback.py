"""Feedback for LangSmith, sent to a local server in place of its API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.runnables import RunnableLambda
from langsmith import Client
from urllib3 import Retry

from aspire_guard.observe import AspireCallbackHandler
from aspire_guard.testing import ConstantEvaluator
from aspire_integrations.feedback import langsmith_feedback


@pytest.fixture
def api() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """The URL of a server, and the paths and bodies that were posted to it."""
    posted: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, json.loads(body)))
            self._answer()

        def _answer(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", posted
    server.shutdown()
    thread.join()
    server.server_close()


def observe_an_answer(url: str, project: UUID, run_id: UUID) -> AspireCallbackHandler:
    """Run a chain whose answer is scored, and send the score to this server."""
    client = Client(
        api_url=url, api_key="none", auto_batch_tracing=False, retry_config=Retry(total=0)
    )
    send = langsmith_feedback(client, session_id=project)
    with AspireCallbackHandler(ConstantEvaluator(0.25), on_score=send) as handler:
        chain: RunnableLambda[Any, Any] = RunnableLambda(lambda question: "Ada")
        assert chain.invoke("Who?", {"callbacks": [handler], "run_id": run_id}) == "Ada"
    return handler


def test_each_score_is_feedback_on_its_run(api: tuple[str, list[tuple[str, Any]]]) -> None:
    """The feedback has the run's id, the confidence as its score, and the whole score as its value."""
    url, posted = api
    run_id, project = uuid4(), uuid4()
    handler = observe_an_answer(url, project, run_id)
    ((path, feedback),) = [(path, body) for path, body in posted if "feedback" in path]
    assert path == "/feedback"
    assert feedback["run_id"] == str(run_id)
    assert feedback["key"] == "aspire_confidence"
    assert feedback["score"] == 0.25
    assert feedback["value"]["confidence"] == 0.25
    assert handler.failed == 0


def test_a_failure_of_langsmith_is_counted() -> None:
    """The chain answers nevertheless."""
    handler = observe_an_answer("http://127.0.0.1:9", uuid4(), uuid4())
    assert handler.failed == 1
