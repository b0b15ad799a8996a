"""Stage 3: the objective by hand from full forward passes, and θs alone that moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from aspire_guard.lm.adapter import Adapter
from aspire_guard.lm.aspire_lm import AspireLM
from aspire_guard.testing import Family, tiny_evaluator
from aspire_trainers.config import SelfEvaluationConfig
from aspire_trainers.correctness import RougeL
from aspire_trainers.data.sampled_answers import SampledAnswers
from aspire_trainers.record import QARecord
from aspire_trainers.run.progress import Progress
from aspire_trainers.stages.adapter_trainer import make_adapter
from aspire_trainers.stages.labelling import LabelledAnswers, add_distractors, label_answers
from aspire_trainers.stages.self_evaluation import (
    StateCache,
    compute_answer_states,
    self_evaluation_loss,
    tune_self_evaluation,
)

CONFIG = SelfEvaluationConfig(
    method="soft_prompt",
    length=3,
    text="Right?",
    learning_rate=0.01,
    epochs=2,
    batch_size=2,
    answers=3,
    validate_every=2,
    checkpoint_every=1,
)
BATCH = [
    LabelledAnswers(
        "Who?", "A passage.", ("Ada", "Bob", "Eve"), (True, False, False), (1, 1 / 2, 1 / 2)
    ),
    LabelledAnswers("Who else?", "A passage.", ("nobody at all", "Bob"), (True, False), (1, 1)),
    LabelledAnswers("Where?", None, ("", "here"), (False, False), (0.5, 0.5)),
]


def _sampled(n: int = 6) -> list[SampledAnswers]:
    return [
        SampledAnswers(
            QARecord(f"{i}", f"Which {i}?", f"Passage {i // 2}.", ("Ada",) if i % 3 else ()),
            ("Bob", "ada", "Eve", f"No. {i}", ""),
            (-0.1, -0.2, -0.3, -0.4, -0.5),
        )
        for i in range(n)
    ]


def _labelled(
    seed: int = 0, answers: int = 3, weighting: Literal["balanced", "best_answer"] = "balanced"
) -> list[list[LabelledAnswers]]:
    config = CONFIG.model_copy(update={"answers": answers, "weighting": weighting})
    return label_answers(_sampled(), config, RougeL(0.9), seed=seed)


def test_a_refusal_is_the_right_answer_where_there_is_no_reference() -> None:
    """It is among the right answers there, once, and nowhere else; without references S_c holds sampled ones alone."""
    sampled = [
        SampledAnswers(QARecord("0", "0?"), ("Bob", "Eve"), (-0.1, -0.2)),
        SampledAnswers(QARecord("1", "1?"), ("no answer", "unanswerable"), (-0.1, -0.2)),
        SampledAnswers(
            QARecord("2", "2?", references=("Ada",)), ("unanswerable", "Bob"), (-0.1, -0.2)
        ),
    ]

    def right_and_wrong(
        refusal: str | None, references: bool = True
    ) -> list[tuple[set[str], set[str]]]:
        config = CONFIG.model_copy(update={"answers": 9, "references": references})
        batches = label_answers(sampled, config, RougeL(0.9), seed=0, refusal=refusal)
        rows = sorted((item for batch in batches for item in batch), key=lambda item: item.question)
        return [
            tuple(
                {t for t, r in zip(row.texts, row.is_right, strict=True) if r is kind}
                for kind in (True, False)
            )  # type: ignore[misc]
            for row in rows
        ]

    answerable = ({"Ada"}, {"unanswerable", "Bob"})
    declined: tuple[set[str], set[str]] = ({"no answer", "unanswerable"}, set())
    assert right_and_wrong("unanswerable") == [
        ({"unanswerable"}, {"Bob", "Eve"}),
        declined,
        answerable,
    ]
    assert right_and_wrong(None) == [(set(), {"Bob", "Eve"}), declined, answerable]
    assert right_and_wrong("unanswerable", references=False)[0] == (set(), {"Bob", "Eve"})


def test_the_answer_that_weighs_most_is_never_left_out() -> None:
    """Not where the reference stands before it, nor where a step sees few of the right answers."""
    config = CONFIG.model_copy(update={"answers": 3, "weighting": "best_answer"})
    texts = ("ada", "Bob", "ADA!", "Ada.", "(Ada)", '"Ada"')
    for seed in range(5):
        sampled = [
            SampledAnswers(QARecord("0", "0?", references=("Ada",)), texts, (None,) * len(texts))
        ]
        ((item,),) = label_answers(sampled, config, RougeL(0.9), seed=seed)
        assert (item.texts, item.weights) == (("ada", "Bob", "Ada"), (1.0, 0.5, 0.5))


def _tune(aspire: AspireLM, folder: Path, **changes: Any) -> Adapter:
    folder.mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "train": _labelled(),
        "validation": [],
        "config": CONFIG,
        "seed": 0,
    } | changes
    return tune_self_evaluation(
        replace(aspire, self_eval=None),
        checkpoint=folder / "self_eval.safetensors",
        progress=Progress("test"),
        **values,
    )


def _log_p(aspire: AspireLM, question: str, context: str | None, answer: str) -> Tensor:
    """log P(z_c) and log P(z_w) by one full forward pass over `[θp ; x ; ŷ ; θs]`."""
    assert aspire.task is not None
    assert aspire.self_eval is not None
    tokenizer = aspire.lm.tokenizer
    ids = tokenizer("").input_ids
    passage = f"Passage: {context}\n" if context else ""
    for piece in (passage, f"Question: {question}\nAnswer:", f" {answer}" if answer else ""):
        ids = ids + tokenizer(piece, add_special_tokens=False).input_ids
    layout = [
        aspire.task.vectors(aspire.lm),
        aspire.lm.embed(torch.tensor(ids)),
        aspire.self_eval.vectors(aspire.lm),
    ]
    words = [
        tokenizer(word, add_special_tokens=False).input_ids[0] for word in (" correct", " wrong")
    ]
    logits: Tensor = aspire.lm.model(inputs_embeds=torch.cat(layout)[None]).logits[0, -1, words]
    return logits.log_softmax(-1)


def _values(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}


def _loss(aspire: AspireLM, batch: list[LabelledAnswers], token_budget: int = 10_000) -> Tensor:
    return torch.stack(
        list(
            self_evaluation_loss(aspire, batch, compute_answer_states(aspire, batch), token_budget)
        )
    ).sum()


def _by_hand(aspire: AspireLM, batch: list[LabelledAnswers]) -> Tensor:
    """Mean over questions of: the mean of −log P(z_c) over S_c plus the mean of −log P(z_w) over S_w."""
    total = torch.zeros(())
    for item in batch:
        for label in (True, False):
            texts = [
                text
                for text, right in zip(item.texts, item.is_right, strict=True)
                if right is label
            ]
            losses = [
                -_log_p(aspire, item.question, item.context, text)[0 if label else 1]
                for text in texts
            ]
            total = total + (torch.stack(losses).mean() if losses else 0.0)
    return total / len(batch)


def test_the_loss_is_the_objective_of_the_paper(family: Family) -> None:
    """Questions with different numbers of right and wrong answers, one without right ones, in one batch."""
    aspire = tiny_evaluator(family).aspire
    with torch.no_grad():
        torch.testing.assert_close(_loss(aspire, BATCH), _by_hand(aspire, BATCH), atol=1e-4, rtol=0)


@pytest.mark.parametrize("answer", ["", " "])
def test_a_batch_of_blank_answers_is_learned_from(answer: str) -> None:
    """As of a chain that says nothing where it does not know, in a last batch of one question."""
    aspire = tiny_evaluator().aspire
    batch = [LabelledAnswers("Who?", "A passage.", (answer,), (True,), (1.0,))]
    with torch.no_grad():
        torch.testing.assert_close(
            _loss(aspire, batch), _by_hand(aspire, batch[:1]), atol=1e-4, rtol=0
        )


def test_the_gradient_is_that_of_full_forward_passes(family: Family) -> None:
    """The states before θs need no gradient: θs gets the same one."""
    aspire = tiny_evaluator(family).aspire
    assert aspire.self_eval is not None
    ((_, weight),) = aspire.self_eval.requires_grad_(True).named_parameters()
    (found,) = torch.autograd.grad(_loss(aspire, BATCH), [weight])
    (expected,) = torch.autograd.grad(_by_hand(aspire, BATCH), [weight])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("token_budget", [1, 90, 10_000])
def test_a_token_budget_parts_the_loss_and_keeps_its_value(token_budget: int) -> None:
    """A part holds answers of several questions and passages, as many as the longest allows, or a single one."""
    aspire = tiny_evaluator().aspire
    states = compute_answer_states(aspire, BATCH)
    with torch.no_grad():
        parts = list(self_evaluation_loss(aspire, BATCH, states, token_budget))
    answers_a_part = max(1, token_budget // int(states.lengths.max()))
    assert len(parts) == -(-7 // answers_a_part)
    torch.testing.assert_close(torch.stack(parts).sum(), _by_hand(aspire, BATCH), atol=1e-4, rtol=0)


@pytest.mark.parametrize("task", ["soft_prompt", "lora", "none"])
@pytest.mark.parametrize("method", ["soft_prompt", "lora"])
def test_only_the_self_evaluation_moves(
    family: Family, task: Any, method: Any, tmp_path: Path
) -> None:
    """Every matrix of θs changes; θp and the base model stay as they are and get no gradient."""
    aspire = replace(tiny_evaluator(family, task=task).aspire, self_eval=None)
    config = CONFIG.model_copy(update={"method": method})
    # Even a θp that could be trained is left alone.
    frozen = (
        dict(aspire.task.requires_grad_(True).named_parameters()) if aspire.task is not None else {}
    )
    before = _values(frozen | aspire.lm.model.state_dict())
    moved = dict(_tune(aspire, tmp_path / "run", config=config).named_parameters())
    start = dict(make_adapter(aspire.lm, config, seed=0).named_parameters())
    assert all(not torch.equal(moved[name], start[name]) for name in start)
    assert all(
        torch.equal(value, before[name])
        for name, value in (frozen | aspire.lm.model.state_dict()).items()
    )
    assert all(weight.grad is None for weight in (*frozen.values(), *aspire.lm.model.parameters()))


def test_training_lowers_the_loss(family: Family, tmp_path: Path) -> None:
    """θs learns to tell the right answers of its own batches from the wrong ones."""
    aspire = tiny_evaluator(family).aspire
    batches = [BATCH]
    config = CONFIG.model_copy(update={"epochs": 15})
    self_eval = _tune(aspire, tmp_path / "run", train=batches, config=config)
    start = make_adapter(aspire.lm, CONFIG, seed=0)
    with torch.no_grad():
        before, after = (
            float(_loss(replace(aspire, self_eval=prompt), BATCH)) for prompt in (start, self_eval)
        )
    assert after < before - 0.1


def test_equal_seeds_give_equal_weights_and_others_don_t(tmp_path: Path) -> None:
    """Bit by bit."""
    aspire = tiny_evaluator().aspire
    one, two, other = (
        _tune(aspire, tmp_path / name, seed=s) for name, s in (("a", 0), ("b", 0), ("c", 1))
    )
    (a, b, c) = (next(iter(adapter.named_parameters()))[1] for adapter in (one, two, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_validation_keeps_the_best_weights(tmp_path: Path) -> None:
    """A rate at which θs only gets worse on the held-out batches leaves an earlier θs in place."""
    aspire = tiny_evaluator().aspire
    opposite = [
        [replace(item, is_right=tuple(not right for right in item.is_right)) for item in BATCH[:2]]
    ]
    config = CONFIG.model_copy(update={"epochs": 8, "validate_every": 1, "learning_rate": 0.05})
    kept = _tune(aspire, tmp_path / "kept", train=[BATCH[:2]], validation=opposite, config=config)
    last = _tune(aspire, tmp_path / "last", train=[BATCH[:2]], config=config)
    with torch.no_grad():
        kept_loss, last_loss = (
            float(_loss(replace(aspire, self_eval=prompt), opposite[0])) for prompt in (kept, last)
        )
    assert kept_loss < last_loss


def test_weights_are_the_two_expectations() -> None:
    """1/|S_c| for right answers and 1/|S_w| for wrong ones, so each kind sums to one."""
    for item in (item for batch in _labelled(answers=5) for item in batch):
        right = sum(item.is_right)
        expected = [
            1 / right if label else 1 / (len(item.texts) - right) for label in item.is_right
        ]
        assert list(item.weights) == expected


def test_the_best_answer_may_weigh_as_much_as_all_others() -> None:
    """Whatever is right: "Bob" is the likeliest of each question's five or, with its reference, six answers."""
    for item in (item for batch in _labelled(answers=9, weighting="best_answer") for item in batch):
        others = 1 / (len(item.texts) - 1)
        assert list(item.weights) == [1.0 if text == "Bob" else others for text in item.texts]
        assert sum(item.weights) == pytest.approx(2.0)


def test_every_question_is_labelled_once_and_beside_its_context() -> None:
    """Batches of at most the size, the questions of a context together."""
    batches = _labelled()
    assert sorted(item.question for batch in batches for item in batch) == [
        f"Which {i}?" for i in range(6)
    ]
    assert all(len(batch) <= 2 for batch in batches)
    assert all(len({item.context for item in batch}) == 1 for batch in batches)


@pytest.mark.parametrize("answers", [2, 3, 4, 10])
def test_right_and_wrong_answers_are_taken_in_turn(answers: int) -> None:
    """At most so many; the first of each kind always; the labels are those of Rouge-L."""
    for item in (item for batch in _labelled(answers=answers) for item in batch):
        answerable = int(item.question[6]) % 3 > 0
        right = ["Ada", "ada"] if answerable else [""]
        wrong = ["Bob", "Eve", f"No. {item.question[6]}", *([""] if answerable else ["ada"])]
        assert len(item.texts) == min(answers, len(right) + len(wrong))
        assert (item.texts[0], item.texts[1]) == (right[0], wrong[0])
        expected = [True, False, True, False] if answerable else [True, False, False, False]
        assert list(item.is_right[:4]) == expected[: len(item.texts)]
        assert all(
            (text in right) is label for text, label in zip(item.texts, item.is_right, strict=True)
        )
        assert len(set(item.texts)) == len(item.texts)


def test_distractors_are_references_of_the_passage_s_other_questions() -> None:
    """So many at most, behind the answers, none twice and none that is an answer or a reference of the question."""
    records = [
        QARecord(f"{i}", f"{i}?", "A passage.", (text, "alias"))
        for i, text in enumerate(["a", "b", "c", "d", "b"])
    ]
    records += [QARecord("5", "5?", "Another passage.", ("z",)), QARecord("6", "6?", None, ("y",))]
    records += [QARecord("7", "7?", "A passage."), QARecord("8", "8?", None, ("x",))]
    sampled = [SampledAnswers(record, ("c", "e"), (-0.1, -0.2)) for record in records]

    def added(n: int, seed: int = 0) -> list[set[str]]:
        extended = add_distractors(sampled, n, seed=seed)
        assert [answers.record for answers in extended] == records
        assert all(
            (answers.texts[:2], answers.log_likelihoods[:2]) == (("c", "e"), (-0.1, -0.2))
            for answers in extended
        )
        assert all(
            len(set(answers.texts)) == len(answers.log_likelihoods) == len(answers.texts)
            for answers in extended
        )
        return [set(answers.texts[2:]) for answers in extended]

    assert added(9) == [
        {"b", "d"},
        {"a", "d"},
        {"a", "b", "d"},
        {"a", "b"},
        {"a", "d"},
        set(),
        set(),
        {"a", "b", "d"},
        set(),
    ]
    assert added(0) == [set()] * 9
    one = added(1)
    assert [len(texts) for texts in one] == [1, 1, 1, 1, 1, 0, 0, 1, 0]
    assert added(1) == one
    assert any(added(1, seed) != one for seed in range(1, 9))


def test_the_seed_decides_which_answers_are_taken() -> None:
    """Equal seeds take equal answers; over some seeds every wrong one gets its turn."""
    assert _labelled(seed=3) == _labelled(seed=3)
    texts = {
        text
        for seed in range(20)
        for batch in _labelled(seed, 4)
        for item in batch
        for text in item.texts
    }
    assert {"Eve", "No. 1", "No. 2", "Bob"} <= texts


def test_kept_states_give_the_same_weights_as_computed_ones(tmp_path: Path) -> None:
    """Bit by bit, whether all states find room, some or none."""
    aspire = tiny_evaluator().aspire
    runs = [
        dict(
            _tune(
                aspire, tmp_path / f"{gib}", config=CONFIG.model_copy(update={"states_gib": gib})
            ).named_parameters()
        )
        for gib in (0.0, 40_000 / 2**30, 1.0)
    ]
    assert all(torch.equal(runs[0][name], run[name]) for run in runs[1:] for name in run)


def test_states_are_kept_within_the_budget() -> None:
    """The first batches that fit stay; the others are computed at every call."""
    aspire = tiny_evaluator().aspire
    first, second = BATCH[:2], BATCH[2:]
    size = sum(
        tensor.nbytes for layer in compute_answer_states(aspire, first).layers for tensor in layer
    )
    states = StateCache(aspire, size / 2**30)
    assert states.of(first) is states.of(first)
    assert states.of(second) is not states.of(second)
