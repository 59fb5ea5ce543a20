"""Mean and covariance of feature rows that come in chunks, summed in float64.

Deviations from a shift near the mean (that of the first rows) and their products are summed by the
native kernels of csrc/frechet, on the CPU or on a CUDA device, without a float64 copy of the rows;
a shift so found is at worst sqrt(N / 256) standard deviations from the mean of all, whatever the
rows' order. Two moments merge by the formulas of Chan, Golub, LeVeque (Algorithms for computing the
sample variance, 1983), also between processes and machines (a `Moments` pickles as its arrays), and
are kept as the statistics pytorch-fid reads and writes: .npz with `mu` [d] and `sigma` [d, d].
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastmrigan import _core
from fastmrigan.errors import InputRejected, UsageError
from fastmrigan.files import write_whole
from fastmrigan.metrics.checks import check_whole, described
from fastmrigan.metrics.feature_rows import checked_rows

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]

FIRST_ROWS = 256  # rows whose mean is the shift
CHUNK_ROWS = 8192  # rows of a tensor or array that are converted at a time, where they must be
UNDERFLOW = 1e-290  # a sum of squares below it has lost digits, and below 1e-308 itself


class Moments:
    """Count, mean and covariance of rows seen so far.

    count: rows seen; None for statistics loaded from a file that does not say.
    dimension: d, or None before the first row.
    """

    def __init__(self) -> None:
        self.count: int | None = 0
        self.dimension: int | None = None
        # About `_shift`, on the CPU as NumPy arrays or on a CUDA device as tensors, all float64.
        self._shift: Any = None  # [d]
        self._sums: Any = None  # [d]
        self._products: Any = None  # [d, d], of which the part on and above the diagonal counts
        self.cache: dict[str, Any] = {}  # what others made of them; emptied when rows come

    def __repr__(self) -> str:
        return f"Moments(count={self.count}, dimension={self.dimension})"

    def update(self, features: npt.NDArray[np.floating[Any]] | torch.Tensor) -> Moments:
        """Takes in rows [n, d], n >= 0, all finite, and returns itself.

        features: float32 or float64 (float16 and bfloat16 are widened to float32), a NumPy array
        or a tensor; tensors on a CUDA device are summed there. Raises UsageError for another
        shape, type, dimension or device than those before, and for NaN or infinity, with nothing
        taken in. Raises it too where float64 cannot hold the squares of what the rows differ by
        (above 1e150, or all below 1e-145), and what was summed until then is lost.
        """
        rows = checked_rows(features, "moments: the features")
        self.add(rows)
        self._check_squares(lambda: bool((rows != rows[:1]).any()))
        return self

    def add(self, rows: Any) -> Moments:
        """`update` with what `checked_rows` returned, whatever becomes of its squares."""
        if self.count is None:
            raise UsageError("moments: loaded statistics without a count take no further rows")
        if len(rows) == 0:
            return self
        self.cache.clear()
        d = int(rows.shape[1])
        if self.dimension is None:
            self._begin(rows)
        elif d != self.dimension:
            raise UsageError(f"moments: expected rows of {self.dimension} features, got {d}")
        for first in range(0, len(rows), CHUNK_ROWS):
            self._add(rows[first : first + CHUNK_ROWS])
        self.count += len(rows)
        return self

    def merge(self, other: Moments) -> Moments:
        """Takes in the rows another has seen, as if they had been seen here; returns itself.

        Both counts must be known, and the dimensions equal where both have rows.
        """
        if not isinstance(other, Moments):
            raise UsageError(f"moments: expected Moments to merge, got {type(other).__name__}")
        if self.count is None or other.count is None:
            raise UsageError("moments: statistics without a count cannot be merged")
        if other.count == 0:
            return self
        if self.count == 0:
            self.__setstate__(other.__getstate__())
            return self
        if self.dimension != other.dimension:
            raise UsageError(
                f"moments: cannot merge {other.dimension} features into {self.dimension}"
            )
        self.cache.clear()
        self._to_host()
        shift, sums, products = (_host(x) for x in (other._shift, other._sums, other._products))
        n, m = self.count, other.count
        mine, theirs = self._sums / n, sums / m  # means, each about its own shift
        gap = (shift - self._shift) + (theirs - mine)  # theirs - mine [d]
        with np.errstate(over="ignore"):  # `_check_squares` says so
            self._products -= np.multiply.outer(self._sums, mine)
            self._products += products
            self._products -= np.multiply.outer(sums, theirs)
            self._products += np.multiply.outer(gap * (n * m / (n + m)), gap)
        self._shift = self._shift + mine + gap * (m / (n + m))  # the mean of all
        self._sums = np.zeros_like(mine)
        self.count = n + m
        self._check_squares(lambda: bool(gap.any()))
        return self

    def merge_ranks(self, group: Any = None) -> Moments:
        """The moments of all processes of a torch.distributed group, the same bits on each.

        group: one that moves CPU tensors (gloo); None is the default group. Every process of it
        must call; one that has seen no rows may. One process' sums travel at a time, so memory
        stays at two sets of sums. Returns a new Moments.
        """
        import torch
        from torch import distributed

        known: list[Any] = [None] * distributed.get_world_size(group)
        distributed.all_gather_object(known, (self.count, self.dimension), group=group)
        whole = Moments()
        for rank, (count, dimension) in enumerate(known):
            if count == 0:
                continue
            part = Moments()
            part.count, part.dimension = count, dimension
            if rank == distributed.get_rank(group):
                part.__setstate__(self.__getstate__())
            else:
                part._shift, part._sums = np.empty(dimension), np.empty(dimension)
                part._products = np.empty((dimension, dimension))
            source = rank if group is None else distributed.get_global_rank(group, rank)
            for array in (part._shift, part._sums, part._products):
                distributed.broadcast(torch.from_numpy(array), source, group=group)
            whole.merge(part)
        return whole

    @property
    def mean(self) -> Array:
        """float64 [d]."""
        self._require(1)
        if self.count is None:
            return _host(self._shift).copy()
        with np.errstate(all="ignore"):  # of `add`, whose sums may have gone over
            return _host(self._shift) + _host(self._sums) / self.count

    @property
    def covariance(self) -> Array:
        """The sample covariance (over count - 1), float64 [d, d]; needs two rows."""
        self._require(2)
        sums, products = _host(self._sums), _host(self._products)
        return _core.moments_covariance(sums, products, self._count_of_products, 0)

    @property
    def device(self) -> torch.device:
        """Where the sums are."""
        import torch

        on_host = self._sums is None or isinstance(self._sums, np.ndarray)
        return torch.device("cpu") if on_host else self._sums.device

    def covariance_tensor(self) -> torch.Tensor:
        """`covariance` as a tensor on `device`, kept until rows come: not to be written to."""
        import torch

        self._require(2)
        found: torch.Tensor | None = self.cache.get("covariance")
        if found is None and self.device.type == "cpu":
            found = torch.from_numpy(self.covariance)
        elif found is None:
            n = self._count_of_products
            upper = (self._products - torch.outer(self._sums, self._sums / n)).div_(n - 1).triu_()
            found = upper + upper.triu(1).mT
        self.cache["covariance"] = found
        return found

    @property
    def _count_of_products(self) -> int:
        """Of statistics without a count the products are the covariance itself: over 2 - 1."""
        return 2 if self.count is None else self.count

    def save(self, path: Path | str) -> None:
        """Writes .npz with `mu`, `sigma` and, as pytorch-fid ignores, `count`.

        Raises UsageError where it cannot be written, DiskFull where there is no room.
        """
        path = _npz(path)
        content = {"mu": self.mean, "sigma": self.covariance}
        if self.count is not None:
            content["count"] = np.array(self.count, np.int64)
        buffer = io.BytesIO()
        np.savez(buffer, **content)  # type: ignore[arg-type]
        try:
            write_whole(path, buffer.getbuffer())
        except FileNotFoundError as error:
            raise UsageError(f"{path}: there is no folder {path.parent}; make it first") from error
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path | str) -> Moments:
        """Reads what `save` or pytorch-fid wrote; of the latter the count is not known.

        Raises UsageError where there is no such file, InputRejected where it is no such statistics.
        """
        path = _npz(path)
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                content = {name: file[name] for name in file.files}
        except FileNotFoundError as error:
            raise UsageError(f"{path}: no such file; give reference statistics (.npz)") from error
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise InputRejected(f"{path}: not readable as .npz ({error}); save it anew") from error
        try:
            return cls.of_statistics(content["mu"], content["sigma"], content.get("count"))
        except KeyError as error:
            raise InputRejected(
                f"{path}: has no {error}; expected the keys mu and sigma, as pytorch-fid writes"
            ) from error
        except UsageError as error:
            raise InputRejected(f"{path}: {error}") from error

    @classmethod
    def of_statistics(cls, mu: npt.ArrayLike, sigma: npt.ArrayLike, count: Any = None) -> Moments:
        """Moments with this mean [d] and covariance [d, d]; count, where known, at least 2."""
        mean, covariance = _numbers("mu", mu), _numbers("sigma", sigma)
        d = mean.size
        if mean.ndim != 1 or d == 0 or covariance.shape != (d, d):
            raise UsageError(
                f"moments: expected mu [d] and sigma [d, d], got {list(mean.shape)} and "
                f"{list(covariance.shape)}"
            )
        if not (np.isfinite(mean).all() and np.isfinite(covariance.sum())):
            raise UsageError("moments: mu or sigma has NaN or infinity")
        largest = float(covariance.diagonal().max())
        if float(covariance.diagonal().min()) < 0 or not np.allclose(
            covariance, covariance.T, rtol=1e-6, atol=1e-9 * largest
        ):
            raise UsageError(
                "moments: sigma is no covariance: it must be symmetric, its diagonal not negative"
            )
        found = cls()
        if count is not None:
            count = count.item() if isinstance(count, np.ndarray) and count.ndim == 0 else count
            check_whole("moments: the count", count, 2)
        found.count, found.dimension = None if count is None else int(count), d
        found._shift, found._sums = mean, np.zeros(d)
        found._products = covariance * (1 if found.count is None else found.count - 1)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """On the CPU, and in arrays of its own."""
        state = self.__dict__ | {"cache": {}}
        for name in ("_shift", "_sums", "_products"):
            if state[name] is not None:
                state[name] = np.array(_host(state[name]))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _begin(self, rows: Any) -> None:
        """Zero sums where the rows are, about the mean of the first of them."""
        d = int(rows.shape[1])
        if not isinstance(rows, np.ndarray) and not _core.cuda_compiled:
            raise UsageError(
                "moments: this build has no CUDA kernels; give rows on the CPU, or build with "
                "FASTMRIGAN_CUDA=ON"
            )
        if isinstance(rows, np.ndarray):
            with np.errstate(over="ignore"):  # `_check_squares` says so
                shift = rows[:FIRST_ROWS].mean(axis=0, dtype=np.float64)
            sums, products = np.zeros(d), np.zeros((d, d))
        else:
            shift = rows[:FIRST_ROWS].double().mean(dim=0)
            sums, products = shift.new_zeros(d), shift.new_zeros((d, d))
        self.dimension, self._shift, self._sums, self._products = d, shift, sums, products

    def _add(self, rows: Any) -> None:
        if isinstance(rows, np.ndarray):
            if not isinstance(self._sums, np.ndarray):
                raise UsageError(
                    f"moments: the rows before came on {self._sums.device}, these on the CPU"
                )
            _core.moments_update(_dense(rows), self._shift, self._sums, self._products, 0)
            return
        if isinstance(self._sums, np.ndarray) or self._sums.device != rows.device:
            before = "the CPU" if isinstance(self._sums, np.ndarray) else str(self._sums.device)
            raise UsageError(f"moments: the rows before came on {before}, these on {rows.device}")
        self._add_on_cuda(rows.contiguous())

    def _add_on_cuda(self, rows: torch.Tensor) -> None:
        import torch

        with torch.cuda.device(rows.device):
            _core.moments_update_cuda(
                rows.data_ptr(),
                rows.dtype == torch.float64,
                len(rows),
                rows.shape[1],
                self._shift.data_ptr(),
                self._sums.data_ptr(),
                self._products.data_ptr(),
                torch.cuda.current_stream().cuda_stream,
            )

    def _check_squares(self, differ: Callable[[], bool]) -> None:
        """UsageError where the squares went over, or under though the rows `differ`."""
        if self._products is None:
            return
        trace = float(self._products.diagonal().sum())
        if not math.isfinite(trace):
            raise UsageError("moments: the squares of the features overflow float64; scale them")
        if trace < UNDERFLOW and differ():
            raise UsageError("moments: the squares of the features underflow float64; scale them")

    def _to_host(self) -> None:
        self._shift, self._sums, self._products = (
            _host(x) for x in (self._shift, self._sums, self._products)
        )

    def _require(self, rows: int) -> None:
        if self.count is not None and self.count < rows:
            what = "mean" if rows == 1 else "covariance"
            raise UsageError(f"moments: {self.count} rows seen, a {what} needs at least {rows}")


def _dense(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows whose features lie beside each other, as the kernel reads them."""
    across, along = rows.strides
    plain = along == rows.itemsize and across >= 0 and across % rows.itemsize == 0
    return rows if plain else np.ascontiguousarray(rows)


def _host(x: Any) -> Array:
    return x if isinstance(x, np.ndarray) else x.cpu().numpy()


def _numbers(name: str, given: npt.ArrayLike) -> Array:
    """A float64 array of its own."""
    try:
        array = np.asarray(given)
    except ValueError as error:  # lists of different lengths
        raise UsageError(f"moments: {name} is no array of numbers ({error})") from error
    if array.dtype.kind not in "buif":
        raise UsageError(f"moments: {name} must hold real numbers, got {described(array)}")
    return array.astype(np.float64)


def _npz(path: Path | str) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"moments: expected the path of an .npz file, got {described(path)}")
    path = Path(path)
    if path.suffix != ".npz":
        raise UsageError(f"{path}: reference statistics are .npz files")
    return path
