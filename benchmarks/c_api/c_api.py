"""What the C library costs over a backend's own C API.

    python benchmarks/c_api/c_api.py [--model resnet.onnx] [--precision bf16] [--rounds 200]

On an identity model of 256 x 256, fmg_run may take 30 microseconds a call more than the bare API;
on --model (a translating model file, such as ResNet-9) at most 1.08 times as long. Both sides take
a caller's pixels in and give a caller's pixels out; ours checks them for NaN too. Needs what
`export` needs, cmake and a compiler. Exits 6 over a bar.

--backend onnxruntime (default: openvino) needs ONNXRUNTIME_INCLUDE_DIR in the environment: the
folder of its C header.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fastmrigan.runtime.machine import processor

sys.path.append(str(Path(__file__).parents[1]))
from inference_models import identity

ROOT = Path(__file__).parents[2]
BAR_MICROSECONDS, BAR_RATIO = 30.0, 1.08
SIDE = 256


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"c_api.py needs {name}: pip install {name}")
    return Path(spec.origin).parent


def build(folder: Path, backend: str) -> tuple[Path, Path]:
    """The program, and the backend's own C library."""
    # The library is built with OpenVINO's header whatever is measured.
    includes = [f"-DOPENVINO_INCLUDE_DIR={package('openvino') / 'include'}"]
    if backend == "openvino":
        library = next((package("openvino") / "libs").glob("libopenvino_c.so*"))
    else:
        library = next((package("onnxruntime") / "capi").glob("libonnxruntime.so.*"))
        if "ONNXRUNTIME_INCLUDE_DIR" not in os.environ:
            raise SystemExit("ONNXRUNTIME_INCLUDE_DIR: name the folder of onnxruntime_c_api.h")
        includes.append(f"-DONNXRUNTIME_INCLUDE_DIR={os.environ['ONNXRUNTIME_INCLUDE_DIR']}")
    here = Path(__file__).parent
    prefix, chosen = f"-DCMAKE_PREFIX_PATH={folder / 'prefix'}", f"-DBACKEND={backend}"
    steps = (
        ("-S", ROOT, "-B", folder / "library", "-DFASTMRIGAN_C_API=ON", *includes),
        ("--build", folder / "library"),
        ("--install", folder / "library", "--prefix", folder / "prefix"),
        ("-S", here, "-B", folder / "program", includes[-1], prefix, chosen),
        ("--build", folder / "program"),
    )
    for step in steps:
        subprocess.run(["cmake", *map(str, step)], check=True, stdout=subprocess.DEVNULL)
    return folder / "program" / "c_api", library


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="openvino", choices=("openvino", "onnxruntime"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program, library = build(folder, options.backend)

        def measure(model: Path, precision: str, rounds: int) -> list[float]:
            arguments = [program, model, library, precision, options.threads, rounds]
            done = subprocess.run(
                list(map(str, arguments)), check=True, stdout=subprocess.PIPE, text=True
            )
            return [float(word) for word in done.stdout.split()]

        print(f"{processor()}, {options.backend}, {options.threads} threads; microseconds a call")
        least, ours, bare_least, bare = measure(
            identity(folder, SIDE).path, "fp32", 10 * options.rounds
        )
        print(f"identity {SIDE}x{SIDE}: ours min {least:.1f}, median {ours:.1f}; ", end="")
        print(f"bare min {bare_least:.1f}, median {bare:.1f}; ", end="")
        print(f"{ours - bare:.1f} more (bar {BAR_MICROSECONDS:g})")
        missed |= ours - bare > BAR_MICROSECONDS
        if options.model is not None:
            least, ours, bare_least, bare = measure(
                options.model, options.precision, options.rounds
            )
            print(f"{options.model.name}: ours min {least:.0f}, median {ours:.0f}; ", end="")
            print(f"bare min {bare_least:.0f}, median {bare:.0f}; ", end="")
            print(f"{ours / bare:.3f} times as long (bar {BAR_RATIO})")
            missed |= ours / bare > BAR_RATIO
    return 6 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
