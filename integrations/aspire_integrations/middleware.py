"""AspireGuardMiddleware: the guard inside an agent of LangChain's `create_agent`.

agent = create_agent(model, tools, middleware=[AspireGuardMiddleware(evaluator=evaluator)])

The final answer is scored before it enters the graph's state, so an answer that is not released is never in the
state, a checkpoint, a message or a stream. Messages that call tools and structured output pass unchanged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Annotated, Any, NotRequired
from uuid import uuid4

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    PrivateStateAttr,
)
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.config import ensure_config
from langgraph.runtime import Runtime
from langgraph.types import Command, TracePolicy, omit_payload

from aspire_guard.errors import InputError
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange, read_answer
from aspire_guard.exchange.conversation import find_last_question, is_from_human
from aspire_guard.exchange.extraction import find_context
from aspire_guard.execution.guarded_run import GuardedRun
from aspire_guard.routing.policy import RoutingPolicy
from aspire_integrations.graph_review import (
    InterruptReview,
    ReviewCollector,
    collect_reviews,
    find_graph_step,
    merge_reviews,
    wait_for_decision,
)

# Stands in for a response that must not be scored, because the guard lets messages that call tools pass.
_UNSCORED = AIMessage("", tool_calls=[{"name": "unscored", "args": {}, "id": "unscored"}])


class GuardedAgentState(AgentState[Any]):
    """The agent's state: the answers that wait for a person, the step of the latest answer, and the question."""

    aspire_review: NotRequired[Annotated[dict[str, Any], PrivateStateAttr, merge_reviews]]
    aspire_step: NotRequired[Annotated[dict[str, int | None], PrivateStateAttr]]
    aspire_question: NotRequired[Annotated[str | None, PrivateStateAttr]]


class AspireGuardMiddleware(AgentMiddleware[GuardedAgentState, Any, Any]):
    """A guard for an agent's final answers. Answers with a low confidence take the policy's routes.

    The question is the last human message, also after a summary has replaced it. The context is the output of the
    tools since then. A turn without words, such as an image alone, can't be judged, so its answer takes the route of
    the policy's `on_error`. A fallback of the policy gets the messages that the model had. With
    `HumanReview(InterruptReview())`, a graph that has a checkpointer pauses. The released message has the id of the
    model's own message, and the verdict in its metadata. List the middleware behind all others with an `after_model`
    hook then, since these hooks run from the last to the first.

    Args:
        evaluator: scores the answers. None means the starter evaluator, which is loaded at its first use.
        policy: the routes of scored answers.
        original_errors: True to raise the errors of the model and of later middleware as they are, even if they may
            quote an answer; see `AspireGuard`.
    """

    state_schema = GuardedAgentState
    # The span would repeat the whole conversation, which is already in the spans inside it.
    trace_policy = TracePolicy(process_inputs=omit_payload)

    def __init__(
        self,
        *,
        evaluator: Evaluator | None = None,
        policy: RoutingPolicy | None = None,
        original_errors: bool = False,
    ) -> None:
        super().__init__()
        self.tools = []
        self.evaluator = evaluator
        self.policy = policy or RoutingPolicy()
        queues = self.policy.review_queues
        self._pauses = any(isinstance(queue, InterruptReview) for queue in queues)
        self.original_errors = original_errors

    def before_agent(self, state: GuardedAgentState, runtime: Runtime[Any]) -> dict[str, Any]:
        """Keep the question of this turn, because a summary may replace its message before the agent has answered."""
        return {"aspire_question": find_last_question(state.get("messages", []))}

    async def abefore_agent(
        self, state: GuardedAgentState, runtime: Runtime[Any]
    ) -> dict[str, Any]:
        """Keep the question asynchronously; see `before_agent`."""
        return self.before_agent(state, runtime)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Call the model without streaming to the user, score its answer, and return what the policy releases."""
        call = _ModelCall()

        def model(messages: list[BaseMessage]) -> AIMessage:
            return call.record(handler(request))

        with collect_reviews(ensure_config()) as collector:
            run = self._make_run(RunnableLambda(model), request)
            (result,) = run.run([_list_messages(request)], [collector.config])
        return call.make_response(result, collector)

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Wrap asynchronously; see `wrap_model_call`. Scoring runs in a thread, off the event loop."""
        call = _ModelCall()

        async def model(messages: list[BaseMessage]) -> AIMessage:
            return call.record(await handler(request))

        with collect_reviews(ensure_config()) as collector:
            run = self._make_run(RunnableLambda(model), request)
            (result,) = await run.arun([_list_messages(request)], [collector.config])
        return call.make_response(result, collector)

    def after_model(self, state: GuardedAgentState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Pause the graph while answers wait for a person, once the agent has answered.

        Raises:
            InputError: the hooks of another middleware would never see an answer that a person releases.
        """
        messages = state["messages"]
        last_message = messages[-1] if messages else None
        if isinstance(last_message, AIMessage) and last_message.tool_calls:
            return None
        if last_message is not None and self._pauses:
            _check_order(state.get("aspire_step", {}).get(str(last_message.id)))
        return wait_for_decision(state)

    async def aafter_model(
        self, state: GuardedAgentState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """Pause asynchronously; see `after_model`."""
        return self.after_model(state, runtime)

    def _make_run(self, model: Runnable[Any, Any], request: ModelRequest[Any]) -> GuardedRun:
        state: Mapping[str, Any] = request.state
        return GuardedRun(
            chain=model,
            load_evaluator=self._get_evaluator,
            policy=self.policy,
            name=self.name,
            select_result=attrgetter("output"),
            extract=partial(_extract_exchange, state.get("aspire_question")),
            original_errors=self.original_errors,
        )

    def _get_evaluator(self) -> Evaluator:
        if self.evaluator is not None:
            return self.evaluator
        # The import is here because it loads torch, which an agent with another evaluator need not have.
        from aspire_guard.evaluators.self_evaluator import SelfEvaluator

        return SelfEvaluator.for_chains()


class _ModelCall:
    """One call of the agent's model: the model's response, and the response that replaces it."""

    def __init__(self) -> None:
        self.response: ModelResponse[Any] | None = None

    def record(self, response: ModelResponse[Any]) -> AIMessage:
        """Keep the model's response, and return the message to score."""
        self.response = response
        last = response.result[-1]
        if isinstance(last, AIMessage) and response.structured_response is None:
            return last
        return _UNSCORED

    def make_response(
        self, result: Any, collector: ReviewCollector
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Return the response that the agent continues with, given the guard's result.

        Raises:
            Exception: the error of the model or the guard.
        """
        if isinstance(result, Exception):
            raise result
        own_message: BaseMessage | None = None
        earlier_messages: list[BaseMessage] = []
        if self.response is not None:
            *earlier_messages, own_message = self.response.result
            if result is _UNSCORED or result is own_message:
                return self.response
        message = result if isinstance(result, AIMessage) else AIMessage(read_answer(result))
        # A stream or a later step may know the message by the id of the model's own message.
        own_id = None if own_message is None else own_message.id
        message = message.model_copy(update={"id": own_id or message.id or str(uuid4())})
        update = {
            "aspire_review": collector.make_pending_reviews(message),
            "aspire_step": {message.id: collector.step},
        }
        command: Command[Any] = Command(update=update)
        return ExtendedModelResponse(ModelResponse(result=[*earlier_messages, message]), command)


def _list_messages(request: ModelRequest[Any]) -> list[BaseMessage]:
    """Return the messages that the model gets, with the system message first."""
    if request.system_message is None:
        return list(request.messages)
    return [request.system_message, *request.messages]


def _extract_exchange(
    kept_question: str | None,
    messages: list[BaseMessage],
    output: Any,
    documents: Sequence[Document],
) -> Exchange:
    """Extract the exchange, with `kept_question` if a summary has replaced the message of the question.

    Without a question in words the question is empty, and such an exchange is not scored.
    """
    question = find_last_question(messages)
    if question is None and not any(map(is_from_human, messages)):
        question = kept_question
    found = find_context(messages, output, documents)
    return Exchange(
        question=question or "",
        context=None if found is None else found.text,
        answer=read_answer(output),
        context_source=None if found is None else found.source,
    )


def _check_order(model_step: int | None) -> None:
    """Check that no hook of another middleware ran between the model and this hook.

    `after_model` hooks run in the reverse order of the middleware, one a step. A hook that has run
    already has seen the stand-in, and would let the answer that a person releases pass unseen, such
    as unredacted.
    """
    step = find_graph_step(ensure_config())
    if model_step is None or step is None or step - model_step <= 1:
        return
    raise InputError(
        f"expected AspireGuardMiddleware behind every middleware that has an after_model hook, found "
        f"{step - model_step - 1} of them behind it, which would not see an answer that a person releases; list "
        "AspireGuardMiddleware after them"
    )
