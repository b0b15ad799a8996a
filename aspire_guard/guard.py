"""AspireGuard: a Runnable around any chain that releases the answers it is confident of, and abstains from the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import RunnableLike, coerce_to_runnable
from langchain_core.runnables.config import ensure_config, get_config_list
from langchain_core.runnables.utils import ConfigurableFieldSpec, get_unique_config_specs
from langchain_core.utils.pydantic import TypeBaseModel
from pydantic import ConfigDict

from aspire_guard.errors import ExchangeError
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import ExchangeReader, FieldReader
from aspire_guard.execution.guarded_run import GuardedRun, Take
from aspire_guard.execution.sanitized_errors import sanitized_errors
from aspire_guard.execution.sentence_release import SentenceStream
from aspire_guard.execution.with_fallbacks import GuardWithFallbacks
from aspire_guard.langgraph_compat import has_graph
from aspire_guard.routing.flow import Outcome
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.verdict import Verdict

if TYPE_CHECKING:
    from langchain_core.runnables.graph import Graph

DEFAULT_POLICY = RoutingPolicy()


class AspireGuard(RunnableSerializable[Any, Any]):
    """Wraps a chain: same input, same output type, but only answers that the evaluator is confident of.

    An AIMessage carries the verdict in `response_metadata["aspire_guard"]`; every verdict is also
    dispatched as the custom event `aspire_guard.verdict`. Messages that call tools pass as they are.

    Attributes:
        chain: what answers.
        evaluator: what scores the answers; None for the starter evaluator, loaded when first used.
        policy: what becomes of scored answers.
        question: where the question is: a key of the input, or a function of the input; None: at the usual places.
        context: where the context is: a key of the input or else of the output, or a function of both; None: at the
            usual places.
        answer: where the answer is: a key of the output, or a function of input and output, whose result is judged
            as JSON where it is no text; None: at the usual places.
        release: what `stream` and `astream` wait for: the whole answer, or each of its sentences; with "sentence" a
            stream is cut where one falls short, and what came before stays released.
    """

    chain: Runnable[Any, Any]
    evaluator: Evaluator | None = None
    policy: RoutingPolicy = DEFAULT_POLICY
    question: FieldReader | None = None
    context: FieldReader | None = None
    answer: FieldReader | None = None
    release: Literal["answer", "sentence"] = "answer"

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def __init__(
        self,
        chain: RunnableLike[Any, Any],
        *,
        evaluator: Evaluator | None = None,
        policy: RoutingPolicy = DEFAULT_POLICY,
        question: FieldReader | None = None,
        context: FieldReader | None = None,
        answer: FieldReader | None = None,
        release: Literal["answer", "sentence"] = "answer",
        name: str | None = None,
    ) -> None:
        fields: dict[str, Any] = {
            "chain": coerce_to_runnable(chain),
            "evaluator": evaluator,
            "policy": policy,
            "question": question,
            "context": context,
            "answer": answer,
            "release": release,
            "name": name,
        }
        super().__init__(**fields)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The chain's output, or the abstention in the same type.

        Raises:
            ExchangeError: no question or answer can be read from the chain's input and output.
            EvaluationError: scoring failed, and the policy says to raise then.
            UnguardedWriteError: the chain writes past the guard into the graph of LangGraph around it.
        """
        return _only(self._guarded(_output, kwargs).run([input], [ensure_config(config)]))

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As `invoke`; scoring runs in a thread, off the event loop."""
        return _only(await self._guarded(_output, kwargs).arun([input], [ensure_config(config)]))

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """As `invoke` for each input, with all answers scored in one call of the evaluator."""
        configs = get_config_list(config, len(inputs))
        return _all(self._guarded(_output, kwargs).run(inputs, configs), return_exceptions)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """As `batch`; scoring runs in a thread, off the event loop."""
        configs = get_config_list(config, len(inputs))
        return _all(await self._guarded(_output, kwargs).arun(inputs, configs), return_exceptions)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """The decided output in one chunk; with `release="sentence"` the released sentences, each once it passed."""
        if self._by_sentence:
            with sanitized_errors():
                yield from SentenceStream(self._guarded(_output, kwargs)).stream(
                    input, ensure_config(config)
                )
        else:
            yield self.invoke(input, config, **kwargs)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """As `stream`; scoring runs in a thread, off the event loop."""
        if self._by_sentence:
            run = SentenceStream(self._guarded(_output, kwargs))
            with sanitized_errors():
                async with aclosing(run.astream(input, ensure_config(config))) as pieces:
                    async for piece in pieces:
                        yield piece
        else:
            yield await self.ainvoke(input, config, **kwargs)

    def with_fallbacks(
        self, fallbacks: Sequence[Runnable[Any, Any]], **options: Any
    ) -> GuardWithFallbacks:
        """What is asked where the guard raises; an interrupt of a graph inside it is no failure and passes."""
        return GuardWithFallbacks.of(self, super().with_fallbacks(fallbacks, **options))

    def judge(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Verdict:
        """The verdict on the chain's answer to `input`.

        Raises:
            ExchangeError: as `invoke`; or the answer is a message that calls tools.
            EvaluationError: scoring failed, and the policy says to raise then.
        """
        verdict: Verdict = _only(
            self._guarded(_verdict, kwargs).run([input], [ensure_config(config)])
        )
        return verdict

    async def ajudge(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Verdict:
        """As `judge`; scoring runs in a thread, off the event loop."""
        verdict: Verdict = _only(
            await self._guarded(_verdict, kwargs).arun([input], [ensure_config(config)])
        )
        return verdict

    def judge_batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> list[Verdict]:
        """As `judge` for each input, with all answers scored in one call of the evaluator."""
        configs = get_config_list(config, len(inputs))
        return _all(self._guarded(_verdict, kwargs).run(inputs, configs), return_exceptions=False)

    async def ajudge_batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> list[Verdict]:
        """As `judge_batch`; scoring runs in a thread, off the event loop."""
        configs = get_config_list(config, len(inputs))
        return _all(
            await self._guarded(_verdict, kwargs).arun(inputs, configs), return_exceptions=False
        )

    @property
    def InputType(self) -> Any:
        """What the chain takes."""
        return self.chain.InputType

    @property
    def OutputType(self) -> Any:
        """What the chain gives; an abstention has the same type."""
        return self.chain.OutputType

    def get_input_schema(self, config: RunnableConfig | None = None) -> TypeBaseModel:
        """The chain's input schema."""
        return self.chain.get_input_schema(config)

    def get_output_schema(self, config: RunnableConfig | None = None) -> TypeBaseModel:
        """The chain's output schema."""
        return self.chain.get_output_schema(config)

    def get_input_jsonschema(
        self, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The chain's input schema, as JSON; graphs have one of their own."""
        return self.chain.get_input_jsonschema(config, **kwargs)

    def get_output_jsonschema(
        self, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The chain's output schema, as JSON; graphs have one of their own."""
        return self.chain.get_output_jsonschema(config, **kwargs)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What can be configured in the chain and in the policy's fallbacks."""
        runnables = [self.chain, *self.policy.fallbacks]
        return get_unique_config_specs(
            spec for runnable in runnables for spec in runnable.config_specs
        )

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """The chain's graph with the guard between its last step and its output."""
        graph = self.chain.get_graph(config)
        graph.trim_last_node()
        last_step = graph.last_node()
        if last_step is None:
            return super().get_graph(config)
        guard = graph.add_node(self)
        graph.add_edge(last_step, guard)
        graph.add_edge(guard, graph.add_node(self.get_output_schema(config)))
        return graph

    @property
    def _by_sentence(self) -> bool:
        # A function that reads an answer out of an output can't read it out of half of one, and what a graph streams
        # is no part of its output.
        return self.release == "sentence" and self.answer is None and not has_graph(self.chain)

    def _guarded(self, take: Take, kwargs: dict[str, Any]) -> GuardedRun:
        read = ExchangeReader(self.question, self.context, self.answer)
        return GuardedRun(
            self.chain,
            self._loaded_evaluator,
            self.policy,
            self.get_name(),
            take,
            kwargs,
            extract=read.exchange,
            evaluator=self.evaluator,
        )

    def _loaded_evaluator(self) -> Evaluator:
        if self.evaluator is not None:
            return self.evaluator
        # Here and not above: it brings torch, which a guard with its own evaluator need not have.
        from aspire_guard.evaluators.self_evaluator import SelfEvaluator

        return SelfEvaluator.starter()


def _output(outcome: Outcome) -> Any:
    return outcome.output


def _verdict(outcome: Outcome) -> Verdict:
    if outcome.verdict is None:
        raise ExchangeError(
            "no answer to judge: expected final text, found a message that calls tools; judge the answer that the "
            "chain gives once the tools have run, or use invoke, which lets such messages pass"
        )
    return outcome.verdict


def _only(results: list[Any]) -> Any:
    return _all(results, return_exceptions=False)[0]


def _all(results: list[Any], return_exceptions: bool) -> list[Any]:
    failure = next((result for result in results if isinstance(result, Exception)), None)
    if failure is not None and not return_exceptions:
        raise failure
    return results
