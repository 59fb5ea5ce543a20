"""libFuzzer over the checks that a model file passes, for some seconds, where Clang has it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from c_library import ROOT, cmake, openvino_folder
from c_library_models import write_models

pytestmark = pytest.mark.slow

SECONDS = int(os.environ.get("FASTMRIGAN_FUZZ_SECONDS", "10"))


def need_libfuzzer() -> None:
    if shutil.which("clang++") is None:
        pytest.skip("no clang++: libFuzzer is Clang's")
    told = subprocess.run(["clang++", "-print-runtime-dir"], capture_output=True, text=True)
    if not list(Path(told.stdout.strip()).glob("libclang_rt.fuzzer*")):
        pytest.skip("clang++ has no libFuzzer (Debian: libclang-rt-dev)")


def test_any_bytes_end_in_facts_or_in_a_refusal(tmp_path: Path) -> None:
    need_libfuzzer()
    cmake(
        *("-S", ROOT, "-B", tmp_path / "build", "-DFASTMRIGAN_C_API=ON", "-DFASTMRIGAN_TESTS=ON"),
        *("-DCMAKE_C_COMPILER=clang", "-DCMAKE_CXX_COMPILER=clang++"),
        f"-DOPENVINO_INCLUDE_DIR={openvino_folder() / 'include'}",
    )
    cmake("--build", tmp_path / "build", "--target", "fuzz_model")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_models(corpus)
    program = tmp_path / "build" / "tests" / "c" / "fuzz_model"
    done = subprocess.run(
        [program, corpus, f"-max_total_time={SECONDS}", "-print_final_stats=1"],
        cwd=tmp_path,  # where libFuzzer leaves an input that breaks something
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS + 120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    runs = re.search(r"number_of_executed_units: *(\d+)", done.stderr)
    assert runs is not None
    assert int(runs[1]) > 1000
