"""Sentence release: accepted sentences leave at once, and a sentence that falls short cuts the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableLambda

from aspire_guard.errors import EvaluationError
from aspire_guard.exchange import Exchange
from aspire_guard.execution.sentence_release import SENTENCE_END
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Timeouts
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel, tiny_evaluator

ANSWER = "Ada keeps it. It is 3.5 m long. Zanq."
ABSTENTION = "I can't answer this question."
CALL = {"name": "look_up", "args": {"place": "?"}, "id": "1", "type": "tool_call"}
MODEL = ScriptedChatModel(ANSWER)
TEXT = MODEL | StrOutputParser()
DOUBTS_THE_END = ConstantEvaluator(lambda exchange: 0.0 if "Zanq" in exchange.answer else 1.0)
SYNC_AND_ASYNC = pytest.mark.parametrize("way", ["sync", "async"])


def collect_chunks(
    guard: Runnable[Any, Any], way: str, asked: Any = "Who?", config: Any = None
) -> list[Any]:
    async def chunks() -> list[Any]:
        return [chunk async for chunk in guard.astream(asked, config)]

    return asyncio.run(chunks()) if way == "async" else list(guard.stream(asked, config))


def guard_by_sentence(chain: Any, evaluator: Any, **options: Any) -> AspireGuard:
    return AspireGuard(chain, evaluator=evaluator, release="sentence", **options)


class Listener(BaseCallbackHandler):
    """Notes tokens and verdicts."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.verdicts: list[Any] = []

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        """Notes the token."""
        self.tokens.append(token)

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        """Notes the verdict."""
        self.verdicts.append(data)


class Garbling(ScriptedChatModel):
    """A model that ends its answer with a tool call whose arguments are not JSON."""

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        yield from super()._stream(*args, **kwargs)
        yield self._garbled()

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in super()._astream(*args, **kwargs):
            yield chunk
        yield self._garbled()

    def _garbled(self) -> ChatGenerationChunk:
        call = tool_call_chunk(name="look_up", args="no JSON", id="1", index=0)
        return ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("One. Two! Three? Four", [4, 9, 16]),
        ('He said "no." Then', [13]),
        ("3.5 m. No", [6]),
        ("The end.", []),
        ("一。二！「三？」四", [2, 4, 8]),
    ],
)
def test_where_a_sentence_ends(text: str, ends: list[int]) -> None:
    """A sentence ends at its mark and the closing quotes after it, but not at a decimal point."""
    assert [found.end() for found in SENTENCE_END.finditer(text)] == ends


@SYNC_AND_ASYNC
def test_sentences_leave_as_they_pass(way: str) -> None:
    """Each sentence is scored together with all sentences before it."""
    seen: list[Exchange] = []

    def note(exchange: Exchange) -> float:
        seen.append(exchange)
        return 1.0

    pieces = ["Ada keeps it.", " It is 3.5 m long.", " Zanq."]
    assert collect_chunks(guard_by_sentence(TEXT, ConstantEvaluator(note)), way) == pieces
    assert [exchange.answer for exchange in seen] == ["".join(pieces[:n]) for n in (1, 2, 3)]


@SYNC_AND_ASYNC
def test_the_stream_is_cut_at_the_first_weak_sentence(way: str) -> None:
    """The sentences before the cut stay, the abstention is the last chunk, and the rest is nowhere."""
    assert collect_chunks(guard_by_sentence(TEXT, DOUBTS_THE_END), way) == [
        "Ada keeps it.",
        " It is 3.5 m long.",
        f" {ABSTENTION}",
    ]
    assert collect_chunks(guard_by_sentence(TEXT, ConstantEvaluator(0.0)), way) == [ABSTENTION]


@SYNC_AND_ASYNC
def test_a_message_is_streamed_under_one_id_with_its_verdict(way: str) -> None:
    """The chunks add up to one message, whose metadata tell that a part of it was released."""
    chunks = collect_chunks(guard_by_sentence(MODEL, DOUBTS_THE_END), way)
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert whole.content == f"Ada keeps it. It is 3.5 m long. {ABSTENTION}"
    assert len({chunk.id for chunk in chunks}) == 1
    verdict = whole.response_metadata["aspire_guard"]
    assert (verdict["accepted"], verdict["released"], verdict["route"]) == (False, True, "abstain")
    assert "the stream was cut" in verdict["reason"]


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    ("confidences", "contents"),
    [
        ((1.0, 1.0), ["Let me look.", " One moment."]),
        ((0.0, 0.0), ["Let me look. One moment."]),
        ((1.0, 0.0), ["Let me look.", " One moment."]),
    ],
    ids=["accepted", "rejected", "rejected midway"],
)
def test_calls_of_tools_pass_after_what_is_said_before_them(
    way: str, confidences: tuple[float, float], contents: list[str]
) -> None:
    """A message that calls tools is not an answer, so it is released whole and without a verdict."""
    model = ScriptedChatModel(AIMessage("Let me look. One moment.", tool_calls=[CALL]))
    evaluator = ConstantEvaluator(lambda exchange: confidences["moment" in exchange.answer])
    listener = Listener()
    chunks = collect_chunks(
        guard_by_sentence(model, evaluator), way, config={"callbacks": [listener]}
    )
    assert [chunk.content for chunk in chunks] == contents
    assert [chunk.tool_calls for chunk in chunks] == [*[[]] * (len(chunks) - 1), [CALL]]
    assert len({chunk.id for chunk in chunks}) == 1
    assert listener.verdicts == []


@SYNC_AND_ASYNC
def test_a_call_that_cannot_be_read_is_none(way: str) -> None:
    """A message whose tool call can't be read is an answer, as it is in `invoke`."""
    chunks = collect_chunks(guard_by_sentence(Garbling(says="Zanq"), ConstantEvaluator(0.0)), way)
    assert "".join(chunk.content for chunk in chunks) == ABSTENTION
    assert not any(chunk.tool_call_chunks for chunk in chunks)


@pytest.mark.parametrize(
    ("chain", "way", "ends"),
    [(TEXT, "async", False), (MODEL, "async", True), (MODEL, "sync", True)],
)
def test_a_text_that_falls_short_stops_its_model(
    chain: Runnable[Any, Any], way: str, ends: bool
) -> None:
    """An async text chain is stopped, but a message is read to its end, since it may call tools."""
    listener = Listener()
    chunks = collect_chunks(
        guard_by_sentence(chain, ConstantEvaluator(0.0)), way, config={"callbacks": [listener]}
    )
    assert ABSTENTION in str(chunks[0])
    assert (" Zanq." in listener.tokens) is ends


@SYNC_AND_ASYNC
def test_an_evaluator_that_fails_cuts_the_stream_or_raises(way: str) -> None:
    """An evaluator that fails cuts the stream, or raises if the policy says so."""
    broken = ConstantEvaluator(float("nan"))
    assert collect_chunks(guard_by_sentence(TEXT, broken), way) == [ABSTENTION]
    with pytest.raises(EvaluationError):
        collect_chunks(guard_by_sentence(TEXT, broken, policy=RoutingPolicy(on_error="raise")), way)


def test_only_what_is_released_is_in_the_events() -> None:
    """astream_events shows the released sentences, and nothing of the one that fell short."""

    async def events() -> list[Any]:
        guard = guard_by_sentence(TEXT, DOUBTS_THE_END)
        return [event async for event in guard.astream_events("Who?", version="v2")]

    shown = str(asyncio.run(events()))
    assert "It is 3.5 m long." in shown
    assert "Zanq" not in shown


@SYNC_AND_ASYNC
def test_an_evaluator_that_runs_a_chain_is_not_heard(way: str) -> None:
    """The runs of an evaluator are in no events of a chain around the guard, sync or async."""
    judge = RunnableLambda(lambda answer: 0.0 if "Zanq" in answer else 1.0)
    guard = guard_by_sentence(
        TEXT, ConstantEvaluator(lambda exchange: judge.invoke(exchange.answer))
    )

    async def asking(question: str) -> list[Any]:
        return [chunk async for chunk in guard.astream(question)]

    around = RunnableLambda(
        lambda question: list(guard.stream(question)), afunc=asking if way == "async" else None
    )

    async def events() -> list[Any]:
        return [event async for event in around.astream_events("Who?", version="v2")]

    shown = str(asyncio.run(events()))
    assert "It is 3.5 m long." in shown
    assert "Zanq" not in shown


def test_the_self_evaluator_scores_a_growing_answer_as_a_finished_one() -> None:
    """The last verdict on a growing answer is the verdict on the whole answer."""
    evaluator = tiny_evaluator(threshold=0.0)
    chunks = collect_chunks(guard_by_sentence(MODEL, evaluator), "sync")
    (score,) = evaluator.score([Exchange(question="Who?", answer=ANSWER)])
    verdict = chunks[-1].response_metadata["aspire_guard"]
    assert verdict["confidence"] == pytest.approx(score.confidence, abs=1e-4)


@pytest.mark.parametrize(
    "timeouts", [Timeouts(), Timeouts(chain=60, evaluator=60, overall=60)], ids=["", "timed"]
)
@pytest.mark.parametrize("release", ["answer", "sentence"])
def test_a_stream_that_is_left_midway_leaves_no_task(release: Any, timeouts: Timeouts) -> None:
    """The chain's work is cancelled with the consumer's."""
    slow = ScriptedChatModel("One. Two. Three. Four.", pause=0.05) | StrOutputParser()
    policy = RoutingPolicy(timeouts=timeouts)
    guard = AspireGuard(slow, evaluator=ConstantEvaluator(1.0), policy=policy, release=release)

    async def consume() -> None:
        async for _ in guard.astream("Who?"):
            pass

    async def leave() -> int:
        task = asyncio.create_task(consume())
        await asyncio.sleep(0.12)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        # LangChain may close an inner generator in a task of its own, which ends at once.
        await asyncio.sleep(0.01)
        return len(asyncio.all_tasks())

    assert asyncio.run(leave()) == 1
