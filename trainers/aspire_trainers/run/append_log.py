"""A JSONL file that grows line by line and survives a kill at any moment: a line that was cut off does not count."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from aspire_guard.errors import InputError
from aspire_guard.jsonl import line_error, shorten

if sys.platform != "win32":
    import fcntl


class AppendOnlyJsonl:
    """Reads the whole lines of a file, and appends to them inside `with`; until then the file is left as it is.

    Args:
        path: the file; one that is not there yet is empty.

    Attributes:
        values: what the lines hold, those that are appended included.

    Raises:
        InputError: the file can't be read.
        DatasetError: a whole line is not JSON.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            found = error.strerror or str(error)
            raise InputError(
                f"{path}: expected a file to append to, found: {found}; choose another"
            ) from error
        self._read = len(content)
        self._whole = content.rfind(b"\n") + 1
        lines = content[: self._whole].splitlines()
        self.values: list[Any] = [
            self._value(number, line) for number, line in enumerate(lines, start=1)
        ]

    def __enter__(self) -> AppendOnlyJsonl:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream: BinaryIO = lock_file(self.path)
        if self._stream.tell() != self._read:
            self._stream.close()
            raise _taken(self.path)
        self._stream.truncate(self._whole)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def append(self, value: Any) -> None:
        """Write a line; when this returns it is on the disk."""
        self._stream.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.values.append(value)

    def _value(self, number: int, line: bytes) -> Any:
        try:
            return json.loads(line)
        except ValueError as error:
            found, way_out = shorten(line.decode(errors="replace")), "choose another file"
            raise line_error(
                self.path, number, "JSON, as an earlier run wrote it", found, way_out
            ) from error


def lock_file(path: Path) -> BinaryIO:
    """A file to append to, this process's alone until it is closed or the process ends, however it ends.

    Raises:
        InputError: another process has it.
    """
    stream = path.open("ab")
    try:
        if sys.platform != "win32":
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise _taken(path) from None
    return stream


def _taken(path: Path) -> InputError:
    return InputError(
        f"{path}: expected a file of this run alone, found another process that writes it; wait for it"
    )
