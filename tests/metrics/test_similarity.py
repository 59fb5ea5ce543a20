"""SSIM, multi-scale SSIM, PSNR and MAE against scikit-image, plain float64 and pytorch-msssim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fastmrigan import _core
from fastmrigan.errors import UsageError
from fastmrigan.metrics.similarity import SCALES, compare, mae, ms_ssim, psnr, ssim

KINDS = ["noise", "smooth", "black border", "uint8"]
SHAPES = [(64, 64), (37, 53), (11, 11), (12, 80), (45, 300)]


def pair(shape, kind="noise", seed=0):
    """Two slices (or stacks) of one kind that differ somewhat."""
    draws = np.random.default_rng(seed)
    a = draws.uniform(-1, 1, shape)
    if kind == "smooth":
        a = np.cumsum(np.cumsum(draws.standard_normal(shape), -1), -2) / 200
    if kind == "black border":
        a[..., :20, :] = -1
        a[..., :, -15:] = -1
    b = a + 0.1 * draws.standard_normal(shape)
    if kind == "uint8":
        return tuple(np.clip((x + 1) * 127.5, 0, 255).astype(np.uint8) for x in (a, b))
    return a.astype(np.float32), b.astype(np.float32)


def scikit_image(a, b, data_range=2, **options):
    return structural_similarity(
        a,
        b,
        data_range=data_range,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        **options,
    )


def in_float64(*slices):
    return (x.astype(np.float64) for x in slices)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equal_scikit_image(kind, shape):
    a, b = pair(shape, kind)
    span = 255 if kind == "uint8" else 2
    found = compare(a, b, span)
    for exact in (a, b), in_float64(a, b):
        assert found.ssim[0] == pytest.approx(scikit_image(*exact, span), abs=5e-6)
    x, y = in_float64(a, b)
    assert found.psnr[0] == pytest.approx(peak_signal_noise_ratio(x, y, data_range=span), rel=1e-12)
    assert found.mae[0] == pytest.approx(np.abs(x - y).mean(), rel=1e-12)
    assert found == (
        ssim(a, b, data_range=span),
        psnr(a, b, data_range=span),
        mae(a, b),
    )


# A bright constant area: E[x²] - E[x]² in float32 is off by up to 1e-4 of the squared data range,
# where SSIM's constant is 9e-4 of it. A far mean makes that worse.
y, x = np.mgrid[:96, :110]
HARD = {
    "constant": np.full(x.shape, 0.93),
    "blocks": np.where((y // 14 + x // 14) % 2, 0.93, -0.97),
    "stripes": np.where(y // 3 % 2, 0.93, -0.97),
    "outliers": np.where((7 * y + 5 * x) % 31, -0.9, 0.99),
    "far mean": 1000 + np.sin(0.3 * y) * np.cos(0.2 * x),
}


@pytest.mark.parametrize("noise", [0, 1e-4, 1e-2])
@pytest.mark.parametrize("kind", HARD)
def test_no_cancellation(kind, noise):
    draws = np.random.default_rng(0)
    a = HARD[kind].astype(np.float32)
    b = (HARD[kind] - 0.02 + noise * draws.standard_normal(a.shape)).astype(np.float32)
    assert ssim(a, b, data_range=2) == pytest.approx(scikit_image(*in_float64(a, b)), abs=5e-6)


def test_a_stack_gives_each_slice_its_own_score():
    a, b = pair((5, 40, 32))
    scores = compare(a, b)
    assert [len(values) for values in scores] == [5, 5, 5]
    for i in range(5):
        np.testing.assert_array_equal([v[i] for v in scores], np.ravel(compare(a[i], b[i])))


def test_identical_slices():
    a, _ = pair((2, 30, 30))
    a[1] = 0.9
    np.testing.assert_array_equal(compare(a, a), [[1, 1], [np.inf, np.inf], [0, 0]])
    assert ms_ssim(np.tile(a[0], (7, 7)), np.tile(a[0], (7, 7)), data_range=2) == 1


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[..., ::2, ::-1],
        lambda x: x.swapaxes(-1, -2),
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(np.float64),
        lambda x: x.astype(x.dtype.newbyteorder()),
        lambda x: x[::2],
    ],
)
def test_a_view_is_as_good_as_a_copy(view):
    a, b = pair((4, 40, 60))
    mask = np.asarray(view(a > 0), bool)
    viewed = compare(view(a), view(b), mask=mask)
    copies = (np.ascontiguousarray(view(s), np.float32) for s in (a, b))
    np.testing.assert_array_equal(viewed, compare(*copies, mask=np.array(mask, order="C")))


def disc(size, border):
    """A head, as a mask [size, size] that stays `border` pixels away from the frame's rim."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    return np.hypot(x, y) <= 1 - 2 * border / size


@pytest.mark.parametrize("size", [40, 57])
@pytest.mark.parametrize("border", [8, 0])
@pytest.mark.parametrize("each", [False, True])
def test_mask_counts_its_pixels_alone(size, border, each):
    a, b = pair((2, size, size))
    mask = disc(size, border)
    masks = np.stack([mask, mask & (a[1] > 0)]) if each else np.stack([mask, mask])
    scores = compare(a, b, mask=masks if each else mask)
    for i, inside in enumerate(masks):
        _, whole = scikit_image(*in_float64(a[i], b[i]), full=True)
        counted = inside.copy()
        for rim in (slice(None, 5), slice(-5, None)):  # SSIM has no windows there
            counted[rim], counted[:, rim] = False, False
        off = a[i].astype(float)[inside] - b[i][inside]
        assert scores.ssim[i] == pytest.approx(whole[counted].mean(), abs=5e-6)
        assert scores.psnr[i] == pytest.approx(10 * np.log10(4 / np.mean(off**2)), rel=1e-12)
        assert scores.mae[i] == pytest.approx(np.abs(off).mean(), rel=1e-12)
    everything = compare(a, b, mask=np.ones_like(a, bool))
    np.testing.assert_allclose(everything, compare(a, b), rtol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_where_it_counts(bad):
    a, b = pair((3, 40, 40))
    clean = compare(a, b)
    b[1, 0, 0] = bad  # SSIM's border: the window at (5, 5) alone sees it
    found = compare(a, b)
    assert np.isnan(found.ssim).tolist() == [False, True, False]
    assert np.isfinite(found.mae).tolist() == [True, False, True]
    for before, after in zip(clean, found, strict=True):
        np.testing.assert_array_equal(before[[0, 2]], after[[0, 2]])
    if np.isnan(bad):
        assert np.isnan([found.psnr[1], found.mae[1]]).all()
    away = np.zeros((40, 40), bool)
    away[6:, 6:] = True  # windows that do not see it
    assert np.isfinite(compare(a, b, mask=away)).all()
    near = np.zeros((40, 40), bool)
    near[5:, 5:] = True  # one that does, though the mask keeps the pixel out
    kept = compare(a, b, mask=near)
    assert np.isnan(kept.ssim[1])
    assert np.isfinite([kept.psnr[1], kept.mae[1]]).all()


def test_no_slices():
    none = np.zeros((0, 200, 200), np.float32)
    assert all(values.shape == (0,) for values in compare(none, none))
    assert ms_ssim(none, none, data_range=2).shape == (0,)


def test_small_slices_have_psnr_and_mae_all_the_same():
    a, b = np.float32([[0, 1]]), np.float32([[0.5, 1]])
    assert mae(a, b) == 0.25
    assert psnr(a, b, data_range=2) == pytest.approx(10 * np.log10(4 / 0.125))


@given(
    height=st.integers(11, 40),
    width=st.integers(11, 40),
    seed=st.integers(0, 2**31),
    offset=st.floats(-1, 1),
    scale=st.sampled_from([1e-3, 0.1, 1]),
)
@settings(max_examples=40, deadline=None)
def test_properties(height, width, seed, offset, scale):
    draws = np.random.default_rng(seed)
    a = draws.uniform(-1, 1, (2, height, width)).astype(np.float32)
    b = (a[::-1] * offset + scale * draws.standard_normal(a.shape)).astype(np.float32)
    forth, back = compare(a, b), compare(b, a)
    np.testing.assert_allclose(forth, back, rtol=1e-6, atol=1e-6)
    assert (np.abs(forth.ssim) <= 1 + 1e-6).all()
    np.testing.assert_array_equal(compare(a[::-1], b[::-1]), np.flip(np.array(forth), 1))
    turned = compare(a.swapaxes(1, 2), b.swapaxes(1, 2))
    np.testing.assert_allclose(turned, forth, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(compare(50 * a, 50 * b, 100).ssim, forth.ssim, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 300, 300), (6, 64, 64)])
def test_same_bits_on_any_number_of_threads(shape):
    a, b = pair(shape)
    sums = np.zeros((3, shape[0], 6))
    for row, threads in zip(sums, (1, 2, 3), strict=True):
        _core.similarity(
            shape, a.ctypes.data, b.ctypes.data, 0, 0, 4e-4, 3.6e-3, True, row.ctypes.data, threads
        )
    np.testing.assert_array_equal(sums[1:], sums[:1].repeat(2, 0))


def ms_ssim_in_float64(a, b, span):
    """Wang, Simoncelli, Bovik 2003, equation 7, with the last scale's SSIM as one mean."""
    c1, c2, product = (0.01 * span) ** 2, (0.03 * span) ** 2, 1.0
    for scale, weight in enumerate(SCALES):
        if scale > 0:
            even = (slice(a.shape[0] // 2 * 2), slice(a.shape[1] // 2 * 2))
            shape = (a.shape[0] // 2, 2, a.shape[1] // 2, 2)
            a, b = (x[even].reshape(shape).mean((1, 3)) for x in (a, b))
        means = [gaussian_filter(x, 1.5, truncate=3.5) for x in (a, b, a * a + b * b, a * b)]
        ma, mb, both, product_ab = (m[5:-5, 5:-5] for m in means)
        contrast = (2 * (product_ab - ma * mb) + c2) / (both - ma * ma - mb * mb + c2)
        luminance = (2 * ma * mb + c1) / (ma * ma + mb * mb + c1) if scale == 4 else 1
        product *= (luminance * contrast).mean() ** weight
    return product


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(176, 176), (256, 192), (181, 217)])
def test_multi_scale_equals_float64(kind, shape):
    a, b = pair(shape, kind)
    span = 255 if kind == "uint8" else 2
    expected = ms_ssim_in_float64(*in_float64(a, b), span)
    assert ms_ssim(a, b, data_range=span) == pytest.approx(expected, abs=5e-6)
    assert ms_ssim(a[None], b[None], data_range=span) == pytest.approx([expected], abs=5e-6)


def test_multi_scale_in_a_mask():
    a, b = pair((2, 256, 256), "smooth")
    mask = disc(256, 20)
    inside = ms_ssim(a, b, data_range=2, mask=mask)
    both = ms_ssim(a, b, data_range=2, mask=np.stack([mask, mask]))
    np.testing.assert_array_equal(inside, both)
    everything = ms_ssim(a, b, data_range=2, mask=np.ones((256, 256), bool))
    np.testing.assert_allclose(everything, ms_ssim(a, b, data_range=2), rtol=1e-9)
    ruined = b.copy()
    ruined[:, :, :16] += 1  # what no counted window sees at any scale but the coarse ones
    assert (ms_ssim(a, ruined, data_range=2, mask=mask) > ms_ssim(a, ruined, data_range=2)).all()
    corner = np.zeros((256, 256), bool)
    corner[:16, :16] = True
    with pytest.raises(UsageError, match=r"ms_ssim, scale 3 of 5: the mask of slice 0 holds no"):
        ms_ssim(a, b, data_range=2, mask=corner)


def test_opposite_slices_have_a_multi_scale_ssim_of_nothing():
    a, _ = pair((176, 176))
    assert ms_ssim(a, -a, data_range=2) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 176, 176), (2, 256, 192)])
def test_multi_scale_equals_pytorch_msssim(kind, shape):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("pytorch_msssim")
    a, b = pair(shape, kind)
    span = 255 if kind == "uint8" else 2
    doubles = (torch.from_numpy(x)[:, None] for x in in_float64(a, b))
    expected = theirs.ms_ssim(*doubles, data_range=span, size_average=False)
    np.testing.assert_allclose(ms_ssim(a, b, data_range=span), expected.numpy(), atol=5e-6)


def test_cpu_tensors_are_arrays_too():
    torch = pytest.importorskip("torch")
    a, b = pair((2, 40, 40))
    found = compare(torch.from_numpy(a), torch.from_numpy(b), mask=torch.from_numpy(a > 0))
    np.testing.assert_array_equal(found, compare(a, b, mask=a > 0))


@pytest.mark.skipif(_core.cuda_compiled, reason="this build has CUDA kernels")
def test_a_build_without_cuda_says_so():
    with pytest.raises(RuntimeError, match="build with FASTMRIGAN_CUDA=ON"):
        _core.similarity_cuda((1, 1, 1), 0, 0, 0, 0, 0.0, 0.0, False, 0, 0, 0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: mae(x, x[:20]), r"mae: expected two arrays of the same shape .* \[30, 30\] and"),
        (lambda x: mae(x[0], x[0]), r"got \[30\] and \[30\]"),
        (lambda x: psnr(x[:0], x[:0], data_range=1), r"psnr: expected .* got \[0, 30\]"),
        (lambda x: psnr(x, x, data_range=0), "psnr: data_range must be a positive number, got 0"),
        (lambda x: ssim(x, x, data_range=np.nan), "ssim: data_range must be a positive number"),
        (lambda x: compare(x, x, -1), "compare: data_range must be a positive number, got -1"),
        (lambda x: ssim(x[:10], x[:10], data_range=1), "10x30 is smaller than the 11x11 window"),
        (lambda x: compare(x[:, :9], x[:, :9]), "compare: a slice of 30x9 is smaller than the"),
        (lambda x: ms_ssim(x, x, data_range=1), "ms_ssim: a slice of 30x30 is smaller than 176x"),
        (lambda x: mae(x * 1j, x), "mae: expected slices of real numbers, got complex64"),
        (lambda x: mae(x, x, mask=x), "mae: expected a bool mask .* got float32"),
        (lambda x: mae(x, x, mask=x[:9] > 9), r"expected a bool mask .* got bool \[9, 30\]"),
        (lambda x: mae(x, x, mask=x > 9), "the mask of slice 0 holds no counted pixel"),
        (
            lambda x: compare(x, x, mask=(x + np.arange(30)) < 5),
            "compare: the mask of slice 0 holds no counted pixel outside the border of 5",
        ),
    ],
)  # fmt: skip
def test_errors(call, text):
    with pytest.raises(UsageError, match=text):
        call(np.zeros((30, 30), np.float32))
