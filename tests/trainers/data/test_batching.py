"""Batches and splits of records: contexts stay together, nothing is lost, seeds decide."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest

from aspire_guard.errors import InputError
from aspire_trainers.data.batching import (
    group_by_context,
    sample_records,
    split_by_context,
    split_by_tokens,
    split_into_folds,
)
from aspire_trainers.record import QARecord


def _make_records(*sizes: int, closed_book: int = 0) -> list[QARecord]:
    """Make a context with `size` questions for each size, interleaved, and questions without context."""
    together = [
        QARecord(f"{i}-{j}", f"question {i}-{j}?", f"context {i}", ("answer",))
        for j in range(max(sizes, default=0))
        for i, size in enumerate(sizes)
        if j < size
    ]
    return together + [
        QARecord(f"closed-{i}", "the same question?", None, ("answer",)) for i in range(closed_book)
    ]


RECORDS = _make_records(3, 1, 5, 2, 7, 4, closed_book=5)
SIZES = Counter(record.context for record in RECORDS)


def test_batches_are_parted_by_a_budget_of_tokens() -> None:
    """Neighbours stay together as long as they find room at the length of the longest."""
    lengths = [2, 3, 1, 9, 1, 5, 2]
    records = [QARecord(str(length), "?") for length in lengths]
    parts = list(split_by_tokens([records[:5], records[5:]], lambda record: int(record.id), 9))
    assert parts == [records[:3], records[3:4], records[4:5], records[5:6], records[6:]]


@pytest.mark.parametrize("size", [1, 4, 100])
def test_batches_hold_every_record_once(size: int) -> None:
    """No batch is empty or larger than its size."""
    batches = group_by_context(RECORDS, size, 0)
    batched_ids = [record.id for batch in batches for record in batch]
    assert sorted(batched_ids) == sorted(record.id for record in RECORDS)
    assert all(1 <= len(batch) <= size for batch in batches)


@pytest.mark.parametrize("size", [2, 7])
def test_questions_about_one_context_are_neighbours(size: int) -> None:
    """Within a batch a context is one run of records. A context that fits is not split."""
    for batch in group_by_context(RECORDS, size, 0):
        contexts = [record.context for record in batch if record.context]
        runs = [context for context, _ in groupby(contexts)]
        assert len(runs) == len(set(runs))
    fitting = {context for context, n in SIZES.items() if context and n <= size}
    batches_of_context: dict[str | None, set[int]] = {}
    for i, batch in enumerate(group_by_context(RECORDS, size, 0)):
        for record in batch:
            batches_of_context.setdefault(record.context, set()).add(i)
    assert all(len(batches_of_context[name]) == 1 for name in fitting)


def test_the_seed_decides_the_order() -> None:
    """Equal seeds give equal batches, others give others."""
    assert group_by_context(RECORDS, 4, 0) == group_by_context(RECORDS, 4, 0)
    assert group_by_context(RECORDS, 4, 0) != group_by_context(RECORDS, 4, 1)


def test_contexts_of_similar_length_share_a_batch() -> None:
    """No batch overlaps another in the lengths of its contexts. The batches themselves are in random order."""
    records = [QARecord(f"{i}", "Who?", "x" * (i * 7 % 40 + 1), ("answer",)) for i in range(40)]
    batches = group_by_context(records, 4, 0)
    spans = []
    for batch in batches:
        spans.append(sorted(len(record.context or "") for record in batch))
    assert sorted(spans) == [list(range(i + 1, i + 5)) for i in range(0, 40, 4)]
    assert spans != sorted(spans)


def test_no_records_give_no_batches() -> None:
    """Nothing in, nothing out."""
    assert group_by_context([], 4, 0) == []
    assert split_by_context([], 0.5, 0) == ([], [])


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_split_keeps_contexts_apart(share: float) -> None:
    """No context is on both sides, no record is lost, both sides keep their order."""
    records = _make_records(*[2] * 20)
    kept, aside = split_by_context(records, share, 0)
    assert not {record.context for record in kept} & {record.context for record in aside}
    assert len({record.context for record in aside}) == round(20 * share)
    for side in (kept, aside):
        assert side == [record for record in records if record in side]
    assert len(kept) + len(aside) == 40


def test_the_turns_of_a_conversation_are_one_context() -> None:
    """A turn's context holds the earlier answers: a split or folds that part them would give these away."""
    questions = ["\nQ: 0?", "\nQ: 1?", "\nQ: 2?"]
    turns = [f"Story {i}." + "".join(questions[:n]) for i in range(6) for n in range(4)]
    records = [QARecord(context, "Who?", context, ("answer",)) for context in reversed(turns)]
    kept, aside = split_by_context(records, 1 / 3, 0)
    assert len(aside) == 8
    for parts in ([kept, aside], split_into_folds(records, 3, 0), group_by_context(records, 4, 0)):
        parts_of_stories = set()
        for i, part in enumerate(parts):
            parts_of_stories |= {(i, (record.context or "")[:7]) for record in part}
        assert len(parts_of_stories) == 6


def test_closed_book_questions_are_split_one_by_one() -> None:
    """Without a context each question is on its own."""
    kept, aside = split_by_context(_make_records(closed_book=10), 0.3, 0)
    assert (len(kept), len(aside)) == (7, 3)


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_small_share_of_few_contexts_is_one(share: float) -> None:
    """One context must be held out to calibrate on, and one must be kept to learn from."""
    kept, aside = split_by_context(_make_records(2, 2), share, 0)
    assert (len(kept), len(aside)) == (2, 2)
    assert split_by_context(_make_records(2), share, 0) == (_make_records(2), [])


@pytest.mark.parametrize("seed", range(3))
def test_a_question_over_several_contexts_stays_on_one_side(seed: int) -> None:
    """All other questions about these contexts stay on that side too."""
    records = _make_records(2, 2, 2, 2)
    same = {"0-1": "q", "1-1": "q", "2-0": "p", "3-1": "p"}
    kept, aside = split_by_context(records, 0.5, seed, same)
    assert len(kept) == len(aside) == 4
    assert {record.id[0] for record in aside} in ({"0", "1"}, {"2", "3"})


def test_a_share_of_zero_sets_nothing_aside() -> None:
    """All records are kept."""
    assert split_by_context(RECORDS, 0.0, 0) == (RECORDS, [])


def test_a_sample_of_all_records_changes_nothing() -> None:
    """Without a limit, or with a limit that is not reached, the records are returned as they are."""
    assert sample_records(RECORDS, None, 0) == RECORDS
    assert sample_records(RECORDS, len(RECORDS), 0) == RECORDS


@pytest.mark.parametrize("limit", [1, 11])
def test_a_sample_holds_whole_contexts_by_chance(limit: int) -> None:
    """The sample has the wanted size and the order of the records, and at most one context is cut."""
    taken = sample_records(RECORDS, limit, 0)
    assert len(taken) == limit
    assert taken == [record for record in RECORDS if record in taken]
    assert sample_records(RECORDS, limit, 0) == taken
    samples = [sample_records(RECORDS, limit, seed) for seed in range(5)]
    assert any(sample != taken for sample in samples)

    counts = Counter(record.context for record in taken)
    cut = [context for context, n in counts.items() if context and n < SIZES[context]]
    assert len(cut) <= 1


def test_the_questions_of_a_passage_stay_in_one_fold() -> None:
    """Every record is in one fold, folds are of like size, and each keeps the order of the records."""
    records = _make_records(*[2] * 5)
    folds = split_into_folds(records, 3, seed=0)
    ids = [record.id for fold in folds for record in fold]
    assert sorted(ids) == sorted(record.id for record in records)
    contexts = []
    for fold in folds:
        assert fold == [record for record in records if record in fold]
        contexts.append({record.context for record in fold})
    assert [len(of_fold) for of_fold in contexts] == [2, 2, 1]
    assert len(set.union(*contexts)) == 5


def test_more_folds_than_passages_are_refused() -> None:
    """A fold without a passage would have nothing to answer."""
    with pytest.raises(
        InputError, match="expected 6 contexts or more for 6 folds, found 5; use fewer folds"
    ):
        split_into_folds(_make_records(*[2] * 5), 6, seed=0)
