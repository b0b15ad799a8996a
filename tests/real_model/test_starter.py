"""The starter evaluator, which ships with the package, on SmolLM2-135M and the handbook's test split."""

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
    """The evaluator of the chat model."""
    return SelfEvaluator.starter()


@pytest.fixture(scope="module")
def questions() -> list[QARecord]:
    """An answerable test question for each passage."""
    by_passage = {record.context: record for record in load_questions("test") if record.answerable}
    return list(by_passage.values())


def make_exchange(record: QARecord) -> Exchange:
    """Return a question with its first reference as the answer."""
    answer = record.references[0]
    return Exchange(question=record.question, context=record.context, answer=answer)


def test_it_ranks_right_answers_above_answers_to_other_questions(
    evaluator: SelfEvaluator, questions: list[QARecord]
) -> None:
    """A reference nearly always scores higher than another question's reference: AUROC is at least 0.9."""
    right = [make_exchange(record) for record in questions]
    wrong = []
    for exchange, other in zip(right, [*right[1:], right[0]], strict=True):
        wrong.append(exchange.model_copy(update={"answer": other.answer}))
    scores = [score.selection_score for score in evaluator.score(right + wrong)]
    assert auroc(scores, [True] * len(right) + [False] * len(wrong)) >= 0.9


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ("positions", "with its own tokenizer and settings, found its"),
        ("tokens", "with fingerprint [0-9a-f]{12}, found [0-9a-f]{12}; load the model"),
    ],
)
def test_its_base_model_with_other_settings_is_refused(
    evaluator: SelfEvaluator, other: str, found: str
) -> None:
    """The weights are the same, but the model's answers differ."""
    lm = evaluator.aspire.lm
    changed = replace(lm, model=copy.deepcopy(lm.model), tokenizer=copy.deepcopy(lm.tokenizer))
    if other == "positions":
        changed.model.model.rotary_emb.inv_freq *= 0.9
    else:
        changed.tokenizer.backend_tokenizer.normalizer = Replace("é", "e")
    with pytest.raises(BaseModelMismatchError, match=found):
        SelfEvaluator.from_pretrained(find_starter_folder(), lm=changed)


def test_scores_do_not_depend_on_the_batch(
    evaluator: SelfEvaluator, questions: list[QARecord]
) -> None:
    """An exchange scores the same alone and among others, to 1e-4."""
    exchanges = [make_exchange(record) for record in questions[:4]]
    together = [score.selection_score for score in evaluator.score(exchanges)]
    alone = [evaluator.score([exchange])[0].selection_score for exchange in exchanges]
    assert together == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("max_new_tokens", [2, 20])
def test_answering_and_scoring_in_one_pass_gives_the_score_of_the_finished_answer(
    evaluator: SelfEvaluator, questions: list[QARecord], max_new_tokens: int
) -> None:
    """Generation gives the same score as reading the answer again, even if generation cut the answer off."""
    record = questions[1]
    manifest = evaluator.manifest.model_copy(update={"max_new_tokens": max_new_tokens})
    answering = SelfEvaluator(evaluator.aspire, manifest, evaluator.calibration)
    answer, score = answering.answer(record.question, record.context)
    exchange = Exchange(question=record.question, context=record.context, answer=answer)
    (again,) = evaluator.score([exchange])
    whole_answer = evaluator.answer(record.question, record.context)[0]
    assert (answer == whole_answer) == (max_new_tokens == 20)
    assert score.log_likelihood == pytest.approx(again.log_likelihood, abs=1e-4)
    assert score.selection_score == pytest.approx(again.selection_score, abs=1e-4)
    assert score.p_correct == pytest.approx(again.p_correct, abs=1e-4)


def test_the_guard_works_alone(questions: list[QARecord]) -> None:
    """`AspireGuard(chain)` uses the starter for chains and its threshold, and withholds an unrelated answer."""
    record = questions[0]
    guard = AspireGuard(RunnableLambda(lambda _: "a purple giraffe"))
    inputs = {"question": record.question, "context": record.context}
    assert guard.invoke(inputs) == RoutingPolicy().abstention
    assert guard.judge(inputs).threshold == SelfEvaluator.for_chains().threshold


def test_the_chat_model_answers_in_the_trained_layout(
    evaluator: SelfEvaluator, questions: list[QARecord]
) -> None:
    """Prompt and model together give the evaluator's answer, with its score on the message."""
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
    """The card names the licences of the data, and the manifest the held-out results against both baselines."""
    manifest = read_manifest(find_starter_folder())
    assert set(manifest.metrics) == {"handbook:test", "squad_dev", "triviaqa_dev", "coqa_dev"}
    for metrics in manifest.metrics.values():
        assert set(metrics["scores"]) >= {"aspire", "perplexity", "p_true"}
    card = (find_starter_folder() / "README.md").read_text("utf-8")
    assert "CC BY-SA 4.0" in card
    assert "TriviaQA" in card
    assert sum(path.stat().st_size for path in find_starter_folder().rglob("*")) < 12_000_000
