"""Slices of a prepared dataset that stay on disk, read by index as float32."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastmrigan.errors import InputRejected
from fastmrigan.imaging.dataset import DatasetInfo, open_array
from fastmrigan.imaging.quantise import to_float

REMEDY = "prepare the set again and run the same command, which goes on from the last checkpoint"


class SliceFile:
    """Chosen slices of one array file, indexed like a tensor [N, 1, H, W] of float32 in [-1, 1].

    `file[indices]`, `file[:10]` and `file[:10, 0]` read these slices alone and return a Tensor;
    the 16 bits of the file are kept, since float32 holds every value of its scale.

    Read by position rather than through a memory map: where the disk fails or the file has been
    cut short, a map ends the process with SIGBUS, and no run can be saved. Raises InputRejected
    that names the file and the slice, also where the file was written to since it was opened.
    """

    def __init__(
        self, folder: Path, name: str, info: DatasetInfo, indices: npt.NDArray[np.int64]
    ) -> None:
        self.path = folder / name
        array = cast("np.memmap[Any, Any]", open_array(folder, name, info))  # checks the header
        self._indices, self._offset, self._type = indices, array.offset, array.dtype
        self._side = info.size  # [H, W]
        self._file = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._written = self._state()

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), 1, *self._side))

    @property
    def nbytes(self) -> int:
        """What all of it takes in memory, as float32."""
        return 4 * self.shape.numel()

    def __getitem__(self, key: Any) -> Tensor:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, Tensor):
            first = first.numpy()
        slices = self._read(self._indices[first].reshape(-1))  # [n, 1, H, W]
        if isinstance(first, int):
            slices = slices[0]  # [1, H, W]
            return slices[tuple(rest)]
        return slices[(slice(None), *rest)]

    def load(self) -> Tensor:
        """All of it in memory, float32 [N, 1, H, W]."""
        return self._read(self._indices)

    def _read(self, wanted: npt.NDArray[np.int64]) -> Tensor:
        height, width = self._side
        slices = np.empty((len(wanted), 1, height, width), np.float32)
        size = height * width * self._type.itemsize
        if self._state() != self._written:
            raise InputRejected(f"{self.path}: changed while the run was reading it; {REMEDY}")
        for number, index in enumerate(wanted.tolist()):
            try:
                data = os.pread(self._file, size, self._offset + index * size)
            except OSError as error:
                raise self._unreadable(index, error.strerror or type(error).__name__) from error
            if len(data) != size:
                raise self._unreadable(index, f"{len(data)} of {size} bytes")
            grey = np.frombuffer(data, self._type).astype(np.uint16, copy=False)
            slices[number, 0] = to_float(grey).reshape(height, width)
        return torch.from_numpy(slices)

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self._file)
        return found.st_size, found.st_mtime_ns

    def _unreadable(self, index: int, fact: str) -> InputRejected:
        return InputRejected(f"{self.path}: slice {index} cannot be read ({fact}); {REMEDY}")
