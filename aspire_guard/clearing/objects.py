"""Reading the attributes of any object, and making objects of the same type with other attributes."""

from __future__ import annotations

import copy
import dataclasses
import typing
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticUndefined

_OPAQUE = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
_MISSING = object()
# CPython's flag of the classes that class statements make.
_HEAP_TYPE = 1 << 9
_POINTER_BYTES = 8


class RebuildError(Exception):
    """An object of a type that can't hold the values that it is given."""


def read_attributes(value: Any) -> dict[str, Any] | None:
    """Read all attributes that an object stores: fields, extra and private attributes, cached properties and slots.

    Returns:
        The attributes, or None if the object may store more than Python code can see.
    """
    if isinstance(value, _OPAQUE):
        return None
    if isinstance(value, BaseModel):
        return {
            **value.__dict__,
            **(value.__pydantic_extra__ or {}),
            **(value.__pydantic_private__ or {}),
        }
    if type(value) is not SimpleNamespace and not _is_made_of_python(type(value)):
        return None
    own = getattr(value, "__dict__", _MISSING)
    attributes = dict(own) if isinstance(own, dict) else {}
    for name in _list_slots(type(value)):
        slot = getattr(value, name, _MISSING)
        if slot is not _MISSING:
            attributes[name] = slot
    return attributes


def rebuild_object(value: Any, attributes: Mapping[str, Any]) -> Any:
    """Make an object of the same type with other attributes.

    Args:
        value: an object that is not changed.
        attributes: the new value of each attribute.

    Raises:
        RebuildError: the type allows no such object.
    """
    try:
        if isinstance(value, BaseModel):
            return _rebuild_model(value, attributes)
        if dataclasses.is_dataclass(value):
            return _rebuild_dataclass(value, attributes)
        return _rebuild_plain_object(value, attributes)
    except RebuildError:
        raise
    except (
        Exception
    ):  # a validator or a constructor of the type's own; its error may quote the value
        raise RebuildError from None


def rebuild_named_tuple(value: Any, items: list[Any]) -> Any:
    """Make a named tuple of the same type with other items.

    Raises:
        RebuildError: an item does not have the type of its field.
    """
    hints = _get_type_hints(type(value))
    for name, old, new in zip(value._fields, value, items, strict=True):
        if new is not old:
            _check_type(hints.get(name, Any), new)
    return type(value)(*items)


def make_default(value: BaseModel, name: str) -> Any:
    """Make the default of a model's field.

    Raises:
        RebuildError: the field has no default.
    """
    field = type(value).model_fields.get(name)
    default = PydanticUndefined
    if field is not None and not field.is_required() and not field.default_factory:
        default = field.get_default(call_default_factory=False)
    if default is PydanticUndefined:
        raise RebuildError
    return copy.deepcopy(default)


def _rebuild_model(value: BaseModel, attributes: Mapping[str, Any]) -> BaseModel:
    fields = type(value).model_fields
    values = {name: attributes[name] for name in fields if name in attributes}
    for name, new in values.items():
        if new is None and getattr(value, name) is not None:
            values[name] = _choose_empty_value(value, name)
    extra = {name: attributes[name] for name in value.__pydantic_extra__ or {}}
    given = {
        _get_input_name(field, name): values[name]
        for name, field in fields.items()
        if name in values
    }
    rebuilt = type(value).model_validate({**given, **extra})
    for name in fields:
        # A validator that reads the field otherwise would undo the clearing.
        if name in values and not _is_equal(getattr(rebuilt, name), values[name]):
            raise RebuildError
    private = value.__pydantic_private__ or {}
    for name, old in private.items():
        if attributes[name] is old and rebuilt.__pydantic_private__ is not None:
            rebuilt.__pydantic_private__[name] = old
    rebuilt.__pydantic_fields_set__.intersection_update(value.__pydantic_fields_set__)
    return rebuilt


def _choose_empty_value(value: BaseModel, name: str) -> Any:
    """Return None if the field allows it, or else the field's default."""
    field = type(value).model_fields[name]
    try:
        _check_type(field.annotation, None)
    except RebuildError:
        return make_default(value, name)
    return None


def _get_input_name(field: Any, name: str) -> str:
    alias = field.validation_alias or field.alias
    return alias if isinstance(alias, str) else name


def _rebuild_dataclass(value: Any, attributes: Mapping[str, Any]) -> Any:
    hints = _get_type_hints(type(value))
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        new = attributes[field.name]
        if not field.init:
            continue
        if new is not getattr(value, field.name):
            _check_type(hints.get(field.name, Any), new)
        changes[field.name] = new
    return dataclasses.replace(value, **changes)


def _rebuild_plain_object(value: Any, attributes: Mapping[str, Any]) -> Any:
    cls: Any = type(value)
    hints = _get_type_hints(cls)
    rebuilt = cls.__new__(cls)
    for name, new in attributes.items():
        if new is not getattr(value, name):
            _check_type(hints.get(name, Any), new)
        object.__setattr__(rebuilt, name, new)
    return rebuilt


def _check_type(hint: Any, value: Any) -> None:
    """Check that a value has the type that a field declares. A hint that pydantic can't read is not checked.

    Raises:
        RebuildError: it has another type.
    """
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    except PydanticUserError:
        return
    try:
        adapter.validate_python(value, strict=not isinstance(hint, str))
    except Exception:
        raise RebuildError from None


def _get_type_hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception:  # names that can't be resolved outside their module or function
        return {}


def _is_equal(left: Any, right: Any) -> bool:
    return left is right or bool(left == right)


def _is_made_of_python(cls: type) -> bool:
    """Tell whether the instances of a class store nothing but attributes, as those of a class statement do.

    A class in C may store values that no attribute shows. Its instances are larger than their slots.
    """
    stored = len(_list_slots(cls)) + (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
    is_from_statement = all(
        base.__flags__ & _HEAP_TYPE for base in cls.__mro__ if base is not object
    )
    return is_from_statement and cls.__basicsize__ <= object.__basicsize__ + stored * _POINTER_BYTES


def _list_slots(cls: type) -> list[str]:
    names: list[str] = []
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        slots = (slots,) if isinstance(slots, str) else tuple(slots)
        for name in slots:
            is_private = name.startswith("__") and not name.endswith("__")
            names.append(f"_{base.__name__.lstrip('_')}{name}" if is_private else name)
    return [name for name in names if name not in ("__dict__", "__weakref__")]
