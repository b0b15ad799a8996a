"""The starter evaluator on SmolLM2-135M: what ships, on the handbook's test split."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from langchain_core.runnables import RunnableLambda
from tokenizers.normalizers import Replace

from aspire_guard import AspireGuard, Exchange, RoutingPolicy, SelfEvaluator
from aspire_guard.errors import BaseModelMismatchError
from aspire_guard.evaluators.evaluator_folder import find_starter_folder, read_manifest
from aspire_guard.selection.metrics import auroc
from aspire_integrations import AspireChatModel
from aspire_trainers.data.handbook import load_questions
from aspire_trainers.record import QARecord


@pytest.fixture(scope="module")
def evaluator() -> SelfEvaluator:
    """The evaluator that `AspireGuard(chain)` takes by itself."""
    return SelfEvaluator.starter()


@pytest.fixture(scope="module")
def questions() -> list[QARecord]:
    """Answerable test questions, one a passage."""
    by_passage = {record.context: record for record in load_questions("test") if record.answerable}
    return list(by_passage.values())


def test_it_ranks_right_answers_above_those_of_other_questions(
    evaluator: SelfEvaluator, questions: list[QARecord]
) -> None:
    """A reference scores higher than another question's reference nearly always: AUROC at least 0.9."""
    right = [
        Exchange(question=q.question, context=q.context, answer=q.references[0]) for q in questions
    ]
    others = [*questions[1:], questions[0]]
    wrong = [
        e.model_copy(update={"answer": other.references[0]})
        for e, other in zip(right, others, strict=True)
    ]
    scores = [score.selection_score for score in evaluator.score(right + wrong)]
    assert auroc(scores, [True] * len(right) + [False] * len(wrong)) >= 0.9


@pytest.mark.parametrize("other", ["positions", "tokens"])
def test_its_base_model_with_other_settings_is_refused(
    evaluator: SelfEvaluator, other: str
) -> None:
    """The weights are the same, and so is their fingerprint; what the model says is not."""
    lm = evaluator.aspire.lm
    changed = replace(lm, model=copy.deepcopy(lm.model), tokenizer=copy.deepcopy(lm.tokenizer))
    if other == "positions":
        changed.model.model.rotary_emb.inv_freq *= 0.9
    else:
        changed.tokenizer.backend_tokenizer.normalizer = Replace("e", "E")
    with pytest.raises(
        BaseModelMismatchError, match="with its own tokenizer and settings, found its"
    ):
        SelfEvaluator.from_pretrained(find_starter_folder(), lm=changed)


def test_scores_do_not_depend_on_the_batch(
    evaluator: SelfEvaluator, questions: list[QARecord]
) -> None:
    """An exchange scores the same alone and among others, to 1e-4."""
    exchanges = [
        Exchange(question=q.question, context=q.context, answer=q.references[0])
        for q in questions[:4]
    ]
    together = [score.selection_score for score in evaluator.score(exchanges)]
    alone = [evaluator.score([exchange])[0].selection_score for exchange in exchanges]
    assert together == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("max_new_tokens", [2, 20])
def test_answering_and_scoring_in_one_pass_gives_the_score_of_the_finished_answer(
    evaluator: SelfEvaluator, questions: list[QARecord], max_new_tokens: int
) -> None:
    """White box and black box agree: generation scores as a fresh reading does, also where it cut the answer off."""
    record, manifest = (
        questions[1],
        evaluator.manifest.model_copy(update={"max_new_tokens": max_new_tokens}),
    )
    answering = SelfEvaluator(evaluator.aspire, manifest, evaluator.calibration)
    answer, score = answering.answer(record.question, record.context)
    again = evaluator.score(
        [Exchange(question=record.question, context=record.context, answer=answer)]
    )[0]
    assert (answer == evaluator.answer(record.question, record.context)[0]) == (
        max_new_tokens == 20
    )
    assert score.log_likelihood == pytest.approx(again.log_likelihood, abs=1e-4)
    assert score.selection_score == pytest.approx(again.selection_score, abs=1e-4)
    assert score.p_correct == pytest.approx(again.p_correct, abs=1e-4)


def test_the_guard_works_alone(questions: list[QARecord]) -> None:
    """`AspireGuard(chain)` takes the starter evaluator and its threshold, and withholds an answer out of the blue."""
    record = questions[0]
    guard = AspireGuard(RunnableLambda(lambda _: "a purple giraffe"))
    inputs = {"question": record.question, "context": record.context}
    assert guard.invoke(inputs) == RoutingPolicy().abstention
    assert guard.judge(inputs).threshold == SelfEvaluator.starter().threshold


def test_the_chat_model_answers_in_the_trained_layout(
    evaluator: SelfEvaluator, questions: list[QARecord]
) -> None:
    """Prompt and model together give what the evaluator answers, with its score on the message."""
    model = AspireChatModel(evaluator)
    record = questions[1]
    message = (model.prompt | model).invoke(
        {"question": record.question, "context": record.context}
    )
    answer, score = evaluator.answer(record.question, record.context)
    assert message.content == answer
    assert message.response_metadata["aspire_score"]["score"] == score.model_dump(mode="json")


def test_the_base_model_stays_frozen(evaluator: SelfEvaluator) -> None:
    """No weight of the base model asks for a gradient, and scoring leaves none behind."""
    weights = list(evaluator.aspire.lm.model.parameters())
    assert not any(weight.requires_grad for weight in weights)
    assert all(weight.dtype == torch.float32 for weight in weights)


def test_the_card_tells_provenance_and_metrics() -> None:
    """The card names the data with licences, and the held-out results against both baselines."""
    manifest = read_manifest(find_starter_folder())
    assert set(manifest.metrics) == {"handbook:test", "squad_dev", "triviaqa_dev", "coqa_dev"}
    assert all(
        set(m["scores"]) >= {"aspire", "perplexity", "p_true"} for m in manifest.metrics.values()
    )
    card = (find_starter_folder() / "README.md").read_text("utf-8")
    assert "CC BY-SA 4.0" in card
    assert "TriviaQA" in card
    assert sum(path.stat().st_size for path in find_starter_folder().rglob("*")) < 12_000_000
