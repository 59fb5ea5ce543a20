"""Groups of exact and near duplicates, so that no slice is trained on and tested on at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging.components import Bool, Int64, components
from fastmrigan.imaging.geometry import resize

Float32 = npt.NDArray[np.float32]

THUMBNAIL = 32

# Correlation of two graded 32x32 thumbnails above which they are near duplicates: re-encoded
# copies, small retouches and close neighbours of one volume. On 1,220 T2 slices of 433 known
# groups, 350 of the 361 pairs above it lie within a group; at 0.90 only 1,007 of 1,649 do, and
# chains of them join 498 slices; at 0.99 12 pairs are left. Cropped copies escape it.
#
# A slice turned left to right counts as well. Heads are nearly symmetric, and yet all 17 such pairs
# of the 1,220 lie within a group; 4 of them are near in no other way, 2 being mirrored copies.
NEAR = 0.95

# The same between two patients known to differ, whose slices may look alike by chance (0.96 was
# seen between skull-stripped volumes): only copies count. Re-encoding, resizing and brightening
# keep a copy above 0.99.
COPY = 0.98

BLOCK = 2048  # slices compared at once: 16 MiB of correlations


def digest(x: Float32) -> bytes:
    """sha256 of decoded pixels and their shape: equal for exact duplicates in any file format."""
    return hashlib.sha256(repr(x.shape).encode() + np.ascontiguousarray(x).tobytes()).digest()


def thumbnail(x: Float32) -> Float32:
    """A slice [H, W] as a vector of mean 0 and length 1, so that a dot product is a correlation.

    Returns float32 [1024]; all zeros for a constant slice.
    """
    small = resize(x, THUMBNAIL, THUMBNAIL).reshape(-1)
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return small / np.float32(length) if length > 0 else small


def mirrored(thumbnails: Float32) -> Float32:
    """The thumbnails of the same slices turned left to right, float32 [N, 1024] to [N, 1024]."""
    pictures = thumbnails.reshape(-1, THUMBNAIL, THUMBNAIL)
    return np.ascontiguousarray(pictures[:, :, ::-1]).reshape(thumbnails.shape)


def exact_groups(digests: Sequence[bytes]) -> list[int | None]:
    """A number for each group of two or more equal digests, in order of appearance; else None."""
    _, names = np.unique(np.array(digests), return_inverse=True)
    return number_groups(names.reshape(-1))


def near_groups(
    thumbnails: Float32,
    patients: Sequence[str | None],
    mirrors: Float32 | None = None,
    pause: Callable[[], None] = lambda: None,
) -> list[int | None]:
    """A number for each group joined by correlations above NEAR (or COPY); None for loners.

    thumbnails: float32 [N, D] of `thumbnail`; patients: who each slice shows, None if unknown;
    mirrors: float32 [N, D] of `mirrored`, which join by the same measure;
    pause: called now and then, and may raise.
    Groups are chains: if A is near B and B near C, then A and C are in one group however far
    apart they are.
    """
    count = len(thumbnails)
    known = np.array([patient is not None for patient in patients], dtype=np.bool_)
    who = np.unique([patient or "" for patient in patients], return_inverse=True)[1].reshape(-1)
    root = np.arange(count)
    for top in range(0, count, BLOCK):
        for left in range(top, count, BLOCK):
            pause()
            a, b = slice(top, top + BLOCK), slice(left, left + BLOCK)
            strangers = known[a, None] & known[b] & (who[a, None] != who[b])
            least = np.where(strangers, COPY, NEAR)
            near = thumbnails[a] @ thumbnails[b].T > least
            if mirrors is not None:  # a is as near to the mirror of b as b to the mirror of a
                near |= thumbnails[a] @ mirrors[b].T > least
            first, second = np.nonzero(near)
            # What is known so far goes in as one edge from each slice to its root
            first = np.concatenate([first + top, np.arange(count)])
            second = np.concatenate([second + left, root])
            root = components(count, first, second)
    return number_groups(root)


def near_any(thumbnails: Float32, others: Float32, mirrors: Float32 | None = None) -> Bool:
    """Which thumbnails [N, D] are near at least one of the others [M, D]: bool [N].

    mirrors: float32 [M, D], the others `mirrored`, which count as well.
    """
    found = np.zeros(len(thumbnails), dtype=np.bool_)
    for pictures in (others,) if mirrors is None else (others, mirrors):
        for left in range(0, len(pictures), BLOCK):
            for top in range(0, len(thumbnails), BLOCK):
                near = thumbnails[top : top + BLOCK] @ pictures[left : left + BLOCK].T > NEAR
                found[top : top + BLOCK] |= near.any(axis=1)
    return found


def number_groups(names: Int64) -> list[int | None]:
    """Arbitrary group names [N] to 0, 1, 2, ... by first appearance; None where one is alone."""
    _, first, index, sizes = np.unique(
        names, return_index=True, return_inverse=True, return_counts=True
    )
    shared = [int(g) for g in np.argsort(first) if sizes[g] > 1]
    number = {group: n for n, group in enumerate(shared)}
    return [number.get(int(group)) for group in index.reshape(-1)]
