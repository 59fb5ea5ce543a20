"""Which rewrites a graph gets: those that measured faster where it will be computed.

Nothing is timed while a file is written, since the same weights must make the same file. The table
is what benchmarks/rewrites.py found on 2 cores of an Intel Xeon with AMX; "1.2x" is the time
without a rewrite over that with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from fastmrigan.export.folding import fold_batch_norms, fold_constants
from fastmrigan.export.rewrites import drop_inert_biases, split_transposed_convolutions
from fastmrigan.runtime.model_file import PRECISIONS

if TYPE_CHECKING:
    import onnx

EVERYWHERE = frozenset(product(("sample", "translate"), PRECISIONS))


@dataclass(frozen=True)
class Rewrite:
    """A change to a graph that keeps its mathematics."""

    change: Callable[[onnx.ModelProto], int]  # in place; how many places it changed
    chosen: frozenset[tuple[str, str]]  # for which task, computed in what
    why: str  # as measured


# In the order in which they are applied.
REWRITES = {
    "constants": Rewrite(
        fold_constants,
        EVERYWHERE,
        "1.05x for a style pair in bf16, 1.00 to 1.02x in fp32, slower nowhere",
    ),
    # PyTorch's exporter folds those behind convolutions whatever stands here.
    "batch norms": Rewrite(
        fold_batch_norms,
        EVERYWHERE,
        "in two runs up to 1.15x and 1.07x for DCGANs at a batch, where bulk work is done; no "
        "difference in most rows, and 0.85x and 0.97x for DCGAN-64 in bf16 at batch 1",
    ),
    # Kept with its parity test and its row in the benchmark, for an engine or a processor that
    # wants it. Recipes leave such biases out of the networks themselves, unless trained with
    # `speed: false`. What it gains is accuracy on flat backgrounds, 1 to 6 dB in fp32, where the
    # floor of real slices is 20 dB away; on random slices nothing.
    "inert biases": Rewrite(
        drop_inert_biases,
        frozenset(),
        "0.92 to 1.02x in two runs of 9 rows of fp32 files, faster in none beyond the noise; of 11 "
        "rows of typed files slower in 6 (0.78 to 0.93x), faster in one",
    ),
    # OpenVINO computes transposed convolutions of an fp32 graph in fp32 where bf16 is asked for.
    "transposed convolutions": Rewrite(
        split_transposed_convolutions,
        EVERYWHERE - {("sample", computed_in) for computed_in in ("fp32", "fp16", "int8")},
        "2.2 to 4.3x in bf16 in two runs; in fp32 U-Nets 0.98 to 1.12x, but DCGANs faster beyond "
        "the noise in no row of both, and at a batch up to 11 % slower. Of files typed in fp16 and "
        "int8 DCGAN-64 at a batch 0.71 to 0.92x",
    ),
}


def chosen(task: str, computed_in: str) -> tuple[str, ...]:
    """The rewrites of a graph for "sample" or "translate". computed_in: "fp32", "bf16", "fp16" or
    "int8": what a typed file is typed in; of an fp32 file "bf16" where `auto` takes that."""
    return tuple(name for name, each in REWRITES.items() if (task, computed_in) in each.chosen)
