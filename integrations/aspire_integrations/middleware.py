"""AspireGuardMiddleware: the guard inside an agent of LangChain's `create_agent`.

agent = create_agent(model, tools, middleware=[AspireGuardMiddleware(evaluator=evaluator)])

The final answer is scored where the model gives it, before it enters the graph's state: what is not released is never
in the state, a checkpoint, a message or a stream. Messages that call tools and structured output pass as they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
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
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.config import ensure_config
from langgraph.runtime import Runtime
from langgraph.types import Command, TracePolicy, omit_payload

from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import (
    Exchange,
    get_message_text,
    join_passages,
    read_answer,
    read_question,
)
from aspire_guard.execution.guarded_run import GuardedRun
from aspire_guard.routing.policy import RoutingPolicy
from aspire_integrations.graph_review import Held, holding, reviewed

# Stands for a response that is not judged: the flow lets messages that call tools pass.
_UNJUDGED = AIMessage("", tool_calls=[{"name": "unjudged", "args": {}, "id": "unjudged"}])


class GuardedAgentState(AgentState[Any]):
    """The agent's state, with the answer that waits for a person, if any does."""

    aspire_review: NotRequired[Annotated[dict[str, Any] | None, PrivateStateAttr]]


class AspireGuardMiddleware(AgentMiddleware[GuardedAgentState, Any, Any]):
    """Releases an agent's final answers that an evaluator is confident of; the others take the policy's routes.

    The question is the last human message, the context what the tools have returned since then. A fallback of the
    policy is given the messages that the model had. With `HumanReview(InterruptReview())` the graph pauses, if it has
    a checkpointer. The released message has the id of the model's own, and the verdict in its metadata.

    Args:
        evaluator: what scores the answers; None for the starter evaluator, loaded when first used.
        policy: what becomes of scored answers.
    """

    state_schema = GuardedAgentState
    # The span would repeat the whole conversation, which the spans inside it have already.
    trace_policy = TracePolicy(process_inputs=omit_payload)

    def __init__(
        self, *, evaluator: Evaluator | None = None, policy: RoutingPolicy | None = None
    ) -> None:
        super().__init__()
        self.tools = []
        self.evaluator, self.policy = evaluator, policy or RoutingPolicy()

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Call the model unheard, score what it answers, and give what the policy releases."""
        call = _ModelCall()

        def model(messages: list[BaseMessage]) -> AIMessage:
            return call.said(handler(request))

        with holding(ensure_config()) as held:
            (result,) = self._guarded(RunnableLambda(model)).run(
                [_messages(request)], [held.config]
            )
        return call.response(result, held)

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """As `wrap_model_call`; scoring runs in a thread, off the event loop."""
        call = _ModelCall()

        async def model(messages: list[BaseMessage]) -> AIMessage:
            return call.said(await handler(request))

        with holding(ensure_config()) as held:
            (result,) = await self._guarded(RunnableLambda(model)).arun(
                [_messages(request)], [held.config]
            )
        return call.response(result, held)

    def after_model(self, state: GuardedAgentState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Pause the graph while an answer waits for a person."""
        return reviewed(state)

    async def aafter_model(
        self, state: GuardedAgentState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """As `after_model`."""
        return reviewed(state)

    def _guarded(self, model: Runnable[Any, Any]) -> GuardedRun:
        return GuardedRun(
            model, self._evaluator, self.policy, self.name, attrgetter("output"), extract=_exchange
        )

    def _evaluator(self) -> Evaluator:
        if self.evaluator is not None:
            return self.evaluator
        # Here and not above: it brings torch, which an agent with its own evaluator need not have.
        from aspire_guard.evaluators.self_evaluator import SelfEvaluator

        return SelfEvaluator.starter()


class _ModelCall:
    """One call of the agent's model: what it gave, and what is given in its place."""

    def __init__(self) -> None:
        self.given: ModelResponse[Any] | None = None

    def said(self, response: ModelResponse[Any]) -> AIMessage:
        """What is to be judged."""
        self.given = response
        last = response.result[-1]
        judged = isinstance(last, AIMessage) and response.structured_response is None
        return last if judged and isinstance(last, AIMessage) else _UNJUDGED

    def response(self, result: Any, held: Held) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """What the agent goes on with, from what the guard gave.

        Raises:
            Exception: what the model or the guard raised.
        """
        if isinstance(result, Exception):
            raise result
        if self.given is not None and (result is _UNJUDGED or result is self.given.result[-1]):
            return self.given
        message = result if isinstance(result, AIMessage) else AIMessage(read_answer(result))
        own = None if self.given is None else self.given.result[-1].id
        # The id of the model's own message, which a stream or a later step may know it by.
        message = message.model_copy(update={"id": own or message.id or str(uuid4())})
        before = [] if self.given is None else self.given.result[:-1]
        command: Command[Any] = Command(update={"aspire_review": held.pending(message)})
        return ExtendedModelResponse(ModelResponse(result=[*before, message]), command)


def _messages(request: ModelRequest[Any]) -> list[BaseMessage]:
    system = [] if request.system_message is None else [request.system_message]
    return [*system, *request.messages]


def _exchange(messages: list[BaseMessage], output: Any, documents: Sequence[Document]) -> Exchange:
    asked = max(
        (place for place, message in enumerate(messages) if isinstance(message, HumanMessage)),
        default=0,
    )
    read = [
        get_message_text(message)
        for message in messages[asked:]
        if isinstance(message, ToolMessage)
    ]
    context = join_passages([*read, *documents])
    return Exchange(question=read_question(messages), context=context, answer=read_answer(output))
