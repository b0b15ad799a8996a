"""Batches and splits of records: contexts stay together, nothing is lost, seeds decide."""

from __future__ import annotations

from itertools import groupby

import pytest

from aspire_trainers.data.batching import (
    folds_by_context,
    group_by_context,
    split_by_context,
    split_by_tokens,
    take,
)
from aspire_trainers.record import QARecord


def _records(*sizes: int, closed_book: int = 0) -> list[QARecord]:
    """For each size a context with so many questions, interleaved; and questions without context."""
    together = [
        QARecord(f"{i}-{j}", f"question {i}-{j}?", f"context {i}", ("answer",))
        for j in range(max(sizes, default=0))
        for i, size in enumerate(sizes)
        if j < size
    ]
    return together + [
        QARecord(f"closed-{i}", "the same question?", None, ("answer",)) for i in range(closed_book)
    ]


RECORDS = _records(3, 1, 5, 2, 7, 4, closed_book=5)


def test_batches_are_parted_by_a_budget_of_tokens() -> None:
    """Neighbours stay together as long as they find room at the length of the longest."""
    lengths = [2, 3, 1, 9, 1, 5, 2]
    records = [QARecord(str(length), "?") for length in lengths]
    parts = split_by_tokens([records[:5], records[5:]], lambda record: int(record.id), 9)
    assert [[int(record.id) for record in part] for part in parts] == [
        [2, 3, 1],
        [9],
        [1],
        [5],
        [2],
    ]


@pytest.mark.parametrize("size", [1, 2, 4, 7, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_batches_hold_every_record_once(size: int, seed: int) -> None:
    """No batch is empty or larger than its size."""
    batches = group_by_context(RECORDS, size, seed)
    assert sorted(record.id for batch in batches for record in batch) == sorted(
        record.id for record in RECORDS
    )
    assert all(1 <= len(batch) <= size for batch in batches)


@pytest.mark.parametrize("size", [2, 4, 7, 100])
def test_questions_about_one_context_stand_side_by_side(size: int) -> None:
    """Within a batch a context is one run of records; a context that fits is not split."""
    for batch in group_by_context(RECORDS, size, 0):
        runs = [
            context for context, _ in groupby(record.context for record in batch if record.context)
        ]
        assert len(runs) == len(set(runs))
    fitting = {f"context {i}" for i, n in enumerate((3, 1, 5, 2, 7, 4)) if n <= size}
    homes = [
        (record.context, i)
        for i, batch in enumerate(group_by_context(RECORDS, size, 0))
        for record in batch
    ]
    assert all(len({i for context, i in homes if context == name}) == 1 for name in fitting)


def test_the_seed_decides_the_order() -> None:
    """Equal seeds give equal batches, others give others."""
    assert group_by_context(RECORDS, 4, 0) == group_by_context(RECORDS, 4, 0)
    assert group_by_context(RECORDS, 4, 0) != group_by_context(RECORDS, 4, 1)


def test_contexts_of_like_length_stand_together() -> None:
    """Sorted by its contexts, no batch reaches into another; the batches themselves are in random order."""
    records = [QARecord(f"{i}", "Who?", "x" * (i * 7 % 40 + 1), ("answer",)) for i in range(40)]
    batches = group_by_context(records, 4, 0)
    spans = [sorted(len(record.context or "") for record in batch) for batch in batches]
    assert sorted(spans) == [list(range(i + 1, i + 5)) for i in range(0, 40, 4)]
    assert spans != sorted(spans)


def test_no_records_give_no_batches() -> None:
    """Nothing in, nothing out."""
    assert group_by_context([], 4, 0) == []
    assert split_by_context([], 0.5, 0) == ([], [])


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_a_split_keeps_contexts_apart(share: float) -> None:
    """No context is on both sides, no record is lost, both sides keep their order."""
    records = _records(*[2] * 20)
    kept, aside = split_by_context(records, share, 0)
    assert not {record.context for record in kept} & {record.context for record in aside}
    assert len({record.context for record in aside}) == round(20 * share)
    for side in (kept, aside):
        assert side == [record for record in records if record in side]
    assert len(kept) + len(aside) == 40


def test_the_turns_of_a_conversation_are_one_context() -> None:
    """A turn's context holds the earlier answers: a split or folds that part them would give these away."""
    turns = [
        f"Story {i}.{''.join(f'{chr(10)}Q: {j}?' for j in range(n))}"
        for i in range(6)
        for n in range(4)
    ]
    records = [QARecord(context, "Who?", context, ("answer",)) for context in reversed(turns)]
    kept, aside = split_by_context(records, 1 / 3, 0)
    assert len(aside) == 8
    for parts in ([kept, aside], folds_by_context(records, 3, 0), group_by_context(records, 4, 0)):
        stories = [{(record.context or "")[:7] for record in part} for part in parts]
        assert sum(map(len, stories)) == 6


def test_closed_book_questions_are_split_one_by_one() -> None:
    """Without a context each question is on its own."""
    kept, aside = split_by_context(_records(closed_book=10), 0.3, 0)
    assert (len(kept), len(aside)) == (7, 3)


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_small_share_of_few_contexts_is_one(share: float) -> None:
    """Without a record set aside nothing is calibrated; and one must be kept to learn from."""
    kept, aside = split_by_context(_records(2, 2), share, 0)
    assert (len(kept), len(aside)) == (2, 2)
    assert split_by_context(_records(2), share, 0) == (_records(2), [])


@pytest.mark.parametrize("seed", range(5))
def test_a_question_over_several_contexts_stays_on_one_side(seed: int) -> None:
    """With all that is asked about these contexts."""
    records = _records(2, 2, 2, 2)
    same = {"0-1": "q", "1-1": "q", "2-0": "p", "3-1": "p"}
    kept, aside = split_by_context(records, 0.5, seed, same)
    assert len(kept) == len(aside) == 4
    assert {record.id[0] for record in aside} in ({"0", "1"}, {"2", "3"})


def test_a_share_of_zero_sets_nothing_aside() -> None:
    """All records are kept."""
    assert split_by_context(RECORDS, 0.0, 0) == (RECORDS, [])


def test_taking_all_changes_nothing() -> None:
    """No limit, and one that is not reached, return the records as they are."""
    assert take(RECORDS, None, 0) == RECORDS
    assert take(RECORDS, len(RECORDS), 0) == RECORDS
    assert take(RECORDS, 10_000, 0) == RECORDS


@pytest.mark.parametrize("limit", [1, 5, 11])
def test_taking_a_few_takes_whole_contexts_by_chance(limit: int) -> None:
    """Exactly as many as wanted, in their order; at most one context is cut."""
    taken = take(RECORDS, limit, 0)
    assert len(taken) == limit
    assert taken == [record for record in RECORDS if record in taken]
    sizes = {f"context {i}": n for i, n in enumerate((3, 1, 5, 2, 7, 4))}
    counts = {name: sum(record.context == name for record in taken) for name in sizes}
    assert sum(0 < counts[name] < sizes[name] for name in sizes) <= 1
    assert take(RECORDS, limit, 0) == taken
    assert len({tuple(record.id for record in take(RECORDS, limit, seed)) for seed in range(5)}) > 1
