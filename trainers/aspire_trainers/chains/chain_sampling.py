"""Answers of any chain to the questions of a dataset, a line an answer, written as they come.

    {"id": "q1", "question": "…", "context": "…", "answers": ["…"], "answer": "…", "log_likelihood": -0.2, "chain": "…"}

`answers` are the references, `answer` is what the chain gave, `log_likelihood` the mean log-probability of its tokens
where the chain's model reports it, and `chain` whose answer it is. The file is what counts: whatever stands in it is
never asked again, and a run that was killed asks for the rest.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import Runnable, RunnableLambda

from aspire_guard.errors import ExchangeError, InputError
from aspire_guard.exchange import Exchange
from aspire_guard.exchange.run_recorder import RunRecorder, extract_judged_exchange
from aspire_guard.execution.chain_runs import ChainRuns
from aspire_guard.jsonl import shorten
from aspire_trainers.chains.sync_or_async import AsyncAloneError, SyncOrAsync
from aspire_trainers.chains.usage import UsageCounter
from aspire_trainers.record import QARecord
from aspire_trainers.run.append_log import AppendOnlyJsonl
from aspire_trainers.run.progress import Progress

# So many questions that fail with no answer between them are no accident: a wrong key, a server that is down.
_MOST_FAILURES_IN_A_ROW = 20
_SLOWEST_LOOK = 0.1  # seconds between two looks whether the rate allows another run


@dataclass(frozen=True)
class SampledChain:
    """A chain, and how often and how fast it is asked.

    Attributes:
        chain: takes a dict with `question`, and `context` where the record has one.
        name: whose answers they are called.
        samples: answers a question.
        max_concurrency: the most runs at once.
        requests_per_second: the most runs started a second, tries again included; None for no limit.
        retries: further tries after an error that may pass, with pauses that double from 0.1 to 10 seconds.
    """

    chain: Runnable[Any, Any]
    name: str
    samples: int = 5
    max_concurrency: int = 8
    requests_per_second: float | None = None
    retries: int = 8

    def paced(self) -> Runnable[Any, Any]:
        """The chain, each run of which waits until the rate allows it."""
        chain = SyncOrAsync(self.chain)
        if self.requests_per_second is None:
            return chain
        look = min(_SLOWEST_LOOK, _SLOWEST_LOOK / self.requests_per_second)
        limiter = InMemoryRateLimiter(
            requests_per_second=self.requests_per_second, check_every_n_seconds=look
        )

        def wait_for_turn(input: Any) -> Any:
            limiter.acquire()
            return input

        return RunnableLambda(wait_for_turn) | chain


@dataclass(frozen=True)
class ChainSample:
    """How a run ended.

    Attributes:
        failures: by record id, the last error of a question of which an answer is missing.
        missing: answers that are not in the file.
        use: what this run took.
    """

    failures: dict[str, Exception]
    missing: int
    use: UsageCounter


def sample_chain(
    sampled: SampledChain, records: Sequence[QARecord], file: Path, progress: Progress
) -> ChainSample:
    """Ask the chain until `file` holds `sampled.samples` answers to each record, or it fails too often.

    A question whose answer fails after all tries is asked no more and costs the others nothing; the same call, made
    again, asks for it. Questions come in random order: those that fail every time would else stand first in each call.

    Raises:
        InputError: `file` holds something else than some of these answers.
    """
    log = AppendOnlyJsonl(file)
    missing = _missing(log, records, sampled)
    asking = _Asking(sampled)
    failures: dict[str, Exception] = {}
    in_a_row = 0
    with progress, log, ThreadPoolExecutor(sampled.max_concurrency) as pool:
        progress.start(len(records) * sampled.samples, len(log.values))
        in_random_order = random.sample(records, len(records))
        questions = (
            r for r in in_random_order for _ in range(missing[r.id]) if r.id not in failures
        )
        open_runs: dict[Future[Exchange], QARecord] = {}
        while True:
            if in_a_row < _MOST_FAILURES_IN_A_ROW:
                for record in islice(questions, sampled.max_concurrency - len(open_runs)):
                    open_runs[pool.submit(asking.ask, record)] = record
            if not open_runs:
                break
            for run in wait(open_runs, return_when=FIRST_COMPLETED).done:
                record = open_runs.pop(run)
                if isinstance(error := run.exception(), Exception):
                    in_a_row += record.id not in failures
                    failures[record.id] = error
                    continue
                log.append(_line(record, run.result(), sampled.name))
                in_a_row = 0
                failed = f" · {len(failures)} failed" if failures else ""
                progress.advance(note=f"{asking.use.summary}{failed}")
    return ChainSample(failures, len(records) * sampled.samples - len(log.values), asking.use)


class _Asking:
    """Runs of the chain, each of one question, from several threads."""

    def __init__(self, sampled: SampledChain) -> None:
        self.runs = ChainRuns(sampled.paced(), "chain", retries=sampled.retries)
        self.use = UsageCounter()

    def ask(self, record: QARecord) -> Exchange:
        """One answer, with the context it was given from."""
        context = {} if record.context is None else {"context": record.context}
        input = {"question": record.question, **context}
        watch, output = self._run(input)
        if isinstance(output, AsyncAloneError):
            watch, output = self._run(input)
        if isinstance(output, Exception):
            raise output
        exchange = extract_judged_exchange(Exchange.from_run, input, output, watch)
        if exchange is None:
            raise ExchangeError(
                "expected an answer, found a message that calls tools; sample the agent, not its model"
            )
        f"{exchange.context}{exchange.answer}".encode()  # half of a surrogate pair fails this question, not the file
        return exchange

    def _run(self, input: dict[str, str]) -> tuple[RunRecorder, Any]:
        """What was seen in a run, and its output or its error."""
        watch = RunRecorder()
        (output,), _ = self.runs.run([input], [{"callbacks": [watch, self.use]}], [watch])
        return watch, output


def _line(record: QARecord, exchange: Exchange, chain: str) -> dict[str, Any]:
    return {
        "id": record.id,
        "question": record.question,
        "context": exchange.context,
        "answers": record.references,
        "answer": exchange.answer,
        "log_likelihood": exchange.log_likelihood,
        "chain": chain,
    }


def _missing(
    log: AppendOnlyJsonl, records: Sequence[QARecord], sampled: SampledChain
) -> dict[str, int]:
    """By record id, how many answers the file lacks."""
    by_id = {record.id: record for record in records}
    counts: Counter[str] = Counter()
    for number, line in enumerate(log.values, start=1):
        for expected, found in _differences(line, by_id, sampled.name):
            raise _another(log.path, number, expected, found)
        counts[line["id"]] += 1
        if counts[line["id"]] > sampled.samples:
            raise _another(
                log.path, number, f"at most {sampled.samples} answers to a question", "one more"
            )
    return {record.id: sampled.samples - counts[record.id] for record in records}


def _differences(line: Any, by_id: dict[str, QARecord], chain: str) -> Iterator[tuple[str, str]]:
    """What is expected of a line, and what it holds instead."""
    found = line.get("id") if isinstance(line, dict) else None
    record = by_id.get(found) if isinstance(found, str) else None
    if (
        record is None
        or line.get("question") != record.question
        or line.get("answers") != list(record.references)
    ):
        yield (
            "an answer to one of the questions in the data",
            "another question, or other references",
        )
    # A record without a context leaves it to the chain to find one.
    elif record.context is not None and line.get("context") != record.context:
        yield "an answer from the context in the data", "another context"
    elif line.get("chain") != chain:
        yield f"an answer of {chain}", f"one of {shorten(line.get('chain'))}"


def _another(path: Path, number: int, expected: str, found: str) -> InputError:
    way_out = "repeat the command that wrote the file, or choose another output"
    return InputError(f"{path}, line {number}: expected {expected}, found {found}; {way_out}")
