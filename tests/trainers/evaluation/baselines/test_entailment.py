"""Entailment between answers, and the clusters of answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from aspire_guard.errors import BaseModelError, InputError
from aspire_guard.testing import tiny_lm
from aspire_trainers.evaluation.baselines.entailment import RougeEntailment
from aspire_trainers.evaluation.baselines.nli import NliEntailment
from aspire_trainers.evaluation.baselines.semantic_entropy import cluster_answers


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["the Volga", "The Volga!", "Danube", "the Volga"], [0, 0, 1, 0]),
        (["한강", "한강", "낙동강 하구", "낙동강  하구."], [0, 0, 1, 1]),
        (["长江", "黄河", "长江。"], [0, 1, 0]),
        (["نهر النيل", "نهر النيل.", "دجلة"], [0, 0, 1]),
        (["", "", "+", "+", "a"], [0, 0, 1, 1, 2]),
    ],
    ids=["English", "Korean", "Chinese", "Arabic", "without words"],
)
def test_answers_that_say_the_same_are_one_cluster(answers: list[str], expected: list[int]) -> None:
    """Case and punctuation make no difference, in any script."""
    assert cluster_answers("Which?", answers, RougeEntailment()) == expected


def test_a_longer_answer_entails_a_shorter_one_and_not_the_other_way_round() -> None:
    """Entailment has a direction, so an answer that adds something is another meaning."""
    pairs = [("on the 3rd of May 1903", "1903"), ("1903", "on the 3rd of May 1903")]
    assert RougeEntailment().entails("When?", pairs) == [True, False]
    assert cluster_answers("When?", ["1903", "on the 3rd of May 1903"], RougeEntailment()) == [0, 1]


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_a_threshold_that_is_not_a_share_is_refused(threshold: float) -> None:
    """The error names the value."""
    with pytest.raises(InputError, match=f"expected 0 < threshold ≤ 1, found {threshold}"):
        RougeEntailment(threshold)


def _save_nli(folder: Path, labels: dict[int, str]) -> None:
    tokenizer = tiny_lm().tokenizer
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        pad_token_id=tokenizer.pad_token_id,
        id2label=labels,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_an_nli_model_is_asked_about_both_answers_after_the_question(tmp_path: Path) -> None:
    """Each pair gets the label that it gets alone. Exactly one label means entailment."""
    pairs = [
        ("Ada", "Ada Lovelace"),
        ("Ada Lovelace", "Ada"),
        ("nobody", "a very long answer of many words"),
    ]
    verdicts = []
    for i in range(3):
        labels = {j: "ENTAILMENT" if j == i else f"other {j}" for j in range(3)}
        _save_nli(tmp_path / str(i), labels)
        nli = NliEntailment(str(tmp_path / str(i)))
        verdicts.append(nli.entails("Who?", pairs))
        assert verdicts[-1] == [nli.entails("Who?", [pair])[0] for pair in pairs]
        assert nli.entails("Who?", []) == []
    assert [sum(column) for column in zip(*verdicts, strict=True)] == [1, 1, 1]


def test_a_model_that_is_not_an_nli_model_is_refused(tmp_path: Path) -> None:
    """A model without the label is refused, and so is a folder without a model."""
    _save_nli(tmp_path, {0: "positive", 1: "negative"})
    with pytest.raises(BaseModelError, match='the label "entailment", found positive, negative'):
        NliEntailment(str(tmp_path))
    with pytest.raises(BaseModelError, match="expected an NLI model"):
        NliEntailment(str(tmp_path / "nothing"))
