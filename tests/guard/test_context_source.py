"""Contexts in the shapes and places of common chains, and the verdict's word on where each was found."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from aspire_guard.errors import ExchangeError
from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.scoring import warn_of_missing_context
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel
from aspire_guard.verdict import Verdict
from aspire_integrations.graph_nodes import GuardedState, answer_node

QUESTION = "Who keeps the key?"
PASSAGE = "Ada keeps the key."
OTHER = "Bob rows the boat."
DOCUMENTS = [Document(PASSAGE), Document(OTHER)]
MODEL = ScriptedChatModel("Ada")


class Judge:
    """An evaluator that notes what it is asked to judge."""

    def __init__(self) -> None:
        self.seen: list[Exchange] = []
        self.evaluator = ConstantEvaluator(self._note)

    def _note(self, exchange: Exchange) -> float:
        self.seen.append(exchange)
        return 1.0

    def judge(self, chain: Any, input: Any, **options: Any) -> tuple[str | None, Verdict]:
        """Judge sync and async, and return the context, which must be the same, and the verdict."""
        guard = AspireGuard(chain, evaluator=self.evaluator, **options)
        verdict = guard.judge(input)
        assert asyncio.run(guard.ajudge(input)).context == verdict.context
        first, second = self.seen
        assert first == second
        assert first.question == QUESTION
        return first.context, verdict


def search(query: object) -> list[Document]:
    """Search without a retriever, as a function of a vector store does."""
    return DOCUMENTS


def search_text(query: object) -> str:
    """Search, and return the passages as text."""
    return PASSAGE


PROMPT = ChatPromptTemplate.from_template("Context: {context}\nQuestion: {question}")
ANSWER = PROMPT | MODEL | StrOutputParser()


def keep_ada(documents: list[Document]) -> list[Document]:
    """Keep the documents about Ada, as a step after a search may do."""
    return [document for document in documents if "Ada" in document.page_content]


GRADE = RunnablePassthrough.assign(documents=(lambda state: state["documents"][:1]))
F_STRING: RunnableLambda[Any, Any] = RunnableLambda(
    lambda state: str(MODEL.invoke(f"{state}").text)
)


@pytest.mark.parametrize(
    ("chain", "context"),
    [
        (
            {"context": RunnableLambda(search), "question": RunnablePassthrough()} | ANSWER,
            DOCUMENTS,
        ),
        (RunnableLambda(search) | (lambda documents: "Ada"), DOCUMENTS),
        (
            {"context": RunnableLambda(search) | keep_ada, "question": RunnablePassthrough()}
            | ANSWER,
            DOCUMENTS[:1],
        ),
        (
            {"context": RunnableLambda(search_text), "question": RunnablePassthrough()} | ANSWER,
            DOCUMENTS[:1],
        ),
        (
            {"documents": RunnableLambda(search), "question": RunnablePassthrough()}
            | GRADE
            | F_STRING,
            DOCUMENTS[:1],
        ),
    ],
    ids=["under a key", "piped", "filtered", "as a text", "graded"],
)
def test_a_search_in_a_lambda_is_the_context(
    chain: Runnable[Any, Any], context: list[Document]
) -> None:
    """The documents that a step returns are the context, as far as the model was given them."""
    found, verdict = Judge().judge(chain, QUESTION)
    assert found == "\n\n".join(document.page_content for document in context)
    assert verdict.context == "chain"


@pytest.mark.parametrize("key", ["documents", "context", "source_documents", "docs"])
def test_an_output_key_is_the_context(key: str) -> None:
    """The usual keys of an output hold the context."""
    chain: RunnableLambda[Any, Any] = RunnableLambda(
        lambda asked: {"answer": "Ada", key: DOCUMENTS[:1]}
    )
    assert Judge().judge(chain, {"question": QUESTION})[0] == PASSAGE


@pytest.mark.parametrize(
    "value",
    [
        PASSAGE,
        [PASSAGE],
        DOCUMENTS[:1],
        (DOCUMENTS[0], 0.75),
        [(DOCUMENTS[0], 0.75)],
        [[DOCUMENTS[0]], []],
        {"page_content": PASSAGE, "metadata": {}},
        [{"text": PASSAGE}],
        [{"content": PASSAGE, "url": "x"}],
        [ToolMessage(PASSAGE, tool_call_id="1"), None, " "],
    ],
    ids=repr,
)
def test_the_usual_shapes_are_read(value: Any) -> None:
    """Texts, documents, dicts and messages are read, alone or in lists, nested or with scores."""
    input = {"question": QUESTION, "context": value}
    found, verdict = Judge().judge(RunnableLambda(lambda asked: "Ada"), input)
    assert (found, verdict.context) == (PASSAGE, "input")


@pytest.mark.parametrize(
    "options", [{}, {"context": "context"}, {"context": lambda i, o: i["context"]}]
)
@pytest.mark.parametrize("value", [7, {"title": "zanq"}, [DOCUMENTS[0], object()], b"zanq"])
def test_a_shape_that_can_t_be_read_is_an_error(value: Any, options: dict[str, Any]) -> None:
    """The guard says so and quotes nothing, rather than judge without the context."""
    guard = AspireGuard(
        RunnableLambda(lambda asked: "Ada"), evaluator=ConstantEvaluator(1.0), **options
    )
    with pytest.raises(
        ExchangeError, match=r"no context can be read .*; found a .*; give"
    ) as raised:
        guard.invoke({"question": QUESTION, "context": value})
    assert "zanq" not in str(raised.value)


@pytest.mark.parametrize("context", ["contxt", lambda input, output: input.get("contxt")])
def test_a_named_context_that_is_not_there_is_an_error(context: Any) -> None:
    """A typo raises with the names that are there, as it does for the question and the answer."""
    chain: RunnableLambda[Any, Any] = RunnableLambda(lambda asked: {"answer": "Ada", "notes": []})
    guard = AspireGuard(chain, evaluator=ConstantEvaluator(1.0), context=context)
    with pytest.raises(
        ExchangeError,
        match="found a dict with the keys 'question', 'context' and a dict with the keys 'answer', 'notes'; fix what",
    ):
        guard.invoke({"question": QUESTION, "context": PASSAGE})


@pytest.mark.parametrize("empty", [[], "", " "])
def test_a_named_context_may_be_empty(empty: Any) -> None:
    """A search that finds nothing is not a mistake: the answer is judged without a context, and the verdict says so."""
    input = {"question": QUESTION, "found": empty}
    found, verdict = Judge().judge(RunnableLambda(lambda asked: "Ada"), input, context="found")
    assert (found, verdict.context) == (None, None)


def test_a_named_context_is_from_the_reader() -> None:
    """The verdict tells that the context is from the place that the caller named."""
    input = {"question": QUESTION, "found": PASSAGE}
    found, verdict = Judge().judge(RunnableLambda(lambda asked: "Ada"), input, context="found")
    assert (found, verdict.context) == (PASSAGE, "reader")


@tool
def look_up(thing: str) -> str:
    """Look a thing up."""
    return PASSAGE


@tool
def transfer_to_desk() -> str:
    """Hand the conversation on."""
    return "Successfully transferred to desk"


def call(name: str, **arguments: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": name}])


CALLS = [call("look_up", thing="key"), call("transfer_to_desk"), AIMessage("Ada")]


def script(messages: list[BaseMessage]) -> AIMessage:
    return CALLS[sum(isinstance(message, ToolMessage) for message in messages)]


def test_an_agent_s_tool_results_are_the_context() -> None:
    """A guard around an agent judges with what its tools returned, without the note of a hand-off."""
    agent = create_agent(ScriptedChatModel(script), [look_up, transfer_to_desk])
    found, verdict = Judge().judge(agent, {"messages": [HumanMessage(QUESTION)]})
    assert (found, verdict.context) == (PASSAGE, "tool")


def test_a_tool_inside_a_step_is_the_context() -> None:
    """The result of a tool counts also if no message holds it."""
    chain: RunnableLambda[Any, Any] = RunnableLambda(
        lambda asked: [look_up.invoke({"thing": "key"}), "Ada"][1]
    )
    found, verdict = Judge().judge(chain, QUESTION)
    assert (found, verdict.context) == (PASSAGE, "tool")


def test_earlier_turns_and_errors_of_tools_are_no_context() -> None:
    """Only what tools returned since the question counts, and an error states no facts."""
    messages = [
        HumanMessage("Who rows?"),
        call("look_up", thing="boat"),
        ToolMessage(OTHER, tool_call_id="look_up"),
        AIMessage("Bob"),
        HumanMessage(QUESTION),
        call("look_up", thing="key"),
        ToolMessage("down", tool_call_id="look_up", status="error"),
    ]
    found, verdict = Judge().judge(MODEL, messages)
    assert (found, verdict.context) == (None, None)


def test_a_critique_after_the_question_does_not_hide_the_tools() -> None:
    """A reflection adds human messages of its own. What the tools returned since the question still counts."""

    def reflect(asked: dict[str, Any]) -> dict[str, Any]:
        turn = [call("look_up", thing="key"), ToolMessage(PASSAGE, tool_call_id="look_up")]
        critique = [AIMessage("Bob"), HumanMessage("Look again."), AIMessage("Ada")]
        return {"messages": [*asked["messages"], *turn, *critique]}

    found, verdict = Judge().judge(RunnableLambda(reflect), {"messages": [HumanMessage(QUESTION)]})
    assert (found, verdict.context) == (PASSAGE, "tool")


class DocumentState(GuardedState):
    """A state with the documents that were retrieved."""

    documents: list[Document]


def test_a_graph_s_documents_are_the_context_of_its_answer_node() -> None:
    """The guard in an `answer_node` gets the messages, and judges with the documents of the state."""
    judge = Judge()
    builder = StateGraph(DocumentState)
    builder.add_node("retrieve", lambda state: {"documents": DOCUMENTS})
    builder.add_node("answer", answer_node(AspireGuard(MODEL, evaluator=judge.evaluator)))
    builder.add_edge(START, "retrieve").add_edge("retrieve", "answer")
    graph: Any = builder.compile()
    asked = {"messages": [HumanMessage(QUESTION)]}
    results = [graph.invoke(asked), asyncio.run(graph.ainvoke(asked))]
    assert {exchange.context for exchange in judge.seen} == {f"{PASSAGE}\n\n{OTHER}"}
    for result in results:
        assert result["messages"][-1].response_metadata["aspire_guard"]["context"] == "input"


def test_tool_messages_are_the_context_of_an_answer_node() -> None:
    """A graph may keep what it retrieved in its messages."""
    judge = Judge()
    found = [call("look_up"), ToolMessage(PASSAGE, tool_call_id="look_up")]
    builder = StateGraph(GuardedState)
    builder.add_node("retrieve", lambda state: {"messages": found})
    builder.add_node("answer", answer_node(AspireGuard(MODEL, evaluator=judge.evaluator)))
    builder.add_edge(START, "retrieve").add_edge("retrieve", "answer")
    graph: Any = builder.compile()
    graph.invoke({"messages": [HumanMessage(QUESTION)]})
    assert judge.seen == [Exchange(question=QUESTION, context=PASSAGE, answer="Ada")]


@pytest.mark.parametrize("where", ["around", "inside"])
def test_a_graph_that_retrieves_is_judged_with_its_documents(where: str) -> None:
    """The documents count if the state is the guard's input, and if a node of the guarded graph finds them."""
    judge = Judge()

    class State(MessagesState):
        documents: list[Document]

    def answer(state: State) -> dict[str, Any]:
        return {"messages": [AIMessage("Ada")]}

    inner: Any = RunnableLambda(answer)
    if where == "around":
        inner = AspireGuard(inner, evaluator=judge.evaluator)
    builder = StateGraph(State)
    builder.add_node("retrieve", lambda state: {"documents": DOCUMENTS})
    builder.add_node("answer", inner)
    builder.add_edge(START, "retrieve").add_edge("retrieve", "answer")
    graph: Any = builder.compile()
    guard = AspireGuard(graph, evaluator=judge.evaluator) if where == "inside" else graph
    guard.invoke({"messages": [HumanMessage(QUESTION)]})
    assert [exchange.context for exchange in judge.seen] == [f"{PASSAGE}\n\n{OTHER}"]


@pytest.mark.parametrize(
    "template",
    [
        "Context: {context}\nQuestion: {question}\nAnswer:",
        "Answer from the following context:\n{context}\n\nQuestion: {question}\n",
        "You answer from the retrieved context. \nQuestion: {question} \nContext: {context} \nAnswer:",
        "Passage: {context}\nQuestion: {question}",
    ],
)
@pytest.mark.parametrize("context", [PASSAGE, f"{PASSAGE}\nQuestion: Who rows?"])
def test_a_prompt_before_the_guard_is_split_at_its_labels(template: str, context: str) -> None:
    """The question in the prompt is the question, and the passage is the context, whatever labels the passage has."""
    judge = Judge()
    guard = AspireGuard(MODEL, evaluator=judge.evaluator)
    chain = ChatPromptTemplate.from_template(template) | guard
    message = chain.invoke({"context": context, "question": QUESTION})
    assert judge.seen == [Exchange(question=QUESTION, context=context, answer="Ada")]
    assert message.response_metadata["aspire_guard"]["context"] == "prompt"


def test_the_last_human_message_of_a_prompt_is_the_question() -> None:
    """A prompt with a message for the question needs no labels."""
    judge = Judge()
    prompt = ChatPromptTemplate([("system", "Be brief."), ("human", "{question}")])
    chain = prompt | AspireGuard(MODEL, evaluator=judge.evaluator)
    chain.invoke({"question": QUESTION})
    assert judge.seen == [Exchange(question=QUESTION, answer="Ada")]


def test_answers_without_a_context_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log says once that no context was found, and how to name it. It quotes nothing."""
    warn_of_missing_context.cache_clear()
    chain: RunnableLambda[Any, Any] = RunnableLambda(lambda asked: "Ada")
    guard = AspireGuard(chain, evaluator=ConstantEvaluator(1.0))
    with caplog.at_level(logging.WARNING, logger="aspire_guard"):
        guard.invoke({"question": QUESTION, "context": PASSAGE})
        assert caplog.messages == []
        for _ in range(2):
            assert guard.judge(QUESTION).context is None
    (message,) = caplog.messages
    assert "tell the guard where it is: context='...', a key or a function" in message
