"""A recording of a program's ATen operations, run again in place on the tensors it was made with:
what a CUDA graph does with kernels, on any device."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What reads the device on the host, or brings a number of the host's to the device: no CUDA graph
# can hold either.
READS = {"aten::_local_scalar_dense", "aten::nonzero"}
BRINGS = {"aten::lift_fresh", "aten::lift_fresh_copy", "aten::scalar_tensor"}


class Recorder(TorchDispatchMode):
    """Keeps (operation, arguments, results) of everything that runs under it."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        if func.namespace != "profiler":
            self.operations.append((func, args, kwargs, results))
        return results


class AtenRecording:
    """`step_graph.Recording` with no device of its own.

    Recording runs the program, where CUDA's does not: the first replay has been done then. A tensor
    made without a device is on "meta" meanwhile and cannot be used, as one on the CPU could not be
    where the program runs on a GPU.
    """

    def __init__(self):
        self.operations, self.done = [], False

    def warm(self, program):
        return program()

    def record(self, program):
        with torch.device("meta"), Recorder() as recorder:
            rows = program()
        self.operations, self.done = recorder.operations, True
        return rows

    @torch.no_grad()
    def replay(self):
        if self.done:
            self.done = False
            return
        for func, args, kwargs, results in self.operations:
            if is_view(func):
                continue  # another look at memory that is there
            again = func(*args, **kwargs)
            for result, made in zip(tensors(results), tensors(again), strict=True):
                if result.data_ptr() != made.data_ptr():
                    result.copy_(made)

    def touches_the_host(self):
        """Names of the operations that no CUDA graph could hold."""
        return [
            name for func, *_ in self.operations if (name := func._schema.name) in READS | BRINGS
        ]

    def of_outside(self, known):
        """Operations on memory that is neither of `known` tensors nor made by the program."""
        owned = {t.untyped_storage()._cdata for t in tensors(known)}
        found = []
        for func, args, kwargs, results in self.operations:
            for t in tensors((args, kwargs)):
                if t.untyped_storage()._cdata not in owned:
                    found.append(f"{func}: {list(t.shape)}")
            owned |= {t.untyped_storage()._cdata for t in tensors(results)}
        return found

    def names(self):
        return [str(func) for func, *_ in self.operations]


def is_view(func):
    returns = [each.alias_info for each in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returns)


def tensors(value):
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
