"""Freed memory kept by the process: a tensor of 33 MB then costs its page faults once."""

from __future__ import annotations

import json
import sys

import pytest

# [8, 64, 128, 128] float32 is 33,554,432 bytes, above every threshold glibc adapts by itself.
CODE = """
import json, resource
import torch

torch.set_num_threads(1)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def twenty():
    before = faults()
    for _ in range(20):
        torch.empty(8, 64, 128, 128).fill_(1)
    return faults() - before

without = [twenty(), twenty()][1]
from fastmrigan.ops import keep_freed_memory
answer = keep_freed_memory()
print(json.dumps([without, answer, twenty(), twenty()]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator is glibc's")
def test_a_tensor_freed_and_made_again_costs_no_page_faults(fresh_process):
    without, answer, first, later = json.loads(fresh_process(CODE))
    assert answer is True
    assert without >= 20, "the system returns nothing: there is no fault to save"
    assert first < without / 2, "the heap grows by a few blocks before it keeps enough of them"
    assert later < without / 10


@pytest.mark.slow
def test_the_remedy_can_be_switched_off(fresh_process):
    code = CODE.replace("keep_freed_memory()", "keep_freed_memory(enabled=False)")
    without, answer, first, later = json.loads(fresh_process(code))
    assert answer is False
    assert first > without / 2
    assert later > without / 2
