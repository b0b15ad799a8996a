"""Progress of a long run: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """One stage's progress on standard error.

    Args:
        title: what is running.
        unit: what is counted.
    """

    def __init__(self, title: str, unit: str = "steps", console: Console | None = None) -> None:
        self.title, self.unit = title, unit
        self.console = console or Console(stderr=True)
        self._bar = Bar(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._validation = ""
        self._total = self._done = self._first = 0
        self._began = self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def start(self, total: int, done: int = 0) -> None:
        """Begin to count, from `done` where an earlier run stopped."""
        self._task = self._bar.add_task(self.title, total=total, completed=done, note="")
        self._total, self._done, self._first = total, done, done
        self._began = self._last_line = time.monotonic()

    def advance(self, loss: float | None = None, by: int = 1, note: str = "") -> None:
        """Count `by` more, with the loss in nats or a note of another kind."""
        self._done += by
        note = note if loss is None else f"loss {loss:.3f}{self._validation}"
        self._bar.update(self._task, advance=by, note=note)
        now = time.monotonic()
        if self.console.is_terminal or (
            now - self._last_line < _SECONDS_BETWEEN_LINES and self._done < self._total
        ):
            return
        self._last_line = now
        left = (now - self._began) / (self._done - self._first) * (self._total - self._done)
        self.console.print(
            f"{self.title}: {self._done}/{self._total} {self.unit} {note} {left:.0f} s left",
            soft_wrap=True,
        )

    def validated(self, loss: float, best: float) -> None:
        """Note a validation loss, in nats."""
        self._validation = f" · held-out {loss:.3f} (best {best:.3f})"
