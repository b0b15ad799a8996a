"""Sampling of answers: any chain answers the questions of a dataset, and each answer is written to a file at once.

    {"id": "q1", "question": "…", "context": "…", "answers": ["…"], "answer": "…", "log_likelihood": -0.2, "chain": "…"}

Each line holds an answer. `answers` are the references, `answer` is the chain's answer, `log_likelihood` the mean
log-probability of its tokens in nats if the chain's model reports it, and `chain` the name of the chain. A line with
`"own_context": true` holds the context that a chain found itself, though the record has another. Only the file counts:
an answer in it is never asked for again, and after a killed run the next run asks for the rest.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from aspire_guard.errors import ExchangeError, InputError
from aspire_guard.exchange import Exchange
from aspire_guard.exchange.run_recorder import RunRecorder, extract_judged_exchange
from aspire_guard.execution.chain_runs import ChainRuns
from aspire_guard.jsonl import shorten
from aspire_trainers.chains.input_shapes import (
    PERMANENT_ERRORS,
    describe_failures,
    is_shape_error,
    list_shapes,
    make_keyed,
)
from aspire_trainers.chains.sync_or_async import AsyncOnlyError, SyncOrAsync
from aspire_trainers.chains.usage import UsageCounter
from aspire_trainers.record import QARecord
from aspire_trainers.run.append_log import AppendOnlyJsonl
from aspire_trainers.run.progress import Progress

# This many failures without an answer between them have a common cause, such as a wrong key or a server that is down.
_MOST_FAILURES_IN_A_ROW = 20
_QUESTION = make_keyed("question")
_LONGEST_CHECK_INTERVAL = 0.1  # seconds between two checks whether the rate allows another run


@dataclass(frozen=True)
class SampledChain:
    """A chain, and how often and how fast it is asked.

    Attributes:
        chain: takes a dict with `question`, and `context` if the record has one, or the question in another shape that
            its input schema allows; see `list_shapes`.
        name: the name under which its answers are written.
        samples: answers to each question.
        max_concurrency: the most runs at once.
        requests_per_second: the most runs started a second, including retries; None for no limit.
        retries: further tries after an error that may pass, with pauses that double from 0.1 to 10 seconds.
    """

    chain: Runnable[Any, Any]
    name: str
    samples: int = 5
    max_concurrency: int = 8
    requests_per_second: float | None = None
    retries: int = 8

    def limit_rate(self) -> Runnable[Any, Any]:
        """Return the chain, each run of which waits until the rate allows it."""
        chain = SyncOrAsync(self.chain)
        if self.requests_per_second is None:
            return chain
        interval = min(_LONGEST_CHECK_INTERVAL, _LONGEST_CHECK_INTERVAL / self.requests_per_second)
        limiter = InMemoryRateLimiter(
            requests_per_second=self.requests_per_second, check_every_n_seconds=interval
        )

        def wait_for_turn(input: Any) -> Any:
            limiter.acquire()
            return input

        return RunnableLambda(wait_for_turn) | chain


@dataclass(frozen=True)
class ChainSample:
    """The outcome of a sampling run.

    Attributes:
        failures: by record id, the last error of each question that lacks an answer.
        missing: number of answers that are not in the file.
        use: the calls and tokens of this run.
    """

    failures: dict[str, Exception]
    missing: int
    use: UsageCounter


def sample_chain(
    sampled: SampledChain, records: Sequence[QARecord], file: str | Path, progress: Progress
) -> ChainSample:
    """Ask the chain until `file` holds `sampled.samples` answers to each record, or until it fails too often.

    A question that fails after all retries is not asked again in this run, and does not affect the others. Another call
    with the same arguments asks for it.

    Raises:
        InputError: `file` holds something other than some of these answers.
    """
    log = AppendOnlyJsonl(Path(file))
    missing = _count_missing(log, records, sampled)
    total = len(records) * sampled.samples
    asker = _ChainAsker(sampled)
    failures: dict[str, Exception] = {}
    failures_in_a_row = 0
    with progress, log, ThreadPoolExecutor(sampled.max_concurrency) as pool:
        progress.start(total, len(log.values))
        questions = _draw_questions(records, missing, failures)
        running: dict[Future[Exchange], QARecord] = {}
        while True:
            if failures_in_a_row < _MOST_FAILURES_IN_A_ROW:
                for record in islice(questions, sampled.max_concurrency - len(running)):
                    running[pool.submit(asker.ask, record)] = record
            if not running:
                break
            for run in wait(running, return_when=FIRST_COMPLETED).done:
                record = running.pop(run)
                error = run.exception()
                if isinstance(error, Exception):
                    failures_in_a_row += record.id not in failures
                    failures[record.id] = error
                    continue
                log.append(_format_line(record, run.result(), sampled.name))
                failures_in_a_row = 0
                failed = f" · {len(failures)} failed" if failures else ""
                progress.advance(note=f"{asker.usage.summary}{failed}")
    return ChainSample(failures, total - len(log.values), asker.usage)


def _draw_questions(
    records: Sequence[QARecord], missing: Mapping[str, int], failures: Mapping[str, Exception]
) -> Iterator[QARecord]:
    """Yield each record once for every missing answer, until its id is in `failures`, which grows meanwhile.

    The order is random. Otherwise questions that fail every time would come first in every call.
    """
    for record in random.sample(records, len(records)):
        for _ in range(missing[record.id]):
            if record.id not in failures:
                yield record


class _ChainAsker:
    """Runs the chain on one question at a time, from several threads."""

    def __init__(self, sampled: SampledChain) -> None:
        self.runs = ChainRuns(
            sampled.limit_rate(),
            "chain",
            retries=sampled.retries,
            original_errors=True,
            permanent_errors=PERMANENT_ERRORS,
        )
        # The shape that the chain takes is alone in the list once it has been found.
        self.shapes = list_shapes(sampled.chain)
        self.usage = UsageCounter()

    def ask(self, record: QARecord) -> Exchange:
        """Return an answer, with the context that it was given from."""
        input, recorder, output = self._run_in_shape(record)
        exchange = extract_judged_exchange(Exchange.from_run, input, output, recorder)
        if exchange is None:
            raise ExchangeError(
                "expected an answer, found a message that calls tools; sample the agent, not its model"
            )
        # Half of a surrogate pair can't be written, so it must fail here, where it costs only this question.
        f"{exchange.context}{exchange.answer}".encode()
        return exchange

    def _run_in_shape(self, record: QARecord) -> tuple[Any, RunRecorder, Any]:
        """Run the chain on the question in the shape that it takes.

        Returns:
            The input under the usual keys, the recorder of the run, and the output.

        Raises:
            Exception: the chain's error, or an InputError with the errors of all shapes if it takes none of several.
        """
        errors: dict[str, Exception] = {}
        for shape in self.shapes:
            input = shape.make(record)
            recorder, output = self._run(input)
            if isinstance(output, AsyncOnlyError):
                recorder, output = self._run(input)
            if not isinstance(output, Exception):
                self.shapes = [shape]
                # The exchange is read from the usual keys, whatever the chain's own are called.
                usual = _QUESTION.make(record) if shape.has_context else record.question
                return usual, recorder, output
            if not is_shape_error(output):
                raise output
            # The same words for another shape have another cause, unless a key is missing in both.
            if not isinstance(output, KeyError) and str(output) in map(str, errors.values()):
                raise output
            errors[shape.name] = output
        if len(errors) == 1:
            raise next(iter(errors.values()))
        raise InputError(
            f"expected a chain that takes a question in a shape that its input schema allows, found an error in each "
            f"shape that was tried: {describe_failures(errors)}; fix the chain, or give its input a type"
        )

    def _run(self, input: Any) -> tuple[RunRecorder, Any]:
        """Return the recorder of a run, and the run's output or its error."""
        recorder = RunRecorder()
        configs: list[RunnableConfig] = [{"callbacks": [recorder, self.usage]}]
        (output,), _ = self.runs.run([input], configs, [recorder])
        return recorder, output


def _format_line(record: QARecord, exchange: Exchange, chain: str) -> dict[str, Any]:
    line = {
        "id": record.id,
        "question": record.question,
        "context": exchange.context,
        "answers": record.references,
        "answer": exchange.answer,
        "log_likelihood": exchange.log_likelihood,
        "chain": chain,
    }
    if record.context is not None and exchange.context != record.context:
        line["own_context"] = True
    return line


def _count_missing(
    log: AppendOnlyJsonl, records: Sequence[QARecord], sampled: SampledChain
) -> dict[str, int]:
    """Count the answers that the file lacks, by record id.

    Raises:
        InputError: the file holds a line that is not one of these answers.
    """
    records_by_id = {record.id: record for record in records}
    counts: Counter[str] = Counter()
    for number, line in enumerate(log.values, start=1):
        difference = _find_difference(line, records_by_id, sampled.name)
        if difference is not None:
            raise _make_line_error(log.path, number, *difference)
        counts[line["id"]] += 1
        if counts[line["id"]] > sampled.samples:
            expected = f"at most {sampled.samples} answers to a question"
            raise _make_line_error(log.path, number, expected, "one more")
    return {record.id: sampled.samples - counts[record.id] for record in records}


def _find_difference(
    line: Any, records_by_id: Mapping[str, QARecord], chain: str
) -> tuple[str, str] | None:
    """Return the expected and the found content of a line, or None if it is one of the chain's answers."""
    record_id = line.get("id") if isinstance(line, dict) else None
    record = records_by_id.get(record_id) if isinstance(record_id, str) else None
    another_question = (
        "an answer to one of the questions in the data",
        "another question, or other references",
    )
    if record is None or line.get("question") != record.question:
        return another_question
    if line.get("answers") != list(record.references):
        return another_question
    # If a record has no context, the chain finds its own.
    has_own_context = record.context is None or line.get("own_context") is True
    if not has_own_context and line.get("context") != record.context:
        return "an answer from the context in the data", "another context"
    if line.get("chain") != chain:
        return f"an answer of {chain}", f"one of {shorten(line.get('chain'))}"
    return None


def _make_line_error(path: Path, number: int, expected: str, found: str) -> InputError:
    way_out = "repeat the command that wrote the file, or choose another output"
    return InputError(f"{path}, line {number}: expected {expected}, found {found}; {way_out}")
