"""nanobind against pybind11: the same two functions bound with each.

    pip install pybind11==3.1.0
    python benchmarks/bindings/compare.py [--rounds 7] [--json FILE]

The functions (function.h): one with the core's kind of signature (22 pointers as integers, shapes,
strides and options; it releases the GIL), one that sums a NumPy array. The columns:

    floor              C functions that take anything and look at nothing (calls and import only)
    nanobind_split     as the core ships: a small abi3 module over the nanobind-backend package
    nanobind_linked    nanobind's own library linked into the module
    pybind11_same      pybind11 with the same compiler flags
    pybind11_defaults  pybind11 with the flags it takes by itself: -O3, link-time optimisation

Everything is built anew in a temporary folder; the compiler flags, all results and the errors for
wrong arguments are checked before anything is timed. Within a round the columns take turns. Build
times are of the module alone, compiled and linked (Release, wall clock). Needs a C++ compiler.
Exits 2 where something is missing, 6 where the two sides disagree.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from agreement import Disagreement, arguments, check

sys.path.append(str(Path(__file__).parents[1]))
from json_file import add_json_option, write_json

PACKAGES = {
    "numpy": "numpy",
    "nanobind": "nanobind",
    "nanobind_backend": "nanobind-backend",
    "pybind11": "pybind11==3.1.0",
}
COLUMNS = ("nanobind_split", "nanobind_linked", "pybind11_same", "pybind11_defaults")
SHIPPED, RIVALS = "nanobind_split", ("pybind11_same", "pybind11_defaults")
CALLS, BLOCKS = 5000, 30  # calls a block; blocks a round
Figures = dict[str, dict[str, list[float]]]  # row -> column -> samples


def stop(status: int, message: str) -> NoReturn:
    print(f"compare.py: {message}", file=sys.stderr)
    sys.exit(status)


def tool(name: str, remedy: str) -> str:
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    return found or stop(2, f"expected the program {name}, found none: {remedy}")


def turns(items: tuple[str, ...], rounds: int) -> Iterator[tuple[str, ...]]:
    """The items, `rounds` times over, each time starting one place later."""
    for i in range(rounds):
        k = i % len(items)
        yield items[k:] + items[:k]


class Builder:
    def __init__(self, folder: Path) -> None:
        import nanobind
        import pybind11

        cmake, self.ninja = (tool(name, f"pip install {name}") for name in ("cmake", "ninja"))
        self.folder = folder
        self.environment = os.environ | {"CCACHE_DISABLE": "1"}
        for variable in ("CXXFLAGS", "LDFLAGS", "CMAKE_CXX_COMPILER_LAUNCHER"):
            self.environment.pop(variable, None)
        self.run(
            [
                *(cmake, "-S", str(Path(__file__).parent), "-B", str(folder), "-G", "Ninja"),
                *(f"-DCMAKE_MAKE_PROGRAM={self.ninja}", "-DCMAKE_BUILD_TYPE=Release"),
                f"-DPython_EXECUTABLE={sys.executable}",
                f"-Dnanobind_DIR={nanobind.cmake_dir()}",
                f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            ]
        )

    def run(self, command: list[str]) -> None:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout + done.stderr, file=sys.stderr)
            stop(2, f"expected {Path(command[0]).name} to succeed, got status {done.returncode}")

    def seconds(self, target: str) -> float:
        began = time.perf_counter()
        self.run([self.ninja, "-C", str(self.folder), target])
        return time.perf_counter() - began

    def module(self, name: str) -> Path:
        (found,) = self.folder.glob(f"{name}.*so")
        return found

    def again(self, name: str) -> float:
        for product in (self.folder / "CMakeFiles" / f"{name}.dir").glob("*.o"):
            product.unlink()
        self.module(name).unlink()
        return self.seconds(name)

    def compiler(self) -> str:
        cache = (self.folder / "CMakeCache.txt").read_text()
        (path,) = (line for line in cache.splitlines() if line.startswith("CMAKE_CXX_COMPILER:"))
        command = [path.partition("=")[2], "--version"]
        return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0]

    def flags(self, name: str) -> set[str]:
        """What the compiler was told, save defines, include folders and file names."""
        entries = json.loads((self.folder / "compile_commands.json").read_text())
        (command,) = (e["command"] for e in entries if f"/{name}.dir/" in e["command"])
        words = command.split()[1:]
        return {w for w in words if w.startswith("-") and w[:2] not in ("-D", "-I", "-i", "-o")}


def call_timers(modules: dict[str, ModuleType], y: int) -> dict[str, dict[str, timeit.Timer]]:
    """Row -> column -> timer; the arguments are local variables, as in a caller's function.

    CPython passes more than 15 keywords by way of a dict: the floor of that row shows its price.
    """
    import numpy as np

    names = list(arguments(y))
    keywords = ", ".join(f"{name}={name}" for name in names)
    unpack = f"{', '.join(names)} = values; f = module.forward"
    statements = {
        f"forward, {len(names)} positional (ns)": (f"f({', '.join(names)})", unpack),
        f"forward, {len(names)} keywords (ns)": (f"f({keywords})", unpack),
        "array_sum, positional (ns)": ("f(x)", "x = array; f = module.array_sum"),
        "array_sum, keyword (ns)": ("f(x=x)", "x = array; f = module.array_sum"),
    }
    space = {"values": tuple(arguments(y).values()), "array": np.ones(16, np.float32)}
    return {
        row: {
            column: timeit.Timer(statement, setup, globals={**space, "module": module})
            for column, module in modules.items()
        }
        for row, (statement, setup) in statements.items()
    }


def import_seconds(folder: Path, name: str) -> float:
    code = (
        f"import sys, time; sys.path.insert(0, {str(folder)!r}); began = time.perf_counter()\n"
        f"import {name}\nprint(time.perf_counter() - began)"
    )
    command = [sys.executable, "-P", "-c", code]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def stripped_bytes(module: Path) -> int:
    copy = module.with_suffix(".stripped")
    subprocess.run([tool("strip", "install binutils"), "-s", "-o", copy, module], check=True)
    return copy.stat().st_size


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line for line in lines if line.startswith("model name")), platform.machine())
    return model.rpartition(": ")[2]


def measure(builder: Builder, rounds: int) -> Figures:
    """Checks first; then samples of build time (s), call time (ns) and import time (ms)."""
    figures: Figures = {"build, module alone (s)": {name: [] for name in COLUMNS}}
    library = builder.seconds("nanobind-static")  # the part of nanobind_linked that is built once
    figures["build, library, once (s)"] = {"nanobind_linked": [library]}
    builder.seconds("all")
    for name in COLUMNS[:-1]:
        if odd := builder.flags(name) ^ builder.flags(SHIPPED):
            stop(6, f"expected {name} and {SHIPPED} to take the same flags, got {sorted(odd)}")
    sys.path.insert(0, str(builder.folder))
    modules = {name: importlib.import_module(name) for name in ("floor", *COLUMNS)}
    for name in COLUMNS:
        try:
            check(modules[name])
        except Disagreement as disagreement:
            stop(6, str(disagreement))

    y = ctypes.c_uint64()
    for row, timers in call_timers(modules, ctypes.addressof(y)).items():
        figures[row] = {name: [] for name in modules}
        for order in turns(tuple(modules), rounds * BLOCKS):
            for name in order:
                figures[row][name].append(timers[name].timeit(CALLS) / CALLS * 1e9)
    imports: dict[str, list[float]] = {name: [] for name in modules}
    for name in modules:
        import_seconds(builder.folder, name)  # fills the file cache
    for order in turns(tuple(modules), rounds * 3):
        for name in order:
            imports[name].append(import_seconds(builder.folder, name) * 1e3)
    figures["import, fresh process (ms)"] = imports
    for order in turns(COLUMNS, rounds):
        for name in order:
            figures["build, module alone (s)"][name].append(builder.again(name))

    sizes = {name: builder.module(name) for name in COLUMNS}
    figures["size, stripped (KiB)"] = {n: [stripped_bytes(p) / 1024] for n, p in sizes.items()}
    figures["size, not stripped (KiB)"] = {n: [p.stat().st_size / 1024] for n, p in sizes.items()}
    return figures


def backend_bytes() -> int:
    files = importlib.metadata.files("nanobind-backend") or []
    return sum(Path(file.locate()).stat().st_size for file in files if file.suffix == ".so")


def summary(figures: Figures) -> dict[str, dict[str, dict[str, float]]]:
    return {
        row: {
            name: {"min": min(v), "median": statistics.median(v), "samples": len(v)}
            for name, v in samples.items()
        }
        for row, samples in figures.items()
    }


def print_table(figures: Figures) -> None:
    """Median and, in brackets, min; the ratios are of medians."""
    columns = ("floor", *COLUMNS)
    ratios = [name.removeprefix("pybind11_") + "/split" for name in RIVALS]
    print("".join([f"{'median (min)':30}", *(f"{title:>18}" for title in (*columns, *ratios))]))
    for row, samples in figures.items():
        digits = 0 if "(ns)" in row else 1 if "(KiB)" in row else 2
        cells = []
        for name in columns:
            cell = f"{statistics.median(samples[name]):.{digits}f}" if name in samples else "-"
            if len(samples.get(name, ())) > 1:
                cell += f" ({min(samples[name]):.{digits}f})"
            cells.append(cell)
        for name in RIVALS:
            if SHIPPED in samples:
                ratio = statistics.median(samples[name]) / statistics.median(samples[SHIPPED])
                cells.append(f"{ratio:.2f}")
            else:
                cells.append("-")
        print("".join([f"{row:30}", *(f"{cell:>18}" for cell in cells)]))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    add_json_option(parser)
    options = parser.parse_args()
    if options.rounds < 1:
        stop(2, f"expected --rounds of at least 1, got {options.rounds}")
    if missing := [pip for name, pip in PACKAGES.items() if not importlib.util.find_spec(name)]:
        stop(2, f"packages are missing: pip install {' '.join(missing)}")

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bindings-") as folder:
        builder = Builder(Path(folder))
        figures = measure(builder, options.rounds)
        suffixes = {name: "".join(builder.module(name).suffixes) for name in COLUMNS}
        machine = {
            "processor": f"{processor()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "compiler": builder.compiler(),
            **{name: importlib.metadata.version(name.replace("_", "-")) for name in PACKAGES},
            "date": datetime.date.today().isoformat(),
            "load at start": f"{load:.2f}",
        }
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print("results and errors agree; one flag set for all but pybind11_defaults")
    print_table(figures)
    for name, suffix in suffixes.items():
        scope = "Python 3.11 and later" if ".abi3" in suffix else "this Python version alone"
        print(f"{name}: {suffix}, for {scope}")
    print(
        f"shared backend of nanobind_split, once an environment: {backend_bytes() / 1024:.0f} KiB"
    )
    if options.json:
        document = {"machine": machine, "rounds": options.rounds, "suffixes": suffixes}
        document |= {"backend_bytes": backend_bytes(), "figures": summary(figures)}
        write_json(options.json, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
