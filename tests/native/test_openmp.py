"""One OpenMP runtime a process, whichever of torch and the native core is imported first: two pools
of threads on the same cores wait for each other."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import os
{imports}
{core}.philox_normal(1, 0, 64, 1000, 2)
x = torch.randn(1, 64, 128, 128)
torch.relu(x + x)
lines = [line.split() for line in open("/proc/self/maps")]
files = {{os.path.realpath(line[5]) for line in lines if len(line) > 5}}
print(*sorted(f for f in files if any(n in f for n in ("libgomp", "libiomp", "libomp"))))
"""
ORDERS = {
    "torch first": "import torch\nfrom fastmrigan import _core",
    "the core first": "from fastmrigan import _core\nimport torch",
    "the operators": "from fastmrigan import _core, ops\nimport torch\n"
    "ops.instance_norm(torch.randn(4, 8, 64, 64), backend='native')",
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("order", ORDERS)
def test_one_openmp_runtime(order):
    code = CODE.format(imports=ORDERS[order], core="_core")
    env = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1, done.stdout
