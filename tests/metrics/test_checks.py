"""What is no array of slices or features is refused in one line, whoever is asked."""

import numpy as np
import pytest
import torch

from fastmrigan.errors import UsageError
from fastmrigan.metrics import Moments, compare, frechet, mae, ms_ssim, psnr, ssim
from fastmrigan.metrics.bootstrap import interval
from fastmrigan.metrics.classifier import train_tumour_classifier
from fastmrigan.metrics.downstream import tumour_utility
from fastmrigan.metrics.features import random_features
from fastmrigan.metrics.kid import kid, kid_subsets
from fastmrigan.metrics.manifold import precision_recall_density_coverage
from fastmrigan.metrics.memorisation import find_copies
from fastmrigan.metrics.radiomics import radiomic_features
from fastmrigan.metrics.two_sample import real_or_fake

SLICES = np.zeros((30, 16, 16), np.float32)
ROWS = np.zeros((30, 4), np.float32)
TUMOUR = np.arange(30) < 15

# Every place of every function that takes slices or features, with something right elsewhere.
TAKES = {
    "compare": lambda x: compare(x, SLICES),
    "compare, second": lambda x: compare(SLICES, x),
    "mae": lambda x: mae(x, x),
    "psnr": lambda x: psnr(x, SLICES, data_range=2),
    "ssim": lambda x: ssim(SLICES, x, data_range=2),
    "ms_ssim": lambda x: ms_ssim(x, x, data_range=2),
    "kid": lambda x: kid(x, ROWS),
    "kid, second": lambda x: kid(ROWS, x),
    "kid_subsets": lambda x: kid_subsets(x, ROWS, size=5),
    "precision_recall_density_coverage": lambda x: precision_recall_density_coverage(x, ROWS),
    "precision_recall_density_coverage, second": lambda x: precision_recall_density_coverage(
        ROWS, x
    ),
    "frechet": lambda x: frechet(ROWS, x),
    "moments": lambda x: Moments().update(x),
    "find_copies": lambda x: find_copies(x, SLICES, SLICES),
    "find_copies, training": lambda x: find_copies(SLICES, x, SLICES),
    "find_copies, held-out": lambda x: find_copies(SLICES, SLICES, x),
    "real_or_fake": lambda x: real_or_fake(x, SLICES),
    "real_or_fake, synthetic": lambda x: real_or_fake(SLICES, x),
    "tumour classifier": lambda x: train_tumour_classifier(x, TUMOUR),
    "tumour classifier, labels": lambda x: train_tumour_classifier(SLICES, x),
    "tumour_utility": lambda x: tumour_utility(x, TUMOUR, SLICES, SLICES, TUMOUR),
    "tumour_utility, labels": lambda x: tumour_utility(SLICES, x, SLICES, SLICES, TUMOUR),
    "tumour_utility, synthetic": lambda x: tumour_utility(SLICES, TUMOUR, x, SLICES, TUMOUR),
    "tumour_utility, test": lambda x: tumour_utility(SLICES, TUMOUR, SLICES, x, TUMOUR),
    "tumour_utility, truth": lambda x: tumour_utility(SLICES, TUMOUR, SLICES, SLICES, x),
    "random_features": random_features,
    "radiomic_features": radiomic_features,
}
ODD = {
    "list": [[1.0, 2.0], [3.0, 4.0]],
    "int": 3,
    "None": None,
    "str": "slices.npy",
    "a number of NumPy": np.float32(1.0),
    "objects": np.array([[None, {}], [None, {}]], object),
    "text": np.array([["a", "b"]] * 30),
    "complex": np.zeros((30, 16, 16), np.complex64),
    "no axes": np.array(1.0, np.float32),
    "sparse tensor": torch.zeros(30, 4).to_sparse(),
    "tensor without values": torch.zeros(30, 4, device="meta"),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("taken", TAKES)
def test_odd_types(taken, odd):
    with pytest.raises(UsageError) as caught:
        TAKES[taken](ODD[odd])
    message = str(caught.value)
    assert message.startswith(taken.partition(",")[0])
    assert "\n" not in message
    assert any(word in message for word in ("expected", "must be", "smaller than"))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: interval(np.mean, [1.0]), "interval: expected arrays with rows, got list"),
        (lambda: mae(SLICES, SLICES, mask=[True]), "mae: expected a bool mask, an array or a t"),
        (lambda: compare(SLICES, SLICES, "2"), "compare: data_range must be .* number, got '2'"),
        (lambda: kid(torch.zeros(5, 3), ROWS), "same number of features, got 3 and 4"),
        (
            lambda: precision_recall_density_coverage(ROWS, ROWS, k="5"),
            "k must be a whole number of at least 1, got '5'",
        ),
        (
            lambda: real_or_fake(SLICES, SLICES, real_groups=["a"] * 30),
            r"real set: expected names of groups, an array \[30\], got list",
        ),
        (
            lambda: real_or_fake(SLICES, SLICES, made_groups=np.array(["a", None] * 15, object)),
            "synthetic set: expected names of groups as str or numbers, got mixed objects",
        ),
        (lambda: real_or_fake(SLICES, SLICES, seed="x"), "seed must be a whole .* got 'x'"),
        (lambda: real_or_fake(SLICES, SLICES, steps=0), "steps must be .* at least 1, got 0"),
        (
            lambda: tumour_utility(SLICES, TUMOUR, SLICES, SLICES, TUMOUR, seeds=0),
            "tumour_utility: seeds must be a whole number of at least 1, got 0",
        ),
        (
            lambda: train_tumour_classifier(np.where(SLICES == 0, np.nan, SLICES), TUMOUR),
            "tumour classifier: NaN or infinity",
        ),
    ],
)
def test_odd_options(call, text):
    with pytest.raises(UsageError, match=text):
        call()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_cpu_tensors_are_as_good_as_arrays(dtype):
    draws = np.random.default_rng(0)
    a, b = (torch.from_numpy(draws.random((12, 5))).to(dtype).requires_grad_() for _ in range(2))
    x, y = (each.detach().double().numpy() for each in (a, b))
    assert kid(a, b) == pytest.approx(kid(x, y), abs=1e-7)
    assert precision_recall_density_coverage(a, b) == precision_recall_density_coverage(x, y)


def test_tensors_of_whole_numbers_are_compared_as_arrays_are():
    """The means of 2x2 pixels that MS-SSIM takes must not overflow their type."""
    draws = np.random.default_rng(0)
    a = draws.integers(0, 256, (176, 176), dtype=np.uint8)
    b = np.clip(a + draws.integers(-20, 21, a.shape), 0, 255).astype(np.uint8)
    found = ms_ssim(torch.from_numpy(a), torch.from_numpy(b), data_range=255)
    assert found == ms_ssim(a, b, data_range=255) > 0.9
