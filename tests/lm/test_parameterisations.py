"""θp and θs of every kind on every architecture: the same figures as plain passes of `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from aspire_guard.evaluators.evaluator_folder import load_aspire_lm, read_manifest, save_evaluator
from aspire_guard.evaluators.self_evaluator import SelfEvaluator
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.testing import Family, tiny_evaluator

CONTEXT = "The yard of Harrow & Lund\nbuilt MV Petrel."
EXCHANGES = [
    ("Which yard built MV Petrel?", CONTEXT, "Harrow & Lund"),
    ("Who?", None, "Ada"),
    ("What was built?", CONTEXT, ""),
    ("Which yard built MV Petrel?", CONTEXT, "some other yard"),
]

# Every kind once, where the kinds of θp and θs don't interact.
SOME_KINDS = [("soft_prompt", "soft_prompt"), ("lora", "lora"), ("none", "lora")]

pytestmark = pytest.mark.usefixtures("single_thread")


@pytest.fixture(params=["soft_prompt", "lora", "none"])
def task(request: pytest.FixtureRequest) -> Literal["soft_prompt", "lora", "none"]:
    method: Literal["soft_prompt", "lora", "none"] = request.param
    return method


@pytest.fixture(params=["soft_prompt", "lora"])
def self_eval(request: pytest.FixtureRequest) -> Literal["soft_prompt", "lora"]:
    method: Literal["soft_prompt", "lora"] = request.param
    return method


@pytest.fixture
def evaluator(
    family: Family,
    task: Literal["soft_prompt", "lora", "none"],
    self_eval: Literal["soft_prompt", "lora"],
) -> SelfEvaluator:
    return tiny_evaluator(family, task=task, self_eval=self_eval)


def _score_by_hand(
    aspire: AspireLM, question: str, context: str | None, answer: str
) -> tuple[Tensor, Tensor]:
    """Compute log f_norm by θp's model over `[θp ; x ; ŷ]`, and log P(z_c) by θs's model over θs on that cache."""
    assert aspire.self_eval is not None
    tokenizer, end = aspire.lm.tokenizer, torch.tensor([aspire.lm.tokenizer.eos_token_id])
    pieces = [f"Passage: {context}\n" if context else "", f"Question: {question}\nAnswer:"]
    prompt = tokenizer("").input_ids + [
        i for text in pieces for i in tokenizer(text, add_special_tokens=False).input_ids
    ]
    ids = tokenizer(f" {answer}", add_special_tokens=False).input_ids if answer else []
    before = aspire.task.vectors(aspire.lm) if aspire.task is not None else torch.zeros(0, 32)
    layout = torch.cat([before, aspire.lm.embed(torch.tensor(prompt + ids))])[None]
    output = aspire.answering_lm.model(inputs_embeds=layout, use_cache=True)
    log_p = output.logits[0, len(before) + len(prompt) - 1 :].log_softmax(-1)
    likelihood = log_p.gather(
        -1, torch.cat([torch.tensor(ids, dtype=torch.long), end])[:, None]
    ).mean()
    judging = aspire.self_eval.adapt(aspire.lm).model
    suffix = aspire.self_eval.vectors(aspire.lm, question, answer)[None]
    logits = judging(inputs_embeds=suffix, past_key_values=output.past_key_values).logits[0, -1]
    words = [
        tokenizer(word, add_special_tokens=False).input_ids[0] for word in (" correct", " wrong")
    ]
    return likelihood, logits[words].log_softmax(-1)[0]


@torch.no_grad()
def test_scores_match_plain_passes_alone_and_in_a_batch(evaluator: SelfEvaluator) -> None:
    """Questions with and without context, of different lengths, with an empty answer among them."""
    aspire = evaluator.aspire
    together = zip(*aspire.score(EXCHANGES), strict=True)
    for exchange, in_batch in zip(EXCHANGES, together, strict=True):
        expected = torch.stack(_score_by_hand(aspire, *exchange))
        alone = torch.cat(aspire.score([exchange]))
        torch.testing.assert_close(torch.stack(in_batch), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(alone, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("task", "self_eval"), SOME_KINDS)
@torch.no_grad()
def test_shared_states_judge_as_a_pass_each_does(evaluator: SelfEvaluator) -> None:
    """The questions of a passage share its states, and the answers of a question share the question's states."""
    aspire = evaluator.aspire
    rows = [[EXCHANGES[0], EXCHANGES[2], EXCHANGES[3]], [EXCHANGES[1]]]
    texts: list[list[tuple[str, str]]] = []
    for row in rows:
        texts.append([(question, answer) for question, _, answer in row])
    log_p = aspire.verdict_logits(aspire.answer_branches(rows), texts).log_softmax(-1)[:, 0]
    expected = aspire.score([EXCHANGES[i] for i in (0, 2, 3, 1)])[1]
    torch.testing.assert_close(log_p, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("task", "self_eval"), SOME_KINDS)
@torch.no_grad()
def test_the_turns_of_a_conversation_judge_as_a_pass_each_does(evaluator: SelfEvaluator) -> None:
    """They share the states of the last turn in any order. Other contexts in their row change nothing."""
    aspire, turns = evaluator.aspire, [CONTEXT]
    for question, answer in (("Who?", "Ada"), ("When?", "1911")):
        turns.append(f"{turns[-1]}\n\nQ: {question}\nA: {answer}")
    talk = [
        ("Where?", context, answer)
        for context in (*turns[::-1], "Another passage.")
        for answer in ("", "a yard")
    ]
    talk.append(("Which?", turns[1], "Petrel"))
    texts = [[(question, answer) for question, _, answer in talk]]
    log_p = aspire.verdict_logits(aspire.answer_branches([talk]), texts).log_softmax(-1)[:, 0]
    alone = torch.stack([torch.cat(aspire.score([exchange])) for exchange in talk], dim=1)
    together = torch.stack(aspire.score(talk))
    torch.testing.assert_close(log_p, alone[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["llama"])  # the adapters' own tests save them for each family
def test_an_evaluator_saved_and_loaded_gives_the_same_scores(
    evaluator: SelfEvaluator, tmp_path: Path
) -> None:
    """The scores are equal bit by bit, and the folder names the kinds of θp and θs."""
    aspire = evaluator.aspire
    save_evaluator(tmp_path / "evaluator", aspire, evaluator.manifest, evaluator.calibration)
    manifest = read_manifest(tmp_path / "evaluator")
    loaded = load_aspire_lm(tmp_path / "evaluator", manifest, aspire.lm)
    for found, expected in zip(loaded.score(EXCHANGES), aspire.score(EXCHANGES), strict=True):
        assert torch.equal(found, expected)
    assert manifest.methods.task == (aspire.task.method if aspire.task else "none")
    assert aspire.self_eval is not None
    assert manifest.methods.self_eval == aspire.self_eval.method


@pytest.mark.parametrize(("task", "self_eval"), SOME_KINDS)
@torch.no_grad()
def test_answers_and_likelihoods_don_t_depend_on_the_self_evaluation(
    evaluator: SelfEvaluator,
) -> None:
    """The beams are bit by bit those of a model without θs, which comes last and changes nothing before it."""
    aspire = evaluator.aspire
    without = AspireLM(aspire.lm, task=aspire.task)
    prompts = [(question, context) for question, context, _ in EXCHANGES]
    with_it, alone = (
        one.decode(one.prompt_states(prompts), k=3, max_new_tokens=6)[0]
        for one in (aspire, without)
    )
    assert with_it == alone


@pytest.mark.parametrize("family", ["llama", "gpt2"])  # GPT-2 has transposed projections
def test_another_precision_takes_the_same_adapters(evaluator: SelfEvaluator) -> None:
    """After bfloat16 and back every score is as it was. In bfloat16 it is close."""
    aspire = evaluator.aspire
    half = aspire.copy_onto(aspire.lm.to(torch.bfloat16))
    assert half.lm.embedding_weight.dtype == torch.bfloat16
    assert half.self_eval is not None
    assert all(
        value.dtype == torch.float32 for value in dict(half.self_eval.named_parameters()).values()
    )
    for before, within, after in zip(
        aspire.score(EXCHANGES),
        half.score(EXCHANGES),
        half.copy_onto(aspire.lm).score(EXCHANGES),
        strict=True,
    ):
        assert torch.equal(before, after)
        assert not torch.equal(before, within)
        assert torch.allclose(before, within, atol=0.6)
