"""The training data of stage 3: labels, weights and distractors of sampled answers."""

from __future__ import annotations

from typing import Literal

import pytest

from aspire_trainers.config import SelfEvaluationConfig
from aspire_trainers.correctness import RougeL
from aspire_trainers.data.sampled_answers import SampledAnswers
from aspire_trainers.record import QARecord
from aspire_trainers.stages.labelling import LabelledAnswers, add_distractors, label_answers

CONFIG = SelfEvaluationConfig(batch_size=2, answers=3)


def _make_sampled(n: int = 6) -> list[SampledAnswers]:
    return [
        SampledAnswers(
            QARecord(f"{i}", f"Which {i}?", f"Passage {i // 2}.", ("Ada",) if i % 3 else ()),
            ("Bob", "ada", "Eve", f"No. {i}", ""),
            (-0.1, -0.2, -0.3, -0.4, -0.5),
        )
        for i in range(n)
    ]


def _label(
    seed: int = 0, answers: int = 3, weighting: Literal["balanced", "best_answer"] = "balanced"
) -> list[list[LabelledAnswers]]:
    config = CONFIG.model_copy(update={"answers": answers, "weighting": weighting})
    return label_answers(_make_sampled(), config, RougeL(0.9), seed=seed)


def test_a_refusal_is_the_right_answer_without_a_reference() -> None:
    """It is added once, only for questions without a reference, and only if references count."""
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
        split = []
        for row in rows:
            answers = list(zip(row.texts, row.is_right, strict=True))
            right = {text for text, is_right in answers if is_right}
            split.append((right, {text for text, is_right in answers if not is_right}))
        return split

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
    """It stays even if the reference comes before it, and if a step sees few of the right answers."""
    config = CONFIG.model_copy(update={"answers": 3, "weighting": "best_answer"})
    texts = ("ada", "Bob", "ADA!", "Ada.", "(Ada)", '"Ada"')
    for seed in range(5):
        sampled = [
            SampledAnswers(QARecord("0", "0?", references=("Ada",)), texts, (None,) * len(texts))
        ]
        ((item,),) = label_answers(sampled, config, RougeL(0.9), seed=seed)
        assert (item.texts, item.weights) == (("ada", "Bob", "Ada"), (1.0, 0.5, 0.5))


def test_weights_are_the_two_expectations() -> None:
    """1/|S_c| for right answers and 1/|S_w| for wrong ones, so each kind sums to one."""
    for item in (item for batch in _label(answers=5) for item in batch):
        right = sum(item.is_right)
        expected = [
            1 / right if label else 1 / (len(item.texts) - right) for label in item.is_right
        ]
        assert list(item.weights) == expected


def test_the_best_answer_may_weigh_as_much_as_all_others() -> None:
    """The label of that answer does not matter: here it is "Bob", the likeliest of a question's five or six answers."""
    for item in (item for batch in _label(answers=9, weighting="best_answer") for item in batch):
        others = 1 / (len(item.texts) - 1)
        assert list(item.weights) == [1.0 if text == "Bob" else others for text in item.texts]
        assert sum(item.weights) == pytest.approx(2.0)


def test_every_question_is_labelled_once_in_a_batch_of_its_context() -> None:
    """Batches have at most their size, and keep the questions of a context together."""
    batches = _label()
    assert sorted(item.question for batch in batches for item in batch) == [
        f"Which {i}?" for i in range(6)
    ]
    for batch in batches:
        assert len(batch) <= 2
        assert len({item.context for item in batch}) == 1


@pytest.mark.parametrize("answers", [2, 3, 10])
def test_right_and_wrong_answers_are_taken_in_turn(answers: int) -> None:
    """The number of answers is limited, the first of each kind is always there, and Rouge-L gives the labels."""
    for item in (item for batch in _label(answers=answers) for item in batch):
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
    """At most `n` follow the answers, without repetitions and without the question's answers and references."""
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
    """Equal seeds choose equal answers, and over several seeds every wrong answer is chosen."""
    assert _label(seed=3) == _label(seed=3)
    texts = {
        text
        for seed in range(20)
        for batch in _label(seed, 4)
        for item in batch
        for text in item.texts
    }
    assert {"Eve", "No. 1", "No. 2", "Bob"} <= texts
