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


def keep_freed_memory(enabled: bool = True) -> bool:
    """Makes this process keep freed memory and use it again; returns whether it does.

    Large blocks then come from the heap, and nothing of the heap is returned to the system. After
    a few steps in which it grows, the process faults no more. It is larger for it, since a freed
    block cannot always be used again as it is: by a tenth in training tumour-dcgan64, up to twice
    with few tensors of 64 MB and more. Call it where training or evaluation starts, not
    in a library. enabled=False does nothing. Where the C library is not glibc nothing changes,
    which is logged once.
    """
    if not enabled:
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    done = (
        mallopt is not None and mallopt(_M_MMAP_MAX, 0) == 1 and mallopt(_M_TRIM_THRESHOLD, -1) == 1
    )
    if not done:
        say_once("keep_freed_memory: this C library has no mallopt: freed memory is returned")
    return done
