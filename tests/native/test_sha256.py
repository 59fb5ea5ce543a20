"""The C library's SHA-256, on the processor's own instructions and without, against hashlib."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

CSRC = Path(__file__).parents[2] / "csrc"
PROGRAM = """
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <vector>

#include "model_file/sha256.h"

int main(int, char** arguments) {  // the digest of stdin, taken in pieces
  const size_t piece = std::strtoul(arguments[1], nullptr, 10);
  std::vector<uint8_t> data;
  for (int byte; (byte = std::getchar()) != EOF;) data.push_back(static_cast<uint8_t>(byte));
  fastmrigan::Sha256 digest;
  for (size_t at = 0; at < data.size(); at += piece)
    digest.update(data.data() + at, std::min(piece, data.size() - at));
  std::puts(digest.hex().c_str());
}
"""


@pytest.fixture(
    scope="module", params=[[], ["-DFASTMRIGAN_PORTABLE_SHA256"]], ids=["as-built", "portable"]
)
def program(request, tmp_path_factory) -> Path:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("sha256")
    (folder / "main.cpp").write_text(PROGRAM)
    command = [compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", *request.param]
    command += ["-I", str(CSRC), str(folder / "main.cpp"), str(CSRC / "model_file" / "sha256.cpp")]
    subprocess.run([*command, "-o", str(folder / "sha256")], check=True)
    return folder / "sha256"


@pytest.mark.parametrize("piece", [63, 64, 100, 10**6])
@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 100_003])
def test_the_digest_is_hashlibs(program, size, piece):
    data = np.random.default_rng(size).bytes(size)
    told = subprocess.run([program, str(piece)], input=data, capture_output=True, check=True)
    assert told.stdout.decode().strip() == hashlib.sha256(data).hexdigest()
