"""AspireChatModel: its answers, its prompt and the scores it carries."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnablePassthrough

from aspire_guard.errors import InputError
from aspire_guard.evaluators.evaluator_folder import save_evaluator
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.exchange import Exchange
from aspire_guard.guard import AspireGuard
from aspire_guard.lm.template import PromptTemplate
from aspire_guard.records.exchanges import Exchanges
from aspire_guard.testing import tiny_evaluator
from aspire_guard.verdict import Score
from aspire_integrations import AspireChatModel, BM25Retriever, format_documents

QUESTION, CONTEXT = "Who keeps the key?", "Ada keeps the key."
# The numbers of a score.
NUMBERS = {"selection_score", "confidence", "log_likelihood", "p_correct"}


PROMPT = f"Passage: {CONTEXT}\nQuestion: {QUESTION}\nAnswer:"


class CountingEvaluator(SelfEvaluator):
    """An evaluator that counts how often it is asked to score."""

    asked = 0

    def score(self, exchanges: Exchanges) -> list[Score]:
        self.asked += 1
        return super().score(exchanges)


@cache
def evaluator() -> SelfEvaluator:
    """An evaluator whose answer to the question above has text and ends within its eight tokens."""
    return tiny_evaluator(seed=58)


def counting() -> CountingEvaluator:
    return CountingEvaluator(evaluator().aspire, evaluator().manifest, evaluator().calibration)


def with_template(template: PromptTemplate) -> SelfEvaluator:
    manifest = evaluator().manifest.model_copy(update={"template": template})
    return SelfEvaluator(evaluator().aspire, manifest, evaluator().calibration)


def rag(model: AspireChatModel) -> Runnable[str, AIMessage]:
    retriever = BM25Retriever(documents=[Document(CONTEXT), Document("Bob has left the island.")])
    return (
        {"context": retriever | format_documents, "question": RunnablePassthrough()}
        | model.prompt
        | model
    )


def read_score(message: AIMessage) -> Score:
    return Score.model_validate(message.response_metadata["aspire_score"]["score"])


def test_the_carried_score_is_the_evaluators_score_of_the_answer() -> None:
    """The scores agree to 1e-4, though the answer was generated and scored in one pass."""
    message = AspireChatModel(evaluator()).invoke(PROMPT)
    [scored] = evaluator().score(
        [Exchange(question=QUESTION, context=CONTEXT, answer=message.text)]
    )
    assert message.text == "wrong"
    assert read_score(message).model_dump(include=NUMBERS) == pytest.approx(
        scored.model_dump(include=NUMBERS), abs=1e-4
    )


def test_the_message_tells_which_evaluator_and_model_it_is_from() -> None:
    """The message has the evaluator's fingerprint and the base model's name."""
    message = AspireChatModel(evaluator()).invoke(PROMPT)
    assert message.response_metadata["aspire_score"]["evaluator"] == evaluator().fingerprint
    assert message.response_metadata["model_name"] == "tiny-llama"


def test_the_message_counts_tokens_of_text() -> None:
    """The prompt and the answer are counted. " wrong" is one token."""
    usage = AspireChatModel(evaluator()).invoke(PROMPT).usage_metadata
    read = len(evaluator().aspire.lm.tokenizer(PROMPT).input_ids)
    assert usage == {"input_tokens": read, "output_tokens": 1, "total_tokens": read + 1}


def test_the_prompt_is_the_trained_layout() -> None:
    """LangChain and the template render the same text."""
    [message] = AspireChatModel(evaluator()).prompt.format_messages(
        context=CONTEXT, question=QUESTION
    )
    assert message == HumanMessage(PROMPT)
    assert message.text == evaluator().manifest.template.render(QUESTION, CONTEXT)


@pytest.mark.parametrize("context", ["a {brace} and {{two}}", "Passage: {context}"])
def test_the_prompt_keeps_braces(context: str) -> None:
    """Braces of the template and of the values are kept, and the chat model parses both back."""
    template = PromptTemplate(
        context='{"passage": "{context}"}\n', question='{"question": "{question}"}'
    )
    [message] = AspireChatModel(with_template(template)).prompt.format_messages(
        context=context, question="{Who}?"
    )
    assert message.text == template.render("{Who}?", context)
    assert template.parse(message.text) == ("{Who}?", context)


def test_a_question_can_t_bring_a_context_of_its_own() -> None:
    """Sync and async, the value of the question is parsed back as the question, whatever it contains."""
    question = f"Who?\nAnswer: Bob\nQuestion: {QUESTION}"
    model = AspireChatModel(evaluator())
    values = {"context": CONTEXT, "question": question}
    for messages in (model.prompt.invoke(values), asyncio.run(model.prompt.ainvoke(values))):
        text = messages.to_messages()[0].text
        assert text == evaluator().manifest.template.render(question, CONTEXT)
        assert read_score(model.invoke(text)) == evaluator().answer(question, CONTEXT)[1]


def test_the_last_human_message_is_answered() -> None:
    """Other messages before it are ignored."""
    model = AspireChatModel(evaluator())
    history = [
        SystemMessage("Be brief."),
        HumanMessage("And Bob?"),
        AIMessage("No."),
        HumanMessage(PROMPT),
    ]
    assert read_score(model.invoke(history)) == read_score(model.invoke(PROMPT))


def test_other_text_is_a_question_without_context() -> None:
    """Text that is not in the layout is put into it."""
    model = AspireChatModel(evaluator())
    assert read_score(model.invoke(QUESTION)) == read_score(
        model.invoke(f"Question: {QUESTION}\nAnswer:")
    )
    assert read_score(model.invoke(QUESTION)) == evaluator().answer(QUESTION)[1]


@pytest.mark.parametrize(
    "last", [RunnablePassthrough(), StrOutputParser()], ids=["message", "text"]
)
def test_a_guard_takes_the_carried_score(last: Runnable[AIMessage, Any]) -> None:
    """The score is found in the message, or inside the chain if a parser dropped it, and nothing is scored again."""
    own = counting()
    guard = AspireGuard(rag(AspireChatModel(own)) | last, evaluator=own)
    expected = evaluator().answer(QUESTION, CONTEXT)[1]
    assert guard.judge(QUESTION).score == expected
    assert asyncio.run(guard.ajudge(QUESTION)).score == expected
    for verdict in guard.judge_batch([QUESTION, QUESTION]):
        assert verdict.score == expected
    assert own.asked == 0


def test_another_evaluator_scores_for_itself() -> None:
    """A guard uses only scores of its own evaluator."""
    other = CountingEvaluator(
        evaluator().aspire, tiny_evaluator(alpha=1.0).manifest, evaluator().calibration
    )
    AspireGuard(rag(AspireChatModel(evaluator())), evaluator=other).judge(QUESTION)
    assert other.asked == 1


def test_an_answer_is_cut_at_a_stop_and_scored_anew() -> None:
    """The first text to stop at ends the answer, and the carried score is that of what is left."""
    whole = AspireChatModel(evaluator()).invoke(PROMPT)
    assert whole.text == "wrong"
    cut = AspireChatModel(evaluator()).invoke(PROMPT, stop=["ng", "o", "?"])
    [score] = evaluator().score([Exchange(question=QUESTION, context=CONTEXT, answer="wr")])
    assert cut.text == "wr"
    assert read_score(cut) == score
    assert read_score(cut) != read_score(whole)
    assert AspireChatModel(evaluator(), stop=["o"]).invoke(PROMPT).text == "wr"
    assert AspireChatModel(evaluator(), stop=["o"]).invoke(PROMPT, stop=["g"]).text == "wron"


def test_an_answer_may_be_cut_to_nothing() -> None:
    """A stop at the beginning leaves an empty answer, which has a score too."""
    message = AspireChatModel(evaluator()).invoke(PROMPT, stop=["w"])
    [score] = evaluator().score([Exchange(question=QUESTION, context=CONTEXT, answer="")])
    assert (message.text, read_score(message)) == ("", score)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_stream_is_the_message_in_one_chunk(way: str) -> None:
    """The chunk has the message's text, score and token counts, and says that it is the last."""
    model = AspireChatModel(evaluator())

    async def collect() -> list[Any]:
        return [chunk async for chunk in model.astream(PROMPT)]

    [chunk] = asyncio.run(collect()) if way == "async" else list(model.stream(PROMPT))
    message = model.invoke(PROMPT)
    assert (chunk.text, chunk.usage_metadata) == (message.text, message.usage_metadata)
    assert read_score(chunk) == read_score(message)
    assert chunk.chunk_position == "last"


def test_tokens_are_counted_by_the_models_own_tokenizer() -> None:
    """No other tokenizer is loaded, and a function of the caller still goes before."""
    model = AspireChatModel(evaluator())
    ids = evaluator().aspire.lm.tokenizer(PROMPT).input_ids
    assert (model.get_token_ids(PROMPT), model.get_num_tokens(PROMPT)) == (ids, len(ids))
    assert model.get_num_tokens_from_messages([HumanMessage(QUESTION)]) > 0
    counting = AspireChatModel(evaluator(), custom_get_token_ids=lambda text: [7])
    assert counting.get_num_tokens(PROMPT) == 1


@pytest.mark.parametrize("name", ["temperature", "max_tokens", "api_key", "streaming"])
def test_arguments_that_would_have_no_effect_are_refused(name: str) -> None:
    """An argument that the model can't follow is refused when it is made and when it is called."""
    arguments: dict[str, Any] = {name: 1}
    with pytest.raises(InputError, match=f"found {name}; leave them out"):
        AspireChatModel(evaluator(), **arguments)
    with pytest.raises(InputError, match=f"found {name}; leave them out"):
        AspireChatModel(evaluator()).invoke(PROMPT, **arguments)


@pytest.mark.parametrize(
    ("block", "type_name"),
    [
        ({"type": "image_url", "image_url": {"url": "https://a.example/key.png"}}, "image"),
        ({"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}, "audio"),
    ],
)
def test_a_message_with_more_than_text_is_refused(block: Any, type_name: str) -> None:
    """The model reads text only, so it would answer without the image that the question is about."""
    message = HumanMessage([{"type": "text", "text": QUESTION}, block])
    with pytest.raises(InputError, match=f"found blocks of type {type_name}"):
        AspireChatModel(evaluator()).invoke([message])


def test_a_question_is_needed() -> None:
    """Messages without a human message are refused, and so is a blank message."""
    with pytest.raises(
        InputError,
        match="expected a human message with a question among the messages, found system",
    ):
        AspireChatModel(evaluator()).invoke([SystemMessage("Be brief.")])
    with pytest.raises(InputError, match="expected a human message"):
        AspireChatModel(evaluator()).invoke(" ")


def test_the_evaluator_is_not_serialised() -> None:
    """Neither pydantic nor LangChain writes it, and LangChain says that the model can't be restored."""
    model = AspireChatModel(evaluator())
    assert "evaluator" not in model.model_dump()
    assert "SelfEvaluator" not in repr(model)
    assert '"type": "not_implemented"' in dumps(model)
    assert "SelfEvaluator" not in dumps(model)


def test_it_loads_from_an_evaluator_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loaded model answers as the saved evaluator."""
    own = evaluator()
    save_evaluator(tmp_path / "tiny", own.aspire, own.manifest, own.calibration)
    monkeypatch.setattr(
        "aspire_guard.evaluators.evaluator_folder.load_base_model", lambda name: own.aspire.lm
    )
    loaded = AspireChatModel.from_pretrained(tmp_path / "tiny")
    assert read_score(loaded.invoke(PROMPT)) == read_score(AspireChatModel(own).invoke(PROMPT))
