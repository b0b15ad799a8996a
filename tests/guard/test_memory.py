"""A guard around chains that remember: no rejected answer comes back in a later turn."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph

from aspire_guard import AspireGuard, Exchange, Fallback, RoutingPolicy
from aspire_guard.errors import EvaluationError, UnguardedWriteError
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel

ABSTENTION = "I can't answer this question."
THREAD: RunnableConfig = {"configurable": {"thread_id": "1", "session_id": "1"}}
ANSWERS = {"first?": "Ada keeps the key.", "second?": "zanq barq", "third?": "Ada. She has it."}


def doubt_zanq(exchange: Exchange) -> float:
    return 0.1 if "zanq" in exchange.answer else 0.9


# LangChain prefers the persistence of graphs, and users have both.
pytestmark = [
    pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated"),
    pytest.mark.filterwarnings("ignore:The class `InMemoryChatMessageHistory` was deprecated"),
]

DOUBTFUL = ConstantEvaluator(doubt_zanq)


class Model:
    """A chat model that knows an answer to each question, and keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[list[BaseMessage]] = []
        self.chat = ScriptedChatModel(self._answer)

    def _answer(self, messages: list[BaseMessage]) -> str:
        self.shown.append(messages)
        return ANSWERS[str(messages[-1].text)]


def make_agent(model: Model) -> Runnable[Any, Any]:
    return create_agent(model.chat, [], checkpointer=InMemorySaver())


class Notes(MessagesState):
    """A state with channels of every kind."""

    drafts: Annotated[list[str], operator.add]
    last: str


def make_graph(model: Model) -> Runnable[Any, Any]:
    """Make a graph with two nodes in a step, so that the last node is ambiguous, and with a condition."""

    def answer(state: Notes) -> dict[str, Any]:
        text = str(model.chat.invoke(state["messages"]).text)
        return {"messages": [AIMessage(text)], "drafts": [text], "last": text}

    def count(state: Notes) -> dict[str, Any]:
        return {"drafts": ["."]}

    builder = StateGraph(Notes).add_node("answer", answer).add_node("count", count)
    builder.add_edge(START, "answer").add_edge(START, "count")
    builder.add_conditional_edges("answer", lambda state: END)
    return builder.compile(checkpointer=InMemorySaver())


def make_entrypoint(model: Model) -> Runnable[Any, Any]:
    @entrypoint(checkpointer=InMemorySaver())
    def chat(input: dict[str, Any], *, previous: Any = None) -> Any:
        messages = [*(previous or []), *input["messages"]]
        answer = model.chat.invoke(messages)
        kept = [*messages, answer]
        return entrypoint.final(value={"messages": kept}, save=kept)

    return chat


GRAPHS: dict[str, Callable[[Model], Any]] = {
    "agent": make_agent,
    "graph": make_graph,
    "entrypoint": make_entrypoint,
    "agent after a step": lambda model: RunnableLambda(lambda input: input) | make_agent(model),
    "agent with a bound thread": lambda model: make_agent(model).with_config(THREAD),
}


def ask(question: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(question)]}


def list_texts(messages: Sequence[BaseMessage]) -> list[str]:
    return [str(message.text) for message in messages]


EXPECTED = [
    "first?",
    "Ada keeps the key.",
    "second?",
    ABSTENTION,
    "third?",
    "Ada. She has it.",
]


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_forgets_a_rejected_answer(graph: str) -> None:
    """In the next turn the model and the caller see the abstention in its place, and the other turns unchanged."""
    model = Model()
    guard = AspireGuard(GRAPHS[graph](model), evaluator=DOUBTFUL)
    guard.invoke(ask("first?"), THREAD)
    assert "zanq" not in str(guard.invoke(ask("second?"), THREAD))
    output = guard.invoke(ask("third?"), THREAD)
    assert list_texts(output["messages"]) == EXPECTED
    assert list_texts(model.shown[-1]) == EXPECTED[:-1]
    assert "zanq" not in str(output)


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_forgets_asynchronously(graph: str) -> None:
    """The async methods clear the state as the sync ones do."""

    async def talk() -> Any:
        guard = AspireGuard(GRAPHS[graph](model), evaluator=DOUBTFUL)
        for question in ("first?", "second?"):
            await guard.ainvoke(ask(question), THREAD)
        events = [
            event async for event in guard.astream_events(ask("third?"), THREAD, version="v2")
        ]
        assert "zanq" not in str(events)
        return events[-1]["data"]["output"]

    model = Model()
    assert list_texts(asyncio.run(talk())["messages"]) == EXPECTED
    assert list_texts(model.shown[-1]) == EXPECTED[:-1]


def test_no_channel_of_the_state_keeps_the_answer() -> None:
    """Channels with a reducer are overwritten, and the graph has ended as before."""
    graph: Any = make_graph(Model())
    AspireGuard(graph, evaluator=DOUBTFUL).invoke(ask("second?"), THREAD)
    state = graph.get_state(THREAD)
    assert sorted(state.values["drafts"]) == [".", ABSTENTION]
    assert state.values["last"] == ABSTENTION
    assert state.next == ()


def test_a_rejected_answer_is_rejected_next_to_earlier_turns() -> None:
    """An earlier, released turn that contains the words of the rejected answer stays."""
    answers = iter(["Ada. She sits in the office.", "Ada.", "Bob."])
    model = ScriptedChatModel(lambda messages: next(answers))
    agent = create_agent(model, [], checkpointer=InMemorySaver())
    evaluator = ConstantEvaluator(lambda exchange: 0.1 if exchange.answer == "Ada." else 0.9)
    guard = AspireGuard(agent, evaluator=evaluator)
    guard.invoke(ask("one?"), THREAD)
    texts = ["one?", "Ada. She sits in the office.", "two?", ABSTENTION]
    assert list_texts(guard.invoke(ask("two?"), THREAD)["messages"]) == texts
    assert list_texts(guard.invoke(ask("three?"), THREAD)["messages"])[:4] == texts


def test_a_memory_holds_the_answer_that_was_released_instead() -> None:
    """If a fallback answers, the conversation continues with its answer."""
    model = Model()
    policy = RoutingPolicy(otherwise=Fallback(RunnableLambda(lambda input: AIMessage("Eve."))))
    guard = AspireGuard(make_agent(model), evaluator=DOUBTFUL, policy=policy)
    assert guard.invoke(ask("second?"), THREAD).text == "Eve."
    guard.invoke(ask("third?"), THREAD)
    assert list_texts(model.shown[-1]) == ["second?", "Eve.", "third?"]


def test_an_answer_that_could_not_be_scored_is_forgotten() -> None:
    """An error of the guard leaves no unjudged answer behind."""

    def fail(exchange: Exchange) -> float:
        raise ValueError

    agent: Any = make_agent(Model())
    guard = AspireGuard(
        agent, evaluator=ConstantEvaluator(fail), policy=RoutingPolicy(on_error="raise")
    )
    with pytest.raises(EvaluationError):
        guard.invoke(ask("second?"), THREAD)
    assert "zanq" not in str(agent.get_state(THREAD).values)


def test_a_thread_that_can_not_be_cleared_is_cleared_in_its_outputs() -> None:
    """If the state can't be written, the guard keeps in mind what it has rejected."""
    model = Model()

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(str(model.chat.invoke(state["messages"]).text))]}

    def refuse_abstentions(state: MessagesState) -> str:
        assert ABSTENTION not in list_texts(state["messages"])
        return END

    builder = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer")
    builder.add_conditional_edges("answer", refuse_abstentions)
    guard = AspireGuard(builder.compile(checkpointer=InMemorySaver()), evaluator=DOUBTFUL)
    for question in ("first?", "second?"):
        guard.invoke(ask(question), THREAD)
    assert list_texts(guard.invoke(ask("third?"), THREAD)["messages"]) == EXPECTED
    assert "zanq" not in str(guard.invoke(ask("second?"), THREAD))


def make_conversation(model: Model, histories: dict[str, InMemoryChatMessageHistory]) -> Any:
    prompt = ChatPromptTemplate([MessagesPlaceholder("history"), ("human", "{question}")])

    def get_history(session_id: str) -> InMemoryChatMessageHistory:
        return histories.setdefault(session_id, InMemoryChatMessageHistory())

    return RunnableWithMessageHistory(
        prompt | model.chat,
        get_history,
        input_messages_key="question",
        history_messages_key="history",
    )


def test_a_history_forgets_a_rejected_answer() -> None:
    """A history inside the guard holds the abstention, as a history around the guard does."""
    model = Model()
    histories: dict[str, InMemoryChatMessageHistory] = {}
    guard = AspireGuard(make_conversation(model, histories), evaluator=DOUBTFUL)
    for question in ("first?", "second?"):
        guard.invoke({"question": question}, THREAD)
    asyncio.run(guard.ainvoke({"question": "second?"}, THREAD))
    assert [chunk.text for chunk in guard.stream({"question": "third?"}, THREAD)] == [EXPECTED[-1]]
    expected = [*EXPECTED[:4], "second?", ABSTENTION, *EXPECTED[4:]]
    assert list_texts(histories["1"].messages) == expected
    assert list_texts(model.shown[-1]) == expected[:-1]


def test_sentence_release_waits_for_the_whole_answer_of_a_chain_that_remembers() -> None:
    """A memory is cleared of an answer as a whole."""
    histories: dict[str, InMemoryChatMessageHistory] = {}
    chain = make_conversation(Model(), histories)
    guard = AspireGuard(chain, evaluator=DOUBTFUL, release="sentence")
    assert [chunk.text for chunk in guard.stream({"question": "second?"}, THREAD)] == [ABSTENTION]
    assert list_texts(histories["1"].messages) == ["second?", ABSTENTION]


def make_calling_function(model: Model) -> Any:
    agent = make_agent(model)

    def call(question: str, config: RunnableConfig) -> str:
        return str(agent.invoke(ask(question), config)["messages"][-1].text)

    return RunnableLambda(call)


def test_a_graph_that_a_function_calls_forgets_too() -> None:
    """The function passes its config on, so the graph has the thread of the guard."""
    model = Model()
    guard = AspireGuard(make_calling_function(model), evaluator=DOUBTFUL)
    for question in ("first?", "second?", "third?"):
        guard.invoke(question, THREAD)
    assert list_texts(model.shown[-1]) == EXPECTED[:-1]


def test_a_function_that_hides_the_thread_of_a_graph_is_refused() -> None:
    """Without the thread the guard could not clear the state. The chain does not even run."""
    model = Model()
    guard = AspireGuard(make_calling_function(model), evaluator=DOUBTFUL)
    with pytest.raises(UnguardedWriteError, match="give the guard the config of the thread"):
        guard.invoke("first?")
    assert model.shown == []
