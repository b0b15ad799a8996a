"""Answers sampled from chains: their content, pace, retries, and survival of a kill."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Lock
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from aspire_guard.errors import DatasetError, ExchangeError, InputError
from aspire_guard.testing import ScriptedChatModel
from aspire_trainers.chains.chain_sampling import ChainSample, SampledChain, sample_chain
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress

RECORDS = [
    QARecord(f"q{i}", f"Who is {i}?", f"Passage {i}." if i % 2 else None, (f"no. {i}",))
    for i in range(4)
]
_PATIENCE = 120.0


def sample(
    chain: Any, file: Path, records: list[QARecord] = RECORDS, **settings: Any
) -> ChainSample:
    settings = {"samples": 2, "max_concurrency": 2, "retries": 0} | settings
    runnable = chain if hasattr(chain, "invoke") else RunnableLambda(chain)
    return sample_chain(
        SampledChain(runnable, "app:chain", **settings), records, file, Progress("test")
    )


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def answer(input: dict[str, str]) -> str:
    return f"{input['question']} {input.get('context', 'Nothing.')}"


class Asked:
    """A chain that counts its questions, and fails on demand."""

    def __init__(
        self, fails: Callable[[str, int], BaseException | None] = lambda question, time: None
    ) -> None:
        self.fails, self.counts, self._lock = fails, Counter[str](), Lock()

    def __call__(self, input: dict[str, str]) -> str:
        with self._lock:
            self.counts[input["question"]] += 1
            error = self.fails(input["question"], self.counts[input["question"]])
        if error is not None:
            raise error
        return answer(input)


def test_every_record_gets_the_wanted_number_of_answers(tmp_path: Path) -> None:
    """Each line holds the record, an answer, and the name of the chain."""
    ended = sample(answer, file := tmp_path / "new" / "answers.jsonl")
    assert (ended.failures, ended.missing) == ({}, 0)
    assert Counter(line["id"] for line in read_lines(file)) == {"q0": 2, "q1": 2, "q2": 2, "q3": 2}
    answers = {line["id"]: line for line in read_lines(file)}
    assert answers["q0"] == {
        "id": "q0",
        "question": "Who is 0?",
        "context": None,
        "answers": ["no. 0"],
        "answer": "Who is 0? Nothing.",
        "log_likelihood": None,
        "chain": "app:chain",
    }
    with_context = answers["q1"]
    assert with_context["context"] == "Passage 1."
    assert with_context["answer"] == "Who is 1? Passage 1."


MESSAGE = AIMessage(
    "Ada",
    response_metadata={
        "logprobs": {
            "content": [{"token": "A", "logprob": -0.5}, {"token": "da", "logprob": -0.25}]
        }
    },
    usage_metadata={"input_tokens": 10, "output_tokens": 2, "total_tokens": 12},
)


@pytest.mark.parametrize(
    "chain",
    [
        ChatPromptTemplate.from_template("{question}") | ScriptedChatModel(MESSAGE),
        ChatPromptTemplate.from_template("{question}")
        | ScriptedChatModel(MESSAGE)
        | StrOutputParser(),
        RunnablePassthrough.assign(
            answer=ChatPromptTemplate.from_template("{question}")
            | ScriptedChatModel(MESSAGE)
            | StrOutputParser()
        ),
    ],
    ids=["a message", "a text", "a dict"],
)
def test_likelihoods_and_tokens_are_those_that_the_model_reports(
    chain: Any, tmp_path: Path
) -> None:
    """They are found even if a parser drops the message that carries them."""
    ended = sample(chain, file := tmp_path / "answers.jsonl")
    assert {(line["answer"], line["log_likelihood"]) for line in read_lines(file)} == {
        ("Ada", -0.375)
    }
    assert ended.use.summary == "8 calls · 80 tokens in, 16 out"


def test_the_context_is_the_one_that_the_chain_found(tmp_path: Path) -> None:
    """If a record has no context, a retriever inside the chain provides the context of the answer."""

    class Shelf(BaseRetriever):
        def _get_relevant_documents(self, query: str, **kwargs: Any) -> list[Document]:
            return [Document(f"All about {query}")]

    chain = (
        RunnableLambda(lambda input: input["question"])
        | Shelf()
        | (lambda documents: documents[0].page_content)
    )
    sample(chain, file := tmp_path / "answers.jsonl", RECORDS[:2])
    assert {line["context"] for line in read_lines(file)} == {"All about Who is 0?", "Passage 1."}


class Shelf(BaseRetriever):
    """A retriever that finds another page every time."""

    asked: int = 0

    def _get_relevant_documents(self, query: str, **kwargs: Any) -> list[Document]:
        self.asked += 1
        return [Document(f"Page {self.asked}.")]


def test_what_a_failed_try_found_is_not_the_context(tmp_path: Path) -> None:
    """If a retriever finds another page at the second try, the answer rests on that page alone."""
    shelf = Shelf()

    def read(documents: list[Document]) -> str:
        if shelf.asked == 1:
            raise ConnectionError("busy")
        return documents[0].page_content

    chain = RunnableLambda(lambda input: input["question"]) | shelf | read
    sample(chain, file := tmp_path / "answers.jsonl", RECORDS[:1], samples=1, retries=1)
    assert [(line["context"], line["answer"]) for line in read_lines(file)] == [
        ("Page 2.", "Page 2.")
    ]


def test_a_chain_with_only_an_async_api_is_asked_in_one_event_loop(tmp_path: Path) -> None:
    """The steps before the refusal of its sync API run twice for the first answer, and once for every other."""
    began, loops = Counter[str](), set()

    async def reply(question: str) -> str:
        loops.add(asyncio.get_running_loop())
        return f"{question} Ada."

    def begin(input: dict[str, str]) -> str:
        began[input["question"]] += 1
        return input["question"]

    ended = sample(
        RunnableLambda(begin) | reply,
        file := tmp_path / "answers.jsonl",
        samples=1,
        max_concurrency=1,
    )
    assert (ended.missing, len(loops), sorted(began.values())) == (0, 1, [1, 1, 1, 2])
    assert {line["answer"] for line in read_lines(file)} == {f"Who is {i}? Ada." for i in range(4)}


def test_an_error_of_either_api_is_the_chains_own(tmp_path: Path) -> None:
    """A mistake in a sync or an async step is reported unchanged, after one run in each of two shapes."""
    runs: list[str] = []

    def mistaken(input: dict[str, str]) -> str:
        runs.append("sync")
        return str(len(7))  # type: ignore[arg-type]

    async def mistaken_too(input: dict[str, str]) -> str:
        runs.append("async")
        return str(len(7))  # type: ignore[arg-type]

    for number, chain in enumerate((mistaken, mistaken_too)):
        ended = sample(chain, tmp_path / f"{number}.jsonl", RECORDS[:1], samples=1)
        assert [str(error) for error in ended.failures.values()] == [
            "object of type 'int' has no len()"
        ]
    assert runs == ["sync", "sync", "async", "async"]


def test_what_a_run_found_that_the_sync_api_refused_is_not_the_context(tmp_path: Path) -> None:
    """The retriever is asked once more, and the answer rests on the second page."""
    shelf = Shelf()

    async def read(documents: list[Document]) -> str:
        return documents[0].page_content

    chain = RunnableLambda(lambda input: input["question"]) | shelf | read
    sample(chain, file := tmp_path / "answers.jsonl", RECORDS[:1], samples=1)
    assert [(line["context"], line["answer"]) for line in read_lines(file)] == [
        ("Page 2.", "Page 2.")
    ]


def test_no_more_runs_go_on_at_once_than_are_allowed(tmp_path: Path) -> None:
    """Two at a time meet at a barrier of two, and there are never three."""
    barrier, lock, now, most = Barrier(2, timeout=_PATIENCE), Lock(), [0], [0]

    def meet(input: dict[str, str]) -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        barrier.wait()
        with lock:
            now[0] -= 1
        return "Ada"

    assert sample(meet, tmp_path / "answers.jsonl").missing == 0
    assert most == [2]


def test_runs_start_no_faster_than_the_rate_allows(tmp_path: Path) -> None:
    """Eight runs at forty a second take a fifth of a second or more, though all of them may go on at once."""
    started = time.monotonic()
    sample(answer, tmp_path / "answers.jsonl", max_concurrency=8, requests_per_second=40.0)
    assert time.monotonic() - started >= 8 / 40


def test_errors_that_may_pass_are_tried_again(tmp_path: Path) -> None:
    """After two errors and an answer nothing has failed."""
    chain = Asked(lambda question, time: ConnectionError("busy") if time <= 2 else None)
    ended = sample(chain, tmp_path / "answers.jsonl", RECORDS[:1], samples=1, retries=2)
    assert (ended.failures, ended.missing, chain.counts) == ({}, 0, {"Who is 0?": 3})


def test_errors_that_stay_are_not_tried_again(tmp_path: Path) -> None:
    """A mistake of the caller, or an output without an answer, would be the same the next time."""
    chain = Asked(
        lambda question, time: InputError("no such model") if question == "Who is 0?" else None
    )
    wordless = RunnableLambda(chain) | (lambda text: 7)
    ended = sample(wordless, tmp_path / "answers.jsonl", RECORDS[:2], samples=1, retries=3)
    assert [type(ended.failures[name]) for name in ("q0", "q1")] == [InputError, ExchangeError]
    assert chain.counts == {"Who is 0?": 1, "Who is 1?": 1}


def test_a_question_that_fails_costs_the_others_nothing(tmp_path: Path) -> None:
    """Its answers are missing, and another call asks for these alone."""

    def fail_twice(question: str, time: int) -> BaseException | None:
        return ConnectionError("down") if question == "Who is 2?" and time <= 2 else None

    chain = Asked(fail_twice)
    # All of them run at once.
    ended = sample(chain, file := tmp_path / "answers.jsonl", max_concurrency=8)
    errors = {name: str(error) for name, error in ended.failures.items()}
    assert (errors, ended.missing) == ({"q2": "down"}, 2)
    before = file.read_bytes()
    assert Counter(line["id"] for line in read_lines(file)) == {"q0": 2, "q1": 2, "q3": 2}
    assert sample(chain, file).missing == 0
    assert file.read_bytes().startswith(before)
    assert chain.counts == {"Who is 0?": 2, "Who is 1?": 2, "Who is 2?": 4, "Who is 3?": 2}


def test_a_chain_that_only_fails_is_soon_left_alone(tmp_path: Path) -> None:
    """A wrong key fails twenty times, not once for each of a thousand questions."""
    chain = Asked(lambda question, time: PermissionError("wrong key"))
    records = [QARecord(f"q{i}", f"Who is {i}?") for i in range(1000)]
    ended = sample(chain, tmp_path / "answers.jsonl", records, samples=1)
    assert ended.missing == 1000
    assert 20 <= sum(chain.counts.values()) <= 22


def test_a_question_that_fails_is_asked_no_more_in_that_run(tmp_path: Path) -> None:
    """The other questions still get all their answers."""
    chain = Asked(
        lambda question, time: ConnectionError("down") if question == "Who is 0?" else None
    )
    ended = sample(chain, tmp_path / "answers.jsonl", samples=25, max_concurrency=1)
    assert (set(ended.failures), ended.missing, chain.counts["Who is 0?"]) == ({"q0"}, 25, 1)


def test_questions_that_always_fail_keep_no_other_from_being_asked(tmp_path: Path) -> None:
    """Thirty of them stand first in the data."""
    chain = Asked(
        lambda question, time: ValueError("filtered") if question.startswith("How") else None
    )
    bad = [QARecord(f"bad{i}", f"How is {i}?") for i in range(30)]
    good = [QARecord(f"good{i}", f"Who is {i}?") for i in range(30)]
    ended = sample(
        chain, file := tmp_path / "answers.jsonl", bad + good, samples=1, max_concurrency=1
    )
    assert ended.missing == 30
    assert {line["id"] for line in read_lines(file)} == {record.id for record in good}


@pytest.mark.parametrize("odd", ["\ud83d", {"answer": "Ada", "context": [Document("\ud83d")]}])
def test_half_a_surrogate_pair_fails_its_question_alone(odd: object, tmp_path: Path) -> None:
    """A file can't hold it, neither in an answer nor in a context."""
    records = [QARecord(f"q{i}", f"Who is {i}?") for i in range(4)]
    chain: RunnableLambda[Any, Any] = RunnableLambda(
        lambda input: odd if input["question"] == "Who is 1?" else "Ada"
    )
    ended = sample(chain, tmp_path / "answers.jsonl", records)
    assert set(ended.failures) == {"q1"}
    assert ended.missing == 2


def test_a_message_that_calls_tools_is_not_an_answer(tmp_path: Path) -> None:
    """Its empty text would pass for a refusal."""
    call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])
    ended = sample(
        RunnableLambda(lambda input: call), tmp_path / "answers.jsonl", RECORDS[:1], samples=1
    )
    assert isinstance(ended.failures["q0"], ExchangeError)
    assert (tmp_path / "answers.jsonl").read_bytes() == b""


@pytest.mark.parametrize(("kept", "cut"), [(0, 0), (0, 40), (1, 1), (5, 40)])
def test_answers_in_the_file_are_not_asked_for_again(tmp_path: Path, kept: int, cut: int) -> None:
    """A line that a kill has cut off is asked for again."""
    sample(answer, file := tmp_path / "answers.jsonl")
    whole = file.read_bytes().splitlines(keepends=True)
    before = b"".join(whole[:kept])
    file.write_bytes(before + whole[kept][:cut])
    chain = Asked()
    assert sample(chain, file).missing == 0
    assert chain.counts.total() == 8 - kept
    assert file.read_bytes().startswith(before)
    assert Counter(line["id"] for line in read_lines(file)) == {"q0": 2, "q1": 2, "q2": 2, "q3": 2}


def test_more_answers_may_be_asked_for_later(tmp_path: Path) -> None:
    """More answers to a question, or answers to more questions, are added to those in the file."""
    sample(answer, file := tmp_path / "answers.jsonl", RECORDS[:2], samples=1)
    chain = Asked()
    sample(chain, file, samples=2)
    assert chain.counts == {"Who is 0?": 1, "Who is 1?": 1, "Who is 2?": 2, "Who is 3?": 2}


@pytest.mark.parametrize(
    ("records", "settings", "message"),
    [
        (
            RECORDS[1:],
            {},
            "expected an answer to one of the questions in the data, found another question",
        ),
        (
            [QARecord("q0", "Who else?", None, ("no. 0",))],
            {},
            "found another question, or other references",
        ),
        (
            [QARecord("q0", "Who is 0?", None, ("no. 1",))],
            {},
            "found another question, or other references",
        ),
        ([QARecord("q0", "Who is 0?", "Here.", ("no. 0",))], {}, "found another context"),
        (RECORDS, {"samples": 1}, "expected at most 1 answers to a question, found one more"),
        (
            RECORDS,
            {"name": "app:other"},
            "expected an answer of app:other, found one of 'app:chain'",
        ),
    ],
)
def test_a_file_of_other_answers_is_refused(
    records: list[QARecord], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """With other questions, settings or chains nothing is asked, and the file stays as it is."""
    sample(answer, file := tmp_path / "answers.jsonl", RECORDS[:1])
    before, chain = file.read_bytes(), Asked()
    terms: dict[str, Any] = {"name": "app:chain", "samples": 2} | settings
    with pytest.raises(InputError) as raised:
        sample_chain(SampledChain(RunnableLambda(chain), **terms), records, file, Progress("test"))
    assert message in str(raised.value)
    assert "repeat the command that wrote the file, or choose another output" in str(raised.value)
    assert (file.read_bytes(), chain.counts) == (before, {})


@pytest.mark.parametrize(
    "content",
    [
        "my notes\nand more",
        '{"question": "Who?", "answers": []}\nhalf a li',
        "[1]\n",
        '{"id": []}\n',
    ],
)
def test_a_file_of_something_else_is_left_as_it_is(content: str, tmp_path: Path) -> None:
    """A dataset that is named as output by mistake keeps even its last line."""
    (file := tmp_path / "mine").write_text(content, encoding="utf-8")
    with pytest.raises((InputError, DatasetError), match=r"mine, line 1: expected"):
        sample(answer, file)
    assert file.read_text(encoding="utf-8") == content


CHAIN_THAT_KEEPS_BOOKS = """
import time
from pathlib import Path
from threading import Lock

from langchain_core.runnables import RunnableLambda

LOCK = Lock()


def chain():
    def answer(input):
        with LOCK, Path("asked.txt").open("a") as book:
            book.write(input["question"] + "\\n")
        time.sleep(0.01)
        return "An answer to " + input["question"]

    return RunnableLambda(answer)
"""


def test_a_killed_run_loses_no_answer_and_asks_for_none_again(tmp_path: Path) -> None:
    """After three kills the lines on the disk are still there, and only the running questions are asked again."""
    (tmp_path / "books.py").write_text(CHAIN_THAT_KEEPS_BOOKS, encoding="utf-8")
    rows = [{"id": f"q{i}", "question": f"Who is {i}?", "answers": ["Ada"]} for i in range(60)]
    (tmp_path / "qa.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    program = "from aspire_guard.cli.app import main; main()"
    options = ["--chain", "books:chain", "--data", "qa.jsonl", "--output", "answers.jsonl"]
    command = [
        sys.executable,
        "-c",
        program,
        "sample",
        *options,
        "--samples",
        "2",
        "--max-concurrency",
        "4",
    ]
    file, kept = tmp_path / "answers.jsonl", b""
    for wanted in (5, 30, 70):
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None
            deadline = time.monotonic() + _PATIENCE
            while not file.exists() or file.read_bytes().count(b"\n") < wanted:
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.001)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        content = file.read_bytes()
        assert content.startswith(kept)
        kept = content[: content.rfind(b"\n") + 1]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert file.read_bytes().startswith(kept)
    assert Counter(line["id"] for line in read_lines(file)) == {f"q{i}": 2 for i in range(60)}
    asked = Counter((tmp_path / "asked.txt").read_text(encoding="utf-8").splitlines())
    # At most four were running at each of the three kills.
    assert 120 <= asked.total() <= 120 + 3 * 4
