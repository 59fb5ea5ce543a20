"""Progress of long work: rich's live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


def duration(seconds: float) -> str:
    """`seconds` as h:mm:ss, or m:ss under an hour."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """E.g. "1 file" and "2,000 files"; many: where it is not `one` and an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


class Progress:
    """Shows done / total, rate and time left on stderr; use it in a `with` statement.

    `total` None is without a bound; of a total of 0 nothing is said. `unit` is a plural.
    `start` counts what an earlier run had done: shown as done, left out of the rate.
    `seconds_left`, where given, overrides the estimate (a run bounded by time, not by count).
    `shown` false says nothing: of several processes of one job, one reports.
    """

    def __init__(
        self,
        label: str,
        total: int | None,
        unit: str,
        *,
        start: int = 0,
        every_seconds: float = 30.0,
        shown: bool = True,
    ) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.start = self.done = start
        self.note = ""
        self.every_seconds = every_seconds
        self.shown = shown
        self._bar: RichProgress | None = None

    def __enter__(self) -> Progress:
        self.began = self._shown = time.monotonic()
        if self.shown and sys.stderr.isatty() and self.total != 0:
            self._open_bar()
        elif self.total is None:
            self._print(f"{self.label}: starting at {self._told(self.done)}")
        elif self.total > 0:
            self._print(f"{self.label}: starting at {self.done:,} of {self._told(self.total)}")
        return self

    def advance(
        self, amount: int = 1, note: str | None = None, seconds_left: float | None = None
    ) -> None:
        """Adds `amount` done; `note` (losses, a file name) is shown behind the counts."""
        self.done += amount
        if note is not None:
            self.note = note
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, text=self._tail(seconds_left))
        elif time.monotonic() - self._shown >= self.every_seconds:
            self._shown = time.monotonic()
            at = self._told(self.done)
            if self.total is not None:
                share = 100 * self.done / max(self.total, 1)
                at = f"{self.done:,}/{self._told(self.total)} ({share:.0f} %)"
            self._print(f"{self.label}: {at}, {self._tail(seconds_left)}")

    @property
    def seconds(self) -> float:
        """Since this run began."""
        return max(time.monotonic() - self.began, 1e-9)

    @property
    def rate(self) -> float:
        """Units a second since this run began."""
        return (self.done - self.start) / self.seconds

    def _told(self, count: int) -> str:
        return counted(count, self.unit.removesuffix("s"), self.unit)

    def _tail(self, seconds_left: float | None) -> str:
        if seconds_left is None and self.total is not None:
            rest = self.total - self.done
            if self.rate > 0 or rest <= 0:
                seconds_left = rest / self.rate if rest > 0 else 0.0
        left = "time left unknown" if seconds_left is None else f"{duration(seconds_left)} left"
        text = f"{self.rate:,.1f} {self.unit}/s, {left}"
        return f"{text}, {self.note}" if self.note else text

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn(self.label),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, text="")
        self._bar.start()

    def say(self, text: str) -> None:
        """A line of its own; above the bar, where there is one."""
        self._print(text)

    def _print(self, text: str) -> None:
        if self.shown:
            print(text, file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self.total != 0:
            self._print(
                f"{self.label}: {self._told(self.done - self.start)} in {duration(self.seconds)} "
                f"({self.rate:,.1f} {self.unit}/s)"
            )
