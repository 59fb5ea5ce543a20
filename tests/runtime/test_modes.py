"""Modes and buckets: the same slices whatever makes them, in order, and few engines."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_model as tiny
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.jobs.sampling import JobOptions, synthesise
from fastmrigan.runtime import load
from fastmrigan.runtime.backends.base import BackendOptions, in_order
from fastmrigan.runtime.backends.openvino import the_core
from fastmrigan.runtime.generator import BUCKETS, calls
from fastmrigan.runtime.latents import normal_latents

BACKENDS = ["openvino", "onnxruntime"]
MODES = ["latency", "throughput"]
CORES = len(os.sched_getaffinity(0))


def convolving(normed: bool = False) -> ModelProto:
    """Samples: a dense layer to [8, 4, 4], three convolutions (and instance norms) and two
    upsamplings to 16, tanh."""
    random = np.random.default_rng(0)
    widths = [8, 16, 16, 1]
    constants = [
        numpy_helper.from_array(random.normal(0, 0.5, (tiny.LATENT, 128)).astype("f4"), "dense"),
        numpy_helper.from_array(np.array([-1, 8, 4, 4]), "square"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"),
    ]
    nodes = [
        helper.make_node("MatMul", ["latent", "dense"], ["flat"]),
        helper.make_node("Reshape", ["flat", "square"], ["y0"]),
    ]
    for i, (into, out) in enumerate(itertools.pairwise(widths)):
        weights = random.normal(0, (into * 9) ** -0.5, (out, into, 3, 3)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"w{i}"))
        nodes.append(helper.make_node("Conv", [f"y{i}", f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        if out > 1:
            last = f"c{i}"
            if normed:
                constants.append(numpy_helper.from_array(np.ones(out, np.float32), f"s{i}"))
                constants.append(numpy_helper.from_array(np.zeros(out, np.float32), f"b{i}"))
                names = [last, f"s{i}", f"b{i}"]
                last = f"n{i}"
                nodes.append(helper.make_node("InstanceNormalization", names, [last]))
            nodes.append(helper.make_node("Relu", [last], [f"r{i}"]))
            nodes.append(helper.make_node("Resize", [f"r{i}", "", "twice"], [f"y{i + 1}"]))
    nodes.append(helper.make_node("Tanh", ["c2"], ["slice"]))
    graph = helper.make_graph(
        nodes,
        "convolving",
        [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", tiny.LATENT])],
        [helper.make_tensor_value_info("slice", TensorProto.FLOAT, ["batch", 1, 16, 16])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def sampler(write_model) -> Path:
    return write_model(graph=convolving())


@pytest.fixture
def translator(write_model) -> Path:
    document = tiny.metadata(task="translate", latent_size=None)
    return write_model(document, tiny.tiny_graph("translate"), "translate.onnx")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [None, 3])
def test_modes_make_the_same_slices_in_order(sampler, backend, batch):
    latency, throughput = (
        load(sampler, backend, precision="fp32", batch=batch, mode=mode) for mode in MODES
    )
    expected = latency.sample(50, seed=3, first=2)
    made = throughput.sample(50, seed=3, first=2)
    assert np.ptp(expected) > 0.5
    assert np.abs(np.diff(expected, axis=0)).max(axis=(1, 2)).min() > 1e-2  # no two are alike
    np.testing.assert_allclose(made, expected, atol=2e-6)  # threads may sum in another order
    np.testing.assert_array_equal(throughput.sample(50, seed=3, first=2), made)


@pytest.mark.parametrize(
    ("backend", "precision", "least_db"),
    [("openvino", "fp32", 100.0), ("openvino", "bf16", 40.0), ("onnxruntime", "fp32", 100.0)],
)
def test_modes_and_buckets_differ_by_no_more_than_rounding(
    write_model, backend, precision, least_db
):
    """Instance norms are where OpenVINO sums in another order; against NumPy's peak of 2."""
    pytest.importorskip(backend)
    if precision == "bf16" and "BF16" not in the_core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        pytest.skip("this processor has no bf16 arithmetic")
    path = write_model(graph=convolving(normed=True))
    made = {
        (mode, batch): load(path, backend, precision=precision, mode=mode, batch=batch).sample(16)
        for mode in MODES
        for batch in (1, 4, None)
    }
    expected = made["throughput", 4].astype(np.float64)
    assert np.ptp(expected) > 0.5
    for which, slices in made.items():
        error = np.mean((slices - expected) ** 2)
        assert error == 0 or 10 * np.log10(4 / error) >= least_db, which


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
def test_any_number_of_slices(sampler, backend, mode):
    """Against calls of one slice each, whatever the numbers and their order."""
    generator = load(sampler, backend, precision="fp32", mode=mode)
    alone = load(sampler, backend, precision="fp32", batch=1)
    expected = alone.sample(70, seed=1)
    for count in (1, 3, 20, 8, 2, 1, 70, 33, 0):
        made = generator.sample(count, seed=1)
        assert made.shape == (count, 16, 16)
        np.testing.assert_allclose(made, expected[:count], atol=2e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_bucket_is_compiled_once_and_when_it_is_needed(sampler, monkeypatch, mode):
    pytest.importorskip("openvino")
    compiled: list[int] = []
    real = type(the_core()).compile_model

    def counting(core, graph, *more):
        compiled.append(graph.input(0).partial_shape[0].get_length())
        return real(core, graph, *more)

    monkeypatch.setattr(type(the_core()), "compile_model", counting)
    generator = load(sampler, "openvino", mode=mode)
    assert compiled == [1]
    for count in (1, 2, 3, 4, 3, 20, 1, 20, 36):
        generator.sample(count)
    assert compiled == [1, 4, 16, 32]
    load(sampler, "openvino", mode=mode, batch=7).sample(20)
    assert compiled == [1, 4, 16, 32, 7]


@pytest.mark.parametrize("buckets", [BUCKETS, (7,), (1,), (4096,)])
def test_calls_cover_what_is_asked_for(buckets):
    for count in range(300):
        made = list(calls(count, buckets))
        assert [at for at, _, _ in made] == [
            sum(bucket for _, _, bucket in made[:i]) for i in range(len(made))
        ]
        assert sum(taken for _, taken, _ in made) == count
        for _, taken, bucket in made:
            assert 1 <= taken <= bucket
            assert bucket in buckets
        if buckets == BUCKETS:
            assert sum(bucket for _, _, bucket in made) <= count * 4 / 3
            assert len(made) <= count // 32 + 4


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        *((1, [1]), (2, [1, 1]), (3, [4]), (5, [4, 1]), (6, [8]), (20, [16, 4]), (31, [32])),
        *((33, [32, 1]), (100, [32, 32, 32, 4])),
    ],
)
def test_calls_by_hand(count, sizes):
    assert [bucket for _, _, bucket in calls(count, BUCKETS)] == sizes


@pytest.mark.parametrize(
    ("mode", "threads", "shares"),
    [
        *(("latency", n, (1, n)) for n in (1, 2, 64)),
        *(("throughput", n, (n, 1)) for n in (1, 2, 8)),
        ("throughput", 9, (4, 2)),  # one thread is left over
        ("throughput", 16, (8, 2)),
        ("throughput", 64, (8, 8)),
        ("throughput", 100, (7, 14)),
    ],
)
def test_threads_are_shared_out(mode, threads, shares):
    assert BackendOptions(mode=mode).shared_out(threads) == shares
    streams, each = shares
    assert streams <= 8
    assert threads - streams * each < each


@pytest.mark.parametrize(
    ("streams", "shares"), [(1, (1, 6)), (2, (2, 3)), (4, (4, 1)), (9, (9, 1))]
)
def test_streams_asked_for_are_taken(streams, shares):
    assert BackendOptions(mode="throughput", streams=streams).shared_out(6) == shares


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("threads", [None, 1])
def test_what_runs_is_told(sampler, backend, mode, threads):
    engine = load(sampler, backend, precision="fp32", mode=mode, threads=threads).backend
    told = engine.describe()
    assert list(told) == [
        *("backend", "version", "device", "precision", "mode", "streams", "threads", "pinning"),
        "nodes",
    ]
    assert (told["backend"], told["mode"]) == (backend, mode)
    assert told["threads"] == (threads or CORES)
    assert told["streams"] == (min(8, told["threads"]) if mode == "throughput" else 1)
    assert isinstance(told["pinning"], bool)
    (provider,) = told["nodes"]
    assert provider == {"openvino": "CPU", "onnxruntime": "CPUExecutionProvider"}[backend]
    assert 5 <= told["nodes"][provider] <= 30  # of 9 in the file


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pinning", [False, True])
def test_pinning_is_as_asked_and_leaves_the_callers_thread_alone(sampler, backend, pinning):
    from fastmrigan.runtime.backends import open_backend
    from fastmrigan.runtime.model_file import read_model_file

    if CORES < 2:
        pytest.skip("one core: nothing to keep to")
    before = os.sched_getaffinity(0)
    options = BackendOptions(4, "fp32", CORES, pinning=pinning)
    engine = open_backend(read_model_file(sampler), backend, options)
    assert engine.pinning is pinning
    x = normal_latents(0, 0, 4, tiny.LATENT)
    assert engine.run(x).shape == (4, 1, 16, 16)
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("mode", ["fast", "", "Latency"])
def test_another_mode_is_refused(sampler, mode):
    with pytest.raises(UsageError, match=f"mode '{mode}': unknown; choose one of latency, thro"):
        load(sampler, mode=mode)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
def test_streams_of_one_generator_may_take_turns(sampler, backend, mode):
    generator = load(sampler, backend, batch=2, mode=mode)
    expected = [generator.sample(20, seed=seed) for seed in (1, 2)]
    both = zip(generator.stream(20, seed=1), generator.stream(20, seed=2), strict=True)
    made = [np.concatenate(parts) for parts in zip(*both, strict=True)]
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
def test_a_stream_left_early_leaves_a_generator_that_works(sampler, backend, mode):
    generator = load(sampler, backend, batch=2, mode=mode)
    expected = generator.sample(12, seed=1)
    for _ in range(5):
        stream = generator.stream(12, seed=1)
        next(stream)
        stream.close()
        np.testing.assert_array_equal(generator.sample(12, seed=1), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch", [4, 8])
def test_an_array_may_be_filled_again_while_slices_are_made(translator, backend, mode, batch):
    generator = load(translator, backend, batch=batch, mode=mode)
    buffer = np.empty((4, tiny.SIZE, tiny.SIZE), np.float32)

    def parts() -> Iterator[np.ndarray]:
        for number in range(12):
            buffer[:] = number / 12
            yield buffer

    for number, made in enumerate(generator.translate_all(parts())):
        np.testing.assert_array_equal(made, np.float32(-number / 12))


@pytest.mark.parametrize("mode", MODES)
def test_an_error_of_the_input_is_its_own_and_one_of_the_engine_is_named(
    translator, monkeypatch, mode
):
    generator = load(translator, batch=2, mode=mode)
    good = np.zeros((2, tiny.SIZE, tiny.SIZE), np.float32)

    def parts() -> Iterator[np.ndarray]:
        yield good
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="the disk went away"):
        list(generator.translate_all(parts()))
    monkeypatch.setattr(generator.backend, "start", lambda x: 1 / 0)
    with pytest.raises(ModelRefused, match=r"openvino cannot run it: division by zero"):
        generator.translate(good)


@pytest.mark.parametrize("in_flight", [1, 2, 3])
def test_calls_in_flight(in_flight):
    """In order, never more than asked for, each finished once, and none left behind."""
    running: list[int] = []
    most = 0

    def begun(count: int, fails_at: int | None = None):
        def finish(i):
            running.remove(i)
            if i == fails_at:
                raise RuntimeError("broken")
            return i

        nonlocal most
        for i in range(count):
            running.append(i)
            most = max(most, len(running))
            yield lambda i=i: finish(i)

    assert list(in_order(begun(7), in_flight)) == list(range(7))
    assert (running, most) == ([], in_flight)
    assert list(in_order(begun(0), in_flight)) == []
    stream = in_order(begun(7), in_flight)
    assert next(stream) == 0
    stream.close()
    assert running == []
    with pytest.raises(RuntimeError, match="broken"):
        list(in_order(begun(7, fails_at=2), in_flight))
    assert running == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_throughput_really_has_several_calls_at_once(sampler, backend, monkeypatch):
    if CORES < 2:
        pytest.skip("one core: one stream")
    generator = load(sampler, backend, batch=2, mode="throughput")
    begun, finished, most = 0, 0, 0
    real = generator.backend.start

    def start(x):
        nonlocal begun, most
        begun += 1
        most = max(most, begun - finished)
        finish = real(x)

        def done():
            nonlocal finished
            finished += 1
            return finish()

        return done

    monkeypatch.setattr(generator.backend, "start", start)
    generator.sample(40)
    assert (begun, finished) == (20, 20)
    assert most == generator.backend.streams + 1


def test_threads_may_share_a_generator(sampler):
    """Each has requests of its own."""
    generator = load(sampler, "openvino", batch=2)
    expected = [generator.sample(20, seed=seed) for seed in range(4)]
    made: dict[int, np.ndarray] = {}

    def work(seed: int) -> None:
        made[seed] = generator.sample(20, seed=seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal([made[seed] for seed in range(4)], expected)


@pytest.mark.parametrize(("first", "second"), [MODES, MODES[::-1]])
def test_a_job_goes_on_in_its_own_mode_alone(sampler, tmp_path, first, second):
    options = JobOptions(tmp_path / "out", 8, 7)
    synthesise(load(sampler, batch=4, mode=first), options)
    with pytest.raises(UsageError, match=f"mode is '{first}' there and '{second}' here"):
        synthesise(load(sampler, batch=4, mode=second), options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
def test_what_was_given_out_stays(sampler, translator, backend, mode):
    """Each call gives an array of its own, which no later call writes to."""
    generator = load(sampler, backend, precision="fp32", mode=mode)
    kept = [generator.sample(count, seed) for seed, count in enumerate((4, 1, 4, 4, 1))]
    copies = [slices.copy() for slices in kept]
    parts = list(generator.stream(50, seed=9))
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations([*kept, *parts], 2))
    for slices, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(slices, copy)
    np.testing.assert_array_equal(np.concatenate(parts), generator.sample(50, seed=9))

    translating = load(translator, backend, precision="fp32", mode=mode)
    first = translating.translate(copies[0])
    again = translating.translate(first)  # what came out goes in
    np.testing.assert_array_equal(first, translating.translate(copies[0]))
    np.testing.assert_array_equal(again, translating.translate(first.copy()))
    read_only = copies[0].copy()
    read_only.flags.writeable = False
    for slices in (read_only, np.repeat(copies[0], 2, axis=2)[:, :, ::2]):  # of no array of its own
        np.testing.assert_array_equal(first, translating.translate(slices))
