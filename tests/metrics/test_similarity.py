import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fastmrigan.errors import UsageError
from fastmrigan.metrics import mae, psnr, ssim


def pair(shape, kind, seed=0):
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
        return (np.clip((x + 1) * 127.5, 0, 255).astype(np.uint8) for x in (a, b))
    return a.astype(np.float32), b.astype(np.float32)


@pytest.mark.parametrize("kind", ["noise", "smooth", "black border", "uint8"])
@pytest.mark.parametrize("shape", [(64, 64), (37, 53), (11, 11), (12, 80)])
def test_ssim_and_psnr_equal_scikit_image(kind, shape):
    a, b = pair(shape, kind)
    span = 255 if kind == "uint8" else 2
    expected = structural_similarity(
        a, b, data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(a, b, data_range=span) == pytest.approx(expected, abs=5e-6)
    assert psnr(a, b, data_range=span) == pytest.approx(
        peak_signal_noise_ratio(a, b, data_range=span), abs=1e-4
    )
    assert mae(a, b) == pytest.approx(np.abs(a.astype(float) - b.astype(float)).mean(), rel=1e-12)


def test_a_stack_gives_each_slice_its_own_score():
    a, b = pair((3, 40, 32), "noise")
    for measure in (
        mae,
        lambda x, y: psnr(x, y, data_range=2),
        lambda x, y: ssim(x, y, data_range=2),
    ):
        scores = measure(a, b)
        assert scores.shape == (3,)
        np.testing.assert_array_equal(scores, [measure(x, y) for x, y in zip(a, b, strict=True)])


def test_identical_slices():
    a, _ = pair((30, 30), "noise")
    assert (mae(a, a), psnr(a, a, data_range=2), ssim(a, a, data_range=2)) == (0, np.inf, 1)
    flat = np.zeros((30, 30), np.float32)
    assert ssim(flat, flat, data_range=2) == 1


def test_a_view_is_as_good_as_a_copy():
    a, b = pair((40, 60), "noise")
    assert ssim(a[::2, ::-1], b[::2, ::-1], data_range=2) == pytest.approx(
        ssim(a[::2, ::-1].copy(), b[::2, ::-1].copy(), data_range=2)
    )


def test_mask_counts_its_pixels_alone():
    a, b = pair((2, 40, 40), "noise")
    mask = np.zeros((40, 40), bool)
    mask[10:20, 12:30] = True
    inside = (slice(None), slice(10, 20), slice(12, 30))
    np.testing.assert_allclose(mae(a, b, mask=mask), mae(a[inside], b[inside]))
    np.testing.assert_allclose(
        psnr(a, b, data_range=2, mask=mask), psnr(a[inside], b[inside], data_range=2)
    )
    for i in range(2):
        _, whole = structural_similarity(
            a[i], b[i], data_range=2, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )  # fmt: skip
        assert ssim(a[i], b[i], data_range=2, mask=mask) == pytest.approx(
            whole[inside[1:]].mean(), abs=5e-6
        )
    everything = np.ones_like(a, bool)
    np.testing.assert_allclose(ssim(a, b, data_range=2, mask=everything), ssim(a, b, data_range=2))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: mae(x, x[:20]), r"mae: expected two arrays of the same shape .* \[30, 30\] and"),
        (lambda x: mae(x[0], x[0]), r"got \[30\] and \[30\]"),
        (lambda x: psnr(x[:0], x[:0], data_range=1), r"psnr: expected .* got \[0, 30\]"),
        (lambda x: psnr(x, x, data_range=0), "psnr: data_range must be a positive number, got 0"),
        (lambda x: ssim(x, x, data_range=np.nan), "ssim: data_range must be a positive number"),
        (lambda x: ssim(x[:10], x[:10], data_range=1), "10x30 is smaller than the 11x11 window"),
        (lambda x: mae(x, x, mask=x), "mae: expected a bool mask .* got float32"),
        (lambda x: mae(x, x, mask=x[:9] > 9), r"expected a bool mask .* got bool \[9, 30\]"),
        (lambda x: mae(x, x, mask=x > 9), "the mask of slice 0 holds no counted pixel"),
    ],
)
def test_errors(call, text):
    with pytest.raises(UsageError, match=text):
        call(np.zeros((30, 30), np.float32))
