"""The latent sampler against NumPy, on every instruction set this machine has."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from fastmrigan import _core
from fastmrigan.errors import UsageError
from fastmrigan.runtime.latents import normal_latents

ISAS = [name for name in ("baseline", "avx2", "avx512") if _core.isa_supported(name)]


def philox4x32(counter, key):
    """Ten rounds on uint64 arrays that hold 32-bit words (Salmon et al. 2011, section 3.3)."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for i in range(10):
        a, b = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
        k = [np.uint64((key[j] + i * w) % 2**32) for j, w in enumerate((0x9E3779B9, 0xBB67AE85))]
        counter = [
            (b >> half) ^ counter[1] ^ k[0],
            b & low,
            (a >> half) ^ counter[3] ^ k[1],
            a & low,
        ]
    return counter


def reference(seed, first, count, dim):
    """[count, dim]: Box-Muller through NumPy's own log, cos and sin, rounded to float32 once."""
    i, block = np.meshgrid(
        np.arange(first, first + count, dtype=np.uint64),
        np.arange(-(-dim // 4), dtype=np.uint64),
        indexing="ij",
    )
    words = philox4x32(
        [i & np.uint64(0xFFFFFFFF), i >> np.uint64(32), block, 0 * i], (seed % 2**32, seed >> 32)
    )
    pairs = []
    for a, b in (words[:2], words[2:]):
        r, t = np.sqrt(-2 * np.log((a + np.uint64(1)) / 2**32)), 2 * np.pi * (b / 2**32)
        pairs += [r * np.cos(t), r * np.sin(t)]
    return np.stack(pairs, axis=-1).reshape(count, 4 * block.shape[1])[:, :dim].astype(np.float32)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # published with Random123
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers(counter, key, words):
    assert " ".join(f"{w:08x}" for w in _core.philox_words(counter, key)) == words


@pytest.mark.parametrize(
    ("seed", "first", "count", "dim"),
    [
        (7, 0, 20_000, 100),
        (0, 0, 1, 1),
        (2**64 - 1, 2**32 - 3, 50, 101),
        (2**40 + 5, 2**63, 9, 7),
        (1, 5, 0, 100),
        (1, 5, 3, 0),
    ],
)
def test_equals_numpy_to_the_bit(seed, first, count, dim):
    mine = normal_latents(seed, first, count, dim)
    assert mine.dtype == np.float32
    assert mine.shape == (count, dim)
    np.testing.assert_array_equal(mine, reference(seed, first, count, dim))


def test_a_latent_does_not_depend_on_the_range_it_is_asked_in():
    whole = normal_latents(3, 0, 100, 33)
    np.testing.assert_array_equal(normal_latents(3, 41, 10, 33), whole[41:51])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_bits_on_any_thread_count(threads):
    count = 2**20 // 100 + 1  # enough for the kernel to use its threads
    expected = _core.philox_normal(5, 0, count, 100, 1)
    np.testing.assert_array_equal(_core.philox_normal(5, 0, count, 100, threads), expected)


def in_process(isa: str, code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"FASTMRIGAN_ISA": isa}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )


def test_same_bits_on_every_instruction_set():
    code = (
        "import hashlib; from fastmrigan import _core;"
        "print(_core.isa(), hashlib.sha256(_core.philox_normal(9, 1, 5000, 100)).hexdigest())"
    )
    expected = hashlib.sha256(reference(9, 1, 5000, 100)).hexdigest()
    for isa in ISAS:
        assert in_process(isa, code).stdout.split() == [isa, expected]


def test_an_unknown_instruction_set_is_refused():
    done = in_process("sse9", "from fastmrigan import _core; _core.isa()")
    assert "FASTMRIGAN_ISA=sse9: expected baseline, avx2 or avx512" in done.stderr


@pytest.mark.parametrize("bad", [-1, 2**64])
def test_seeds_and_indices_outside_64_bits_are_refused(bad):
    with pytest.raises(UsageError, match=r"seed .*expected a whole number from 0 to 2\^64 - 1"):
        normal_latents(bad, 0, 1, 4)
    with pytest.raises(UsageError, match="first"):
        normal_latents(0, bad, 1, 4)


@pytest.mark.parametrize(("count", "dim"), [(2**31, 2**33), (2**62, 4), (-1, 4)])
def test_sizes_beyond_memory_are_refused(count, dim):
    with pytest.raises(ValueError, match="philox_normal"):
        _core.philox_normal(0, 0, count, dim)


@pytest.mark.gpu
def test_cuda_makes_the_same_bits():
    torch = pytest.importorskip("torch")
    out = torch.empty((1000, 101), device="cuda")
    stream = torch.cuda.current_stream().cuda_stream
    _core.philox_normal_cuda(11, 2**32 - 5, 1000, 101, stream, out.data_ptr())
    np.testing.assert_array_equal(out.cpu().numpy(), reference(11, 2**32 - 5, 1000, 101))


@pytest.mark.skipif(_core.cuda_compiled, reason="this build has CUDA kernels")
def test_a_build_without_cuda_says_so():
    with pytest.raises(RuntimeError, match="build with FASTMRIGAN_CUDA=ON"):
        _core.philox_normal_cuda(0, 0, 1, 4, 0, 0)
