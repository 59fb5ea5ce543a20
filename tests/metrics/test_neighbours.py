import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter, map_coordinates

from fastmrigan.errors import UsageError
from fastmrigan.metrics.neighbours import SHIFT, nearest_aligned, nearest_real, unit_rows


def smooth(count, seed, size=64, sigma=4):
    field = np.random.default_rng(seed).standard_normal((count, size, size))
    return np.tanh(2 * sigma * gaussian_filter(field, (0, sigma, sigma))).astype(np.float32)


def test_equals_numpy_corrcoef_whatever_the_block():
    real, made = smooth(37, 0), smooth(11, 1)
    small = [x.reshape(-1, 32, 2, 32, 2).mean((2, 4)).reshape(len(x), -1) for x in (made, real)]
    expected = np.corrcoef(*small)[:11, 11:]  # [11, 37]
    for block in (4, 11, 1024):
        found = nearest_real(made, real, block=block)
        np.testing.assert_array_equal(found.index, expected.argmax(1))
        np.testing.assert_allclose(found.correlation, expected.max(1), atol=1e-5)


def test_copies_are_found_even_regraded():
    real = smooth(50, 0)
    order = np.random.default_rng(2).permutation(50)[:16]
    found = nearest_real(0.6 * real[order] - 0.2, real)
    np.testing.assert_array_equal(found.index, order)
    assert (found.correlation > 0.9999).all()


def test_a_constant_slice_is_like_nothing():
    flat = np.full((1, 64, 64), 0.3, np.float32)
    assert nearest_real(flat, smooth(5, 0)).correlation[0] == 0
    assert nearest_aligned(flat, smooth(5, 0)).correlation[0] == 0


def every_pose(query, real):
    """Correlations [2, 7, 7] of the overlap of `real` with `query` mirrored or not, and moved."""
    side = len(real) - 2 * SHIFT
    centre = real[SHIFT:-SHIFT, SHIFT:-SHIFT].ravel()
    return [
        [
            [
                np.corrcoef(centre, pose[y : y + side, x : x + side].ravel())[0, 1]
                for x in range(2 * SHIFT + 1)
            ]
            for y in range(2 * SHIFT + 1)
        ]
        for pose in (query, query[:, ::-1])
    ]


def around(query, real, mirrored, moved):
    """The best correlation half a pixel around a pose, by linear interpolation."""
    side = len(real) - 2 * SHIFT
    centre = real[SHIFT:-SHIFT, SHIFT:-SHIFT].ravel()
    pose = query[:, ::-1] if mirrored else query
    y, x = np.indices((side, side)) + SHIFT + moved[:, None, None]
    return max(
        np.corrcoef(centre, map_coordinates(pose, [y + v, x + u], order=1, mode="nearest").ravel())[
            0, 1
        ]
        for v in (-0.5, 0, 0.5)
        for u in (-0.5, 0, 0.5)
    )


@pytest.mark.parametrize("block", [2, 64])
@pytest.mark.parametrize("size", [16, 64])
def test_aligned_equals_every_pose_tried(size, block):
    """With as few real slices as the shortlist is long, nothing is left out of the search."""
    real, made = smooth(5, 0, size, 2), smooth(5, 1, size, 2)
    expected = np.array([[every_pose(query, x) for x in real] for query in made])
    found = nearest_aligned(made, real, block=block)
    for i, scores in enumerate(expected):  # [5, 2, 7, 7]
        index, mirrored, down, right = np.unravel_index(scores.argmax(), scores.shape)
        assert (found.index[i], found.mirrored[i]) == (index, mirrored)
        np.testing.assert_array_equal(found.moved[i], (down - SHIFT, right - SHIFT))
        best = around(made[i], real[index], mirrored, found.moved[i])
        assert found.correlation[i] == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("by", [(0, 0), (3, -3), (-2, 2), (1, 3)], ids=str)
@pytest.mark.parametrize("mirrored", [False, True])
def test_moved_copies_are_found(by, mirrored):
    real = smooth(80, 0)
    order = np.random.default_rng(2).permutation(80)[:16]
    moved = np.roll(real[order], by, axis=(1, 2))
    found = nearest_aligned(moved[:, :, ::-1] if mirrored else moved, real)
    np.testing.assert_array_equal(found.index, order)
    assert (found.correlation > 0.9999).all()
    assert (found.mirrored == mirrored).all()
    assert (found.moved == by).all()


def plain_nearest(queries, real):
    """The two steps one window at a time: half size, then every pose of the 6 most alike."""

    def windows(x, reach):  # [N, (2 reach + 1)², side²], unit rows
        side = x.shape[-1] - 2 * reach
        places = [(y, z) for y in range(2 * reach + 1) for z in range(2 * reach + 1)]
        cut = [x[:, y : y + side, z : z + side].flatten(1) for y, z in places]
        return torch.stack([unit_rows(rows) for rows in cut], dim=1)

    x, y = torch.from_numpy(queries), torch.from_numpy(real)
    small, small_real = (F.avg_pool2d(each, 2) for each in (x, y))
    reach = SHIFT // 2
    rows = windows(small_real, reach)[:, len(windows(small_real[:1], reach)[0]) // 2]  # centres
    poses = torch.stack([windows(small, reach), windows(small.flip(-1), reach)], dim=1)
    likely = (poses @ rows.T).amax(dim=(1, 2)).topk(min(6, len(real))).indices  # [M, K]
    fine = windows(y, SHIFT)[:, 24]
    both = torch.stack([windows(x, SHIFT), windows(x.flip(-1), SHIFT)], dim=2)  # [M, 49, 2, …]
    scores = both @ fine[likely].mT[:, None]  # [M, 49, 2, K]
    best = scores.mT.flatten(1).max(dim=1)  # of 49 * K * 2
    index = likely.gather(1, (best.indices // 2 % likely.shape[1])[:, None])[:, 0]
    return index.numpy(), best.values.numpy(), (best.indices % 2 == 1).numpy()


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_equals_the_plain_search(offset):
    """Window by window, each less its own mean; beyond whole pixels a score can only rise."""
    real = smooth(60, 0, 32, 2)
    order = np.random.default_rng(3).permutation(60)[:20]
    copies = np.roll(real[order][:, :, ::-1], 2, axis=1)
    made = np.concatenate([smooth(20, 1, 32, 2), 0.4 * copies]) + np.float32(offset)
    index, score, mirrored = plain_nearest(made, real)
    found = nearest_aligned(made, real, block=16)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.mirrored, mirrored)
    assert (found.correlation >= score - 1e-6).all()
    whole = np.array([(c - s) < 1e-6 for c, s in zip(found.correlation, score, strict=True)])
    assert whole[20:].all()  # copies moved by whole pixels
    np.testing.assert_array_equal(found.index[20:], order)


def test_beyond_the_shift_no_copy():
    real = smooth(40, 0)
    found = nearest_aligned(np.roll(real, 9, axis=2), real)
    assert found.correlation.max() < 0.9


def test_nothing_to_search():
    for search in (nearest_real, nearest_aligned):
        with pytest.raises(UsageError, match=f"{search.__name__}: there are no real slices"):
            search(smooth(2, 0), smooth(0, 0))
        assert len(search(smooth(0, 0), smooth(2, 0)).index) == 0
