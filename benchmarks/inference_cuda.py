"""Inference on a GPU: PyTorch's CUDA graphs in bf16 with the fused kernels, against its other ways.

    python benchmarks/inference_cuda.py [--seconds 50] [--no-compile] [--json FILE]
    python benchmarks/inference_cuda.py --device cpu     the same code on tiny networks: no figures

ResNet-9 and U-Net at 256, batch 1 and 8, and DCGAN-64, batch 1 and 64, with seeded random weights.
Sides: eager PyTorch in fp32 (TF32 in convolutions, cuDNN's search on) and in bf16 channels_last,
with PyTorch's own operators; torch.compile of the latter (mode reduce-overhead, which makes CUDA
graphs); ours, bf16 channels_last with fused instance norm, call by call and replayed as one CUDA
graph. ONNX Runtime's CUDA provider (fp32, and a graph typed in fp16) and TensorRT (fp16) come in
where onnx, onnxscript and their packages are installed. TensorRT-RTX, where it is installed, has
one try at building and running an engine of DCGAN-64, and what it says is kept.

First the slices of two inputs: PSNR against PyTorch on the CPU in fp32, over [-1, 1]. Then sides
take turns. Latency is from a slice in pinned host memory to the translated one there, call by call.
Throughput is of calls queued on the device and waited for together (ONNX Runtime's from host to
host). The limit is a product of bf16 matrices in the same rounds. There is no bar.

Rows past --seconds are left out, and said so; those with torch.compile and other engines come last.
Exits 6 where slices are wrong or a row fails, 2 where there is no CUDA device. Not run on a GPU.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference_networks import NETWORKS, inputs, make, plain, seeded
from json_file import add_json_option, write_json
from timing import Ratio, interleave, ratio, summary
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastmrigan.errors import FastMriganError
from fastmrigan.export.parity import difference
from fastmrigan.training.step_graph import CudaRecording, Recording

BATCHES = {"DCGAN-64": (1, 64), "U-Net": (1, 8), "ResNet-9": (1, 8)}
EAGER, HALF, COMPILED = "eager fp32", "eager bf16", "compile bf16"
OURS, GRAPH, LIMIT = "ours bf16", "ours bf16, graph", "bf16 product"
COMPILE: dict[str, Any] = {"mode": "reduce-overhead", "fullgraph": True, "dynamic": False}
LEAST_DB = {"fp32": 45.0, "bf16": 40.0, "fp16": 45.0}  # TF32 rounds as fp16 does
QUEUED = 0.03  # seconds of calls that are waited for together
PRODUCT = {"cuda": 8192, "cpu": 64}  # side of the matrices
TINY: dict[str, dict[str, int]] = {  # of a trial on the CPU
    "DCGAN-64": {"size": 32, "latent": 8, "width": 4},
    "U-Net": {"size": 32, "width": 4},
    "ResNet-9": {"size": 32, "width": 4, "blocks": 1},
}

Call = Callable[
    [Tensor], Tensor
]  # float32 [batch, …] on the device to slices there, not waited for


@dataclass(frozen=True)
class Side:
    precision: str
    call: Call
    on_device: bool = True  # False: its own way takes arrays in host memory


@dataclass(frozen=True)
class Setting:
    """One network at one batch, on one device."""

    name: str
    batch: int
    device: torch.device
    network: nn.Module  # fused instance norm, float32, on the CPU

    @property
    def given(self) -> list[np.ndarray]:
        """Two inputs: a replayed graph must not answer the second with the first's slices."""
        latent, size = shape_of(self.name, self.device)
        first = inputs(latent, size, self.batch)
        return [first, np.ascontiguousarray(first[..., ::-1])]


def shape_of(name: str, device: torch.device) -> tuple[int | None, int]:
    """Length of the latent, or None; side of the slices."""
    facts = NETWORKS[name][1]
    if device.type == "cpu":
        return TINY[name].get("latent"), TINY[name]["size"]
    return facts.latent_size, facts.slice_size[0]


def network_of(name: str, device: torch.device) -> nn.Module:
    if device.type != "cpu":
        return make(name)
    latent, size = shape_of(name, device)
    return seeded(NETWORKS[name][0](**TINY[name]), torch.from_numpy(inputs(latent, size, 4)))


def half(network: nn.Module, device: torch.device, *, compiled: bool = False) -> Call:
    """A call in bf16 channels_last; torch.compile waits for the first one."""
    run: Any = network.to(device, torch.bfloat16, memory_format=torch.channels_last)
    if compiled:
        torch.compiler.reset()
        run = torch.compile(run, **COMPILE)

    def call(x: Tensor) -> Tensor:
        x = x.bfloat16()
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        made: Tensor = run(x)
        return made.float()

    return call


class Replayed:
    """A call recorded once and replayed, on buffers of its own."""

    def __init__(self, call: Call, x: Tensor, recording: Recording) -> None:
        self.buffer, self.recording = x.clone(), recording

        def program() -> dict[str, Any]:
            return {"slices": call(self.buffer)}

        for _ in range(3):  # cuDNN chooses its kernels
            recording.warm(program)
        rows = recording.record(program)
        recording.replay()
        self.slices: Tensor = rows["slices"]

    def __call__(self, x: Tensor) -> Tensor:
        self.buffer.copy_(x)
        self.recording.replay()
        return self.slices


def recording_on(device: torch.device) -> Recording | None:
    return CudaRecording(device) if device.type == "cuda" else None


def own_sides(setting: Setting, left_out: dict[str, str]) -> dict[str, Side]:
    """What PyTorch alone offers, without torch.compile."""
    device, network = setting.device, setting.network
    eager = plain(copy.deepcopy(network)).to(device)
    ours = half(copy.deepcopy(network), device)
    sides = {
        EAGER: Side("fp32", eager),
        HALF: Side("bf16", half(plain(copy.deepcopy(network)), device)),
        OURS: Side("bf16", ours),
    }
    recording = recording_on(device)
    if recording is None:
        left_out[GRAPH] = "CUDA graphs need a GPU"
        return sides
    try:
        with torch.no_grad():
            replayed = Replayed(ours, on(setting.given[0], device), recording)
    except FastMriganError as error:
        left_out[GRAPH] = str(error)
    else:
        sides[GRAPH] = Side("bf16", replayed)
    return sides


def engine_sides(setting: Setting, folder: Path, left_out: dict[str, str]) -> dict[str, Side]:
    """ONNX Runtime and TensorRT, where they are installed; why not, where they are not."""
    absent = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if absent:
        reason = f"no graph without {' and '.join(absent)}"
        left_out |= {"onnxruntime-cuda": reason, "tensorrt": reason}
        return {}
    sides: dict[str, Side] = {}
    for precision in ("fp32", "fp16"):
        try:
            sides[f"onnxruntime-cuda {precision}"] = onnxruntime_side(setting, folder, precision)
        except FastMriganError as error:
            left_out[f"onnxruntime-cuda {precision}"] = str(error)
    if find_spec("tensorrt") is None:
        left_out["tensorrt"] = "tensorrt is not installed"
        return sides
    from inference_tensorrt import Engine, build

    try:
        engine = folder / f"{setting.name}-{setting.batch}.engine"
        build("tensorrt", graph_file(setting, folder, "fp16"), engine, setting.batch)
        sides["tensorrt fp16"] = Side("fp16", Engine("tensorrt", engine))
    except (FastMriganError, RuntimeError) as error:
        left_out["tensorrt"] = str(error)
    return sides


def onnxruntime_side(setting: Setting, folder: Path, precision: str) -> Side:
    from fastmrigan.runtime.backends import BackendOptions, choose, open_backend

    name, _ = choose("onnxruntime-cuda")
    graph = graph_file(setting, folder, precision)
    backend = open_backend(graph, name, BackendOptions(setting.batch))

    def call(x: Tensor) -> Tensor:
        return torch.from_numpy(backend.run(x.cpu().numpy()))

    return Side(precision, call, on_device=False)


def graph_file(setting: Setting, folder: Path, precision: str) -> Any:
    """The graph that `fastmrigan export --precision` writes, in a file."""
    from inference_models import Graph

    from fastmrigan.export.facts import GeneratorFacts
    from fastmrigan.export.graph import build_graph
    from fastmrigan.export.precision import typed_graph

    path = folder / f"{setting.name}-{precision}.onnx"
    if not path.exists():
        latent, size = shape_of(setting.name, setting.device)
        task = NETWORKS[setting.name][1].task
        facts = GeneratorFacts(task, setting.name, (size, size), latent_size=latent)
        computed_in = "bf16" if precision == "fp32" else precision
        graph = build_graph(setting.network, facts, computed_in)
        if precision != "fp32":
            graph = typed_graph(graph, precision)
        path.write_bytes(graph.SerializeToString())
    return Graph(path, path.read_bytes(), precision=precision)


def on(x: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(x).to(device)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def check(setting: Setting, sides: Mapping[str, Side]) -> tuple[dict[str, float], list[str]]:
    """The lower PSNR of two inputs, by side, and a line on each side whose slices are wrong."""
    wanted = [setting.network(torch.from_numpy(x)).numpy() for x in setting.given]
    psnr = {}
    for name, side in sides.items():
        # Copies: a replayed graph fills the same slices each time.
        got = [np.array(side.call(on(x, setting.device)).cpu()) for x in setting.given]
        each = [difference([a], [b])[1] for a, b in zip(wanted, got, strict=True)]
        psnr[name] = float(np.min(each))  # NaN stays
    return psnr, [
        f"{name} is {psnr[name]:.1f} dB from PyTorch on the CPU, {LEAST_DB[side.precision]:.0f} "
        "wanted"
        for name, side in sides.items()
        if not psnr[name] >= LEAST_DB[side.precision]  # written so that NaN fails
    ]


def end_to_end(setting: Setting, side: Side) -> Callable[[], None]:
    """From host memory to host memory, as a caller outside waits for it."""
    device, x = setting.device, torch.from_numpy(setting.given[0])
    pinned = device.type == "cuda"
    source = x.pin_memory() if pinned else x
    there = x.to(device)
    made = torch.empty(side.call(there).shape, pin_memory=pinned)

    def once() -> None:
        if side.on_device:
            there.copy_(source, non_blocking=True)
            made.copy_(side.call(there), non_blocking=True)
        else:
            side.call(source)  # is done when it is back
        wait(device)

    return once


def queued(setting: Setting, side: Side) -> tuple[Callable[[], None], int]:
    """Calls one behind the other without waiting, and how many."""
    device, x = setting.device, on(setting.given[0], setting.device)

    def calls(count: int) -> None:
        for _ in range(count):
            side.call(x)
        wait(device)

    calls(2)
    began = time.perf_counter()
    calls(3)
    count = max(1, round(3 * QUEUED / (time.perf_counter() - began)))
    return partial(calls, count), count


def product(device: torch.device) -> Side:
    """A product of matrices in bf16, which is the limit."""
    size = PRODUCT[device.type]
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    out = torch.empty_like(left)
    return Side("bf16", lambda _: torch.mm(left, right, out=out))


@torch.inference_mode()
def measure(setting: Setting, sides: Mapping[str, Side], budget: float) -> dict[str, Any]:
    """The figures of one row; `wrong` in place of times where slices differ too much."""
    psnr, wrong = check(setting, sides)
    row: dict[str, Any] = {"network": setting.name, "batch": setting.batch, "psnr_db": psnr}
    if wrong:
        return row | {"wrong": "; ".join(wrong)}
    whole = {name: end_to_end(setting, side) for name, side in sides.items()}
    latency = interleave(whole, 60, budget=0.4 * budget, turn=5e-3, least=5)
    bursts = {name: queued(setting, side) for name, side in sides.items()}
    bursts[LIMIT] = queued(setting, product(setting.device))
    calls = {name: call for name, (call, _) in bursts.items()}
    alone = dict.fromkeys(calls, QUEUED)
    taken = interleave(calls, 20, budget=0.6 * budget, turn=0.0, least=5, alone=alone)
    seconds = {name: [t / bursts[name][1] for t in times] for name, times in taken.items()}
    with FlopCounterMode(display=False) as counter:
        sides[EAGER].call(on(setting.given[0], setting.device))
    work = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    times, size = summary(seconds), PRODUCT[setting.device.type]
    best = min(set(sides), key=lambda name: times[name]["median_ms"])
    return row | {
        "rounds": [len(latency[EAGER]), len(taken[EAGER])],
        "latency": summary(latency),
        "throughput": times,
        "slices_per_second": {
            name: 1e3 * setting.batch / times[name]["median_ms"] for name in sides
        },
        "latency_ratios": {n: vars(ratio(latency[EAGER], latency[n])) for n in sides},
        "throughput_ratios": {n: vars(ratio(seconds[EAGER], seconds[n])) for n in sides},
        "limit": {
            "operations": work,
            "best": best,
            "tflops": work / times[best]["median_ms"] / 1e9,
            "product_tflops": 2 * size**3 / times[LIMIT]["median_ms"] / 1e9,
        },
    }


def show(row: dict[str, Any]) -> None:
    head = f"{row['network']}, batch {row['batch']}"
    if "wrong" in row or "failed" in row:
        what = "WRONG RESULT, not timed" if "wrong" in row else "FAILED, no figures"
        print(f"{head}: {what}: {row.get('wrong', row.get('failed'))}", flush=True)
        return
    print(f"{head}: latency from host to host, throughput on the device, against {EAGER}")
    for name, psnr in row["psnr_db"].items():
        print(
            f"  {name:24} {row['latency'][name]['median_ms']:8.3f} ms "
            f"{Ratio(**row['latency_ratios'][name])}; {row['slices_per_second'][name]:9.1f} "
            f"slices/s {Ratio(**row['throughput_ratios'][name])}; {psnr:.1f} dB"
        )
    limit = row["limit"]
    print(
        f"  limit: {limit['best']} {limit['tflops']:.3g} of {limit['product_tflops']:.3g} TFLOP/s "
        "of a bf16 matrix product",
        flush=True,
    )


def rtx(folder: Path, device: torch.device) -> dict[str, Any]:
    """What TensorRT-RTX says to DCGAN-64 in fp32, one slice; or why it was not asked."""
    absent = [n for n in ("tensorrt_rtx", "onnx", "onnxscript") if find_spec(n) is None]
    if absent:
        return {"left_out": f"not installed: {', '.join(absent)}"}
    from inference_tensorrt import try_rtx

    setting = Setting("DCGAN-64", 1, device, network_of("DCGAN-64", device))
    x = setting.given[0]
    with torch.inference_mode():
        expected = setting.network(torch.from_numpy(x)).numpy()
    try:
        return try_rtx(graph_file(setting, folder, "fp32"), x, expected, folder)
    except Exception as failure:  # whatever it is, it is what the try came to
        return {"failed": line_of(failure)}


def line_of(failure: Exception) -> str:
    return f"{type(failure).__name__}: {(str(failure).splitlines() or [''])[0]}"


def about(device: torch.device) -> dict[str, Any]:
    known: dict[str, Any] = {"device": "cpu", "torch": torch.__version__}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        known["device"] = properties.name
        known |= {"sm": f"{properties.major}{properties.minor}", "cuda": torch.version.cuda}
    for package in ("onnxruntime-gpu", "tensorrt", "tensorrt_rtx_cu13"):
        try:
            known[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            known[package] = None
    return known


def run(options: argparse.Namespace, folder: Path) -> int:
    began = time.perf_counter()
    device = torch.device(options.device)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = True, True
    document: dict[str, Any] = {"benchmark": "inference_cuda", "machine": about(device)}
    document |= {"rows": [], "left_out": {}, "tensorrt_rtx": None}
    print(", ".join(f"{key} {value}" for key, value in document["machine"].items()), flush=True)
    networks = {name: network_of(name, device) for name in BATCHES}
    rows = [(name, batch) for name, batches in BATCHES.items() for batch in batches]
    settings = [Setting(name, batch, device, networks[name]) for name, batch in rows]

    def added(setting: Setting, kind: str, left_out: dict[str, str]) -> dict[str, Side]:
        if kind == "compile":
            network = plain(copy.deepcopy(setting.network))
            return {COMPILED: Side("bf16", half(network, device, compiled=True))}
        return engine_sides(setting, folder, left_out) if kind == "engines" else {}

    kinds = ["own", *(["compile"] if options.compile else []), "engines"]
    for kind in kinds:
        for setting in settings:
            name = f"{setting.name}, batch {setting.batch}, {kind}"
            spent = time.perf_counter() - began
            if spent > options.seconds:
                document["left_out"][name] = f"past {options.seconds:.0f} s"
                print(f"{name}: left out, past {options.seconds:.0f} s", flush=True)
                continue
            left_out: dict[str, str] = {}
            try:
                sides = added(setting, kind, left_out)
                if kind != "own" and not sides:  # nothing that has not been timed already
                    row = None
                else:
                    sides = own_sides(setting, left_out) | sides
                    row = measure(setting, sides, options.seconds / 25)
            except Exception as failure:  # a compiler's, say: the other rows are still wanted
                row = {"network": setting.name, "batch": setting.batch, "failed": line_of(failure)}
            for side, reason in left_out.items():
                if reason not in document["left_out"].values():  # it is the same for other rows
                    print(f"{name}: {side} left out: {reason}")
                document["left_out"][f"{name}, {side}"] = reason
            if row is not None:
                document["rows"].append(row | {"kind": kind})
                show(row)
            if device.type == "cuda":
                torch.cuda.empty_cache()
            write_json(options.json, document)
        if kind == "own" and time.perf_counter() - began <= options.seconds:
            document["tensorrt_rtx"] = rtx(folder, device)
            print(f"TensorRT-RTX: {document['tensorrt_rtx']}", flush=True)
            write_json(options.json, document)
    bad = sum("wrong" in row or "failed" in row for row in document["rows"])
    bad += device.type == "cuda" and any(name.endswith(GRAPH) for name in document["left_out"])
    document["seconds"] = time.perf_counter() - began
    write_json(options.json, document)
    print(f"{bad} wrong or failed, {len(document['rows'])} rows, {document['seconds']:.0f} s")
    return 6 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=50.0, help="no row begins after them")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    add_json_option(parser)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("inference_cuda: no CUDA device; --device cpu tries the code on tiny networks")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        return run(options, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
