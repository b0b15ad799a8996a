"""Answers whose model reports the log-probabilities of their tokens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda

from aspire_guard.errors import InputError
from aspire_guard.evaluators.self_evaluator import SelfEvaluator, selection_score
from aspire_guard.exchange import Exchange, read_log_likelihood
from aspire_guard.guard import AspireGuard
from aspire_guard.observe import AspireCallbackHandler, Observation
from aspire_guard.testing import ConstantEvaluator, ScriptedChatModel, tiny_evaluator

ABSTENTION = "I can't answer this question."


def make_logprobs(*values: Any) -> dict[str, Any]:
    return {"logprobs": {"content": [{"token": "x", "logprob": value} for value in values]}}


def make_model(*values: float) -> Runnable[Any, Any]:
    return ScriptedChatModel(
        AIMessage("Ada\n", response_metadata=make_logprobs(*values) if values else {})
    )


def make_evaluator(likelihood: str, threshold: float = 0.0) -> SelfEvaluator:
    tiny = tiny_evaluator(threshold=threshold)
    manifest = tiny.manifest.model_copy(update={"likelihood": likelihood})
    return SelfEvaluator(tiny.aspire, manifest, tiny.calibration)


OF_CHAIN, OWN = make_evaluator("chain"), make_evaluator("own")
EXCHANGE = Exchange(question="Who?", answer="Ada")


@pytest.mark.parametrize(
    ("metadata", "mean"),
    [
        (make_logprobs(-0.5, -0.25), -0.375),
        ({}, None),
        ({"logprobs": {"content": None, "refusal": None}}, None),
        (make_logprobs(-0.5, float("-inf")), None),
        (make_logprobs(-0.5, None), None),
        ({"logprobs": {"content": [{"token": "x"}]}}, None),
        ({"logprobs": [-0.5]}, None),
    ],
)
def test_the_mean_is_read_out_of_a_message(metadata: dict[str, Any], mean: float | None) -> None:
    """The mean is read in the notation of OpenAI-compatible servers, and is None in any other notation."""
    assert read_log_likelihood(AIMessage("Ada", response_metadata=metadata)) == mean


def test_the_chunks_of_a_stream_add_up() -> None:
    """LangChain joins their lists, so the mean is over all tokens."""
    one, two = (
        AIMessageChunk(content="A", response_metadata=make_logprobs(value))
        for value in (-0.5, -1.0)
    )
    assert read_log_likelihood(one + two) == -0.75


@pytest.mark.parametrize(
    "chain",
    [
        make_model(-0.5, -0.25),
        make_model(-0.5, -0.25) | StrOutputParser() | (lambda text: {"answer": text.strip()}),
    ],
    ids=["the message", "a text in a dict"],
)
def test_the_guard_scores_with_what_the_chain_s_model_reports(chain: Runnable[Any, Any]) -> None:
    """An evaluator that was fitted to a chain's likelihoods gets the reported likelihood, sync and async."""
    guard = AspireGuard(chain, evaluator=OF_CHAIN)
    for verdict in guard.judge("Who?"), asyncio.run(guard.ajudge("Who?")):
        assert verdict.score is not None
        assert verdict.score.log_likelihood == -0.375


def test_every_evaluator_is_given_what_the_chain_s_model_reports() -> None:
    """An evaluator without a fingerprint gets the reported likelihood too."""
    evaluator = ConstantEvaluator(
        lambda exchange: -exchange.log_likelihood if exchange.log_likelihood else 0.0
    )
    chain = make_model(-0.5, -0.25) | StrOutputParser()
    assert AspireGuard(chain, evaluator=evaluator).judge("Who?").confidence == 0.375


def test_a_chain_s_likelihood_replaces_the_evaluator_s_own() -> None:
    """g = (1 − α)·log f_norm + α·log P(z_c) with the reported log f_norm, or the evaluator's own if it was fitted."""
    exchange = EXCHANGE.model_copy(update={"log_likelihood": -0.375})
    (of_chain,), (own,) = OF_CHAIN.score([exchange]), OWN.score([exchange])
    assert own == OWN.score([EXCHANGE])[0]
    assert own.log_likelihood is not None
    assert own.p_correct == of_chain.p_correct
    log_p = (own.selection_score - 0.75 * own.log_likelihood) / 0.25
    assert of_chain.selection_score == pytest.approx(selection_score(-0.375, log_p, 0.25), abs=1e-6)


@pytest.mark.parametrize(
    "chain",
    [
        make_model(),
        make_model(-0.5) | StrOutputParser() | RunnableLambda(lambda text: f"Bob, not {text}"),
    ],
    ids=["reports none", "of another text"],
)
def test_without_a_report_the_answer_is_not_released(chain: Runnable[Any, Any]) -> None:
    """Another likelihood would not be on the threshold's scale, so the verdict says what is missing."""
    guard = AspireGuard(chain, evaluator=OF_CHAIN)
    verdict = guard.judge("Who?")
    assert not verdict.released
    assert verdict.error is not None
    assert "have the model report log-probabilities" in verdict.error
    assert "Ada" not in str(guard.invoke("Who?"))


def test_an_evaluator_fitted_to_a_chain_does_not_answer_itself() -> None:
    """Neither its own answers nor a growing answer have a reported likelihood."""
    for call in (OF_CHAIN.answer, OF_CHAIN.score_incrementally):
        with pytest.raises(
            InputError, match="fitted to those that a chain's model reports of whole answers"
        ):
            call("Who?")


def test_the_observer_scores_with_what_the_chain_s_model_reports() -> None:
    """The observer scores with the reported likelihood, as the guard does."""
    seen: list[Observation] = []
    with AspireCallbackHandler(OF_CHAIN, on_score=seen.append) as handler:
        (make_model(-0.5, -0.25) | StrOutputParser()).invoke("Who?", {"callbacks": [handler]})
    assert [one.score.log_likelihood for one in seen if one.score] == [-0.375]
