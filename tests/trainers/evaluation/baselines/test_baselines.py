"""The five baselines on the same answers, samples and states, with what they cost."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from aspire_guard.lm.aspire_lm import Answer
from aspire_trainers.evaluation.baselines import (
    AnsweredBatch,
    Baseline,
    Perplexity,
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

FIVE: tuple[Baseline, ...] = Suite.paper(RougeEntailment(), samples=4).baselines


def _scores(baseline: Baseline, answered: AnsweredBatch) -> list[ScoreWithCost]:
    with torch.inference_mode():
        return baseline.scores(answered)


def _with_samples(answered: AnsweredBatch, probabilities: dict[str, float]) -> AnsweredBatch:
    """The first question alone, with samples of these likelihoods."""
    samples = [Answer(text, math.log(p), 2) for text, p in probabilities.items()]
    return AnsweredBatch(
        answered.prompting, answered.records[:1], answered.decoded, [samples], [2 * len(samples)]
    )


def test_perplexity_is_the_likelihood_of_the_answer_and_costs_nothing(
    answered: AnsweredBatch,
) -> None:
    """Its score is there once the answer is."""
    assert _scores(Perplexity(), answered) == [
        ScoreWithCost(value, 0) for value in answered.decoded.log_likelihoods
    ]


def test_predictive_entropy_is_the_mean_negative_log_likelihood_of_the_samples(
    answered: AnsweredBatch,
) -> None:
    """Samples of likelihood ½, ¼ and ⅛ have an entropy of 2 ln 2 nats; it costs the tokens of the samples."""
    known = _with_samples(answered, {"a": 0.5, "b": 0.25, "c": 0.125})
    ((score, tokens),) = _scores(PredictiveEntropy(), known)
    assert score == pytest.approx(-2 * math.log(2), abs=1e-12)
    assert tokens == 6


def test_semantic_entropy_is_that_of_the_clusters_masses(answered: AnsweredBatch) -> None:
    """Two samples of one meaning with ½ and ¼, and another with ¼: an entropy of ¾ and ¼."""
    known = _with_samples(answered, {"the Volga": 0.5, "The Volga.": 0.25, "Danube": 0.25})
    ((score, tokens),) = _scores(SemanticEntropy(), known)
    expected = 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    assert score == pytest.approx(expected, abs=1e-12)
    assert tokens == 6


def test_samples_of_one_meaning_have_no_semantic_entropy(answered: AnsweredBatch) -> None:
    """However unlikely each of them is, the model is sure of what it means."""
    known = _with_samples(answered, {"twelve boats": 0.01, "Twelve boats!": 0.02})
    ((score, _),) = _scores(SemanticEntropy(), known)
    assert score == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("baseline", [SelfEval(), PTrue()], ids=lambda baseline: baseline.name)
def test_verdicts_are_those_of_a_question_asked_after_the_answer(
    baseline: Baseline, answered: AnsweredBatch
) -> None:
    """log P(" true") against " false" of one full pass over prompt, answer and follow-up, and its tokens."""
    prompting, decoded = answered.prompting, answered.decoded
    lm = prompting.aspire.answering_lm
    words = [int(lm.token_ids(word)[0]) for word in (" true", " false")]
    for i, (record, text) in enumerate(zip(answered.records, decoded.texts, strict=True)):
        ideas = [sample.text for sample in answered.samples[i]]
        shown = ["Some ideas that were brainstormed:", *ideas] if baseline.draws else []
        asked = "\n".join(
            [*shown, f"Proposed answer: {text}", "Is the proposed answer true or false?"]
        )
        ids = prompting.follow_up(asked)
        with torch.inference_mode():
            again = prompting.decode([record], k=3, max_new_tokens=6)
            states, _ = lm.extend(
                again.states,
                lm.embed(ids)[None, None],
                torch.ones(1, 1, len(ids), dtype=torch.bool),
            )
            expected = lm.logits(states.hidden)[0, 0, words].log_softmax(-1)[0]
        score, tokens = _scores(baseline, answered)[i]
        assert score == pytest.approx(float(expected), abs=1e-4)
        assert tokens == len(ids) + (answered.sampled_tokens[i] if baseline.draws else 0)


def test_p_true_shows_as_many_samples_as_find_room(answered: AnsweredBatch) -> None:
    """The first ones: what would outgrow the model's window is left out, and its tokens are not counted as read."""
    beyond = "x" * answered.prompting.aspire.lm.max_length
    none, some, too_many = (
        _scores(PTrue(), replace(answered, samples=[[Answer(text, -1.0, 2) for text in texts]] * 4))
        for texts in ([], ["a", "b"], ["a", "b", beyond, "c"])
    )
    assert too_many == some != none


@pytest.mark.parametrize("baseline", FIVE, ids=lambda baseline: baseline.name)
def test_every_baseline_scores_every_answer(baseline: Baseline, answered: AnsweredBatch) -> None:
    """Finite scores, of log-probabilities and negated entropies at most 0, and the tokens that it says it takes."""
    for (score, tokens), drawn in zip(
        _scores(baseline, answered), answered.sampled_tokens, strict=True
    ):
        assert math.isfinite(score)
        assert score <= 0
        assert (tokens > drawn) if baseline.draws and baseline.forward_passes else True
        assert (tokens == drawn) if baseline.draws and not baseline.forward_passes else True
        assert (tokens == 0) == (not baseline.draws and not baseline.forward_passes)


def test_the_cost_of_samples_is_their_tokens(answered: AnsweredBatch) -> None:
    """Every token counts one, the end token included: a sample that was cut at six is asked about the end, too."""
    for samples, tokens in zip(answered.samples, answered.sampled_tokens, strict=True):
        assert len(samples) == 4
        assert tokens == sum(sample.tokens for sample in samples)
        assert all(1 <= sample.tokens <= 7 for sample in samples)


def test_without_samples_the_beams_serve_at_no_cost(
    prompting: Prompting, answered: AnsweredBatch, records: list[QARecord]
) -> None:
    """P(True) is shown the distinct beams, best first, of the same answers."""
    with torch.inference_mode():
        (cheap,) = Suite.cheap().answers(prompting, records, num_beams=3, max_new_tokens=6)
    assert cheap.decoded.texts == answered.decoded.texts
    assert list(cheap.sampled_tokens) == [0] * 4
    for samples, beams in zip(cheap.samples, cheap.decoded.beams, strict=True):
        assert [sample.text for sample in samples] == list(
            dict.fromkeys(beam.text for beam in beams)
        )


def test_samples_are_the_same_alone_and_in_a_batch(
    prompting: Prompting, answered: AnsweredBatch
) -> None:
    """They hang on the seed and the question's id alone."""
    with torch.inference_mode():
        (alone,) = Suite(samples=4).answers(
            prompting, answered.records[-1:], num_beams=3, max_new_tokens=6
        )
    i = list(answered.records).index(alone.records[0])
    assert [sample.text for sample in alone.samples[0]] == [
        sample.text for sample in answered.samples[i]
    ]
