"""The allocator's habit that costs more than the arithmetic, and its remedy.

glibc takes every block over its mmap threshold from the system and gives it back when it is freed.
Each fresh tensor is then made of pages that the kernel clears one fault at a time: on 33 MB several
milliseconds, where instance norm on them takes one or two.
"""

from __future__ import annotations

import ctypes
import sys

from fastmrigan.ops.layout import say_once

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory(enabled: bool = True, *, trim_bytes: int = 2**31 - 1) -> bool:
    """Makes this process keep freed memory and use it again; returns whether it does.

    Large blocks then come from the heap, and the heap's free end is returned to the system only
    above `trim_bytes`. The process stays about as large as it ever was: call it where training or
    evaluation starts, not in a library. enabled=False does nothing. Where the C library is not
    glibc nothing changes, which is logged once.
    """
    if not enabled:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    done = (
        mallopt is not None
        and mallopt(_M_MMAP_MAX, 0) == 1
        and mallopt(_M_TRIM_THRESHOLD, trim_bytes) == 1
    )
    if not done:
        say_once("keep_freed_memory: this C library has no mallopt: freed memory is returned")
    return done
