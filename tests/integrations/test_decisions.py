"""Decision models in both directions: an evaluator as a decision model, and a decision model as an evaluator."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.decisions import (
    BaseDecisionModel,
    Choice,
    ClassifierResponse,
    Noul,
    NoulAnswer,
    Question,
    State,
)
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from pydantic import Field

from aspire_guard.errors import ExchangeError, InputError
from aspire_guard.evaluators.protocol import Evaluator
from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel, tiny_evaluator
from aspire_integrations.decisions import IS_RIGHT, AspireDecisionModel, DecisionEvaluator

ABSTENTION = "I can't answer this question."
ADA = {"question": "Who keeps the key?", "context": "Ada keeps the key.", "answer": "Ada"}
SYNC_AND_ASYNC = pytest.mark.parametrize("way", ["sync", "async"])


class Supported(BaseDecisionModel):
    """A decision model that says yes to answers in the context, and keeps the questions it was asked."""

    model: str = "supported"
    asked: list[Any] = Field(default_factory=list)

    @property
    def _provider(self) -> str:
        return "tests"

    def _classify(self, state: State, questions: dict[str, Question]) -> ClassifierResponse:
        self.asked.append((state, questions))
        assert isinstance(state, dict)
        if state["answer"] == "Eve":
            raise ConnectionError("model is down")
        probability = 0.75 if str(state["answer"]) in str(state.get("context")) else 0.25
        return ClassifierResponse(
            model=self.model,
            answers={name: NoulAnswer(type="noul", noul=probability) for name in questions},
        )


def ask(
    model: BaseDecisionModel, state: Any, way: str = "sync", **questions: Any
) -> ClassifierResponse:
    request: Any = {"state": state, "questions": questions or {"right": IS_RIGHT}}
    return asyncio.run(model.ainvoke(request)) if way == "async" else model.invoke(request)


@SYNC_AND_ASYNC
def test_the_evaluator_is_a_decision_model(way: str) -> None:
    """Its answer to a yes-no question is the evaluator's confidence, under the name of the question."""
    evaluator = tiny_evaluator()
    response = ask(AspireDecisionModel(evaluator), ADA, way, sound=IS_RIGHT)
    (score,) = evaluator.score([Exchange.model_validate(ADA)])
    assert response.nouls["sound"].noul == pytest.approx(score.confidence, abs=1e-6)
    assert response.model == "aspire"


def test_the_state_may_be_a_conversation() -> None:
    """Its last human message is the question, the model's message after it the answer."""
    seen: list[Exchange] = []

    def note(exchange: Exchange) -> float:
        seen.append(exchange)
        return 0.5

    model = AspireDecisionModel(ConstantEvaluator(note))
    ask(model, [HumanMessage("Who?"), AIMessage("Ada")])
    ask(model, {"input": "Who?", "output": "Ada"})
    ask(model, [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada"}])
    assert seen == [Exchange(question="Who?", answer="Ada")] * 3


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ("Ada", "a value of type str"),
        ({"question": "Who?"}, "a dict with the keys 'question'"),
        ([HumanMessage("Who?")], "a list of HumanMessage"),
        ([1, 2], "a list of int"),
    ],
)
def test_a_state_without_question_and_answer_is_an_error(state: Any, found: str) -> None:
    """The error describes the state."""
    with pytest.raises(
        ExchangeError,
        match=f"expected a state with a question and an answer, found none in {found}",
    ):
        ask(AspireDecisionModel(ConstantEvaluator(0.5)), state)


def test_only_yes_no_questions_are_answered() -> None:
    """An evaluator has no labels to choose from."""
    label = Choice(instructions="Which team?", criteria={"desk": None, "field": None})
    with pytest.raises(
        InputError, match=r"expected yes-no questions \(Noul\), found 'team' of type Choice"
    ):
        ask(AspireDecisionModel(ConstantEvaluator(0.5)), ADA, team=label)


def test_the_evaluator_leaves_the_event_loop_free() -> None:
    """`ainvoke` scores in a thread."""
    ticked = threading.Event()

    async def both() -> ClassifierResponse:
        model = AspireDecisionModel(ConstantEvaluator(lambda exchange: float(ticked.wait(10))))
        asking = asyncio.create_task(
            model.ainvoke({"state": ADA, "questions": {"right": IS_RIGHT}})
        )
        await asyncio.sleep(0)
        ticked.set()
        return await asking

    assert asyncio.run(both()).nouls["right"].noul == 1.0


def test_a_trace_names_provider_and_model() -> None:
    """The metadata of the run has both, as for every decision model."""
    seen: list[dict[str, Any]] = []

    class Listener(BaseCallbackHandler):
        run_inline = True

        def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            seen.append(kwargs["metadata"])

    model = AspireDecisionModel(ConstantEvaluator(0.5), model="handbook")
    model.invoke({"state": ADA, "questions": {"right": IS_RIGHT}}, {"callbacks": [Listener()]})
    assert seen[0]["ls_provider"] == "aspire_guard"
    assert seen[0]["ls_model_name"] == "handbook"


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    ("answer", "heard"), [("Ada", "Ada"), ("Bob", ABSTENTION), ("Eve", ABSTENTION)]
)
def test_a_decision_model_is_an_evaluator(answer: str, heard: str, way: str) -> None:
    """Its probability is the confidence that the guard decides on. If it fails, nothing is released."""
    evaluator = DecisionEvaluator(Supported())
    assert isinstance(evaluator, Evaluator)
    model = ScriptedChatModel(answer)
    guard = AspireGuard(model, evaluator=evaluator, context=lambda *run: ADA["context"])
    message = asyncio.run(guard.ainvoke("Who?")) if way == "async" else guard.invoke("Who?")
    assert message.content == heard
    expected = {"Ada": 0.75, "Bob": 0.25, "Eve": None}[answer]
    assert message.response_metadata["aspire_guard"]["confidence"] == expected


def test_a_decision_model_is_asked_about_the_exchange() -> None:
    """The state has no context if there is none, and the question may be in other words."""
    model, own = Supported(), Noul(instructions="Is that so?")
    DecisionEvaluator(model, asked=own).score([Exchange(question="Who?", answer="Ada")])
    assert model.asked == [({"question": "Who?", "answer": "Ada"}, {"right": own})]


def test_in_a_batch_a_failure_stays_with_its_answer() -> None:
    """The other answers are judged nevertheless."""
    guard = AspireGuard(
        lambda asked: asked["text"],
        evaluator=DecisionEvaluator(Supported()),
        question=lambda asked: "Who?",
    )
    inputs = [{"text": answer, "context": "Ada keeps the key."} for answer in ("Ada", "Eve", "Bob")]
    assert guard.batch(inputs) == ["Ada", ABSTENTION, ABSTENTION]
    assert asyncio.run(guard.abatch(inputs)) == ["Ada", ABSTENTION, ABSTENTION]


@pytest.mark.parametrize("release", ["answer", "sentence"])
def test_what_the_decision_model_reads_is_in_no_events(release: Any) -> None:
    """The decision model runs with the rejected answer as its input, but shows it in no event."""
    guard = AspireGuard(
        ScriptedChatModel("zanq ziwx. Barq."),
        evaluator=DecisionEvaluator(Supported()),
        release=release,
    )

    async def asking(question: str) -> list[Any]:
        return [chunk async for chunk in guard.astream(question)]

    async def events() -> list[Any]:
        around = RunnableLambda(lambda question: list(guard.stream(question)), afunc=asking)
        return [event async for event in around.astream_events("Who?", version="v2")]

    shown = str(asyncio.run(events()))
    assert "zanq" not in shown
    assert ABSTENTION in shown


def test_an_evaluator_and_back() -> None:
    """An evaluator that is wrapped as a decision model and as an evaluator again gives the same scores."""
    evaluator = tiny_evaluator()
    wrapped = DecisionEvaluator(AspireDecisionModel(evaluator))
    exchanges = [Exchange.model_validate(ADA)]
    (expected,) = evaluator.score(exchanges)
    (score,) = wrapped.score(exchanges)
    assert score.confidence == pytest.approx(expected.confidence, abs=1e-6)


def test_an_older_langchain_core_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the version that has decision models."""
    monkeypatch.setitem(sys.modules, "langchain_core.decisions", None)
    monkeypatch.delitem(sys.modules, "aspire_integrations.decisions")
    expected = r"expected langchain-core 1\.8 or newer, which has decision models; found 1"
    with pytest.raises(ImportError, match=expected):
        importlib.import_module("aspire_integrations.decisions")
