"""The values that are shown to be clean: what the caller passed in, what a memory held before, and retrieved passages.

A chain may change its input in place. A value is therefore compared with a snapshot of the input that was taken
before the chain ran.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages

from aspire_guard.clearing.objects import read_attributes

# Deeper or larger inputs are not compared, so what a chain returns of them must be shown to be clean as anything else.
_DEEPEST = 30
_MOST_VALUES = 20_000

_ATOMS = (str, bytes, int, float, complex, bool, type(None))
_OPAQUE = (type, ModuleType, FunctionType, BuiltinFunctionType)
_WITHOUT_PARTS = (*_ATOMS, *_OPAQUE)


class Snapshot:
    """A value with its parts at the time when it was taken.

    Attributes:
        value: the value itself.
        parts: its items by key or name, or its items in order, or None if it was too deep to be taken.
    """

    __slots__ = ("parts", "value")

    def __init__(self, value: Any, parts: dict[Any, Any] | list[Any] | None) -> None:
        self.value = value
        self.parts = parts


def take_snapshot(value: Any) -> Any:
    """Take a snapshot of a value. An atom such as a string is its own snapshot."""
    if isinstance(value, _ATOMS):
        return value
    return _take(value, _DEEPEST, [_MOST_VALUES])


def _take(value: Any, depth: int, budget: list[int]) -> Any:
    if isinstance(value, _WITHOUT_PARTS):
        return value
    budget[0] -= 1
    if depth == 0 or budget[0] <= 0:
        return Snapshot(value, None)
    parts = _get_parts(value)
    if parts is None:
        return value
    taken: dict[Any, Any] | list[Any]
    if isinstance(parts, dict):
        taken = {key: _take(part, depth - 1, budget) for key, part in parts.items()}
    else:
        taken = [_take(part, depth - 1, budget) for part in parts]
    return Snapshot(value, taken)


def _get_parts(value: Any) -> dict[Any, Any] | list[Any] | None:
    """Return the parts of a value by key or in order, or None if it has no parts that could be compared."""
    if type(value) is dict:
        return value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, AbstractSet):
        return list(value)
    return read_attributes(value)


def is_unchanged(snapshot: Any, value: Any) -> bool:
    """Tell whether a value is equal, type by type, to the value that a snapshot was taken of.

    Graphs give ids to messages, so a message without an id may have gained one.
    """
    if not isinstance(snapshot, Snapshot):
        if snapshot is value:
            return True
        is_atom = isinstance(snapshot, _ATOMS)
        return is_atom and type(snapshot) is type(value) and snapshot == value
    if snapshot.parts is None or type(value) is not type(snapshot.value):
        return False
    parts = _get_parts(value)
    if isinstance(snapshot.parts, dict) and isinstance(parts, dict):
        return _are_items_unchanged(snapshot.parts, parts, isinstance(value, BaseMessage))
    if isinstance(snapshot.parts, list) and isinstance(parts, list):
        if len(parts) != len(snapshot.parts):
            return False
        return all(map(is_unchanged, snapshot.parts, parts))
    return False


def _are_items_unchanged(taken: dict[Any, Any], parts: dict[Any, Any], is_message: bool) -> bool:
    if taken.keys() != parts.keys():
        return False
    for key, part in parts.items():
        gained_id = is_message and key == "id" and taken[key] is None
        if gained_id and (part is None or isinstance(part, str)):
            continue
        if not is_unchanged(taken[key], part):
            return False
    return True


@dataclass(frozen=True)
class KnownValues:
    """The values that were there before the chain gave its output.

    Attributes:
        snapshots: snapshots of the chain's input, and of what its memory held.
        passages: the texts of the retrieved documents.
    """

    snapshots: tuple[Any, ...] = ()
    passages: tuple[str, ...] = field(default=())

    def find_root_places(self) -> tuple[Any, ...]:
        """Find the known values at the place of an output. A bare input is also known under its usual key."""
        places: list[Any] = []
        for snapshot in self.snapshots:
            places.append(snapshot)
            if isinstance(snapshot, str):
                places.append(Snapshot({}, dict.fromkeys(("question", "query", "input"), snapshot)))
            elif isinstance(snapshot, Snapshot) and isinstance(snapshot.parts, list):
                places.append(Snapshot({}, {"messages": snapshot, "input": snapshot}))
        return tuple(places)

    def is_known(self, value: Any, places: Sequence[Any]) -> bool:
        """Tell whether a value is unchanged since before: the caller's own object, or equal at an equal place."""
        if any(is_unchanged(place, value) for place in places):
            return True
        own = self._snapshots_by_id.get(id(value))
        return own is not None and is_unchanged(own, value)

    def count_known_items(self, items: Sequence[Any], places: Sequence[Any]) -> int:
        """Count the items at the beginning of a list that are an earlier conversation.

        At an equal place the list may have lost its first items. At any other place all of an earlier conversation
        must be there.
        """
        counts = [0]
        for place in places:
            known = _get_list(place)
            for start in range(len(known)):
                counts.append(_count_equal_items(known[start:], items))
        counts += [_count_equal_items(known, items) for known in self._conversations]
        return max(counts)

    @cached_property
    def texts(self) -> frozenset[str]:
        """All texts in the known values, and the retrieved passages."""
        found = set(self.passages)
        for snapshot in self._iterate_snapshots():
            if isinstance(snapshot, str):
                found.add(snapshot)
            elif isinstance(snapshot, Snapshot) and isinstance(snapshot.value, BaseMessage):
                found.add(str(snapshot.value.text))
        return frozenset(found)

    @cached_property
    def _snapshots_by_id(self) -> dict[int, Any]:
        # The snapshots keep the objects alive, so no other object can have the id of one of them.
        snapshots = {}
        for snapshot in self._iterate_snapshots():
            value = snapshot.value if isinstance(snapshot, Snapshot) else snapshot
            if not _is_shared_constant(value):
                snapshots[id(value)] = snapshot
        return snapshots

    @cached_property
    def _conversations(self) -> list[list[Any]]:
        conversations = []
        for snapshot in self._iterate_snapshots():
            known = _get_list(snapshot)
            if len(known) > 1 and _is_message(known[0]):
                conversations.append(known)
        return conversations

    def _iterate_snapshots(self) -> Iterator[Any]:
        waiting = list(self.snapshots)
        while waiting:
            snapshot = waiting.pop()
            yield snapshot
            if isinstance(snapshot, Snapshot) and snapshot.parts is not None:
                parts = snapshot.parts
                waiting.extend(parts.values() if isinstance(parts, dict) else parts)


def find_child_places(places: Iterable[Any], key: Any) -> tuple[Any, ...]:
    """Find the known values under a key, an attribute or an index of the known values at a place."""
    children = []
    for place in places:
        parts = place.parts if isinstance(place, Snapshot) else None
        if isinstance(parts, list) and isinstance(key, int):
            children += parts[key : key + 1]
        elif isinstance(parts, dict) and key in parts:
            children.append(parts[key])
    return tuple(children)


def _get_list(snapshot: Any) -> list[Any]:
    if not isinstance(snapshot, Snapshot) or not isinstance(snapshot.parts, list):
        return []
    return snapshot.parts if isinstance(snapshot.value, list | tuple) else []


def _count_equal_items(known: Sequence[Any], items: Sequence[Any]) -> int:
    """Return the number of known items if the list begins with all of them, or else 0."""
    if len(known) > len(items):
        return 0
    for snapshot, item in zip(known, items, strict=False):
        if not is_unchanged(snapshot, item) and not _is_same_message(snapshot, item):
            return 0
    return len(known)


def _is_same_message(snapshot: Any, item: Any) -> bool:
    """Tell whether an item is the message that the caller gave in another notation, such as a tuple."""
    if not isinstance(item, BaseMessage):
        return False
    given = snapshot.value if isinstance(snapshot, Snapshot) else snapshot
    if isinstance(given, BaseMessage) or not is_unchanged(snapshot, given):
        return False
    try:
        (message,) = convert_to_messages([given])
    except Exception:  # not a message in any notation
        return False
    return is_unchanged(take_snapshot(message), item)


def _is_message(snapshot: Any) -> bool:
    given = snapshot.value if isinstance(snapshot, Snapshot) else snapshot
    return isinstance(given, BaseMessage | tuple | dict)


def _is_shared_constant(value: Any) -> bool:
    """Tell whether Python may give out the same object twice, as with short strings and the empty tuple."""
    return isinstance(value, _ATOMS) or (isinstance(value, tuple | frozenset) and not value)
