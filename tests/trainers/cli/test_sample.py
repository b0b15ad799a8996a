"""`aspire-guard sample`: it finds the chain, reports the usage, and ends in one line if it can't."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

Run = Callable[..., int]
Captured = pytest.CaptureFixture[str]

MODULE = """
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from aspire_guard.testing import ScriptedChatModel

USAGE = {"input_tokens": 1000, "output_tokens": 2, "total_tokens": 1002}
NUMBER = 7


def chain():
    return RunnableLambda(lambda input: input["question"]) | ScriptedChatModel(AIMessage("Ada", usage_metadata=USAGE))


def picky():
    def answer(input):
        if input["question"] == "Who is 1?":
            raise ConnectionError("no\\nroute")
        return "Ada"

    return answer


ready = chain()


def number():
    return NUMBER


def broken():
    raise KeyError("API_KEY")
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder with a module and some questions."""
    (tmp_path / "sampled_app.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "raising_app.py").write_text('raise RuntimeError("no settings")', encoding="utf-8")
    rows = [{"id": f"q{i}", "question": f"Who is {i}?", "answers": ["Ada"]} for i in range(3)]
    (tmp_path / "qa.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield
    sys.modules.pop("sampled_app", None)


@pytest.fixture
def sample(run_command: Callable[..., int]) -> Callable[..., int]:
    """A function that runs `aspire-guard sample` on the questions, and returns the exit code."""
    options = ("--data", "qa.jsonl", "--output", "answers.jsonl", "--retries", "0")
    return partial(run_command, "sample", *options)


@pytest.mark.parametrize("name", ["chain", "ready"])
def test_a_chain_is_found_from_the_current_folder(name: str, sample: Run, capsys: Captured) -> None:
    """It may be a factory or the chain itself. The answers are counted, and so are their calls and tokens."""
    assert sample("--chain", f"sampled_app:{name}", "--samples", "2") == 0
    shown = capsys.readouterr()
    assert shown.out == (
        "answers.jsonl: 6 answers to 3 questions (6 calls · 6,000 tokens in, 12 out in this run)\n"
    )
    assert "answer sampling: 6/6 answers 6 calls · 6,000 tokens in, 12 out 0 s left" in shown.err
    assert len(Path("answers.jsonl").read_text().splitlines()) == 6


def test_failures_are_named_and_end_in_exit_code_1(sample: Run, capsys: Captured) -> None:
    """The other answers are written, and the last line tells the way out."""
    assert sample("--chain", "sampled_app:picky", "--samples", "2") == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "failed: q1: ConnectionError: no route",
        "error: 2 answers are missing, 1 questions failed; run the same command again: it asks for these alone",
    ]
    assert len(Path("answers.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (
            "sampled_app",
            "expected the name of something to import, found 'sampled_app'; name it as package.module:name",
        ),
        (
            "no_such_app:chain",
            "importable, found ModuleNotFoundError: No module named 'no_such_app'; name it as",
        ),
        (
            "sampled_app:chian",
            "found AttributeError: module 'sampled_app' has no attribute 'chian'",
        ),
        (
            "sampled_app:NUMBER",
            "to be a runnable or a function that gives one, found a value of type int; fix it",
        ),
        (
            "sampled_app:number",
            "expected 'sampled_app:number' to give a runnable, found TypeError: Expected a Runnable",
        ),
        (
            "sampled_app:broken",
            "expected 'sampled_app:broken' to give a runnable, found KeyError: 'API_KEY'; fix it",
        ),
        (
            "raising_app:chain",
            "to be importable, found RuntimeError: no settings; name it as package.module:name",
        ),
    ],
)
def test_a_chain_that_is_not_there_is_one_line_and_exit_code_2(
    chain: str, message: str, sample: Run, capsys: Captured
) -> None:
    """The line tells the mistake in the name, the module or the factory, and nothing is written."""
    assert sample("--chain", chain) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("answers.jsonl").exists()


def test_an_output_that_can_t_be_written_is_one_line_and_exit_code_2(
    sample: Run, capsys: Captured
) -> None:
    """The line names the path and its mistake."""
    assert sample("--chain", "sampled_app:chain", "--output", "qa.jsonl/answers.jsonl") == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: expected a path to read or write, found qa.jsonl (File exists); choose another"
    )
