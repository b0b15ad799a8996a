"""AspireGuard, a Runnable around any chain that releases confident answers and abstains from the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import RunnableLike, coerce_to_runnable
from langchain_core.runnables.config import ensure_config, get_config_list
from langchain_core.runnables.utils import ConfigurableFieldSpec, get_unique_config_specs
from langchain_core.utils.pydantic import TypeBaseModel, create_model_v2
from pydantic import ConfigDict

from aspire_guard.clearing import MemoryFinder
from aspire_guard.errors import ExchangeError
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import ExchangeReader, FieldReader
from aspire_guard.execution.guarded_run import GuardedRun, SelectResult
from aspire_guard.execution.pausable import PausableRunnable
from aspire_guard.execution.sentence_release import SentenceStream
from aspire_guard.langgraph_compat import has_graph
from aspire_guard.routing.abstain import AbstentionCheck
from aspire_guard.routing.flow import Outcome
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.verdict import Verdict

if TYPE_CHECKING:
    from langchain_core.runnables.graph import Graph

DEFAULT_POLICY = RoutingPolicy()
_MODEL_METHODS = ("bind_tools", "with_structured_output")


class AspireGuard(PausableRunnable, RunnableSerializable[Any, Any]):
    """A wrapper around a chain that releases only the answers that the evaluator is confident of.

    The input and output types are the chain's. An AIMessage carries the verdict in
    `response_metadata["aspire_guard"]`. Every verdict is also dispatched as the custom event
    `aspire_guard.verdict`. Messages that call tools pass unchanged.

    Attributes:
        chain: the chain that answers.
        evaluator: the evaluator that scores the answers, or None for the starter evaluator, which is loaded when it
            is first used.
        policy: the policy that decides on scored answers.
        question: a key of the input that holds the question, or a function of the input. None means the usual
            places.
        context: a key of the input, or else of the output, that holds the context, or a function of both. None means
            the usual places.
        answer: a key of the output that holds the answer, or a function of input and output. A result that is not
            text is judged as JSON. None means the usual places.
        release: the unit that `stream` and `astream` wait for: the whole answer, or each sentence. With "sentence" a
            stream is cut at a sentence that falls short, and the sentences before it stay released.
        original_errors: True to raise the chain's errors as they are. They may quote an answer that was not released,
            so by default a `ChainError` takes their place once a model has answered.
    """

    chain: Runnable[Any, Any]
    evaluator: Evaluator | None = None
    policy: RoutingPolicy = DEFAULT_POLICY
    question: FieldReader | None = None
    context: FieldReader | None = None
    answer: FieldReader | None = None
    release: Literal["answer", "sentence"] = "answer"
    original_errors: bool = False

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
        original_errors: bool = False,
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
            "original_errors": original_errors,
            "name": name,
        }
        super().__init__(**fields)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Say where a method of chat models belongs, since the guard is not a model."""
            if name in _MODEL_METHODS:
                raise AttributeError(
                    f"expected {name} of a chat model, found the guard around one; call it on the model inside: "
                    f"AspireGuard(model.{name}(...))"
                )
            return super().__getattr__(name)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the chain, and return its output or the abstention in the same type.

        Raises:
            ExchangeError: no question or answer can be read from the chain's input and output.
            EvaluationError: scoring failed, and the policy says to raise then.
            UnguardedWriteError: the chain writes past the guard into the graph of LangGraph around it.
        """
        run = self._make_run(_select_output, kwargs)
        (output,) = _raise_first_error(run.run([input], [ensure_config(config)]))
        return output

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Invoke asynchronously, with scoring in a thread off the event loop; see `invoke`."""
        run = self._make_run(_select_output, kwargs)
        (output,) = _raise_first_error(await run.arun([input], [ensure_config(config)]))
        return output

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Invoke for each input, with all answers scored in one call of the evaluator."""
        run = self._make_run(_select_output, kwargs)
        outputs = run.run(inputs, get_config_list(config, len(inputs)))
        return outputs if return_exceptions else _raise_first_error(outputs)

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Run a batch asynchronously, with scoring in a thread off the event loop; see `batch`."""
        run = self._make_run(_select_output, kwargs)
        outputs = await run.arun(inputs, get_config_list(config, len(inputs)))
        return outputs if return_exceptions else _raise_first_error(outputs)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Stream the decided output in one chunk.

        With `release="sentence"` each sentence leaves as soon as it is accepted.
        """
        run = self._make_run(_select_output, kwargs)
        if not self._streams_sentences:
            yield from run.stream(input, ensure_config(config))
            return
        sentences = SentenceStream(run)
        yield from sentences.stream(input, ensure_config(config))

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream asynchronously, with scoring in a thread off the event loop; see `stream`."""
        run = self._make_run(_select_output, kwargs)
        if not self._streams_sentences:
            async with aclosing(run.astream(input, ensure_config(config))) as outputs:
                async for output in outputs:
                    yield output
            return
        sentences = SentenceStream(run)
        async with aclosing(sentences.astream(input, ensure_config(config))) as pieces:
            async for piece in pieces:
                yield piece

    def judge(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Verdict:
        """Run the chain, and return the verdict on its answer.

        Raises:
            ExchangeError: no question or answer can be read from the chain's input and output, or
                the answer is a message that calls tools.
            EvaluationError: scoring failed, and the policy says to raise then.
            UnguardedWriteError: the chain writes past the guard into the graph of LangGraph around it.
        """
        run = self._make_run(_select_verdict, kwargs)
        (verdict,) = _raise_first_error(run.run([input], [ensure_config(config)]))
        return cast(Verdict, verdict)

    async def ajudge(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Verdict:
        """Judge asynchronously, with scoring in a thread off the event loop; see `judge`."""
        run = self._make_run(_select_verdict, kwargs)
        (verdict,) = _raise_first_error(await run.arun([input], [ensure_config(config)]))
        return cast(Verdict, verdict)

    def judge_batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> list[Verdict]:
        """Judge for each input, with all answers scored in one call of the evaluator."""
        run = self._make_run(_select_verdict, kwargs)
        return _raise_first_error(run.run(inputs, get_config_list(config, len(inputs))))

    async def ajudge_batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> list[Verdict]:
        """Judge a batch asynchronously, with scoring in a thread off the event loop; see `judge_batch`."""
        run = self._make_run(_select_verdict, kwargs)
        return _raise_first_error(await run.arun(inputs, get_config_list(config, len(inputs))))

    @property
    def InputType(self) -> Any:
        """The chain's input type."""
        return self.chain.InputType

    @property
    def OutputType(self) -> Any:
        """The chain's output type, which an abstention has too."""
        return self.chain.OutputType

    def get_input_schema(self, config: RunnableConfig | None = None) -> TypeBaseModel:
        """Return the chain's input schema."""
        return self.chain.get_input_schema(config)

    def get_output_schema(self, config: RunnableConfig | None = None) -> TypeBaseModel:
        """Return the chain's output schema."""
        return self.chain.get_output_schema(config)

    def get_input_jsonschema(
        self, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the chain's input schema as JSON."""
        # Not derived from `get_input_schema`, since graphs have a JSON schema of their own.
        return self.chain.get_input_jsonschema(config, **kwargs)

    def get_output_jsonschema(
        self, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the chain's output schema as JSON."""
        # Not derived from `get_output_schema`, since graphs have a JSON schema of their own.
        return self.chain.get_output_jsonschema(config, **kwargs)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The configurable fields of the chain and of the policy's fallbacks."""
        runnables = [self.chain, *self.policy.fallbacks]
        return get_unique_config_specs(
            spec for runnable in runnables for spec in runnable.config_specs
        )

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """Return the chain's graph with the guard between its last step and its output."""
        graph = self.chain.get_graph(config)
        graph.trim_last_node()
        last_step = graph.last_node()
        if last_step is None:
            return super().get_graph(config)
        guard = graph.add_node(self)
        graph.add_edge(last_step, guard)
        try:
            output_schema = self.get_output_schema(config)
        except TypeError:  # the chain does not tell its output type, as in LangChain's own graphs
            output_schema = create_model_v2(self.get_name("Output"))
        graph.add_edge(guard, graph.add_node(output_schema))
        return graph

    @cached_property
    def _abstention_check(self) -> AbstentionCheck:
        return AbstentionCheck()

    @cached_property
    def _memories(self) -> MemoryFinder:
        return MemoryFinder()

    @property
    def _streams_sentences(self) -> bool:
        # A function that reads an answer from an output can't read it from half of an output, and
        # the chunks that a graph streams are not parts of its output. A memory is cleared as a whole.
        if self.release != "sentence" or self.answer is not None:
            return False
        return not has_graph(self.chain) and not self._memories.has_memory(self.chain)

    def _make_run(self, select_result: SelectResult, kwargs: dict[str, Any]) -> GuardedRun:
        reader = ExchangeReader(self.question, self.context, self.answer)
        return GuardedRun(
            chain=self.chain,
            load_evaluator=self._load_evaluator,
            policy=self.policy,
            name=self.get_name(),
            select_result=select_result,
            kwargs=kwargs,
            extract=reader.read,
            evaluator=self.evaluator,
            abstention_check=self._abstention_check,
            memories=self._memories,
            original_errors=self.original_errors,
        )

    def _load_evaluator(self) -> Evaluator:
        if self.evaluator is not None:
            return self.evaluator
        # Imported here because it brings torch, which a guard with its own evaluator need not have.
        from aspire_guard.evaluators.self_evaluator import SelfEvaluator

        return SelfEvaluator.for_chains()


def _select_output(outcome: Outcome) -> Any:
    return outcome.output


def _select_verdict(outcome: Outcome) -> Verdict:
    if outcome.verdict is None:
        raise ExchangeError(
            "no answer to judge: expected final text, found a message that calls tools; judge the answer that the "
            "chain gives once the tools have run, or use invoke, which lets such messages pass"
        )
    return outcome.verdict


def _raise_first_error(results: list[Any]) -> list[Any]:
    """Raise the first exception among the results, or return the results."""
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
