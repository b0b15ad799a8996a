"""Sentence release: a streamed answer leaves sentence by sentence, each scored together with the answer before it.

If a sentence falls short, nothing more is released and the abstention ends the stream. If the
message turns out to call tools, it is not an answer, and all of it passes. Sentences that have left
stay released.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, closing
from contextvars import Context
from dataclasses import dataclass
from functools import cached_property, partial
from time import perf_counter
from typing import Any

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    patch_config,
    set_config_context,
)
from langchain_core.runnables.utils import coro_with_context

from aspire_guard.evaluators.protocol import Evaluator, IncrementalEvaluator, is_incremental
from aspire_guard.exchange import Exchange
from aspire_guard.execution.effect_runner import CHAIN_TAG, GuardedCall
from aspire_guard.execution.guarded_run import (
    VERDICT_EVENT,
    GuardedRun,
    find_stream_handlers,
)
from aspire_guard.execution.held_answer import HeldAnswer
from aspire_guard.routing.abstain import attach_verdict, write_abstention
from aspire_guard.routing.bands import ResolvedBands
from aspire_guard.routing.decision_log import decide_by_score
from aspire_guard.routing.effects import ChainRan
from aspire_guard.routing.routes import Abstain
from aspire_guard.routing.scoring import ScoringResult, score_exchanges
from aspire_guard.timeouts import run_in_scoring_thread
from aspire_guard.verdict import Score, Verdict

_MISSING = object()


@dataclass(frozen=True)
class SentenceStream:
    """A stream of a chain's answer, sentence by sentence.

    Evaluators work in the context of the chain, which no stream sees, because the runnables that
    they call must not be shown either.

    Attributes:
        run: the guarded chain.
    """

    run: GuardedRun

    def stream(self, input: Any, config: RunnableConfig) -> Iterator[Any]:
        """Stream the released pieces of the answer, in the type of the chain's chunks."""
        run_id, name = config.pop("run_id", None), config.get("run_name") or self.run.name
        manager = get_callback_manager_for_config(config)
        run = manager.on_chain_start(None, input, name=name, run_id=run_id)
        call = self._make_call(input, config, run)
        released: list[Any] = []
        failure: BaseException | None = None
        try:
            pieces: Iterator[Any] = self._stream_pieces(call)
            for handler in find_stream_handlers(run):
                pieces = handler.tap_output_iter(run.run_id, pieces)
            for piece in pieces:
                released.append(piece)
                yield piece
        except BaseException as error:
            failure = call.sanitize(error)
        # Raised out here, an error does not have the original as its context.
        if failure is not None:
            run.on_chain_error(failure)
            raise failure
        run.on_chain_end(_add_pieces(released))

    async def astream(self, input: Any, config: RunnableConfig) -> AsyncGenerator[Any, None]:
        """Stream asynchronously, with the evaluator in a thread off the event loop; see `stream`."""
        run_id, name = config.pop("run_id", None), config.get("run_name") or self.run.name
        manager = get_async_callback_manager_for_config(config)
        run = await manager.on_chain_start(None, input, name=name, run_id=run_id)
        call = self._make_call(input, config, run)
        released: list[Any] = []
        failure: BaseException | None = None
        try:
            async with aclosing(self._astream_pieces(call)) as untapped:
                pieces: AsyncIterator[Any] = untapped
                for handler in find_stream_handlers(run):
                    pieces = handler.tap_output_aiter(run.run_id, pieces)
                async for piece in pieces:
                    released.append(piece)
                    yield piece
        except BaseException as error:
            failure = call.sanitize(error)
        if failure is not None:
            await run.on_chain_error(failure)
            raise failure
        await run.on_chain_end(_add_pieces(released))

    def _make_call(self, input: Any, config: RunnableConfig, run: Any) -> GuardedCall[Any]:
        return GuardedCall(input, config, run, original_errors=self.run.original_errors)

    def _stream_pieces(self, call: GuardedCall[Any]) -> Iterator[Any]:
        """Stream the released sentences, then the end of the answer, and report the verdict."""
        started = perf_counter()
        gate = self._open_gate(call, self.run.load_evaluator())
        yield from self._stream_sentences(gate)
        if gate.is_text:
            yield from gate.make_ending()
        else:
            outcome = self.run.decide(gate.call, gate.make_generated(started))
            gate.verdict = outcome.verdict
            yield outcome.output
        if gate.verdict is not None:
            verdict = gate.verdict.model_dump(mode="json")
            child_config = patch_config(call.config, callbacks=call.run.get_child())
            dispatch_custom_event(VERDICT_EVENT, verdict, config=child_config)

    async def _astream_pieces(self, call: GuardedCall[Any]) -> AsyncGenerator[Any, None]:
        started = perf_counter()
        evaluator = await run_in_scoring_thread(self.run.load_evaluator)
        gate = self._open_gate(call, evaluator)
        async with aclosing(self._astream_sentences(gate)) as sentences:
            async for sentence in sentences:
                yield sentence
        if gate.is_text:
            for piece in gate.make_ending():
                yield piece
        else:
            outcome = await self.run.adecide(gate.call, gate.make_generated(started))
            gate.verdict = outcome.verdict
            yield outcome.output
        if gate.verdict is not None:
            verdict = gate.verdict.model_dump(mode="json")
            child_config = patch_config(call.config, callbacks=call.run.get_child())
            await adispatch_custom_event(VERDICT_EVENT, verdict, config=child_config)

    def _open_gate(self, call: GuardedCall[Any], evaluator: Evaluator) -> _Gate:
        call.begin_child_run(CHAIN_TAG)
        return _Gate(self.run, call, evaluator)

    def _stream_sentences(self, gate: _Gate) -> Iterator[Any]:
        """Run the chain up to its end or up to a sentence that falls short, and release the others."""
        chain, config = self.run.chain, gate.call.step_config
        with set_config_context(config) as context:
            chunks: Any = context.run(chain.stream, gate.call.input, config, **self.run.kwargs)
            with closing(chunks):
                while (chunk := gate.get_next(context, chunks)) is not _MISSING:
                    piece = gate.hold_back(chunk)
                    if piece and context.run(gate.try_release, piece):
                        yield gate.release(piece)
                    if gate.can_stop_chain:
                        break
            rest = gate.get_unjudged_rest()
            if rest is not None and context.run(gate.try_release, rest):
                yield gate.release(rest)

    async def _astream_sentences(self, gate: _Gate) -> AsyncGenerator[Any, None]:
        chain, config = self.run.chain, gate.call.step_config
        with set_config_context(config) as context:
            chunks: Any = context.run(chain.astream, gate.call.input, config, **self.run.kwargs)
            async with aclosing(chunks):
                while (chunk := await gate.aget_next(context, chunks)) is not _MISSING:
                    piece = gate.hold_back(chunk)
                    if piece and await _atry_release(gate, piece, context):
                        yield gate.release(piece)
                    if gate.can_stop_chain:
                        break
            rest = gate.get_unjudged_rest()
            if rest is not None and await _atry_release(gate, rest, context):
                yield gate.release(rest)


async def _atry_release(gate: _Gate, piece: str, context: Context) -> bool:
    """Release a piece if its score allows it, with the evaluator in a thread off the event loop."""
    # A context can be entered only once at a time, so the thread works in a copy.
    return await run_in_scoring_thread(partial(context.copy().run, gate.try_release, piece))


async def _get_next(chunks: Any, context: Context) -> Any:
    """Return the next chunk, or `_MISSING` at the end, from a chain that runs in `context`."""

    async def get_next() -> Any:
        return await anext(chunks, _MISSING)

    return await coro_with_context(get_next(), context, create_task=True)


class _Gate:
    """An answer on its way out: what is held back, what has left, and the latest verdict.

    Attributes:
        call: the call of the guard that the chain runs for.
        verdict: the verdict on the answer up to the last piece that was scored, or None if no piece
            has been scored.
        score_next_piece: the function of an incremental evaluator that scores the answer with its
            next piece, once the first piece has been scored.
    """

    def __init__(self, run: GuardedRun, call: GuardedCall[Any], evaluator: Evaluator) -> None:
        self.call = call
        self.verdict: Verdict | None = None
        self._run = run
        self._evaluator = evaluator
        self._group = run.policy.find_group(call.config.get("metadata", {}))
        self._held = HeldAnswer()
        self._released_text = ""
        # The sum of the chunks from the first on that is neither a string nor a message.
        self._non_text: Any = _MISSING
        self.score_next_piece: Callable[[str], Score] | None = None

    def get_next(self, context: Context, chunks: Iterator[Any]) -> Any:
        """Return the chain's next chunk, or `_MISSING` at its end."""
        with self.call.watch_chain(self._run.chain):
            return context.run(next, chunks, _MISSING)

    async def aget_next(self, context: Context, chunks: AsyncIterator[Any]) -> Any:
        """Return the chain's next chunk, or `_MISSING` at its end."""
        with self.call.watch_chain(self._run.chain):
            return await _get_next(chunks, context)

    def hold_back(self, chunk: Any) -> str:
        """Hold a chunk back, and return the finished sentences to score now, or an empty string."""
        if not self.is_text or not isinstance(chunk, str | AIMessageChunk):
            self._non_text = chunk if self.is_text else _add_chunks(self._non_text, chunk)
            return ""
        self._held.add(chunk)
        return "" if self._is_cut or self._held.has_tool_calls else self._held.find_finished()

    def try_release(self, piece: str) -> bool:
        """Score the answer up to the end of a piece, and release the piece if the score allows it.

        Args:
            piece: the beginning of the text that is held back.

        Returns:
            True if the piece may leave.

        Raises:
            EvaluationError: scoring failed, and the policy says to raise then.
        """
        exchange = self._read_exchange(piece)
        result = self._score(exchange, piece)
        if result.error is not None and self._run.policy.on_error == "raise":
            raise result.error
        already_released = bool(self._released_text)
        self.verdict = decide_by_score(
            self._bands,
            result,
            partly_released=already_released,
            context=exchange.context_source,
        )
        if not self.verdict.accepted:
            return False
        self._released_text += piece
        return True

    def release(self, piece: str) -> Any:
        """Return an accepted piece as a chunk of the chain's type, and hold it back no longer."""
        return self._make_chunk(self._held.take(len(piece)))

    def _read_exchange(self, piece: str) -> Exchange:
        answer = self._released_text + piece
        return self.call.recorder.read_exchange(self._run.extract, self.call.input, answer)

    def _score(self, exchange: Exchange, piece: str) -> ScoringResult:
        if self.call.recorder.is_abstention(exchange.answer, may_go_on=True):
            # A guard inside the chain has abstained, and its text is no answer to be scored.
            return ScoringResult()
        evaluator = self._evaluator
        if is_incremental(evaluator):
            evaluator = _PieceScorer(self, evaluator, piece)
        (result,) = score_exchanges(evaluator, [exchange])
        return result

    def get_unjudged_rest(self) -> str | None:
        """Return the text to score when the chain has ended, or None if there is no such text."""
        if not self.is_text or self._is_cut or self._calls_tools:
            return None
        if self._released_text and not self._held.text.strip():
            return None
        return self._held.text

    def make_ending(self) -> Iterator[Any]:
        """Make the chunks after the last released sentence.

        A message that calls tools ends with all that was held back. An answer ends with the white
        space after it, or with the abstention if it was cut. A message then ends with the verdict and
        its token counts, and if all of it was accepted, with all that its chunks carried beside text.
        """
        if self._calls_tools:
            self.verdict = None  # a message that calls tools is not an answer, so it has no verdict
            held = self._held.take(len(self._held.text))
            yield self._message.model_copy(update={"content": self._add_blocks(held)})
            return
        if self._is_cut:
            yield self._make_chunk(self._make_abstention())
        elif self._held.text:
            yield self.release(self._held.text)
        if self._held.is_message:
            assert self.verdict is not None
            yield attach_verdict(self._make_end_of_message(), self.verdict)

    def _make_end_of_message(self) -> AIMessageChunk:
        message = self._message
        if self._is_cut:
            return AIMessageChunk(content="", id=message.id, usage_metadata=message.usage_metadata)
        return message

    def _add_blocks(self, held: str | list[Any]) -> str | list[Any]:
        """Add the blocks of the message that are not text to the text that was held back."""
        blocks = self._message.content
        if not isinstance(blocks, list):
            return held
        texts = held if isinstance(held, list) else [held]
        return [*filter(None, texts), *blocks]

    def _make_chunk(self, content: str | list[Any]) -> Any:
        """Make a chunk of the chain's type."""
        if self._held.is_message:
            return AIMessageChunk(content=content, id=self._held.id)
        return content

    def make_generated(self, started: float) -> ChainRan:
        """Make the result of a chain whose output is not text and can only be judged as a whole.

        Args:
            started: the value of `perf_counter` when the stream began.
        """
        return ChainRan(self._non_text, self.call.recorder, perf_counter() - started)

    @property
    def is_text(self) -> bool:
        """True unless the chain has streamed a chunk that is neither a string nor a message."""
        return self._non_text is _MISSING

    @property
    def can_stop_chain(self) -> bool:
        """True if a text fell short. A message that fell short may still turn out to call tools."""
        return self._is_cut and not self._held.is_message

    @property
    def _is_cut(self) -> bool:
        return self.verdict is not None and not self.verdict.accepted

    @cached_property
    def _message(self) -> AIMessageChunk:
        """The message without its text, once the chain has ended."""
        return self._held.make_message()

    @property
    def _calls_tools(self) -> bool:
        # A call that can't be parsed does not count, just as in a message that is not streamed.
        return self._held.has_tool_calls and bool(self._message.tool_calls)

    @property
    def _bands(self) -> ResolvedBands:
        return self._run.policy.resolve_bands(self._evaluator, self._group)

    def _make_abstention(self) -> str:
        assert self.verdict is not None
        routes = self._bands.find_routes(self.verdict.score)
        abstentions = [route for route in routes if isinstance(route, Abstain)]
        message = abstentions[0].message if abstentions else self._run.policy.abstention
        text, failure = write_abstention(message, self.verdict, self._run.policy.abstention)
        if failure is not None:
            self.verdict = self.verdict.model_copy(update={"error": failure})
        return f" {text}" if self._released_text else text


@dataclass
class _PieceScorer:
    """An evaluator of a growing answer, which reads the prompt once and then only the new pieces."""

    gate: _Gate
    evaluator: IncrementalEvaluator
    piece: str
    threshold: float = 0.0
    guarantee: str | None = None

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        """Score the answer up to the end of the piece."""
        (exchange,) = exchanges
        gate = self.gate
        if gate.score_next_piece is None:
            gate.score_next_piece = self.evaluator.score_incrementally(
                exchange.question, exchange.context
            )
        return [gate.score_next_piece(self.piece)]


def _add_chunks(output: Any, chunk: Any) -> Any:
    """Add a chunk to the output so far.

    A chunk that can't be added holds all that came before, as with parsers that stream JSON.
    """
    try:
        return output + chunk
    except TypeError:
        return chunk


def _add_pieces(pieces: Sequence[Any]) -> Any:
    """Add the pieces that have left to one output, or return None if there are none."""
    if pieces and all(isinstance(piece, str) for piece in pieces):
        return "".join(pieces)
    if pieces and all(isinstance(piece, AIMessageChunk) for piece in pieces):
        return add_ai_message_chunks(*pieces)
    return pieces[-1] if pieces else None
