"""The progress of a long run: a bar on a terminal, or an occasional line in a log."""

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
    """The progress of a stage, shown on standard error.

    Args:
        title: the name of the stage.
        unit: the things that are counted, in the plural.
        console: the console to write to. By default standard error.
    """

    def __init__(self, title: str, unit: str = "steps", console: Console | None = None) -> None:
        self.title = title
        self.unit = unit
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
        self._validation_note = ""
        self._total = self._done = self._first_done = 0
        self._start_time = self._last_line_time = time.monotonic()

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
        """Begin to count, from `done` if an earlier run stopped there."""
        self._task = self._bar.add_task(self.title, total=total, completed=done, note="")
        self._total = total
        self._done = self._first_done = done
        self._start_time = self._last_line_time = time.monotonic()

    def advance(self, loss: float | None = None, by: int = 1, note: str = "") -> None:
        """Count `by` more things, and show the loss in nats, or else the note."""
        self._done += by
        if loss is not None:
            note = f"loss {loss:.3f}{self._validation_note}"
        self._bar.update(self._task, advance=by, note=note)
        if not self.console.is_terminal:
            self._print_now_and_then(note)

    def note_validation(self, loss: float, best: float) -> None:
        """Show a validation loss, in nats, and the best so far, next to the following training losses."""
        self._validation_note = f" · held-out {loss:.3f} (best {best:.3f})"

    def _print_now_and_then(self, note: str) -> None:
        now = time.monotonic()
        is_early = now - self._last_line_time < _SECONDS_BETWEEN_LINES
        if is_early and self._done < self._total:
            return
        self._last_line_time = now
        seconds_per_unit = (now - self._start_time) / (self._done - self._first_done)
        seconds_left = seconds_per_unit * (self._total - self._done)
        self.console.print(
            f"{self.title}: {self._done}/{self._total} {self.unit} {note} {seconds_left:.0f} s left",
            soft_wrap=True,
        )
