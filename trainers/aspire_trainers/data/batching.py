"""Batches of records whose contexts are computed once: questions about one context stand together."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain

from aspire_guard.errors import InputError
from aspire_guard.lm.shared_prefixes import find_first_turns
from aspire_trainers.record import QARecord


def group_by_context(records: Sequence[QARecord], size: int, seed: int) -> list[list[QARecord]]:
    """Batches of at most `size` records in random order, a context's questions side by side.

    Contexts of like length stand together, so that little of a batch is padding.
    """
    chance = random.Random(seed)
    pieces = [group[i : i + size] for group in _groups(records) for i in range(0, len(group), size)]
    chance.shuffle(pieces)
    pieces.sort(key=lambda piece: len(piece[0].context or ""))
    batches: list[list[QARecord]] = []
    for piece in pieces:
        if batches and len(batches[-1]) + len(piece) <= size:
            batches[-1].extend(piece)
        else:
            batches.append(list(piece))
    chance.shuffle(batches)
    return batches


def split_by_tokens(
    batches: Iterable[Sequence[QARecord]], tokens: Callable[[QARecord], int], budget: int
) -> Iterator[list[QARecord]]:
    """The batches, those of more tokens than `budget`, padding included, in parts; a longer record stands alone."""
    for batch in batches:
        part: list[QARecord] = []
        longest = 0
        for record in batch:
            length = tokens(record)
            longest = max(longest, length)
            if part and longest * (len(part) + 1) > budget:
                yield part
                part, longest = [], length
            part.append(record)
        yield part


def split_by_context(
    records: Sequence[QARecord],
    share: float,
    seed: int,
    question_ids: Mapping[str, str] | None = None,
) -> tuple[list[QARecord], list[QARecord]]:
    """Set aside the questions of `share` of the contexts: (kept, set aside), in the order of `records`.

    Of two contexts or more, one at least is set aside, and one kept; of a share of 0, none.

    Args:
        records: what is to be parted.
        share: of the contexts, in [0, 1].
        seed: of the choice.
        question_ids: by record id: records of one question stay on one side, whatever their contexts.
    """
    groups = _joined(_groups(records), question_ids or {})
    random.Random(seed).shuffle(groups)
    n = min(max(round(share * len(groups)), 1), len(groups) - 1) if share else 0
    aside = {record.id for group in groups[:n] for record in group}
    kept = [record for record in records if record.id not in aside]
    return kept, [record for record in records if record.id in aside]


def folds_by_context(records: Sequence[QARecord], n: int, seed: int) -> list[list[QARecord]]:
    """Part the records into `n` folds, the questions of a context in one of them, each fold in the order of `records`.

    Raises:
        InputError: there are fewer contexts than folds.
    """
    groups = _groups(records)
    if len(groups) < n:
        raise InputError(
            f"expected {n} contexts or more for {n} folds, found {len(groups)}; use fewer folds"
        )
    random.Random(seed).shuffle(groups)
    fold = {record.id: place % n for place, group in enumerate(groups) for record in group}
    return [[record for record in records if fold[record.id] == i] for i in range(n)]


def take(records: Sequence[QARecord], limit: int | None, seed: int) -> list[QARecord]:
    """At most `limit` records out of contexts drawn at random, in the order of `records`."""
    if limit is None or len(records) <= limit:
        return list(records)
    groups = _groups(records)
    random.Random(seed).shuffle(groups)
    chosen = {record.id for record in list(chain.from_iterable(groups))[:limit]}
    return [record for record in records if record.id in chosen]


def _joined(groups: list[list[QARecord]], question_ids: Mapping[str, str]) -> list[list[QARecord]]:
    """The groups, those that share a question as one."""
    holder: dict[str, list[QARecord]] = {}
    for group in groups:
        asked = {question_ids.get(record.id, record.id) for record in group}
        shared = {id(holder[name]): holder[name] for name in asked if name in holder}
        whole = [*chain.from_iterable(shared.values()), *group]
        holder |= {question_ids.get(record.id, record.id): whole for record in whole}
    return list({id(group): group for group in holder.values()}.values())


def _groups(records: Sequence[QARecord]) -> list[list[QARecord]]:
    """The questions of each context; without one, a question stands alone.

    The turns of a conversation are one context: a turn holds the earlier ones, and their answers.
    """
    first = find_first_turns(record.context for record in records)
    groups: dict[str | int, list[QARecord]] = {}
    for i, record in enumerate(records):
        groups.setdefault(first[record.context] or i, []).append(record)
    return list(groups.values())
