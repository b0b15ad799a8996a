"""From a chat model behind an API to an evaluator of its answers: sample, train, score, guard."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest

from aspire_guard.evaluators.evaluator_folder import read_manifest
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.guard import AspireGuard
from aspire_trainers.cli.sample import load_chain

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]

# A user's module: a chat model over HTTP, and a factory of the chain around it.
MODULE = """
import json
import os
from urllib.request import Request, urlopen

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate


class ApiModel(BaseChatModel):
    @property
    def _llm_type(self):
        return "api"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        body = json.dumps({"messages": [{"role": "user", "content": messages[-1].text}], "logprobs": True}).encode()
        with urlopen(Request(os.environ["API"], body, {"Content-Type": "application/json"}), timeout=10) as response:
            reply = json.load(response)
        choice, usage = reply["choices"][0], reply["usage"]
        message = AIMessage(
            choice["message"]["content"],
            response_metadata={"logprobs": choice["logprobs"]},
            usage_metadata={
                "input_tokens": usage["prompt_tokens"],
                "output_tokens": usage["completion_tokens"],
                "total_tokens": usage["total_tokens"],
            },
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def chain():
    return ChatPromptTemplate.from_template("{context}\\n{question}") | ApiModel() | StrOutputParser()
"""

RECIPE = """
num_beams = 2
validation_share = 0.4

[task]
length = 2
batch_size = 4

[self_evaluation]
rank = 2
epochs = 1
batch_size = 4
"""


class Api(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that answers every third passage wrongly, and is busy at every fourth request."""

    requests, lock = 0, Lock()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with Api.lock:
            Api.requests += 1
            busy = Api.requests % 4 == 0
        number = int(body["messages"][-1]["content"].split(".")[0].removeprefix("Passage "))
        text, logprob = ("nothing", -3.0) if number % 3 == 0 else (f"no. {number}", -0.125)
        content = {
            "choices": [
                {
                    "message": {"role": "assistant", "content": text},
                    "logprobs": {"content": [{"token": text, "logprob": logprob}]},
                }
            ],
            "usage": {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13},
        }
        sent = b"" if busy else json.dumps(content).encode()
        self.send_response(429 if busy else 200)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a user's folder, with an API to call."""
    (tmp_path / "closed_app.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    rows = [
        {"question": "Which?", "context": f"Passage {i}.", "answers": [f"no. {i}"]}
        for i in range(20)
    ]
    (tmp_path / "qa.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("API", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    server.shutdown()
    thread.join()
    server.server_close()
    sys.modules.pop("closed_app", None)


def test_an_evaluator_is_fitted_to_the_answers_of_an_api(
    base: Path, folder: Path, run_command: Run, capsys: Captured
) -> None:
    """It judges that chain's answers, with the log-probabilities that the API reports, and says so."""
    chain = "closed_app:chain"
    assert (
        run_command(
            "sample",
            "--chain",
            chain,
            "--data",
            "qa.jsonl",
            "--output",
            "answers.jsonl",
            "--samples",
            2,
        )
        == 0
    )
    # Every fourth of the requests was turned away and made again.
    assert Api.requests == 53
    assert "(53 calls · 480 tokens in, 40 out in this run)" in capsys.readouterr().out
    training = ("--answers", "answers.jsonl", "--recipe", "recipe.toml", "--model", base)
    assert run_command("train", *training, "--output", "my-evaluator") == 0
    assert "2/3 answer sampling" not in capsys.readouterr().err

    manifest = read_manifest(folder / "my-evaluator")
    assert (manifest.likelihood, manifest.methods.task) == ("chain", "soft_prompt")
    assert manifest.provenance["answers"] == {"given": 40, "chains": [chain]}
    assert manifest.provenance["datasets"] == ["answers.jsonl"]
    evaluator = SelfEvaluator.from_pretrained(folder / "my-evaluator")
    # Two answers to each of eight passages of twenty.
    assert evaluator.calibration.n == 16

    verdict = AspireGuard(load_chain(chain), evaluator=evaluator).judge(
        {"question": "Which?", "context": "Passage 9."}
    )
    assert verdict.score is not None
    assert verdict.score.log_likelihood == -3.0
    assert (
        run_command(
            "score",
            "answers.jsonl",
            "--evaluator",
            "my-evaluator",
            "--output",
            "scored.jsonl",
        )
        == 0
    )
    scored = [json.loads(line) for line in (folder / "scored.jsonl").read_text().splitlines()]
    assert {line["log_likelihood"] for line in scored} == {-0.125, -3.0}


def test_if_some_answers_have_no_log_likelihood_the_evaluator_goes_by_its_own(
    base: Path, folder: Path, run_command: Run, capsys: Captured
) -> None:
    """A warning says so before anything is trained."""
    lines: list[dict[str, Any]] = []
    for i in range(5):
        record = {"question": "Which?", "context": f"Passage {i}.", "answers": [f"no. {i}"]}
        lines.append(record | {"answer": f"no. {i}", "log_likelihood": -0.125})
        lines.append(record | {"answer": "nothing", "log_likelihood": None})
    (folder / "answers.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    training = ("--answers", "answers.jsonl", "--recipe", "recipe.toml", "--model", base)
    assert run_command("train", *training, "--output", "my-evaluator") == 0
    warning = capsys.readouterr().err
    assert warning.startswith(
        "warning: 2 of the 4 answers to the validation records have no log-likelihood"
    )
    assert read_manifest(folder / "my-evaluator").likelihood == "own"


def test_training_takes_records_or_answers(
    folder: Path, run_command: Run, capsys: Captured
) -> None:
    """With neither or with both it ends in one line and exit code 2."""
    both = ("--train", "qa.jsonl", "--answers", "qa.jsonl")
    for options, found in (((), "neither"), (both, "both")):
        assert run_command("train", "--output", "out", *options) == 2
        error = capsys.readouterr().err
        assert f"expected --train or --answers, found {found}; give one of them" in error
