"""Standard input as a file that can be read more than once."""

from __future__ import annotations

import atexit
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, BinaryIO

# The path that stands for standard input in errors and ids.
STANDARD_INPUT = Path("/dev/stdin")

_IN_MEMORY = 2**24


class _ReplayedStream:
    """A stream that passes lines on as they arrive, and keeps them for a second reading.

    Args:
        stream: the stream. A pipe can be read only once.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self._kept: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        atexit.register(self.close)

    def read_lines(self) -> Iterator[bytes]:
        """Yield the lines from the first one on."""
        position = 0
        while True:
            self._kept.seek(position)
            line = self._kept.readline()
            if not line:
                line = self.stream.readline()
                self._kept.write(line)
            if not line:
                return
            position += len(line)
            yield line

    def close(self) -> None:
        """Delete the lines that were kept."""
        self._kept.close()
        atexit.unregister(self.close)


_replayed: _ReplayedStream | None = None


def open_standard_input() -> AbstractContextManager[Iterator[bytes]]:
    """Open standard input from its first line on, however often it was read before."""
    global _replayed
    if _replayed is None or _replayed.stream is not sys.stdin.buffer:
        if _replayed is not None:
            _replayed.close()
        _replayed = _ReplayedStream(sys.stdin.buffer)
    return nullcontext(_replayed.read_lines())
