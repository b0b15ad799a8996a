"""Batches and splits of records that keep the questions about a context together. A context is then computed once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from aspire_guard.errors import InputError
from aspire_guard.lm.shared_prefixes import find_first_turns
from aspire_trainers.record import QARecord


def group_by_context(records: Sequence[QARecord], size: int, seed: int) -> list[list[QARecord]]:
    """Make batches of at most `size` records in random order, with the questions about a context next to each other.

    Contexts of similar length share a batch, so that little of it is padding.
    """
    rng = random.Random(seed)
    pieces: list[list[QARecord]] = []
    for group in _collect_by_context(records):
        for start in range(0, len(group), size):
            pieces.append(group[start : start + size])
    rng.shuffle(pieces)
    pieces.sort(key=lambda piece: len(piece[0].context or ""))
    batches: list[list[QARecord]] = []
    for piece in pieces:
        if batches and len(batches[-1]) + len(piece) <= size:
            batches[-1].extend(piece)
        else:
            batches.append(list(piece))
    rng.shuffle(batches)
    return batches


def split_by_tokens(
    batches: Iterable[Sequence[QARecord]], tokens: Callable[[QARecord], int], budget: int
) -> Iterator[list[QARecord]]:
    """Split each batch into parts of at most `budget` tokens, padding included. A longer record is a part by itself."""
    for batch in batches:
        part: list[QARecord] = []
        longest = 0
        for record in batch:
            length = tokens(record)
            longest = max(longest, length)
            if part and longest * (len(part) + 1) > budget:
                yield part
                part = []
                longest = length
            part.append(record)
        yield part


def split_by_context(
    records: Sequence[QARecord],
    share: float,
    seed: int,
    question_ids: Mapping[str, str] | None = None,
) -> tuple[list[QARecord], list[QARecord]]:
    """Hold out the questions about a share of the contexts.

    If there are two contexts or more, at least one is held out and at least one is kept. A share of 0 holds out
    nothing.

    Args:
        records: the records to split.
        share: share of the contexts to hold out, in [0, 1].
        seed: seed of the choice.
        question_ids: question ids by record id. Records with the same question id stay on one side, whatever their
            contexts.

    Returns:
        The kept records and the held-out records, each in the order of `records`.
    """
    groups = _collect_by_context(records)
    groups = _merge_by_question(groups, question_ids or {})
    random.Random(seed).shuffle(groups)
    count = round(share * len(groups))
    if share:
        at_least_one = max(count, 1)
        count = min(at_least_one, len(groups) - 1)
    held_out_groups = groups[:count]
    held_out_ids = {record.id for group in held_out_groups for record in group}
    kept = [record for record in records if record.id not in held_out_ids]
    held_out = [record for record in records if record.id in held_out_ids]
    return kept, held_out


def split_into_folds(records: Sequence[QARecord], n: int, seed: int) -> list[list[QARecord]]:
    """Split the records into `n` folds, each in the order of `records`. The questions about a context share a fold.

    Raises:
        InputError: there are fewer contexts than folds.
    """
    groups = _collect_by_context(records)
    if len(groups) < n:
        raise InputError(
            f"expected {n} contexts or more for {n} folds, found {len(groups)}; use fewer folds"
        )
    random.Random(seed).shuffle(groups)
    fold_numbers: dict[str, int] = {}
    for number, group in enumerate(groups):
        fold_numbers |= {record.id: number % n for record in group}
    folds: list[list[QARecord]] = [[] for _ in range(n)]
    for record in records:
        folds[fold_numbers[record.id]].append(record)
    return folds


def sample_records(records: Sequence[QARecord], limit: int | None, seed: int) -> list[QARecord]:
    """Return at most `limit` records out of contexts drawn at random, in the order of `records`."""
    if limit is None or len(records) <= limit:
        return list(records)
    groups = _collect_by_context(records)
    random.Random(seed).shuffle(groups)
    drawn = islice(chain.from_iterable(groups), limit)
    chosen_ids = {record.id for record in drawn}
    return [record for record in records if record.id in chosen_ids]


def _collect_by_context(records: Sequence[QARecord]) -> list[list[QARecord]]:
    """Collect the questions about each context. A question without a context is a group by itself.

    The turns of a conversation count as one context, because each turn contains the earlier turns and their answers.
    """
    first_turns = find_first_turns(record.context for record in records)
    groups: dict[str | int, list[QARecord]] = {}
    for number, record in enumerate(records):
        key = first_turns[record.context] or number
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def _merge_by_question(
    groups: Sequence[list[QARecord]], question_ids: Mapping[str, str]
) -> list[list[QARecord]]:
    """Merge the groups that share a question."""
    group_of_question: dict[str, list[QARecord]] = {}
    for group in groups:
        questions = [question_ids.get(record.id, record.id) for record in group]
        earlier_groups = [
            group_of_question[question] for question in questions if question in group_of_question
        ]
        earlier_groups = _drop_repeated(earlier_groups)
        merged = [*chain.from_iterable(earlier_groups), *group]
        for record in merged:
            group_of_question[question_ids.get(record.id, record.id)] = merged
    return _drop_repeated(group_of_question.values())


def _drop_repeated(groups: Iterable[list[QARecord]]) -> list[list[QARecord]]:
    """Return each group once. Groups are compared by identity."""
    distinct = {id(group): group for group in groups}
    return list(distinct.values())
