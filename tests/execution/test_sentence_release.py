"""Sentence release: accepted sentences leave at once, and a sentence that falls short cuts the stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, ai
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda
from langchain_core.tracers.base import BaseTracer
from langchain_core.utils.json import parse_partial_json

from aspire_guard.errors import EvaluationError
from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.routing.policy import RoutingPolicy
from aspire_guard.routing.routes import Abstain, Timeouts
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


def stream_of(*chunks: AIMessageChunk) -> Runnable[Any, Any]:
    def transform(asked: Iterator[Any]) -> Iterator[AIMessageChunk]:
        yield from chunks

    async def atransform(asked: AsyncIterator[Any]) -> AsyncIterator[AIMessageChunk]:
        for chunk in chunks:
            yield chunk

    return RunnableGenerator(transform, atransform)


class Listener(BaseTracer):
    """A tracer, which sees the tokens of a guarded chain, that notes them and the verdicts."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[str] = []
        self.verdicts: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        """Keep no run."""

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> Any:
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


@SYNC_AND_ASYNC
@pytest.mark.parametrize(
    "answer",
    [
        "Dr. Lund",
        "It belongs to the U.S. Navy",
        "At St. Mary's pier.",
        "1. At the pier",
        "Prof. J. R. Lund et al.",
        "# Place\nAt the pier",
        "他来了。",
    ],
)
def test_a_sentence_is_never_judged_in_parts(way: str, answer: str) -> None:
    """An answer of one sentence is judged once, so it leaves as a stream if it leaves as a whole."""
    confident_of_the_whole = ConstantEvaluator(lambda exchange: float(exchange.answer == answer))
    letters = stream_of(*(AIMessageChunk(content=letter) for letter in answer))
    chunks = collect_chunks(guard_by_sentence(letters, confident_of_the_whole), way)
    assert [chunk.content for chunk in chunks] == [answer, ""]


@SYNC_AND_ASYNC
def test_white_space_at_the_end_is_no_sentence(way: str) -> None:
    """White space after the last sentence leaves with it, and is not scored again."""
    chain = ScriptedChatModel("Ada keeps it. Yes she does. \n") | StrOutputParser()
    chunks = collect_chunks(guard_by_sentence(chain, ConstantEvaluator(1.0)), way)
    assert chunks == ["Ada keeps it.", " Yes she does. \n"]


THOUGHT = {"type": "reasoning", "reasoning": "The ledger says Zanq.", "index": 0}
CITATION = {"type": "citation", "url": "https://a.example/ledger"}
CITED = [
    AIMessageChunk(content=[THOUGHT], id="answer"),
    *(
        AIMessageChunk(content=[{"type": "text", "text": word, "index": 1}], id="answer")
        for word in ["Ada", " keeps it.", " It is", " hers. Zanq"]
    ),
    AIMessageChunk(
        content=[{"type": "text", "text": ".", "annotations": [CITATION], "index": 1}],
        id="answer",
        additional_kwargs={"refusal": "Zanq"},
    ),
    AIMessageChunk(
        content="",
        id="answer",
        response_metadata={"finish_reason": "stop"},
        usage_metadata={"input_tokens": 3, "output_tokens": 5, "total_tokens": 8},
        chunk_position="last",
    ),
]


@SYNC_AND_ASYNC
def test_an_accepted_stream_keeps_what_its_chunks_carry(way: str) -> None:
    """Citations, reasoning, the finish reason and other metadata are those of the unguarded stream."""
    chunks = collect_chunks(guard_by_sentence(stream_of(*CITED), ConstantEvaluator(1.0)), way)
    guarded, bare = add_ai_message_chunks(*chunks), add_ai_message_chunks(*CITED)
    assert [str(chunk.text) for chunk in chunks] == ["Ada keeps it.", " It is hers.", " Zanq.", ""]
    assert guarded.text == bare.text
    by_type = {block["type"]: block for block in guarded.content if isinstance(block, dict)}
    assert by_type["reasoning"] == THOUGHT
    assert by_type["text"]["annotations"] == [CITATION]
    assert len(guarded.content) == 2
    assert guarded.response_metadata.pop("aspire_guard")["accepted"]
    assert guarded.response_metadata == {"finish_reason": "stop"}
    assert (guarded.additional_kwargs, guarded.usage_metadata, guarded.id) == (
        {"refusal": "Zanq"},
        bare.usage_metadata,
        "answer",
    )


@SYNC_AND_ASYNC
def test_a_cut_stream_carries_nothing_of_what_was_rejected(way: str) -> None:
    """Reasoning, citations and metadata may state the sentence that fell short, so they stay inside."""
    chunks = collect_chunks(guard_by_sentence(stream_of(*CITED), DOUBTS_THE_END), way)
    assert "".join(str(chunk.text) for chunk in chunks) == f"Ada keeps it. It is hers. {ABSTENTION}"
    assert not any(shown in repr(chunks) for shown in ("Zanq", "ledger", "finish_reason"))
    assert add_ai_message_chunks(*chunks).usage_metadata == CITED[-1].usage_metadata


@SYNC_AND_ASYNC
def test_a_long_tool_call_is_not_parsed_at_each_chunk(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The characters that are parsed grow with the length of a streamed tool call, not with its square."""
    arguments = json.dumps({"text": "x" * 20_000})
    parts = [arguments[start : start + 10] for start in range(0, len(arguments), 10)]
    chunks = [
        AIMessageChunk(
            content="",
            tool_call_chunks=[tool_call_chunk(name=None, args=part, id=None, index=0)],
        )
        for part in parts
    ]
    begin = tool_call_chunk(name="look_up", args="", id="1", index=0)
    chain = stream_of(AIMessageChunk(content="", tool_call_chunks=[begin]), *chunks)
    parsed: list[int] = []

    def count(text: str, **options: Any) -> Any:
        parsed.append(len(text))
        return parse_partial_json(text, **options)

    monkeypatch.setattr(ai, "parse_partial_json", count)
    (chunk,) = collect_chunks(guard_by_sentence(chain, ConstantEvaluator(0.0)), way)
    assert chunk.tool_calls[0]["args"] == {"text": "x" * 20_000}
    assert sum(parsed) < 4 * len(arguments)


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


@SYNC_AND_ASYNC
def test_an_abstention_whose_function_raises_is_the_usual_one(way: str) -> None:
    """A function of an Abstain route that raises ends the stream with the policy's abstention."""

    def fail(verdict: Any) -> str:
        raise ZeroDivisionError

    policy = RoutingPolicy(otherwise=[Abstain(fail)])
    listener = Listener()
    guard = guard_by_sentence(TEXT, DOUBTS_THE_END, policy=policy)
    chunks = collect_chunks(guard, way, config={"callbacks": [listener]})
    assert chunks[-1] == f" {ABSTENTION}"
    assert "ZeroDivisionError" in listener.verdicts[0]["error"]


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


@pytest.mark.parametrize("way", ["sync", "async"])
def test_an_abstention_function_that_fails_ends_the_stream_with_the_policys_words(way: str) -> None:
    """The reader gets an abstention whatever the function does, and the verdict says why it is another one."""

    def broken(verdict: Any) -> str:
        raise KeyError("desk")

    policy = RoutingPolicy(abstention="Ask Ada.", otherwise=Abstain(broken))
    guard = AspireGuard(TEXT, evaluator=ConstantEvaluator(0.0), policy=policy, release="sentence")
    listener = Listener()
    chunks = collect_chunks(guard, way, config={"callbacks": [listener]})
    assert chunks == ["Ask Ada."]
    assert listener.verdicts[0]["error"] == "the abstention's function raised KeyError"
