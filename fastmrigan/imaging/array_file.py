"""An .npy file that grows: its count is known only at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastmrigan.imaging import quantise


class ArrayFile:
    """Appends rows of one shape and type to an .npy file, C order, little-endian.

    Opening an existing file keeps its rows: `truncate` says how many of them count. Numpy pads
    the header for a first axis that grows, so its length does not depend on the count.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype).newbyteorder("<")
        self.count = 0
        self.row_bytes = self.dtype.itemsize * int(np.prod(shape))
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._head = self._write_header()

    def append(self, rows: npt.NDArray[Any]) -> bytes:
        """Adds rows [n, *shape]; returns their bytes as they stand in the file."""
        data = np.ascontiguousarray(rows, dtype=self.dtype).tobytes()
        self._file.write(data)
        self.count += len(rows)
        return data

    def read(self, first: int, count: int) -> bytes:
        """The bytes of rows first .. first + count - 1; fewer where the file is shorter."""
        self._file.seek(self._head + first * self.row_bytes)
        return self._file.read(count * self.row_bytes)

    def truncate(self, count: int) -> None:
        """Keeps the first `count` rows, and appends behind them."""
        self.count = count
        end = self._head + count * self.row_bytes
        self._file.truncate(end)
        self._file.seek(end)

    def flush(self) -> None:
        """Hands everything appended so far to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Writes the count into the header."""
        if self._write_header() != self._head:
            raise AssertionError("the .npy header grew")
        self._file.close()

    def abandon(self) -> None:
        """Closes the file without a count, for a later run to go on."""
        self._file.close()

    def _write_header(self) -> int:
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (self.count, *self.shape),
            },
        )
        return self._file.tell()


class SliceWriter:
    """Graded slices, one by one, to an .npy file of uint16 [N, size, size]."""

    def __init__(self, path: Path, size: int) -> None:
        self._file = ArrayFile(path, (size, size), np.uint16)

    def append(self, x: npt.NDArray[np.float32]) -> None:
        """Adds one graded slice, float32 [size, size] in [-1, 1]."""
        self._file.append(quantise.to_uint16(x)[None])

    def close(self) -> None:
        self._file.close()
