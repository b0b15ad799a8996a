"""The reading of answers, against plain forward passes of the model over the same tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers.cache_utils import DynamicCache

from aspire_guard.lm.answer_reading import AnswerReading, read_answers
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.lm.incremental_scorer import IncrementalScorer
from aspire_guard.lm.prompt_reader import AnsweredPrompt
from aspire_guard.testing import Family, tiny_evaluator

CONTEXT = "Ada keeps the key. Bob has a copy."
ANSWERS = ["**Ada** keeps it [1]. Bob has a copy. Ask them.", "Bob.", ""]


@pytest.fixture(scope="module")
def plain(aspire: AspireLM) -> AspireLM:
    """The model as it reads answers sentence by sentence."""
    template = aspire.template.model_copy(update={"plain_answers": True})
    return replace(aspire, template=template)


def read_alone(aspire: AspireLM, context: str | None, ids: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities `(tokens + 1, vocabulary)` of what follows each token, by one plain pass."""
    reader = aspire.reader
    before = [reader.before, aspire.lm.embed(reader.context_ids(context))]
    question = reader.question_ids("Who?")
    inputs = torch.cat([*before, aspire.lm.embed(torch.cat([question, ids]))])
    with torch.inference_mode():
        hidden = aspire.answering_lm.model.base_model(inputs_embeds=inputs[None]).last_hidden_state
        log_p = aspire.lm.logits(hidden[0]).log_softmax(-1)
    return log_p[-len(ids) - 1 :]


def check_tokens(aspire: AspireLM, reading: AnswerReading, ids: torch.Tensor) -> None:
    """Compare the token-wise figures of a reading with plain passes."""
    with_context = read_alone(aspire, CONTEXT, ids)
    alone = read_alone(aspire, None, ids)
    context_ids = aspire.reader.context_ids(CONTEXT)
    rows = torch.arange(len(ids))
    chosen = with_context[rows, ids]
    lead = (chosen - with_context[:-1, context_ids].amax(-1)).clamp(max=0)
    parts = reading.sentences
    assert torch.cat([each.log_p for each in parts]).allclose(chosen, atol=1e-4)
    found_alone = torch.cat([each.log_p_alone for each in parts if each.log_p_alone is not None])
    assert found_alone.allclose(alone[rows, ids], atol=1e-4)
    found_lead = torch.cat([each.lead for each in parts if each.lead is not None])
    assert found_lead.allclose(lead, atol=1e-4)
    assert reading.end_log_p == pytest.approx(float(with_context[-1, aspire.lm.end_id]), abs=1e-4)


def test_tokens_are_read_as_in_plain_passes(plain: AspireLM) -> None:
    """With the context and without, alone and beside longer answers."""
    readings = read_answers(plain, [("Who?", CONTEXT, answer) for answer in ANSWERS])
    for reading, answer in zip(readings[:2], ANSWERS, strict=False):
        check_tokens(plain, reading, plain.answer_ids(answer))
    assert readings[2].sentences == ()


def test_the_values_are_those_of_a_plain_pass_over_the_question(plain: AspireLM) -> None:
    """They are the means over the answer's tokens in each layer, whatever the context and the batch."""
    reader = plain.reader
    readings = read_answers(plain, [("Who?", CONTEXT, answer) for answer in ANSWERS])
    readings += read_answers(plain, [("Who?", None, ANSWERS[0])])
    for reading, answer in zip(readings, (*ANSWERS, ANSWERS[0]), strict=True):
        ids = plain.answer_ids(answer)
        if not len(ids):
            assert reading.values == ()
            continue
        inputs = [reader.before, plain.lm.embed(torch.cat([reader.question_ids("Who?"), ids]))]
        with torch.inference_mode():
            output = plain.answering_lm.model.base_model(
                inputs_embeds=torch.cat(inputs)[None], past_key_values=DynamicCache()
            )
        assert len(reading.values) == len(output.past_key_values.layers)
        for values, layer in zip(reading.values, output.past_key_values.layers, strict=True):
            expected = layer.values[0, :, -len(ids) :].mean(1).flatten()
            assert values.allclose(expected, atol=1e-4)


def test_the_whole_answer_has_the_likelihood_and_the_verdict_of_score(plain: AspireLM) -> None:
    """A reading says about the whole answer what `score` says, also if it is empty."""
    exchanges: list[AnsweredPrompt] = [("Who?", CONTEXT, answer) for answer in ANSWERS]
    readings = read_answers(plain, exchanges)
    log_likelihoods, log_p_correct = plain.score(exchanges)
    found = [(reading.log_likelihood, reading.log_p_correct) for reading in readings]
    expected = zip(log_likelihoods.tolist(), log_p_correct.tolist(), strict=True)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_a_sentence_is_judged_as_if_the_answer_ended_there(family: Family) -> None:
    """θs sees nothing of the sentences after it, if its own text does not quote the answer."""
    evaluator = tiny_evaluator(family, self_eval="soft_prompt").with_plain_answers()
    rows: list[AnsweredPrompt] = [("Who?", CONTEXT, ANSWERS[0]), ("Who?", CONTEXT, "Ada keeps it.")]
    whole, first = read_answers(evaluator.aspire, rows)
    assert whole.sentences[0].log_p_correct == pytest.approx(first.log_p_correct, abs=1e-4)


def test_an_answer_without_a_context_is_compared_with_nothing(plain: AspireLM) -> None:
    """There is no second pass, and no lead."""
    (reading,) = read_answers(plain, [("Who?", None, ANSWERS[0])])
    assert [each.log_p_alone for each in reading.sentences] == [None] * 3
    assert [each.lead for each in reading.sentences] == [None] * 3


def test_offsets_point_at_the_tokens_of_the_text(plain: AspireLM) -> None:
    """The pieces at the offsets make up the text that was read."""
    (reading,) = read_answers(plain, [("Who?", CONTEXT, "Zoë’s key. It is correct.")])
    for each in reading.sentences:
        assert len(each.offsets) == len(each.log_p)
        assert each.offsets[-1][1] == len(each.text)
    assert reading.sentences[1].text == " It is correct."


def test_a_growing_answer_reads_as_a_finished_one(plain: AspireLM) -> None:
    """At every boundary all figures equal those of the answer so far."""
    scorer = IncrementalScorer(plain, "Who?", CONTEXT, compare=True)
    text = ""
    for part in ("**Ada", "** keeps it [1]. Bo", "b has a copy.", "", " Ask them."):
        text += part
        found = scorer.extend(part)
        (expected,) = read_answers(plain, [("Who?", CONTEXT, text)])
        assert found.log_likelihood == pytest.approx(expected.log_likelihood, abs=1e-4)
        assert found.text == expected.text
        for values, expected_values in zip(found.values, expected.values, strict=True):
            assert values.allclose(expected_values, atol=1e-4)
        for one, other in zip(found.sentences, expected.sentences, strict=True):
            assert one.log_p_correct == pytest.approx(other.log_p_correct, abs=1e-4)
            assert one.log_p_alone is not None
            assert other.log_p_alone is not None
            assert one.log_p_alone.allclose(other.log_p_alone, atol=1e-4)
            assert one.lead is not None
            assert other.lead is not None
            assert one.lead.allclose(other.lead, atol=1e-4)
