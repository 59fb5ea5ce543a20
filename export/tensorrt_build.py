"""Builds one TensorRT engine, in a process of its own: a fault of the builder ends no other work.

`tensorrt` and `tensorrt_rtx` have the same interface. Not run with `tensorrt`, whose builder needs
a GPU; `tensorrt_rtx` builds for a compute capability that is given, and needs none.
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from fastmrigan.runtime.backends.tensorrt_package import logger
from fastmrigan.runtime.cuda_driver import compute_capability


class Refused(Exception):
    """Why there is no engine, in one line."""


def child(arguments: list[str]) -> None:
    """Reads the job as JSON, writes the engine, prints JSON: what was built, or the error."""
    job = json.loads(arguments[0])
    try:
        told = build(job)
    except Refused as error:
        told = {"error": str(error)}
    print(json.dumps(told))


def build(job: dict[str, Any]) -> dict[str, str]:
    """job: package, model, engine (paths), buckets, compute ("8.9" or None), version_compatible,
    timing_cache and plugin (paths or None). Returns version and compute capability."""
    here = compute_capability()
    if job["compute"] is None and here is None:  # TensorRT returns garbage without a driver
        raise Refused("no CUDA driver or device here, and the engine is built for the one it finds")
    trt = import_module(job["package"])
    log = logger(trt)
    builder = trt.Builder(log)
    if job["plugin"] and builder.get_plugin_registry().load_library(job["plugin"]) is None:
        reason = "; ".join(log.errors) or "no reason given"
        raise Refused(f"the plugin {job['plugin']} cannot be loaded: {reason}")
    network = builder.create_network(strongly_typed(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(Path(job["model"]).read_bytes()):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        wrong = [f"node {e.node()} ({e.node_operator()}): {e.desc()}" for e in errors]
        raise Refused(f"the parser refuses the graph: {'; '.join(wrong)}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    if job["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    add_profiles(builder, network, config, job["buckets"])
    if job["compute"] is not None:
        set_compute_capability(trt, config, job["compute"])
    cache = Path(job["timing_cache"]) if job["timing_cache"] else None
    if cache is not None:
        known = cache.read_bytes() if cache.exists() else b""
        if not config.set_timing_cache(config.create_timing_cache(known), False):
            raise Refused(f"{cache}: is a timing cache of another version or device; remove it")
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise Refused(f"the builder makes no engine: {'; '.join(log.errors) or 'no reason given'}")
    Path(job["engine"]).write_bytes(engine)
    if cache is not None:
        cache.write_bytes(config.get_timing_cache().serialize())
    return {"version": trt.__version__, "compute": job["compute"] or str(here)}


def strongly_typed(trt: Any) -> int:
    """The flag that makes a graph's own types binding; of the one kind that is left, none."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def add_profiles(builder: Any, network: Any, config: Any, buckets: list[int]) -> None:
    """A profile for each bucket, of that batch and no other: no kernel is chosen for a range."""
    given = network.get_input(0)
    for batch in buckets:
        profile = builder.create_optimization_profile()
        shape = (batch, *tuple(given.shape)[1:])
        profile.set_shape(given.name, shape, shape, shape)
        config.add_optimization_profile(profile)


def set_compute_capability(trt: Any, config: Any, asked: str) -> None:
    name = f"SM{asked.replace('.', '')}"
    known = getattr(trt.ComputeCapability, name, None)
    if known is None:
        names = [n for n in dir(trt.ComputeCapability) if n.startswith("SM")]
        offered = ", ".join(f"{n[2:-1]}.{n[-1]}" for n in names)
        raise Refused(f"compute capability {asked}: this version builds for {offered}")
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(known, 0):
        raise Refused(f"compute capability {asked}: refused by the builder")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # tensorrt_rtx says that its timing cache is a dummy
    child(sys.argv[1:])
