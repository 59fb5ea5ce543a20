"""How slow the machine is at the moment, for bounds on processor time."""

import statistics
import time

# Seconds of processor time on a Xeon of 2 GHz, in a quiet hour.
LOOP = 0.0063
PAGES = 0.0030


def pace() -> float:
    """How many times its quiet processor time work takes now, at least 1: a loop or new memory,
    whichever is slower.

    Processor time counts several times on a core that another machine has meanwhile.
    """
    return max(1.0, seconds_of(loop) / LOOP, seconds_of(pages) / PAGES)


def seconds_of(work) -> float:
    """The median of three."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def loop() -> None:
    total = 0
    for number in range(100_000):
        total += number


def pages() -> None:
    bytearray(1 << 24)
