"""Streamed moments against two passes in extended precision."""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmrigan import _core
from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.metrics.moments import Moments

SUPPORT = Path(__file__).parents[1] / "support"


def reference(x):
    """Mean and covariance by two passes in long double, each with the size its rounding is of."""
    x = x.astype(np.longdouble)
    mean = x.mean(axis=0)
    apart = x - mean
    return mean, apart.T @ apart / (len(x) - 1)


def agrees(moments, x, digits=1e-14):
    mean, covariance = reference(x)
    spread = np.sqrt(np.diagonal(covariance))
    scale = np.outer(spread, spread) + np.finfo(float).tiny
    # A shift is rounded to float64: a mean far from zero keeps its own last digit, no more.
    grain = 2.0**-52 * np.abs(mean)
    assert (np.abs(moments.mean - mean) <= digits * spread + 2 * grain).all()
    assert (np.abs(moments.covariance - covariance) <= digits * 10 * scale).all()
    assert np.array_equal(moments.covariance, moments.covariance.T)


def rows(n, d, dtype=np.float32, mean=0.0, seed=0):
    draws = np.random.default_rng(seed)
    mix = draws.standard_normal((d, d)) / np.sqrt(d)
    return (draws.standard_normal((n, d)) @ mix + mean).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mean", [0.0, 4096.0])
@pytest.mark.parametrize(("n", "d"), [(2, 1), (5, 3), (300, 17), (1000, 64), (40, 131)])
def test_equals_two_passes(n, d, dtype, mean):
    x = rows(n, d, dtype, mean)
    agrees(Moments().update(x), x)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(isa, tmp_path):
    if not _core.isa_supported(isa):
        pytest.skip(f"this processor has no {isa}")
    x = rows(700, 75)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np; from fastmrigan.metrics.moments import Moments\n"
        "Moments().update(np.load(sys.argv[1])).save(sys.argv[2])"
    )
    out = tmp_path / "out.npz"
    environment = os.environ | {"FASTMRIGAN_ISA": isa}
    command = [sys.executable, "-c", code, str(tmp_path / "x.npy"), str(out)]
    subprocess.run(command, env=environment, check=True, timeout=300)
    agrees(Moments.load(out), x)


def test_rows_in_any_order_even_with_a_shift_far_from_the_mean():
    """The first rows, of which the shift is made, are far from all others."""
    x = np.concatenate([rows(256, 20, mean=0), rows(20000, 20, mean=3000, seed=1)])
    agrees(Moments().update(x), x, 1e-13)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::2],
        lambda x: x[::-1],
        lambda x: x[:, 3:20],
        lambda x: x[:, ::2],
        lambda x: np.asfortranarray(x),
        lambda x: x[:, :1],
        lambda x: np.broadcast_to(x[:1], x.shape),
        lambda x: x.astype(">f4"),
        lambda x: x.astype(np.float16),
        lambda x: torch.from_numpy(x),
        lambda x: torch.from_numpy(x).T.contiguous().T,
        lambda x: torch.from_numpy(x).bfloat16(),
    ],
)
def test_views_and_types(view):
    x = view(rows(90, 31))
    seen = np.asarray(x.float() if isinstance(x, torch.Tensor) else x)
    agrees(Moments().update(x), seen)


def test_read_only_rows():
    x = rows(50, 8)
    x.flags.writeable = False
    agrees(Moments().update(x), x)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_the_bits_do_not_depend_on_the_threads(threads):
    x = rows(1000, 131)
    shift = x.mean(axis=0, dtype=np.float64)
    found = []
    for team in (1, threads):
        sums, products = np.zeros(131), np.zeros((131, 131))
        _core.moments_update(x, shift, sums, products, team)
        found.append((sums, np.triu(products), _core.moments_covariance(sums, products, 9, team)))
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


@settings(deadline=None, max_examples=40)
@given(
    cuts=st.lists(st.integers(0, 60), max_size=4),
    d=st.integers(1, 20),
    scale=st.sampled_from([1e-12, 1.0, 1e12]),
    gap=st.sampled_from([0.0, 100.0]),
)
def test_chunks_and_merges_equal_the_whole(cuts, d, scale, gap):
    x = rows(60, d, np.float64)
    x[30:] += gap  # the parts' means differ
    x *= scale
    parts = np.split(x, sorted(cuts))
    streamed, merged = Moments(), Moments()
    for part in parts:
        streamed.update(part)
        merged.merge(Moments().update(part))
    assert streamed.count == merged.count == 60
    agrees(streamed, x, 1e-13)
    agrees(merged, x, 1e-13)
    half = len(parts) // 2  # a merged one takes further rows
    resumed = Moments()
    for part in parts[:half]:
        resumed.merge(Moments().update(part))
    agrees(resumed.update(np.concatenate(parts[half:])), x, 1e-13)


def test_a_merge_leaves_the_other_as_it_was():
    x, y = rows(30, 5), rows(40, 5, seed=1)
    one, other = Moments().update(x), Moments().update(y)
    empty = Moments().merge(other)
    one.merge(other).update(x)
    empty.update(x)
    agrees(other, y)
    agrees(one, np.concatenate([x, y, x]))


def test_identical_and_constant_rows_have_no_covariance():
    constant = np.full((500, 9), 0.1, np.float32)
    moments = Moments().update(constant[:200]).update(constant[200:])
    assert np.abs(moments.covariance).max() < 1e-30
    np.testing.assert_array_equal(moments.mean, np.float64(np.float32(0.1)))


def test_a_copy_travels_by_pickle():
    x = rows(300, 12)
    moments = pickle.loads(pickle.dumps(Moments().update(x[:100])))
    agrees(moments.update(x[100:]), x)
    assert pickle.loads(pickle.dumps(Moments())).count == 0


def test_files_are_those_of_pytorch_fid(tmp_path):
    x = rows(100, 6)
    moments = Moments().update(x)
    moments.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:  # as pytorch_fid.fid_score does
        mu, sigma = file["mu"][:], file["sigma"][:]
    np.testing.assert_array_equal(mu, moments.mean)
    np.testing.assert_array_equal(sigma, moments.covariance)
    again = Moments.load(tmp_path / "a.npz")
    assert (again.count, again.dimension) == (100, 6)
    np.testing.assert_allclose(again.covariance, sigma, rtol=1e-15)
    agrees(again.update(x), np.concatenate([x, x]))

    np.savez_compressed(tmp_path / "theirs.npz", mu=mu.astype(np.float32), sigma=sigma)
    theirs = Moments.load(tmp_path / "theirs.npz")
    assert theirs.count is None
    np.testing.assert_array_equal(theirs.covariance, sigma)
    theirs.save(tmp_path / "b.npz")
    assert Moments.load(tmp_path / "b.npz").count is None
    for call in (lambda: theirs.update(x), lambda: theirs.merge(moments)):
        with pytest.raises(UsageError, match="without a count"):
            call()


def npz(**content):
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "not readable as .npz"),
        (npz(mu=np.zeros(2), sigma=np.eye(2))[:-30], "not readable as .npz"),
        (npz(mu=np.zeros(2)), "has no 'sigma'; expected the keys mu and sigma"),
        (npz(mu=np.zeros(3), sigma=np.eye(2)), r"mu \[d\] and sigma \[d, d\], got \[3\] and \[2,"),
        (npz(mu=np.zeros(2), sigma=np.array([[1, 2], [0, 1]])), "must be symmetric"),
        (npz(mu=np.zeros(2), sigma=-np.eye(2)), "its diagonal not negative"),
        (npz(mu=np.array([0, np.nan]), sigma=np.eye(2)), "mu or sigma has NaN or infinity"),
        (npz(mu=np.zeros(2), sigma=np.full((2, 2), np.inf)), "mu or sigma has NaN or infinity"),
        (
            npz(mu=np.zeros(2), sigma=np.eye(2), count=1),
            "the count must be a whole number of at least 2, got 1",
        ),
        (npz(mu=np.array([None]), sigma=np.eye(1)), "not readable as .npz"),
    ],
)
def test_files_that_are_refused(content, text, tmp_path):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(InputRejected, match=text) as caught:
        Moments.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: Moments().update(x[0]), r"expected floats \[N, d\], got float32 \[3\]"),
        (lambda x: Moments().update(x.astype(int)), "expected floats .* got int64"),
        (lambda x: Moments().update([[1.0]]), "an array or a tensor, got list"),
        (lambda x: Moments().update(x[:, :0]), r"expected floats \[N, d\], got float32 \[5, 0\]"),
        (lambda x: Moments().update(x).update(x[:, :2]), "expected rows of 3 features, got 2"),
        (lambda x: Moments().update(x).merge(Moments().update(x[:, :2])), "2 features into 3"),
        (lambda x: Moments().mean, "0 rows seen, a mean needs at least 1"),
        (lambda x: Moments().update(x[:1]).covariance, "1 rows seen, a covariance needs"),
        (lambda x: Moments.load("nowhere.npz"), "nowhere.npz: no such file"),
        (lambda x: Moments.load("stats.npy"), "reference statistics are .npz files"),
        (lambda x: Moments().update(x).save("stats.npy"), "reference statistics are .npz files"),
        (lambda x: Moments().update(x).save("no/a.npz"), "no/a.npz: there is no folder no; make"),
        (lambda x: Moments().update(x).save("/proc/a.npz"), "/proc/a.npz: "),
        (lambda x: Moments().update(x).save(None), "the path of an .npz file, got NoneType"),
        (lambda x: Moments.load(3), "the path of an .npz file, got int"),
        (lambda x: Moments().update(x).merge(x), "expected Moments to merge, got ndarray"),
        (lambda x: Moments.of_statistics(["a"], x), "mu must hold real numbers"),
        (lambda x: Moments.of_statistics([[1], [1, 2]], x), "mu is no array of numbers"),
        (lambda x: Moments.of_statistics([0], [[1j]]), "sigma must hold real numbers, got complex"),
        (lambda x: Moments.of_statistics([0], [[1]], "many"), "the count must be a whole number"),
        (lambda x: Moments().update(1e160 * np.eye(5)), "the squares .* overflow float64; scale"),
        (lambda x: Moments().update(1e-160 * np.eye(5)), "the squares .* underflow float64; scale"),
        (
            lambda x: (
                Moments().update(0 * np.eye(5)).merge(Moments().update(1e160 + 0 * np.eye(5)))
            ),
            "the squares .* overflow float64; scale",
        ),
    ],
)
def test_errors(call, text):
    with pytest.raises(UsageError, match=text):
        call(np.ones((5, 3), np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_is_refused_and_nothing_taken_in(value):
    x = rows(50, 4)
    moments = Moments().update(x)
    bad = x.copy()
    bad[3, 1], bad[7, 1] = value, -value
    with pytest.raises(UsageError, match="NaN or infinity in row 3"):
        moments.update(bad)
    with pytest.raises(UsageError, match="NaN or infinity in row 3"):
        moments.update(torch.from_numpy(bad))
    agrees(moments, x)


def test_large_finite_rows_are_not_taken_for_infinite():
    x = np.full((10, 2), 3e38, np.float32)
    x[0] = 2e38
    agrees(Moments().update(x), x)


@pytest.mark.slow
def test_two_processes_merge_to_the_same_bits(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(SUPPORT / "moments_ranks.py"), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    for kind in ("both", "one"):
        first, second = (Moments.load(tmp_path / f"{kind}-{rank}.npz") for rank in range(2))
        assert first.count == second.count
        np.testing.assert_array_equal(first.mean, second.mean)
        np.testing.assert_array_equal(first.covariance, second.covariance)
        x = np.load(tmp_path / f"{kind}.npy")
        assert first.count == len(x)
        agrees(first, x)


STREAM = """
import re, sys
from pathlib import Path
import numpy as np
from fastmrigan.metrics.moments import Moments
draws = np.random.default_rng(0)
moments = Moments()
for _ in range(int(sys.argv[1])):
    moments.update(draws.standard_normal((1000, 2048), dtype=np.float32))
moments.mean, moments.covariance
# Not getrusage: its peak counts the process this one was started from.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows():
    # Freed arrays go back to the system at once: how many glibc keeps differs from run to run.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
    peaks = []
    for chunks in (5, 20):
        command = [sys.executable, "-c", STREAM, str(chunks)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=300, env=environment
        )
        peaks.append(int(done.stdout) / 1e6)
    assert max(peaks) < 300
    assert peaks[1] < peaks[0] + 10  # the 15 further chunks are 123 MB
