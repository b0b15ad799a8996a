"""The walk through an output that clears it of a rejected answer.

What can't be shown to be clean does not pass: a value that can't be looked into or made anew becomes None.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import numbers
import pathlib
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage
from pydantic import BaseModel

from aspire_guard.clearing.known_values import KnownValues, find_child_places
from aspire_guard.clearing.messages import make_stand_in
from aspire_guard.clearing.objects import (
    RebuildError,
    read_attributes,
    rebuild_named_tuple,
    rebuild_object,
)
from aspire_guard.clearing.rejected_texts import RejectedTexts, iterate_texts, normalize, parse_json

# Values inside more values than this become None.
_DEEPEST = 60

# LangChain puts what was parsed out of an answer under these keys.
_PARSED_KEYS = ("parsed", "structured_response")

_PRINTED = (
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
    uuid.UUID,
    pathlib.PurePath,
)

Places = tuple[Any, ...]


class Clearing:
    """A walk through one output, or through what a memory holds.

    Args:
        answers: the rejected answers.
        message: the text that takes the place of a rejected text.
        known: the values that were there before, which stay as they are.
        keeps_objects: rebuild an object that holds the answer, with `message` in it. If False, the object becomes
            None, since the output has another place for `message`.
        clears_drafts: replace every message that the chain wrote as an answer, also if it repeats no rejected answer.

    Attributes:
        has_found_answer: True once a value that repeats a rejected answer was taken out.
        has_placed_message: True once `message` has taken its place.
    """

    def __init__(
        self,
        answers: Sequence[str],
        message: str,
        known: KnownValues,
        *,
        keeps_objects: bool = False,
        clears_drafts: bool = True,
    ) -> None:
        self.clears_drafts = clears_drafts
        self.message = message
        self.known = known
        self.keeps_objects = keeps_objects
        self.has_found_answer = False
        self.has_placed_message = False
        self.rejected = RejectedTexts.from_answers(answers, known.texts)
        self._open: set[int] = set()
        # Results by the ids of their values, which are kept so that no other value gets the same id.
        self._done: dict[tuple[int, bool], tuple[Any, Any]] = {}
        # True inside a value that is the content of the rejected answer, so that all of it goes.
        self._clears_all = False

    def clear(self, output: Any) -> Any:
        """Return an output without the rejected answers.

        A clean output is returned itself, and any other as a copy. An output that can't be cleared becomes None.
        """
        try:
            return self._clear(output, self.known.find_root_places(), 0)
        except RecursionError:
            return None

    def states_answer(self, value: Any) -> bool:
        """Tell whether a value repeats a rejected answer or a part of it."""
        return any(
            self._is_part(leaf) or self.rejected.repeats(str(leaf))
            for leaf in iterate_leaves(value)
        )

    def _clear(self, value: Any, places: Places, depth: int) -> Any:
        if value is None or self.known.is_known(value, places):
            return value
        if isinstance(value, str) and type(value) is str:
            return self._clear_text(value)
        if depth > _DEEPEST or id(value) in self._open:
            return None
        key = (id(value), self._clears_all)
        if not places and key in self._done:
            return self._done[key][1]
        had_placed_message = self.has_placed_message
        self._open.add(id(value))
        try:
            cleared = self._clear_by_kind(value, places, depth)
        except RecursionError:
            raise
        except Exception:  # code of the value's own type; its error may quote the answer
            cleared = None
        finally:
            self._open.discard(id(value))
        if cleared is None:
            self.has_placed_message = had_placed_message
        if not places:
            self._done[key] = (value, cleared)
        return cleared

    def _clear_by_kind(self, value: Any, places: Places, depth: int) -> Any:
        if isinstance(value, enum.Enum):
            return self._clear_enum(value)
        if isinstance(value, str):
            return self._clear_text(value)
        if isinstance(value, bool):
            return self._keep_if(value, is_clean=True)
        if isinstance(value, numbers.Number):
            return self._clear_number(value)
        if isinstance(value, bytes | bytearray):
            return self._clear_bytes(value)
        if isinstance(value, _PRINTED):
            return self._keep_if(value, not self.rejected.repeats(str(value)))
        if isinstance(value, BaseException):
            # Its traceback holds the variables of the chain.
            return None
        if isinstance(value, BaseMessage):
            return self._clear_message(value, places, depth)
        if isinstance(value, Mapping):
            return self._clear_mapping(value, places, depth)
        if isinstance(value, list | tuple):
            return self._clear_sequence(value, places, depth)
        if isinstance(value, AbstractSet):
            return self._clear_set(value, places, depth)
        return self._clear_object(value, places, depth)

    # Texts and other atoms

    def _clear_text(self, text: str) -> str:
        plain = str(text)
        if self._clears_all or self.rejected.repeats(plain) or self._is_json_with_answer(plain):
            self.has_found_answer = self.has_placed_message = True
            return self.message
        return text if type(text) is str else plain

    def _is_json_with_answer(self, text: str) -> bool:
        return any(map(self.rejected.repeats, iterate_texts(parse_json(text))))

    def _clear_number(self, number: Any) -> Any:
        return self._keep_if(number, not self.rejected.is_answer_number(number))

    def _clear_enum(self, member: enum.Enum) -> Any:
        texts = (member.name, str(member.value), str(member))
        return self._keep_if(member, not any(map(self.rejected.repeats, texts)))

    def _clear_bytes(self, value: bytes | bytearray) -> Any:
        # Bytes that are no text in UTF-8 can't be looked into, and their decoding raises.
        is_clean = b"\0" not in value and not self.rejected.repeats(value.decode())
        return self._keep_if(value, is_clean)

    def _keep_if(self, value: Any, is_clean: bool) -> Any:
        if is_clean and not self._clears_all:
            return value
        self.has_found_answer = True
        return None

    # Containers

    def _clear_mapping(self, mapping: Mapping[Any, Any], places: Places, depth: int) -> Any:
        if self._is_parsed(mapping, depth):
            return None
        was_clearing_all = self._clears_all
        self._clears_all = was_clearing_all or self.rejected.is_parsed_answer(mapping)
        try:
            cleared = self._clear_items(mapping, places, depth)
        finally:
            self._clears_all = was_clearing_all
        is_clean = len(cleared) == len(mapping) and all(
            new is old for new, old in zip(cleared.values(), mapping.values(), strict=True)
        )
        if is_clean and type(mapping) is dict:
            return mapping
        # A mapping of another type may hold more than its items.
        return OrderedDict(cleared) if type(mapping) is OrderedDict else cleared

    def _clear_items(
        self, mapping: Mapping[Any, Any], places: Places, depth: int
    ) -> dict[Any, Any]:
        cleared: dict[Any, Any] = {}
        for key, value in mapping.items():
            children = find_child_places(places, key)
            if not children and self._clear_key(key, depth) is not key:
                continue
            if key in _PARSED_KEYS and not self.keeps_objects:
                cleared[key] = value if self.known.is_known(value, children) else None
            else:
                cleared[key] = self._clear(value, children, depth + 1)
        return cleared

    def _clear_key(self, key: Any, depth: int) -> Any:
        was_clearing_all, self._clears_all = self._clears_all, False
        cleared = self._clear(key, (), depth + 1)
        self._clears_all = was_clearing_all
        return cleared

    def _clear_sequence(self, sequence: Sequence[Any], places: Places, depth: int) -> Any:
        if self.rejected.is_parsed_answer(list(sequence)) and not self.keeps_objects and depth:
            return None
        known_count = self.known.count_known_items(sequence, places)
        items = list(sequence[:known_count])
        for index in range(known_count, len(sequence)):
            children = find_child_places(places, index)
            items.append(self._clear(sequence[index], children, depth + 1))
        if self._spell_answer(items[known_count:]):
            self.has_found_answer = True
            return None
        is_clean = all(new is old for new, old in zip(items, sequence, strict=True))
        if is_clean and type(sequence) in (list, tuple):
            return sequence
        if hasattr(sequence, "_fields"):
            return self._replace_object(sequence, is_clean, depth, rebuild_named_tuple, items)
        return tuple(items) if isinstance(sequence, tuple) else items

    def _spell_answer(self, items: Sequence[Any]) -> bool:
        """Tell whether the texts of a list, such as tokens or chunks, make up a rejected answer together."""
        texts: list[str] = []
        for item in items:
            if isinstance(item, Mapping):
                texts += [part for part in item.values() if isinstance(part, str)]
            elif isinstance(item, str):
                texts.append(item)
        if len(texts) < 2:
            return False
        return self.rejected.repeats("".join(texts)) or self.rejected.repeats(" ".join(texts))

    def _clear_set(self, values: AbstractSet[Any], places: Places, depth: int) -> Any:
        kept = [self._clear(value, (), depth + 1) for value in values]
        is_clean = all(new is old for new, old in zip(kept, values, strict=True))
        if is_clean and type(values) in (set, frozenset):
            return values
        items = {item for item in kept if item is not None}
        return frozenset(items) if isinstance(values, frozenset) else items

    # Objects

    def _clear_object(self, value: Any, places: Places, depth: int) -> Any:
        attributes = read_attributes(value)
        if attributes is None or self._is_parsed(value, depth):
            return None
        was_clearing_all = self._clears_all
        self._clears_all = was_clearing_all or self._is_parsed_model(value)
        try:
            cleared = {
                name: self._clear(part, find_child_places(places, name), depth + 1)
                for name, part in attributes.items()
            }
        finally:
            self._clears_all = was_clearing_all
        is_clean = all(cleared[name] is part for name, part in attributes.items())
        return self._replace_object(value, is_clean, depth, rebuild_object, cleared)

    def _replace_object(
        self, value: Any, is_clean: bool, depth: int, rebuild: Any, parts: Any
    ) -> Any:
        """Return a clean object itself, and in place of any other object a new one or None."""
        if is_clean:
            return value
        if isinstance(value, Document):
            return Document(
                parts["page_content"] or "", id=parts["id"], metadata=parts["metadata"] or {}
            )
        if depth and not self.keeps_objects:
            return None
        try:
            rebuilt = rebuild(value, parts)
        except RebuildError:
            return None
        # A constructor may have put the answer back.
        check = Clearing((), self.message, self.known, keeps_objects=True)
        check.rejected = self.rejected
        return rebuilt if check.has_clean_parts(rebuilt) else None

    def has_clean_parts(self, value: Any) -> bool:
        """Tell whether all attributes of an object of the output's type are clean or the message."""
        if hasattr(value, "_fields"):
            attributes: Any = value._asdict()
        else:
            attributes = read_attributes(value) or {}
        places = self.known.find_root_places()
        for name, part in attributes.items():
            if (
                part != self.message
                and self._clear(part, find_child_places(places, name), 1) is not part
            ):
                return False
        return True

    def _is_parsed_model(self, value: Any) -> bool:
        return isinstance(value, BaseModel) and self.rejected.is_parsed_answer(
            value.model_dump(mode="json")
        )

    def _is_parsed(self, value: Any, depth: int) -> bool:
        """Tell whether a value was parsed from a rejected answer that has a place of its own in the output."""
        if depth == 0 or self.keeps_objects:
            return False
        if isinstance(value, Mapping):
            return self.rejected.is_parsed_answer(value) or self._consists_of_parts(value)
        if isinstance(value, Document):
            return False
        return any(map(self._is_part, iterate_leaves(value)))

    def _consists_of_parts(self, mapping: Mapping[Any, Any]) -> bool:
        leaves = [leaf for leaf in iterate_leaves(mapping) if _is_telling(leaf)]
        letters = sum(len(normalize(str(leaf))) for leaf in leaves)
        return letters >= _TELLING_LETTERS and all(map(self._is_part, leaves))

    def _is_part(self, leaf: Any) -> bool:
        return _is_telling(leaf) and self.rejected.has_part(str(leaf))

    # Messages

    def _clear_message(self, message: BaseMessage, places: Places, depth: int) -> Any:
        attributes = read_attributes(message) or {}
        cleared = {
            name: self._clear(part, find_child_places(places, name), depth + 1)
            for name, part in attributes.items()
        }
        is_clean = all(cleared[name] is part for name, part in attributes.items())
        # The text may be split over several blocks of the content.
        repeats = not is_clean or self.rejected.repeats(str(message.text))
        if not repeats and not self._is_draft(message):
            return message
        self.has_found_answer = self.has_placed_message = True
        return make_stand_in(message, self.message, cleared)

    def _is_draft(self, message: BaseMessage) -> bool:
        """Tell whether a message is an answer that the chain gave on the way, which nobody has accepted."""
        if not self.clears_drafts or not isinstance(message, AIMessage) or message.tool_calls:
            return False
        text = str(message.text)
        return bool(text.strip()) and text not in self.known.texts and text != self.message


# The letters that a dict must share with an answer to be taken for its content.
_TELLING_LETTERS = 8


def iterate_leaves(value: Any) -> list[Any]:
    """List the texts, numbers and members of enumerations in a value, up to a depth."""
    leaves: list[Any] = []
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, enum.Enum):
            leaves.append(item.value)
        elif isinstance(item, str | int | float):
            leaves.append(item)
        elif depth < 8:
            parts: Any = ()
            if isinstance(item, Mapping):
                parts = item.values()
            elif isinstance(item, list | tuple | AbstractSet):
                parts = item
            elif isinstance(item, BaseModel) or dataclasses.is_dataclass(item):
                parts = (read_attributes(item) or {}).values()
            waiting.extend((part, depth + 1) for part in parts)
    return leaves


def _is_telling(leaf: Any) -> bool:
    return not isinstance(leaf, bool) and isinstance(leaf, str | int | float)
