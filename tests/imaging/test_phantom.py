"""The phantom's numbers: determinism, physics, noise, anatomy, tumours."""

import math
import subprocess
import sys

import numpy as np
import pytest

from fastmrigan.errors import UsageError
from fastmrigan.imaging.phantom import (
    CONTRASTS,
    PROPERTIES,
    SEQUENCES,
    PhantomSettings,
    Tissue,
    phantom_batches,
    phantom_slices,
    signal_row,
)
from fastmrigan.imaging.phantom.anatomy import cut
from fastmrigan.imaging.phantom.head import draw_head
from fastmrigan.imaging.phantom.noise import bias_field, rician
from fastmrigan.imaging.phantom.signal import BRIGHTEST, spin_echo
from fastmrigan.imaging.phantom.slices import FIELD_OF_VIEW_MM, place

BRAIN = (
    Tissue.CSF,
    Tissue.GREY_MATTER,
    Tissue.WHITE_MATTER,
    Tissue.DEEP_GREY,
    Tissue.DURA,
    Tissue.TUMOUR,
    Tissue.NECROSIS,
    Tissue.OEDEMA,
)


@pytest.fixture(scope="module")
def clean():
    """32 slices of 128 x 128 in all contrasts, without noise and bias."""
    return phantom_slices(32, 128, CONTRASTS, tumour=0.5, seed=11, noise=0.0, bias=0.0)


# determinism


def test_the_same_bits_for_any_batch_size_and_start():
    settings = PhantomSettings(48, ("t2", "ct"), tumour=0.4, seed=5)
    whole = next(phantom_batches(13, settings, batch=13))
    for size in (1, 4):
        parts = list(phantom_batches(13, settings, batch=size))
        for contrast in settings.contrasts:
            joined = np.concatenate([part.signals[contrast] for part in parts])
            np.testing.assert_array_equal(joined, whole.signals[contrast])
        np.testing.assert_array_equal(np.concatenate([p.tissue for p in parts]), whole.tissue)
        assert sum((part.label for part in parts), ()) == whole.label
    late = next(phantom_batches(3, settings, start=9))
    np.testing.assert_array_equal(late.signals["t2"], whole.signals["t2"][9:12])
    np.testing.assert_array_equal(late.index, [9, 10, 11])


def test_a_contrast_does_not_depend_on_which_others_are_asked_for():
    alone = phantom_slices(4, 40, ("t2",), seed=1)
    among = phantom_slices(4, 40, ("t1", "t2", "ct"), seed=1)
    np.testing.assert_array_equal(alone.signals["t2"], among.signals["t2"])
    np.testing.assert_array_equal(alone.tissue, among.tissue)


def test_seeds_and_heads_differ():
    one = phantom_slices(40, 32, seed=1, noise=0.0)
    two = phantom_slices(40, 32, seed=2, noise=0.0)
    flat = np.concatenate([one.signals["t2"], two.signals["t2"]]).reshape(80, -1)
    assert len(np.unique(flat, axis=0)) == 80
    assert len(set(zip(one.head, one.slice, strict=True))) == 40


def test_imports_neither_torch_nor_optional_packages():
    code = (
        "import sys, fastmrigan.imaging.phantom as p; p.phantom_slices(1, 32); "
        "print([m for m in ('torch', 'scipy', 'nibabel', 'pydicom') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# physics


@pytest.mark.parametrize("contrast", SEQUENCES)
@pytest.mark.parametrize("tissue", list(Tissue))
def test_signals_follow_the_spin_echo_and_inversion_recovery_equations(contrast, tissue):
    tr, te, ti = SEQUENCES[contrast]

    def reference(t1, t2, density):  # solves the Bloch equation for the longitudinal part
        before_pulse = 1 - math.exp(-tr / t1)  # a saturation recovery of TR
        if ti:
            after_inversion = -(1 - math.exp(-(tr - ti) / t1))
            before_pulse = 1 - (1 - after_inversion) * math.exp(-ti / t1)
        return abs(density * before_pulse * math.exp(-te / t2))

    every = [reference(*PROPERTIES[one][:3]) for one in Tissue]
    wanted = reference(*PROPERTIES[tissue][:3]) / max(every) * BRIGHTEST
    assert signal_row(contrast)[tissue] == pytest.approx(wanted, abs=2e-6)
    assert spin_echo(*PROPERTIES[tissue][:3], SEQUENCES[contrast]) == pytest.approx(
        every[tissue], abs=2e-6
    )


def test_pure_pixels_have_the_signal_of_their_tissue(clean):
    head = draw_head(11, 0, False)
    pixels, shares = cut(head, 20.0, 256, FIELD_OF_VIEW_MM / 256)
    np.testing.assert_allclose(shares.sum(axis=0), 1.0, atol=1e-5)
    assert shares.min() >= 0.0
    assert len(np.unique(pixels)) == len(pixels)
    found = set()
    for contrast in CONTRASTS:
        row = signal_row(contrast)
        for tissue in Tissue:
            pure = shares[tissue] > 0.9999
            if pure.any():
                found.add(tissue)
                values = row @ shares[:, pure]
                np.testing.assert_allclose(values, row[tissue], atol=1e-3 * np.ptp(row))
    assert {Tissue.CSF, Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.BONE} <= found
    air = clean.tissue[:, :4, :4]
    assert (air == Tissue.AIR).all()
    assert (clean.signals["t2"][:, :4, :4] == 0).all()
    assert (clean.signals["ct"][:, :4, :4] == -1000).all()


@pytest.mark.parametrize(
    ("contrast", "from_dark_to_bright"),
    [
        ("t1", "BONE CSF GREY_MATTER WHITE_MATTER FAT"),
        ("t2", "BONE WHITE_MATTER GREY_MATTER TUMOUR NECROSIS CSF"),
        ("t2", "WHITE_MATTER OEDEMA CSF"),
        ("flair", "CSF WHITE_MATTER GREY_MATTER TUMOUR"),
        ("flair", "CSF WHITE_MATTER OEDEMA"),
        ("pd", "BONE WHITE_MATTER GREY_MATTER FAT"),
        ("ct", "AIR FAT CSF WHITE_MATTER GREY_MATTER MARROW BONE"),
    ],
)
def test_order_of_the_tissues(contrast, from_dark_to_bright):
    row = signal_row(contrast)
    values = [row[Tissue[name]] for name in from_dark_to_bright.split()]
    assert values == sorted(values)
    assert len(set(values)) == len(values)


def test_flair_nulls_csf():
    assert signal_row("flair")[Tissue.CSF] < 1e-3


# noise and bias


def test_noise_in_air_is_rayleigh():
    sigma = 0.02
    batch = phantom_slices(8, 64, noise=sigma, seed=3)
    corner = batch.signals["t2"][:, :8, :8].astype(np.float64)
    assert (batch.tissue[:, :8, :8] == Tissue.AIR).all()
    assert corner.mean() == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.06)
    assert corner.var() == pytest.approx(sigma**2 * (2 - math.pi / 2), rel=0.2)


@pytest.mark.parametrize(("signal", "sigma"), [(0.0, 0.1), (0.1, 0.1), (0.5, 0.05)])
def test_rician_moments(signal, sigma):
    noisy = rician(np.full((500, 500), signal, np.float32), sigma, np.random.default_rng(1))
    assert noisy.dtype == np.float32
    second = np.mean(noisy.astype(np.float64) ** 2)  # E[M^2] = A^2 + 2 sigma^2, exactly
    assert second == pytest.approx(signal**2 + 2 * sigma**2, rel=0.01)


def test_ct_noise_is_gaussian_in_hounsfield_units():
    corner = phantom_slices(8, 64, ("ct",), noise=0.02).signals["ct"][:, :8, :8]
    assert corner.mean() == pytest.approx(-1000, abs=1.0)
    assert corner.std() == pytest.approx(4.0, rel=0.15)


@pytest.mark.parametrize("strength", [0.1, 0.4])
def test_bias_field_has_its_range_and_is_smooth(strength):
    field = bias_field(64, strength, np.random.default_rng(0))
    assert field.min() == pytest.approx(1 - strength / 2, abs=1e-5)
    assert field.max() == pytest.approx(1 + strength / 2, abs=1e-5)
    assert max(np.abs(np.diff(field, axis=a)).max() for a in (0, 1)) < strength * 0.12


def test_signals_stay_in_range():
    batch = phantom_slices(6, 48, ("t1", "t2", "pd", "flair"), noise=0.3, bias=1.0)
    for signal in batch.signals.values():
        assert signal.dtype == np.float32
        assert signal.min() >= 0.0
        assert signal.max() <= 1.0


# anatomy


def test_tissue_fractions_are_those_of_a_head(clean):
    """Loose bounds around BrainWeb's volumes, over slices from the base to near the top."""
    normal = clean.tissue[np.array(clean.label) == "normal"]
    head = normal != Tissue.AIR
    inside = np.isin(normal, BRAIN)
    assert 0.3 < head.mean() < 0.65
    assert 0.5 < inside.sum() / head.sum() < 0.85
    brain = normal[inside]
    share = {tissue: float((brain == tissue).mean()) for tissue in Tissue}
    assert 0.08 < share[Tissue.CSF] < 0.35
    assert 0.2 < share[Tissue.GREY_MATTER] + share[Tissue.DEEP_GREY] < 0.6
    assert 0.25 < share[Tissue.WHITE_MATTER] < 0.6
    assert share[Tissue.TUMOUR] == share[Tissue.OEDEMA] == share[Tissue.NECROSIS] == 0
    millimetres = head.sum() / len(normal) * clean.pixel_mm**2
    assert 18_000 < millimetres < 32_000  # an axial head is some 150 by 190 mm


@pytest.mark.parametrize("seed", range(3))
def test_the_skull_encloses_the_brain_and_the_head_does_not_touch_the_edge(seed):
    tissue = phantom_slices(24, 64, seed=seed, tumour=0.5).tissue
    edge = np.concatenate([tissue[:, 0], tissue[:, -1], tissue[:, :, 0], tissue[:, :, -1]], axis=1)
    assert (edge == Tissue.AIR).mean() > 0.995
    for one in tissue:
        rows = one[np.isin(one, BRAIN).any(axis=1)]
        for row in rows:
            brain = np.flatnonzero(np.isin(row, BRAIN))
            outside = np.r_[row[: brain[0]], row[brain[-1] + 1 :]]
            assert np.isin(outside, (Tissue.BONE, Tissue.MARROW, Tissue.SKIN, Tissue.FAT)).any()


def test_the_two_hemispheres_are_alike_but_not_mirror_images():
    head = draw_head(2, 0, False)
    pixels, shares = cut(head, 10.0, 128, FIELD_OF_VIEW_MM / 128)
    tissue = np.zeros(128 * 128, np.uint8)
    tissue[pixels] = shares.argmax(axis=0)
    tissue = tissue.reshape(128, 128)
    same = (tissue == tissue[:, ::-1])[tissue > 0].mean()
    assert 0.4 < same < 0.95


def test_sulci_keep_their_share_on_a_coarse_grid():
    """The share of each tissue hardly depends on the pixel size: thin sheets do not vanish."""
    head = draw_head(4, 0, False)
    areas = []
    for size in (64, 256):
        _, shares = cut(head, 40.0, size, FIELD_OF_VIEW_MM / size)
        areas.append(shares.sum(axis=1) * (FIELD_OF_VIEW_MM / size) ** 2)
    for tissue in (Tissue.CSF, Tissue.GREY_MATTER, Tissue.WHITE_MATTER):
        assert areas[0][tissue] == pytest.approx(areas[1][tissue], rel=0.2)


def test_twins_are_registered(clean):
    """Every contrast is a function of the same tissue shares: bone is dark in T1, T2 and PD and
    bright in CT, in the same pixels; CSF is bright in T2 and dark in FLAIR in the same pixels."""
    bone = clean.tissue == Tissue.BONE
    for contrast in ("t1", "t2", "pd"):
        brain_level = np.median(clean.signals[contrast][clean.tissue == Tissue.WHITE_MATTER])
        assert np.median(clean.signals[contrast][bone]) < 0.5 * brain_level
    assert np.median(clean.signals["ct"][bone]) > 600
    t2, flair = clean.signals["t2"], clean.signals["flair"]
    csf, white = clean.tissue == Tissue.CSF, clean.tissue == Tissue.WHITE_MATTER
    assert np.median(t2[csf]) > 2 * np.median(t2[white])
    assert np.median(flair[csf]) < 0.5 * np.median(flair[white])


# tumours


@pytest.mark.parametrize("tumour", [0.0, 0.1, 1 / 3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("count", [1, 7, 100])
def test_tumour_fraction_is_exact_to_rounding(count, tumour):
    shown = sum(place(i, tumour).with_tumour for i in range(count))
    assert shown == math.floor(count * tumour + 0.5)
    where = [(place(i, tumour).head, place(i, tumour).slice) for i in range(count)]
    assert len(set(where)) == count


@pytest.mark.parametrize(("size", "count"), [(32, 120), (64, 60)])
def test_a_slice_has_a_tumour_mask_exactly_where_its_label_says(size, count):
    batch = phantom_slices(count, size, seed=9, tumour=0.5)
    area = batch.tumour_mask.sum(axis=(1, 2))
    assert batch.label.count("tumour") == count // 2
    for label, head, pixels in zip(batch.label, batch.head, area, strict=True):
        assert (label == "tumour") == (pixels > 0) == (head % 2 == 1)
    brain = np.isin(batch.tissue, BRAIN)
    assert brain[batch.tumour_mask].mean() > 0.99
    assert (batch.tissue[batch.tumour_mask] != Tissue.AIR).all()


def test_tumours_are_bright_on_t2_and_flair_and_dark_on_t1(clean):
    mask = clean.tumour_mask
    white = clean.tissue == Tissue.WHITE_MATTER
    for contrast, sign in (("t2", 1), ("flair", 1), ("t1", -1)):
        signal = clean.signals[contrast]
        assert sign * (np.median(signal[mask]) - np.median(signal[white])) > 0.05
    oedema = clean.tissue == Tissue.OEDEMA
    assert oedema.any()
    assert np.median(clean.signals["flair"][oedema]) > np.median(clean.signals["flair"][white])


# errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "count is 0, expected 1 or more"),
        ({"size": 31}, "size is 31, expected 32 to 1024 pixels a side"),
        ({"size": 1025}, "size is 1025, expected 32 to 1024"),
        ({"contrasts": ("t3",)}, "unknown contrast 't3', expected any of t1, t2, pd, flair, ct"),
        ({"contrasts": ()}, "no contrast given, expected any of t1, t2"),
        ({"contrasts": ("t1", "t1")}, "a contrast is named twice in t1,t1"),
        ({"tumour": -0.1}, "tumour is -0.1, expected a fraction from 0 to 1"),
        ({"tumour": float("nan")}, "tumour is nan, expected a fraction from 0 to 1"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"noise": 2.0}, "noise is 2.0, expected 0 to 1"),
        ({"bias": 2.0}, "bias is 2.0, expected 0 to below 2"),
        ({"start": -1}, "start is -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        phantom_slices(**{"count": 1, "size": 32, **settings})
