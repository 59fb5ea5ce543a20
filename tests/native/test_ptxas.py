"""No CUDA kernel spills registers to memory on any architecture we compile for: ptxas says so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = {  # how many each source has at least, so that an empty report does not pass
    "frechet/moments_cuda.cu": 2,
    "instance_norm/instance_norm_cuda.cu": 31,
    "philox/philox_cuda.cu": 1,
    "ssim/ssim_cuda.cu": 2,
}


def architectures() -> list[str]:
    text = (ROOT / "CMakeLists.txt").read_text()
    found = re.search(r"set\(CMAKE_CUDA_ARCHITECTURES ([\d\s]+)\)", text)
    assert found, "CMakeLists.txt no longer lists the CUDA architectures"
    return found[1].split()


def test_every_source_is_in_the_table():
    sources = {str(path.relative_to(ROOT / "csrc")) for path in (ROOT / "csrc").rglob("*.cu")}
    assert sources == set(KERNELS)


@pytest.mark.slow
@pytest.mark.parametrize("source", KERNELS)
def test_no_kernel_spills(source, tmp_path):
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc: put it on the PATH or name it with CUDACXX")
    targets = architectures()
    done = subprocess.run(
        [
            nvcc,
            "-std=c++17",
            "-O3",
            "--threads=2",
            "--resource-usage",
            *(f"-gencode=arch=compute_{n},code=sm_{n}" for n in targets),
            f"-I{ROOT / 'csrc'}",
            "-fatbin",
            *("-o", tmp_path / "kernels.fatbin"),
            ROOT / "csrc" / source,
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    # ptxas names a kernel and its target, then says what it spills.
    said = re.findall(
        r"Compiling entry function '(\w+)' for 'sm_(\d+)'"
        r".*?(\d+) bytes spill stores, (\d+) bytes spill loads",
        report,
        re.DOTALL,
    )
    for target in targets:
        kernels = {name for name, architecture, *_ in said if architecture == target}
        assert len(kernels) >= KERNELS[source], f"sm_{target}: {len(kernels)} kernels"
    spills = [entry for entry in said if entry[2:] != ("0", "0")]
    assert not spills, "kernel, sm, bytes stored, bytes loaded: " + "; ".join(map(str, spills))
