"""The view of callbacks, tracers and streams on a guarded chain."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.testing import ConstantEvaluator

ABSTENTION = "I can't answer this question."
TRUSTING = ConstantEvaluator(confidence=1.0)
REFUSING = ConstantEvaluator(confidence=0.0)


class TraceRecorder(BaseCallbackHandler):
    """A record of runs, their parents, ends, errors and custom events, as a tracer keeps it."""

    run_inline = True

    def __init__(self) -> None:
        self.starts: list[dict[str, Any]] = []
        self.ends: dict[UUID, Any] = {}
        self.errors: dict[UUID, BaseException] = {}
        self.events: list[tuple[str, Any, UUID]] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        self.starts.append(kwargs)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.ends[run_id] = outputs

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.errors[run_id] = error

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.events.append((name, data, run_id))


class OnePassage(BaseRetriever):
    """Returns one passage for any query."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document("Ada keeps it.")]


class HeedlessChain(Runnable[Any, Any]):
    """Runs a model without handing on the config it was given."""

    def __init__(self, model: Runnable[Any, Any]) -> None:
        self.model = model

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self.model.invoke(input)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await self.model.ainvoke(input)


def make_streaming_model(times: int = 1) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage("zan zi bar")] * times))


def test_the_run_of_judge_is_the_chains_parent() -> None:
    """A trace shows the guard with the chain inside, and run id, name, tags and metadata arrive."""
    recorder, run_id = TraceRecorder(), uuid4()
    guard = AspireGuard(
        RunnableLambda(lambda question: "Ada").with_config(run_name="inner"), evaluator=TRUSTING
    )
    config: RunnableConfig = {
        "callbacks": [recorder],
        "run_id": run_id,
        "run_name": "outer",
        "tags": ["t"],
        "metadata": {"tenant": "x"},
    }
    guard.judge("Who?", config)
    outer, inner = recorder.starts
    assert (outer["name"], outer["run_id"], outer["parent_run_id"]) == ("outer", run_id, None)
    assert (inner["name"], inner["parent_run_id"]) == ("inner", run_id)
    assert "t" in outer["tags"]
    assert "t" in inner["tags"]
    assert outer["metadata"]["tenant"] == inner["metadata"]["tenant"] == "x"
    assert run_id in recorder.ends


def test_a_batch_has_one_run_for_each_input() -> None:
    """Each chain run hangs below its own guard run."""
    recorder = TraceRecorder()
    guard = AspireGuard(RunnableLambda(lambda question: "Ada"), evaluator=TRUSTING)
    guard.batch(["a", "b"], {"callbacks": [recorder]})
    outer = [start["run_id"] for start in recorder.starts if start["name"] == "AspireGuard"]
    inner = [start["parent_run_id"] for start in recorder.starts if start["name"] != "AspireGuard"]
    assert len(outer) == 2
    assert sorted(inner) == sorted(outer)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_every_verdict_is_an_event(way: str) -> None:
    """The event belongs to the guard's run and holds the verdict, not the answer."""
    recorder = TraceRecorder()
    guard = AspireGuard(RunnableLambda(lambda question: "zanzibar"), evaluator=REFUSING)
    result = getattr(guard, way)("Where?", {"callbacks": [recorder]})
    if way == "ainvoke":
        asyncio.run(result)
    ((name, verdict, run_id),) = recorder.events
    assert name == "aspire_guard.verdict"
    assert (verdict["route"], verdict["confidence"]) == ("abstain", 0.0)
    assert run_id == recorder.starts[0]["run_id"]
    assert "zanzibar" not in str(verdict)
    assert recorder.ends[run_id] == ABSTENTION


@pytest.mark.parametrize("error", [ConnectionError("model is down"), KeyboardInterrupt()])
def test_a_failed_run_is_closed(error: BaseException) -> None:
    """Tracers learn of every error, of an interruption too."""

    def broken(question: str) -> str:
        raise error

    recorder = TraceRecorder()
    with pytest.raises(type(error)):
        AspireGuard(RunnableLambda(broken), evaluator=TRUSTING).invoke(
            "Who?", {"callbacks": [recorder]}
        )
    assert recorder.errors[recorder.starts[0]["run_id"]] is error


def test_a_cancelled_run_is_closed() -> None:
    """A call that is cancelled while its chain runs ends as an error, at once."""
    recorder = TraceRecorder()

    async def forever(question: str) -> str:
        await asyncio.sleep(3600)
        return "Ada"

    async def cancel() -> None:
        guard = AspireGuard(RunnableLambda(forever), evaluator=TRUSTING)
        await asyncio.wait_for(guard.ainvoke("Who?", {"callbacks": [recorder]}), timeout=0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(cancel())
    assert isinstance(recorder.errors[recorder.starts[0]["run_id"]], asyncio.CancelledError)


def test_scoring_leaves_the_event_loop_free() -> None:
    """While an evaluator blocks, other coroutines go on."""

    async def both() -> list[Any]:
        loop, ticked = asyncio.get_running_loop(), asyncio.Event()

        def wait_for_the_loop(exchange: Exchange) -> float:
            asyncio.run_coroutine_threadsafe(ticked.wait(), loop).result(timeout=10)
            return 1.0

        guard = AspireGuard(
            RunnableLambda(lambda question: "Ada"), evaluator=ConstantEvaluator(wait_for_the_loop)
        )

        async def tick() -> None:
            ticked.set()

        return list(await asyncio.gather(guard.ainvoke("Who?"), tick()))

    assert asyncio.run(both()) == ["Ada", None]


def test_no_rejected_text_in_streamed_events() -> None:
    """A consumer of astream_events gets the abstention, and no token of a rejected answer."""

    async def events() -> list[Any]:
        guard = AspireGuard(HeedlessChain(make_streaming_model()), evaluator=REFUSING)
        return [event async for event in guard.astream_events("Where?", version="v2")]

    streamed = str(asyncio.run(events()))
    assert ABSTENTION in streamed
    assert not any(token in streamed for token in ("zan", "zi", "bar"))


def test_no_rejected_text_in_the_events_of_a_surrounding_batch() -> None:
    """A batch inside another runnable shows nothing either if its chain ignores its config."""
    guard = AspireGuard(HeedlessChain(make_streaming_model(times=2)), evaluator=REFUSING)

    async def outer(question: str) -> Any:
        return await guard.abatch([question, question])

    async def events() -> list[Any]:
        return [
            event async for event in RunnableLambda(outer).astream_events("Where?", version="v2")
        ]

    streamed = str(asyncio.run(events()))
    assert ABSTENTION in streamed
    assert "zi" not in streamed


def test_a_heedless_chain_still_belongs_to_the_guards_run() -> None:
    """A chain that hands on no config runs its model as a child of the guard, and its retriever is seen."""
    recorder, seen = TraceRecorder(), []

    def confidence(exchange: Exchange) -> float:
        seen.append(exchange.context)
        return 1.0

    chain = HeedlessChain(OnePassage() | RunnableLambda(lambda documents: "Ada"))
    AspireGuard(chain, evaluator=ConstantEvaluator(confidence)).invoke(
        "Who?", {"callbacks": [recorder]}
    )
    assert recorder.starts[1]["parent_run_id"] == recorder.starts[0]["run_id"]
    assert seen == ["Ada keeps it."]


def test_a_heedless_batch_keeps_its_surroundings() -> None:
    """A chain that ignores its config still finds the config around the guard, without its streams."""
    guard = AspireGuard(
        HeedlessChain(RunnableLambda(lambda q, config: config["metadata"]["n"])), evaluator=TRUSTING
    )
    outer: RunnableLambda[str, Any] = RunnableLambda(
        lambda question: guard.batch([question, question])
    )
    assert outer.invoke("Who?", {"metadata": {"n": "x"}}) == ["x", "x"]


def test_the_users_own_callbacks_see_the_model() -> None:
    """A user's own handler still sees the model inside the guard."""

    class ModelEnds(BaseCallbackHandler):
        texts: list[str]

        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            self.texts.append(response.generations[0][0].text)

    handler = ModelEnds()
    handler.texts = []
    guard = AspireGuard(FakeListChatModel(responses=["Ada"]), evaluator=TRUSTING)
    guard.invoke("Who?", {"callbacks": [handler]})
    assert handler.texts == ["Ada"]
