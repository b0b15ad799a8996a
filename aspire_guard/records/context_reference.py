"""References from a scored line to its context, which stays in the file that was scored.

A context can be a hundred times as long as its answer, and many answers share one, so scored lines don't repeat it. A
digest makes sure that a file that has changed since gives no wrong context.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aspire_guard.errors import InputError
from aspire_guard.records.columns import Columns
from aspire_guard.records.fields import parse_context
from aspire_guard.records.reading import read_numbered_records
from aspire_guard.records.standard_input import STANDARD_INPUT

_DIGITS = 16


def make_context_reference(
    path: Path, number: int, context: str, columns: Columns
) -> dict[str, Any]:
    """Return the file, the number of the record and a digest, by which `read_contexts` finds the context.

    Standard input can't be read again, so its reference holds the digest alone.
    """
    reference: dict[str, Any] = {"sha256": _digest(context)}
    if path != STANDARD_INPUT:
        reference |= {"file": str(path.resolve()), "number": int(number)}
        if columns.text:
            reference["columns"] = columns.text
    return reference


def read_contexts(references: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Read the contexts of references, by their names. A context that is gone or has changed is left out.

    Args:
        references: the references by any names. Values of another shape are left out.
        folder: the folder to look for a file in that is no longer at its place.
    """
    names_by_file: dict[tuple[str, str | None], dict[int, str]] = {}
    for name, reference in references.items():
        if isinstance(reference, Mapping) and isinstance(reference.get("file"), str):
            source = (reference["file"], reference.get("columns"))
            names_by_file.setdefault(source, {})[reference.get("number", 0)] = name
    contexts: dict[str, str] = {}
    for (file, columns), names in names_by_file.items():
        path = Path(file) if Path(file).exists() else folder / Path(file).name
        for number, context in _read_numbered_contexts(path, columns, set(names)).items():
            name = names[number]
            if _digest(context) == references[name].get("sha256"):
                contexts[name] = context
    return contexts


def _read_numbered_contexts(path: Path, columns: str | None, numbers: set[int]) -> dict[int, str]:
    contexts: dict[int, str] = {}
    try:
        for number, record in read_numbered_records(path, Columns.parse(columns)):
            context = parse_context(path, number, record) if number in numbers else None
            if context is not None:
                contexts[int(number)] = context
    except InputError:
        # The report is about scores. A file that is gone or damaged takes only its contexts away.
        return contexts
    return contexts


def _digest(context: str) -> str:
    return hashlib.sha256(context.encode()).hexdigest()[:_DIGITS]
