"""Connected components with numpy alone, for masks and for groups of duplicates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


def components(count: int, first: Int64, second: Int64) -> Int64:
    """The component of each of `count` nodes, named by its smallest node.

    first, second: int64 [E], the two ends of each edge.
    Returns int64 [count]. Shiloach and Vishkin's hooking and pointer jumping (1982).
    """
    root = np.arange(count)  # [count]
    while True:
        lowest = np.minimum(root[first], root[second])  # [E]
        hooked = root.copy()
        np.minimum.at(hooked, root[first], lowest)
        np.minimum.at(hooked, root[second], lowest)
        while not np.array_equal(hooked, hooked[hooked]):
            hooked = hooked[hooked]
        if np.array_equal(hooked, root):
            return root
        root = hooked


def label(mask: Bool) -> Int64:
    """4-connected components of a mask: 0 where it is false, 1, 2, ... elsewhere.

    mask: bool [H, W]. Returns int64 [H, W]. Rows are cut into runs, and the runs that touch a
    run of the row above are joined.
    """
    height, width = mask.shape
    stride = width + 1  # one false column keeps the runs of two rows apart
    flat = np.zeros((height, stride), dtype=np.int8)
    flat[:, :width] = mask
    edges = np.flatnonzero(np.diff(flat.ravel(), prepend=0))
    starts, ends = edges[::2], edges[1::2]  # [R], [R]; the end is exclusive

    above_from = np.searchsorted(ends + stride, starts, side="right")
    above_to = np.searchsorted(starts + stride, ends, side="left")
    touching = above_to - above_from  # [R], how many runs of the row above this one touches
    below = np.repeat(np.arange(len(starts)), touching)
    offset = np.arange(len(below)) - np.repeat(np.cumsum(touching) - touching, touching)
    root = components(len(starts), below, above_from[below] + offset)

    names = np.unique(root, return_inverse=True)[1].reshape(-1) + 1  # [R], 1, 2, ...
    steps = np.zeros(height * stride + 1, dtype=np.int64)
    steps[starts] += names
    steps[ends] -= names
    return np.cumsum(steps[:-1]).reshape(height, stride)[:, :width]
