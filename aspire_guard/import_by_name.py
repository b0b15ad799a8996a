"""The import of the user's own objects, which recipes, policies and options name."""

from __future__ import annotations

import re
from pkgutil import resolve_name
from typing import Any

from aspire_guard.errors import InputError

_NAME = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")


def import_by_name(name: str) -> Any:
    """Return the object that `package.module:name` names.

    Raises:
        InputError: the module can't be imported, or has no object of that name.
    """
    way_out = "name it as package.module:name"
    check_name(name)
    try:
        return resolve_name(name)
    except (Exception, SystemExit) as error:
        # A module may raise any exception while it is imported. A script without a main guard even ends the process.
        found = describe_import_error(error)
        raise InputError(f"expected {name!r} to be importable, found {found}; {way_out}") from error


def check_name(name: str) -> None:
    """Make sure that a name has the form `package.module:name`, without an import.

    Raises:
        InputError: it has another form.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"expected the name of something to import, found {name!r:.80}; name it as package.module:name"
        )


def describe_import_error(error: BaseException) -> str:
    """Return what a module or a factory of the user's raised, on one line."""
    if isinstance(error, SystemExit):
        return f"a call of sys.exit({error.code!r:.80}), which belongs under `if __name__ == '__main__':`"
    return " ".join(f"{type(error).__name__}: {error}".split())
