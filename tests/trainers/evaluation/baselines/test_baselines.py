"""The five baselines on the same answers, samples and states, and what they cost."""

from __future__ import annotations

import math
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch

from aspire_guard.lm.aspire_lm import Answer
from aspire_trainers.evaluation.baselines import (
    AnsweredBatch,
    Baseline,
    PredictiveEntropy,
    PTrue,
    ScoreWithCost,
    SelfEval,
    SemanticEntropy,
    Suite,
)
from aspire_trainers.evaluation.baselines.entailment import RougeEntailment
from aspire_trainers.evaluation.prompting import Prompting
from aspire_trainers.record import QARecord

FIVE = Suite.paper(RougeEntailment(), samples=4).baselines


def _score(baseline: Baseline, answered: AnsweredBatch) -> list[ScoreWithCost]:
    with torch.inference_mode():
        return baseline.score(answered)


def _answer_with_samples(probabilities: dict[str, float]) -> AnsweredBatch:
    """Return a question with samples of these likelihoods and of two tokens each."""
    samples = [Answer(text, math.log(p), 2) for text, p in probabilities.items()]
    return AnsweredBatch(Mock(), [QARecord("0", "Which?")], Mock(), [samples], [2 * len(samples)])


def test_predictive_entropy_is_the_mean_negative_log_likelihood_of_the_samples() -> None:
    """Samples of likelihood ½, ¼ and ⅛ have an entropy of 2 ln 2 nats, which costs the tokens of the samples."""
    known = _answer_with_samples({"a": 0.5, "b": 0.25, "c": 0.125})
    ((score, tokens),) = _score(PredictiveEntropy(), known)
    assert score == pytest.approx(-2 * math.log(2), abs=1e-12)
    assert tokens == 6


def test_semantic_entropy_is_computed_on_the_masses_of_clusters() -> None:
    """If two samples of ½ and ¼ share a meaning, and another has ¼, the entropy is the one of ¾ and ¼."""
    known = _answer_with_samples({"the Volga": 0.5, "The Volga.": 0.25, "Danube": 0.25})
    ((score, tokens),) = _score(SemanticEntropy(), known)
    expected = 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    assert score == pytest.approx(expected, abs=1e-12)
    assert tokens == 6


def test_samples_of_one_meaning_have_no_semantic_entropy() -> None:
    """The model is sure of its meaning, however unlikely each sample is."""
    known = _answer_with_samples({"twelve boats": 0.01, "Twelve boats!": 0.02})
    ((score, _),) = _score(SemanticEntropy(), known)
    assert score == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("baseline", [SelfEval(), PTrue()], ids=lambda baseline: baseline.name)
def test_verdicts_match_a_question_asked_after_the_answer(
    baseline: Baseline, answered: AnsweredBatch
) -> None:
    """A full pass over prompt, answer and follow-up gives the same log P(" true") against " false", and the tokens."""
    prompting, decoded = answered.prompting, answered.decoded
    lm = prompting.aspire.answering_lm
    words = [int(lm.token_ids(word)[0]) for word in (" true", " false")]
    scores = _score(baseline, answered)
    for row, (record, text) in enumerate(zip(answered.records, decoded.texts, strict=True)):
        ideas = [sample.text for sample in answered.samples[row]]
        shown = ["Some ideas that were brainstormed:", *ideas] if baseline.draws else []
        question = "Is the proposed answer true or false?"
        ids = prompting.encode_follow_up("\n".join([*shown, f"Proposed answer: {text}", question]))
        with torch.inference_mode():
            again = prompting.decode([record], k=3, max_new_tokens=6)
            mask = torch.ones(1, 1, len(ids), dtype=torch.bool)
            states, _ = lm.extend(again.states, lm.embed(ids)[None, None], mask)
            expected = lm.logits(states.hidden)[0, 0, words].log_softmax(-1)[0]
        score, tokens = scores[row]
        assert score == pytest.approx(float(expected), abs=1e-4)
        assert tokens == len(ids) + (answered.sampled_tokens[row] if baseline.draws else 0)


def test_p_true_shows_as_many_samples_as_fit(answered: AnsweredBatch) -> None:
    """The samples that would outgrow the model's window are left out, and their tokens are not counted as read."""
    beyond = "x" * answered.prompting.aspire.lm.max_length

    def show(*texts: str) -> list[ScoreWithCost]:
        samples = [Answer(text, -1.0, 2) for text in texts]
        return _score(PTrue(), replace(answered, samples=[samples] * 4))

    assert show("a", "b", beyond, "c") == show("a", "b") != show()


def test_every_baseline_scores_every_answer(answered: AnsweredBatch) -> None:
    """Scores are finite log-probabilities or negated entropies, and cost their samples and their forward passes."""
    for baseline in FIVE:
        scores = _score(baseline, answered)
        for (score, tokens), sampled in zip(scores, answered.sampled_tokens, strict=True):
            assert math.isfinite(score)
            assert score <= 0
            sampled_for_it = sampled if baseline.draws else 0
            if baseline.forward_passes:
                assert tokens > sampled_for_it
            else:
                assert tokens == sampled_for_it


def test_the_cost_of_samples_is_their_tokens(answered: AnsweredBatch) -> None:
    """Every token counts as one, including the end token that a sample cut at six tokens is asked about."""
    for samples, tokens in zip(answered.samples, answered.sampled_tokens, strict=True):
        assert len(samples) == 4
        assert tokens == sum(sample.tokens for sample in samples)
        assert all(1 <= sample.tokens <= 7 for sample in samples)


def test_without_samples_the_beams_serve_at_no_cost(
    prompting: Prompting, answered: AnsweredBatch, records: list[QARecord]
) -> None:
    """P(True) is shown the distinct beams of the same answers, best first."""
    with torch.inference_mode():
        (cheap,) = Suite.cheap().answer_in_batches(
            prompting, records, num_beams=3, max_new_tokens=6
        )
    assert cheap.decoded.texts == answered.decoded.texts
    assert list(cheap.sampled_tokens) == [0] * 4
    for samples, beams in zip(cheap.samples, cheap.decoded.beams, strict=True):
        distinct = dict.fromkeys(beam.text for beam in beams)
        assert [sample.text for sample in samples] == list(distinct)


def test_samples_are_the_same_alone_and_in_a_batch(
    prompting: Prompting, answered: AnsweredBatch
) -> None:
    """They depend on the seed and the question's id alone."""
    with torch.inference_mode():
        (alone,) = Suite(samples=4).answer_in_batches(
            prompting, answered.records[-1:], num_beams=3, max_new_tokens=6
        )
    row = list(answered.records).index(alone.records[0])
    assert [sample.text for sample in alone.samples[0]] == [
        sample.text for sample in answered.samples[row]
    ]
