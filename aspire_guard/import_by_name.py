"""The import of the user's own objects, which recipes, policies and options name."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from aspire_guard.errors import InputError


def import_by_name(name: str) -> Any:
    """Return the object that `package.module:name` names.

    Raises:
        InputError: the module can't be imported, or has no object of that name.
    """
    way_out = "name it as package.module:name"
    if ":" not in name.strip(":"):
        raise InputError(f"expected the name of something to import, found {name!r}; {way_out}")
    try:
        return resolve_name(name)
    except Exception as error:  # A module may raise any exception while it is imported.
        found = f"{type(error).__name__}: {error}"
        raise InputError(f"expected {name!r} to be importable, found {found}; {way_out}") from error
