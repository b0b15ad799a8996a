"""The attention that models run with on a processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from aspire_guard.lm.aspire_lm import AspireLM, _is_cheaper_apart
from aspire_guard.lm.attention import SHARED_HEADS, attend_with_shared_heads
from aspire_guard.testing import Family, tiny_evaluator, tiny_lm

ROWS = [
    ("Which yard built it?", "A passage about a ship. " * 8, "Harrow & Lund built it."),
    ("How wide is it?", "A passage about a ship. " * 8, "15 metres"),
    ("Who?", None, ""),
]


def attend_plainly(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention by its formula, with every key and value head written out for its queries."""
    groups = query.shape[1] // key.shape[1]
    keys = key.repeat_interleave(groups, dim=1)
    values = value.repeat_interleave(groups, dim=1)
    scores = query @ keys.transpose(2, 3) / query.shape[-1] ** 0.5 + bias
    output: Tensor = (scores.softmax(-1) @ values).transpose(1, 2)
    return output


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (4, 4), (4, 1)])
@pytest.mark.parametrize(("tokens", "slots"), [(1, 40), (7, 40), (40, 40)])
def test_shared_heads_attend_as_the_formula_says(
    heads: int, kv_heads: int, tokens: int, slots: int
) -> None:
    """With a mask that differs from row to row, for a single token, a few, and a whole prompt."""
    chance = torch.Generator().manual_seed(0)
    query = torch.randn(2, heads, tokens, 8, generator=chance)
    key, value = torch.randn(2, 2, kv_heads, slots, 8, generator=chance)
    seen = torch.rand(2, 1, tokens, slots, generator=chance) > 0.3
    seen[..., 0] = True
    bias = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    found, _ = attend_with_shared_heads(torch.nn.Module(), query, key, value, bias)
    assert torch.allclose(found, attend_plainly(query, key, value, bias), atol=1e-5)


def test_without_a_mask_tokens_see_those_before_them() -> None:
    """A prompt that is read from its start needs no mask of its own."""
    chance = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 9, 8, generator=chance)
    key, value = torch.randn(2, 1, 2, 9, 8, generator=chance)
    bias = torch.full((9, 9), torch.finfo(torch.float32).min).triu(1)
    found, _ = attend_with_shared_heads(torch.nn.Module(), query, key, value, None)
    assert torch.allclose(found, attend_plainly(query, key, value, bias), atol=1e-5)


def test_models_on_a_processor_share_heads_unless_their_attention_is_more_than_a_softmax(
    family: Family,
) -> None:
    """Gemma 2 bounds its attention scores, which the fused kernel can't do."""
    attention = tiny_lm(family).model.config._attn_implementation
    assert attention == ("eager" if family == "gemma" else SHARED_HEADS)


@pytest.mark.parametrize("self_eval", ["soft_prompt", "lora"])
def test_scores_are_those_of_eager_attention(family: Family, self_eval: Any) -> None:
    """The path is forced off: both give the same likelihood and the same judgement, to 1e-4."""
    aspire = tiny_evaluator(family, self_eval=self_eval).aspire
    shared = aspire.score(ROWS)
    for model in _list_models(aspire):
        model.set_attn_implementation("eager")
    for found, expected in zip(shared, aspire.score(ROWS), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("cheaper_apart", [True, False])
def test_verdicts_are_the_same_in_one_row_and_in_rows_of_their_own(
    family: Family, cheaper_apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the cost model says, each verdict is that of an answer scored alone."""
    aspire = tiny_evaluator(family).aspire
    answers = ["Harrow & Lund", "", "The yard at Strandvik, in 1998."]
    monkeypatch.setattr("aspire_guard.lm.aspire_lm._is_cheaper_apart", lambda *_: cheaper_apart)
    states = aspire.answer_branches([[("Which yard?", "A passage.", answer) for answer in answers]])
    logits = aspire.verdict_logits(states, [[("Which yard?", answer) for answer in answers]])
    for answer, found in zip(answers, logits.log_softmax(-1)[:, 0], strict=True):
        _, expected = aspire.score([("Which yard?", "A passage.", answer)])
        assert float(found) == pytest.approx(float(expected[0]), abs=1e-4)


def test_long_suffixes_after_short_prefixes_run_apart() -> None:
    """Copies pay if each branch has many tokens and few slots; a single token is never worth one."""
    lm = tiny_lm()
    states = lm.prefill([lm.embed(lm.token_ids("A passage."))]).fork(20)
    for tokens, is_apart in ((60, True), (1, False)):
        suffix = lm.embed(lm.token_ids("x" * tokens))
        assert _is_cheaper_apart(states, [[suffix] * 20], heads=4) is is_apart


def test_reading_after_branches_leads_where_extending_them_does(family: Family) -> None:
    """The state of each branch's last token is the same, bit for bit, and no longer states are kept."""
    lm = tiny_lm(family)
    states = lm.prefill([lm.embed(lm.token_ids("A passage."))] * 2).fork(2)
    suffix = lm.embed(lm.token_ids(" Is it right?"))
    parts = [[suffix, suffix[:3]], [suffix[:1]]]
    hidden = lm.read_after_branches(states, parts)
    assert torch.equal(hidden, lm.extend_branches(states, parts).hidden)


def _list_models(aspire: AspireLM) -> list[Any]:
    models = {id(aspire.lm.model): aspire.lm.model}
    for adapter in (aspire.task, aspire.self_eval):
        if adapter is not None:
            model = adapter.adapt(aspire.lm).model
            models[id(model)] = model
    return list(models.values())
