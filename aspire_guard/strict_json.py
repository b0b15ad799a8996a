"""JSON from strangers: bounded files that are really files, and objects whose keys are unique."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any


def check_plain_file(path: Path, most_bytes: int) -> None:
    """Make sure that a path is a regular file of at most this size, and neither a link nor a pipe.

    Raises:
        ValueError: it is something else, or larger.
        OSError: there is no such file, or it can't be looked at.
    """
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        raise ValueError("a link; copy the file itself, as `cp -rL` does")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("something that is not a regular file")
    if status.st_size > most_bytes:
        raise ValueError(f"a file of {status.st_size:,} bytes, and at most {most_bytes:,} are read")


def read_json(path: Path, most_bytes: int) -> Any:
    """Read a JSON file that anybody may have written.

    Raises:
        ValueError: it is not a regular file, too large, or not JSON in UTF-8 with unique keys.
        OSError: it can't be read.
    """
    check_plain_file(path, most_bytes)
    try:
        return json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_make_object)
    except RecursionError:
        raise ValueError("values that are nested too deeply") from None


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {key[:80]!r} twice")
        values[key] = value
    return values
