"""Sentence release: a streamed answer leaves sentence by sentence, each one scored as the end of the answer so far.

When one falls short, nothing more is released and the abstention ends the stream, unless the message turns out to call
tools: then it is no answer, and passes. What was released stays released.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    patch_config,
    set_config_context,
)
from langchain_core.runnables.utils import coro_with_context

from aspire_guard.evaluators.protocol import Evaluator, IncrementalEvaluator
from aspire_guard.exchange import Exchange, message_text
from aspire_guard.execution.effect_runner import GuardedCall
from aspire_guard.execution.guarded_run import VERDICT_EVENT, GuardedRun
from aspire_guard.routing.abstain import attach
from aspire_guard.routing.decision_log import decide_by_score
from aspire_guard.routing.effects import ChainRan
from aspire_guard.routing.routes import Abstain
from aspire_guard.routing.scoring import score_exchanges
from aspire_guard.timeouts import run_in_scoring_thread
from aspire_guard.verdict import Score, Verdict

# A mark that ends a sentence, with the quotes and brackets after it; a full stop may be a decimal point, so it
# counts only once white space follows.
SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s)|[。！？][”’」』）]*")

_NOTHING = object()


@dataclass
class _Gate:
    """One answer on its way out: what is held back, what was released, and how it was scored."""

    run: GuardedRun
    call: GuardedCall[Any]
    group: str | None
    started: float = field(default_factory=perf_counter)
    whole: Any = _NOTHING
    held: str = ""
    said: str = ""
    message: AIMessageChunk | None = None
    verdict: Verdict | None = None
    extend: Callable[[str], Score] | None = None

    def take(self, chunk: Any) -> str:
        """Hold a chunk back; the finished sentences that are to be judged now, which may be none."""
        if self.whole is not _NOTHING or not isinstance(chunk, str | AIMessageChunk):
            self.whole = chunk if self.whole is _NOTHING else _added(self.whole, chunk)
            return ""
        if isinstance(chunk, AIMessageChunk):
            rest = chunk.model_copy(update={"content": ""})
            self.message = rest if self.message is None else self.message + rest
        self.held += chunk if isinstance(chunk, str) else message_text(chunk)
        if self.is_cut or self.calls_tools:
            return ""
        ends = [found.end() for found in SENTENCE_END.finditer(self.held)]
        return self.held[: ends[-1]] if ends else ""

    @property
    def generated(self) -> ChainRan | None:
        """An output that is no text, once the chain has ended: it can only be judged whole; None where it is text."""
        if self.whole is _NOTHING:
            return None
        return ChainRan(self.whole, self.call.watch, perf_counter() - self.started)

    @property
    def calls_tools(self) -> bool:
        """Whether the message is no final answer; a call that can't be read is none, as in a message that is whole."""
        return self.message is not None and bool(self.message.tool_calls)

    def judge(self, piece: str, evaluator: Evaluator) -> bool:
        """Whether a piece may leave, by the score of the answer up to its end."""
        exchange = self.run.extract(self.call.input, self.said + piece, self.call.watch.documents)
        scorer = evaluator
        if isinstance(evaluator, IncrementalEvaluator):
            scorer = _AnswerScorer(self, evaluator, piece)
        (evaluated,) = score_exchanges(scorer, [exchange])
        if evaluated.error is not None and self.run.policy.on_error == "raise":
            raise evaluated.error
        self.verdict = decide_by_score(
            self.run.policy.cuts(evaluator, self.group), evaluated, partly_released=bool(self.said)
        )
        if self.verdict.accepted:
            self.said, self.held = self.said + piece, self.held[len(piece) :]
            return True
        return False

    def abstention(self, evaluator: Evaluator) -> str:
        """What the stream ends with when it is cut."""
        assert self.verdict is not None
        routes = self.run.policy.cuts(evaluator, self.group).routes(self.verdict.score)
        route = next(
            (route for route in routes if isinstance(route, Abstain)),
            Abstain(self.run.policy.abstention),
        )
        text = route.message if isinstance(route.message, str) else route.message(self.verdict)
        return f" {text}" if self.said else text

    @property
    def rest(self) -> str | None:
        """What is still to be judged when the chain has ended; None where nothing is."""
        if (
            self.whole is not _NOTHING
            or self.is_cut
            or self.calls_tools
            or (self.said and not self.held.strip())
        ):
            return None
        return self.held

    @property
    def is_cut(self) -> bool:
        """Whether a sentence fell short."""
        return self.verdict is not None and not self.verdict.accepted

    @property
    def is_over(self) -> bool:
        """Whether the chain need not go on: a text fell short; a message that did may still turn out to call tools."""
        return self.is_cut and self.message is None

    def ending(self, evaluator: Evaluator) -> Iterator[Any]:
        """What comes after the last released sentence: of a message that calls tools, all the rest.

        Of an answer, the abstention where it was cut, and of a message its token counts and the verdict.
        """
        if self.message is not None and self.calls_tools:
            self.verdict = None  # on no answer, no verdict
            yield self.message.model_copy(update={"content": self.held})
            return
        if self.is_cut:
            yield self.chunk(self.abstention(evaluator))
        if self.message is not None:
            assert self.verdict is not None
            end = AIMessageChunk(
                content="", id=self.message.id, usage_metadata=self.message.usage_metadata
            )
            yield attach(end, self.verdict)

    def chunk(self, text: str) -> Any:
        """A text in the type of the chain's chunks."""
        return text if self.message is None else AIMessageChunk(content=text, id=self.message.id)


@dataclass
class _AnswerScorer:
    """An evaluator of one answer, which reads the prompt once and then only new pieces."""

    gate: _Gate
    evaluator: IncrementalEvaluator
    piece: str
    threshold: float = 0.0
    guarantee: str | None = None

    def score(self, exchanges: Sequence[Exchange]) -> list[Score]:
        (exchange,) = exchanges
        if self.gate.extend is None:
            self.gate.extend = self.evaluator.score_incrementally(
                exchange.question, exchange.context
            )
        return [self.gate.extend(self.piece)]


@dataclass(frozen=True)
class SentenceStream:
    """Streams a chain's answer sentence by sentence.

    Evaluators work in the chain's silenced context: what they run themselves must not be heard either.

    Attributes:
        run: the chain, its evaluator and policy, and how an exchange is read.
    """

    run: GuardedRun

    def stream(self, input: Any, config: RunnableConfig) -> Iterator[Any]:
        """Released pieces of the answer, of the type of the chain's chunks."""
        run_id, name = config.pop("run_id", None), config.get("run_name") or self.run.name
        run = get_callback_manager_for_config(config).on_chain_start(
            None, input, name=name, run_id=run_id
        )
        final: Any = None
        try:
            pieces: Iterator[Any] = self._pieces(input, config, run)
            for handler in _tapping(run):
                pieces = handler.tap_output_iter(run.run_id, pieces)
            for piece in pieces:
                final = piece if final is None else final + piece
                yield piece
        except BaseException as error:
            run.on_chain_error(error)
            raise
        run.on_chain_end(final)

    async def astream(self, input: Any, config: RunnableConfig) -> AsyncGenerator[Any, None]:
        """As `stream`; scoring runs in a thread, off the event loop."""
        run_id, name = config.pop("run_id", None), config.get("run_name") or self.run.name
        run = await get_async_callback_manager_for_config(config).on_chain_start(
            None, input, name=name, run_id=run_id
        )
        final: Any = None
        try:
            async with aclosing(self._apieces(input, config, run)) as own:
                pieces: AsyncIterator[Any] = own
                for handler in _tapping(run):
                    pieces = handler.tap_output_aiter(run.run_id, pieces)
                async for piece in pieces:
                    final = piece if final is None else final + piece
                    yield piece
        except BaseException as error:
            await run.on_chain_error(error)
            raise
        await run.on_chain_end(final)

    def _pieces(self, input: Any, config: RunnableConfig, run: Any) -> Iterator[Any]:
        gate, evaluator = self._gate(input, config, run), self.run.load_evaluator()
        inside = gate.call.step_config
        with set_config_context(inside) as context:
            chunks: Any = context.run(self.run.chain.stream, input, inside, **self.run.kwargs)
            with closing(chunks):
                for chunk in iter(lambda: context.run(next, chunks, _NOTHING), _NOTHING):
                    if (piece := gate.take(chunk)) and context.run(gate.judge, piece, evaluator):
                        yield gate.chunk(piece)
                    if gate.is_over:
                        break
            if (rest := gate.rest) is not None and context.run(gate.judge, rest, evaluator):
                yield gate.chunk(rest)
        if (generated := gate.generated) is not None:
            outcome = self.run.decide(gate.call, generated)
            gate.verdict = outcome.verdict
            yield outcome.output
        else:
            yield from gate.ending(evaluator)
        if gate.verdict is not None:
            child = patch_config(config, callbacks=run.get_child())
            dispatch_custom_event(VERDICT_EVENT, gate.verdict.model_dump(mode="json"), config=child)

    async def _apieces(
        self, input: Any, config: RunnableConfig, run: Any
    ) -> AsyncGenerator[Any, None]:
        gate, evaluator = (
            self._gate(input, config, run),
            await run_in_scoring_thread(self.run.load_evaluator),
        )
        inside = gate.call.step_config
        with set_config_context(inside) as context:
            stream: Any = context.run(self.run.chain.astream, input, inside, **self.run.kwargs)
            async with aclosing(stream):
                while (chunk := await _next(stream, context)) is not _NOTHING:
                    if piece := gate.take(chunk):
                        passes = await run_in_scoring_thread(
                            partial(context.copy().run, gate.judge, piece, evaluator)
                        )
                        if passes:
                            yield gate.chunk(piece)
                    if gate.is_over:
                        break
            rest = gate.rest
            if rest is not None and await run_in_scoring_thread(
                partial(context.copy().run, gate.judge, rest, evaluator)
            ):
                yield gate.chunk(rest)
        if (generated := gate.generated) is not None:
            outcome = await self.run.adecide(gate.call, generated)
            gate.verdict = outcome.verdict
            yield outcome.output
        else:
            for piece in gate.ending(evaluator):
                yield piece
        if gate.verdict is not None:
            child = patch_config(config, callbacks=run.get_child())
            await adispatch_custom_event(
                VERDICT_EVENT, gate.verdict.model_dump(mode="json"), config=child
            )

    def _gate(self, input: Any, config: RunnableConfig, run: Any) -> _Gate:
        call: GuardedCall[Any] = GuardedCall(input, config, run)
        call.inside("aspire_guard:chain")
        return _Gate(self.run, call, self.run.policy.group(config.get("metadata", {})))


def _added(whole: Any, chunk: Any) -> Any:
    """Two chunks as one. Those that can't be added hold all that came before: so JSON parsers stream."""
    try:
        return whole + chunk
    except TypeError:
        return chunk


async def _next(stream: Any, context: Any) -> Any:
    async def one() -> Any:
        return await anext(stream, _NOTHING)

    return await coro_with_context(one(), context, create_task=True)


def _tapping(run: Any) -> list[Any]:
    """The handlers that are shown what a run streams, as LangChain's own runnables show it."""
    return [handler for handler in run.handlers if hasattr(handler, "tap_output_iter")]
