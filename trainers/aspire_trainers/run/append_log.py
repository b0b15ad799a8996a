"""A JSONL file that grows line by line and survives a kill at any moment: an incomplete last line does not count."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from aspire_guard.errors import InputError
from aspire_guard.files import name_file
from aspire_guard.jsonl import make_line_error, shorten

if sys.platform != "win32":
    import fcntl


class AppendOnlyJsonl:
    """A JSONL file whose complete lines are read at once, and which is changed only inside `with`.

    Args:
        path: the file. A file that does not exist yet counts as empty.

    Attributes:
        values: the values of the lines, including appended lines.

    Raises:
        InputError: the file can't be read.
        DatasetError: a complete line is not JSON.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            found = error.strerror or str(error)
            raise InputError(
                f"{path}: expected a file to append to, found: {found}; choose another"
            ) from error
        self._bytes_read = len(content)
        self._complete_bytes = content.rfind(b"\n") + 1
        lines = content[: self._complete_bytes].splitlines()
        self.values: list[Any] = [
            self._parse_line(number, line) for number, line in enumerate(lines, start=1)
        ]

    def __enter__(self) -> AppendOnlyJsonl:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream: BinaryIO = lock_file(self.path)
        # Another process may have appended lines, and closed the file again, since this one read it.
        if self._stream.tell() != self._bytes_read:
            self._stream.close()
            raise _make_lock_error(self.path)
        self._stream.truncate(self._complete_bytes)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def append(self, value: Any) -> None:
        """Write a line. It is on the disk when this method returns."""
        line = json.dumps(value, ensure_ascii=False).encode() + b"\n"
        with name_file(self.path):
            self._stream.write(line)
            self._stream.flush()
            os.fsync(self._stream.fileno())
        self.values.append(value)

    def _parse_line(self, number: int, line: bytes) -> Any:
        try:
            return json.loads(line)
        except ValueError as error:
            expected = "JSON, as an earlier run wrote it"
            found = shorten(line.decode(errors="replace"))
            raise make_line_error(
                self.path, number, expected, found, "choose another file"
            ) from error


def lock_file(path: str | Path) -> BinaryIO:
    """Open a file to append to, and lock it until it is closed or the process ends.

    Raises:
        InputError: another process holds the lock.
    """
    path = Path(path)
    stream = path.open("ab")
    try:
        if sys.platform != "win32":
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise _make_lock_error(path) from None
    return stream


def _make_lock_error(path: Path) -> InputError:
    return InputError(
        f"{path}: expected a file of this run alone, found another process that writes it; wait for it"
    )
