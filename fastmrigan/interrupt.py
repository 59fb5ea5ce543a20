"""Ctrl-C and SIGTERM as a flag, so that the step in hand is finished and saved."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class StopSignal:
    """In a `with` statement: `stopped` turns true at the first signal; a second one ends at once.

    Outside the main thread, where Python delivers no signals, it stays false.
    """

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.stopped = False

    def __enter__(self) -> StopSignal:
        try:
            self._before = {number: signal.signal(number, self._on) for number in self.signals}
        except ValueError:  # not in the main thread
            self._before = {}
        return self

    def _on(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
