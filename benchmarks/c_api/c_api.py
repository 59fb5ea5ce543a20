"""What the C library costs over a backend's own C API, and over OpenVINO's benchmark_app.

    python benchmarks/c_api/c_api.py [--model FILE] [--precision bf16] [--rounds 200] [--json FILE]

On an identity model of 256 x 256, fmg_run may take 30 microseconds a call more than the bare API;
on --model (a translating model file; ResNet-9 with seeded weights where none is given) at most 1.08
times as long. Both sides take a caller's pixels in and give a caller's pixels out, in turn within
one process; ours checks them for NaN too. `benchmark_app -api sync -hint latency` then takes turns
with the same program on the same file, process by process, and at most 1.08 is the bar again; it
takes all cores, so --threads leaves it out. Needs what `export` needs, cmake and a compiler. Exits
6 over a bar.

--backend onnxruntime (default: openvino) needs ONNXRUNTIME_INCLUDE_DIR in the environment: the
folder of its C header. benchmark_app is OpenVINO's, and left out then.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from fastmrigan.runtime.machine import processor

sys.path.append(str(Path(__file__).parents[1]))
from inference_models import as_model_file, identity, make
from json_file import add_json_option, write_json

ROOT = Path(__file__).parents[2]
BAR_MICROSECONDS, BAR_RATIO = 30.0, 1.08
SIDE = 256
CORES = len(os.sched_getaffinity(0))
APP_TURNS, APP_SECONDS = 5, 4  # of benchmark_app, each beside one of ours


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


def benchmark_app(model: Path, precision: str) -> float:
    """The median that OpenVINO's own benchmark_app finds for one slice, in microseconds."""
    shape = f"[1,1,{SIDE},{SIDE}]"
    main = "from openvino.tools.benchmark.main import main; main()"  # it is no module to run
    tool = [sys.executable, "-c", main, "-m", str(model)]
    how = ["-api", "sync", "-hint", "latency", "-t", str(APP_SECONDS)]
    typed = ["-shape", shape, "-data_shape", shape, "-infer_precision", precision]
    done = subprocess.run([*tool, *how, *typed], check=True, capture_output=True, text=True)
    found = re.search(r"Median:\s+([\d.]+) ms", done.stdout)
    if found is None:
        raise SystemExit(f"benchmark_app names no median: {done.stdout[-500:]}")
    return 1000 * float(found[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="openvino", choices=("openvino", "onnxruntime"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=CORES)
    parser.add_argument("--rounds", type=int, default=200)
    add_json_option(parser)
    options = parser.parse_args()
    if options.backend == "onnxruntime":
        options.precision = "fp32"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program, library = build(folder, options.backend)
        model = options.model or as_model_file("ResNet-9", make("ResNet-9"), folder).path

        def measure(model: Path, precision: str, rounds: int) -> dict[str, float]:
            arguments = [program, model, library, precision, options.threads, rounds]
            done = subprocess.run(
                list(map(str, arguments)), check=True, stdout=subprocess.PIPE, text=True
            )
            sides = ("ours min", "ours", "bare min", "bare")
            return dict(zip(sides, map(float, done.stdout.split()), strict=True))

        print(f"{processor()}, {options.backend}, {options.threads} threads; microseconds a call")
        small = measure(identity(folder, SIDE).path, "fp32", 10 * options.rounds)
        more = small["ours"] - small["bare"]
        report(f"identity {SIDE}x{SIDE}", small, f"{more:.1f} more", f"{BAR_MICROSECONDS:g}")
        large = measure(model, options.precision, options.rounds)
        ratio = large["ours"] / large["bare"]
        report(model.name, large, f"{ratio:.3f} times as long", f"{BAR_RATIO}")
        missed = more > BAR_MICROSECONDS or ratio > BAR_RATIO
        figures = {"identity": small, model.stem: large}
        if options.backend == "openvino" and options.threads == CORES:
            ours, app = [], []
            for _ in range(APP_TURNS):
                ours.append(measure(model, options.precision, options.rounds // 5)["ours"])
                precision = "bf16" if options.precision == "bf16" else "f32"
                app.append(benchmark_app(model, precision))
            ratio = statistics.median(a / b for a, b in zip(ours, app, strict=True))
            sides = {"ours": statistics.median(ours), "benchmark_app": statistics.median(app)}
            report(model.name, sides, f"{ratio:.3f} times as long", f"{BAR_RATIO}")
            missed |= ratio > BAR_RATIO
            figures["benchmark_app"] = {"ours": ours, "benchmark_app": app}
    facts = {"benchmark": "c_api", "cpu": processor(), "backend": options.backend}
    write_json(options.json, facts | {"threads": options.threads, "microseconds": figures})
    return 6 if missed else 0


def report(name: str, sides: dict[str, float], verdict: str, bar: str) -> None:
    each = ", ".join(f"{side} {microseconds:,.1f}" for side, microseconds in sides.items())
    print(f"{name}: {each}; {verdict} (bar {bar})", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
