"""Reading an exchange from the usual places of a chain's input and output."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate

from aspire_guard.errors import ExchangeError
from aspire_guard.exchange import Exchange

QUESTION = "Who keeps the key?"


@pytest.mark.parametrize(
    "input",
    [
        QUESTION,
        HumanMessage(QUESTION),
        [
            SystemMessage("Be brief."),
            HumanMessage("Hello"),
            AIMessage("Hello!"),
            HumanMessage(QUESTION),
        ],
        [{"role": "user", "content": QUESTION}],
        HumanMessage(
            [
                {"type": "text", "text": QUESTION},
                {"type": "image_url", "image_url": {"url": "http://x/y"}},
            ]
        ),
        ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{q}")]).invoke(
            {"q": QUESTION}
        ),
        {"question": QUESTION},
        {"query": QUESTION},
        {"input": QUESTION},
        {"messages": [HumanMessage(QUESTION)]},
        {"input": "something else", "question": QUESTION},
    ],
)
def test_question(input: Any) -> None:
    """The question is read from every form of input that chains commonly take."""
    assert Exchange.from_run(input, "Ada") == Exchange(question=QUESTION, answer="Ada")


@pytest.mark.parametrize(
    "output",
    [
        "Ada",
        AIMessage("Ada"),
        AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "Ada"}]),
        {"output": "Ada"},
        {"result": AIMessage("Ada")},
        {"answer": "Ada", "result": "Bob"},
        {"answer": None, "result": "Ada"},
    ],
)
def test_answer(output: Any) -> None:
    """The answer is read from strings, messages and the usual keys."""
    assert Exchange.from_run(QUESTION, output).answer == "Ada"


def test_an_empty_answer_is_an_answer() -> None:
    """An empty answer of a chain is judged too."""
    assert Exchange.from_run(QUESTION, "").answer == ""


@pytest.mark.parametrize(
    ("given", "output", "context"),
    [
        ({"context": "One."}, {}, "One."),
        ({"documents": [Document("One."), Document("Two.")]}, {}, "One.\n\nTwo."),
        ({"context": ["One.", "Two."]}, {}, "One.\n\nTwo."),
        ({}, {"context": [Document("One.")]}, "One."),
        ({}, {"source_documents": [Document("One.")]}, "One."),
        ({"context": "One."}, {"context": "Two."}, "One."),
        ({}, {}, "Seen."),
        ({"context": []}, {"source_documents": []}, "Seen."),
    ],
)
def test_context(given: dict[str, Any], output: dict[str, Any], context: str) -> None:
    """The context is read from the input, else from the output, else from what the retrievers returned."""
    exchange = Exchange.from_run(
        {"question": QUESTION, **given}, {"answer": "Ada", **output}, [Document("Seen.")]
    )
    assert exchange.context == context


def test_without_any_context_it_is_none() -> None:
    """A closed-book question has no context."""
    assert Exchange.from_run(QUESTION, "Ada").context is None


@pytest.mark.parametrize(
    ("input", "found"),
    [
        ({"q": "x", "lang": "de"}, "found a dict with the keys 'q', 'lang'"),
        ({}, "found a dict with the keys (none)"),
        (7, "found a value of type int"),
        (" ", "found a value of type str"),
        ([AIMessage("x")], "found a list of AIMessage"),
        ([], "found a list of nothing"),
    ],
)
def test_no_question(input: Any, found: str) -> None:
    """The error says what was expected, what was found and the way out."""
    with pytest.raises(ExchangeError) as raised:
        Exchange.from_run(input, "Ada")
    assert (
        "expected a string, messages with a human one, a prompt, or a dict with one of the keys"
        in str(raised.value)
    )
    assert "'question', 'query', 'input', 'messages'" in str(raised.value)
    assert found in str(raised.value)
    assert "put the question under 'question'" in str(raised.value)


def test_no_answer() -> None:
    """The error names the keys that were found, and never what stands under them."""
    with pytest.raises(ExchangeError) as raised:
        Exchange.from_run(QUESTION, {"text": "zanzibar"})
    assert str(raised.value) == (
        "no answer found in the chain's output: expected a string, an AIMessage, or a dict with one of them under "
        "'answer', 'output', 'result', 'messages'; found a dict with the keys 'text'; end the chain with one of these, "
        "for example with StrOutputParser(), or tell the guard where the answer is: answer='...', a key or a function"
    )
