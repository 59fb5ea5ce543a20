"""Small prepared datasets of every kind, and how recipes ask for them."""

import numpy as np
from PIL import Image

from fastmrigan.imaging.options import PrepareOptions
from fastmrigan.imaging.prepare import prepare
from fastmrigan.training.data import DataOptions

OPTIONS = DataOptions(32, 2, recipe="mine")
ON_DISK = DataOptions(32, 2, recipe="mine", memory_limit_bytes=0)


def write_slices(folder, count, seed, size=32):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        pixels = rng.integers(0, 65536, (size, size), dtype=np.uint16)
        Image.fromarray(pixels).save(folder / f"slice{index:02}.png")
    return folder


def make_sets(root):
    """labelled: 12 normal and 8 tumour slices; paired: 10 pairs; ct: 9 slices, mr: 6; at 32x32,
    large: 6 at 64x64."""
    write_slices(root / "in" / "normal", 12, 0)
    write_slices(root / "in" / "tumour", 8, 1)
    plain = {"size": 32, "test_fraction": 0.25}
    prepare(root / "in", root / "labelled", PrepareOptions(**plain))
    t1, t2 = write_slices(root / "t1", 10, 2), write_slices(root / "t2", 10, 3)
    options = PrepareOptions(**plain, pairs=t2, contrast="t1", target_contrast="t2", label="")
    prepare(t1, root / "paired", options)
    for name, count, seed in (("ct", 9, 4), ("mr", 6, 5)):
        source = write_slices(root / f"{name}-in", count, seed)
        contrast = "ct" if name == "ct" else "t1"
        prepare(source, root / name, PrepareOptions(**plain, label=name, contrast=contrast))
    large = PrepareOptions(size=64, label="large", test_fraction=0)
    prepare(write_slices(root / "large-in", 6, 6, 64), root / "large", large)
    return root
