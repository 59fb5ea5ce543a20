"""The Generator against NumPy, and its backends against each other."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tiny_model as tiny
from onnx import numpy_helper

from fastmrigan.errors import ModelRefused, UsageError
from fastmrigan.runtime import load
from fastmrigan.runtime.backends import onnxruntime as ort_backend
from fastmrigan.runtime.backends.openvino import the_core
from fastmrigan.runtime.latents import normal_latents

BACKENDS = ["openvino", "onnxruntime"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("count", "first"), [(1, 0), (4, 0), (11, 0), (5, 4), (0, 0)])
def test_samples_equal_numpy(write_model, backend, count, first):
    generator = load(write_model(), backend, precision="fp32", batch=4)
    slices = generator.sample(count, seed=7, first=first)
    expected = np.tanh(normal_latents(7, first, count, tiny.LATENT) @ tiny.weights())
    assert slices.dtype == np.float32
    np.testing.assert_allclose(slices, expected.reshape(count, 16, 16), atol=2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_stream_is_the_sample_cut_in_batches(write_model, backend):
    generator = load(write_model(), backend, batch=4)
    parts = list(generator.stream(10, seed=1))
    assert [len(part) for part in parts] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(parts), generator.sample(10, seed=1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_outlive_the_next_call(write_model, backend):
    generator = load(write_model(), backend, batch=2)
    one = generator.sample(2, seed=1)
    kept = one.copy()
    generator.sample(2, seed=2)
    np.testing.assert_array_equal(one, kept)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_translates(write_model, backend, count):
    path = write_model(
        tiny.metadata(task="translate", latent_size=None), tiny.tiny_graph("translate")
    )
    generator = load(path, backend, batch=2)
    x = np.random.default_rng(0).uniform(-1, 1, (count, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(generator.translate(x), -x)
    with pytest.raises(UsageError, match="translates slices and cannot sample"):
        generator.sample(1)


@pytest.mark.parametrize("layout", ["transposed", "float64", "every second"])
def test_translates_a_whole_batch_of_any_layout(write_model, layout):
    document = tiny.metadata(task="translate", latent_size=None)
    generator = load(write_model(document, tiny.tiny_graph("translate")), batch=2)
    x = np.random.default_rng(0).uniform(-1, 1, (4, tiny.SIZE, tiny.SIZE)).astype(np.float32)
    slices = {
        "transposed": x[:2].transpose(0, 2, 1),
        "float64": x[:2].astype(np.float64),
        "every second": x[::2],
    }[layout]
    made = generator.translate(slices)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, -slices.astype(np.float32))
    kept = made.copy()
    generator.translate(x[2:])
    np.testing.assert_array_equal(made, kept)  # it is the caller's own


def test_wrong_slices_to_translate_are_refused(write_model):
    document = tiny.metadata(task="translate", latent_size=None)
    generator = load(write_model(document, tiny.tiny_graph("translate")), batch=2)
    with pytest.raises(UsageError, match=r"expected slices \[N, 16, 16\], got \[2, 8, 8\]"):
        generator.translate(np.zeros((2, 8, 8), np.float32))
    with pytest.raises(UsageError, match="NaN or infinite"):
        generator.translate(np.full((1, 16, 16), np.nan, np.float32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "magic"}, "'magic': unknown; choose one of auto, openvino"),
        ({"precision": "fp12"}, "precision 'fp12'"),
        ({"batch": 0}, "batch 0: expected 1 to 4,096"),
        ({"threads": 0}, "threads 0: expected at least 1"),
        ({"backend": "onnxruntime", "precision": "bf16"}, "offers auto, fp32"),
    ],
)
def test_wrong_settings_are_refused(write_model, settings, message):
    with pytest.raises(UsageError, match=message):
        load(write_model(), **settings)


def test_a_sampler_cannot_translate(write_model):
    with pytest.raises(UsageError, match="samples slices and cannot translate"):
        load(write_model()).translate(np.zeros((1, 16, 16), np.float32))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_the_engine_refuses_is_one_line(write_model, backend):
    graph = tiny.tiny_graph()
    graph.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(ModelRefused, match=r"refuses the graph: .+"):
        load(write_model(graph=graph), backend)


def test_a_missing_cuda_provider_names_the_package_that_shadows(write_model, monkeypatch):
    with pytest.raises(UsageError, match=r"the installed onnxruntime [\d.]+ lacks it"):
        load(write_model(), "onnxruntime-cuda")
    monkeypatch.setattr(ort_backend, "_version", lambda name: "1.2.3")
    message = ort_backend.missing_provider("CUDAExecutionProvider")
    assert "both onnxruntime 1.2.3 and onnxruntime-gpu 1.2.3" in message
    assert "shadows the GPU package" in message


def test_auto_says_what_it_took_and_why(write_model):
    generator = load(write_model())
    assert generator.backend.name == "openvino"
    assert generator.reason == "auto: the first of openvino, onnxruntime that is installed"
    assert generator.backend.precision == "fp32"  # the file records no bf16 parity


@pytest.mark.parametrize(
    ("random_db", "real_db", "taken", "measured_db"),
    [
        (60.0, None, "bf16", 60.0),
        (44.9, None, "fp32", 44.9),
        (60.0, 45.0, "bf16", 45.0),
        (60.0, 44.9, "fp32", 44.9),
        (44.9, 60.0, "fp32", 44.9),
    ],
)
def test_auto_takes_bf16_only_where_the_file_vouches_for_it(
    write_model, random_db, real_db, taken, measured_db
):
    pytest.importorskip("openvino")
    if "BF16" not in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16 arithmetic")
    figures = {"version": "", "device": "", "max_abs_error": 0.1}
    parity = {"openvino-bf16": figures | {"psnr_db": random_db}}
    if real_db is not None:
        parity["real_slices"] = {"openvino-bf16": figures | {"psnr_db": real_db}}
    document = tiny.metadata(parity=parity)
    backend = load(write_model(document)).backend
    assert backend.precision == taken
    assert backend.why_precision == f"auto: {measured_db} dB in bf16 by the model file, 45 wanted"
    assert load(write_model(document), precision="fp32").backend.why_precision == ""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (
            {"slice_size": [32, 8]},
            r"makes \[2, 1, 16, 16\] where its metadata says \[2, 1, 32, 8\]",
        ),
        ({"latent_size": 9}, "cannot run it"),
    ],
)
def test_a_graph_that_is_not_what_its_metadata_says_is_refused(
    write_model, backend, claim, message
):
    with pytest.raises(ModelRefused, match=message):
        load(write_model(tiny.metadata(**claim)), backend, batch=2).sample(1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_generator_of_nan_is_refused(write_model, backend):
    graph = tiny.tiny_graph()
    broken = numpy_helper.from_array(tiny.weights() * np.float32(np.nan), "weights")
    graph.graph.initializer[0].CopyFrom(broken)
    with pytest.raises(ModelRefused, match="makes NaN or infinite pixels"):
        load(write_model(graph=graph), backend).sample(1)


THIN = ["fastmrigan", "fastmrigan.imaging", "fastmrigan.jobs.spec", "fastmrigan.runtime"]


@pytest.mark.parametrize("module", THIN)
def test_the_thin_rooms_never_import_torch(write_model, module):
    code = f"import {module}, sys; assert 'torch' not in sys.modules"
    if module == "fastmrigan.runtime":
        code += f"; fastmrigan.runtime.load({str(write_model())!r}).sample(1)"
        code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_ctrl_c_after_two_models_is_no_crash(write_model):
    """Two Cores of OpenVINO, freed in the order they were made, ended the process here."""
    code = (
        "import gc, signal, sys, fastmrigan.runtime as runtime\n"
        "first = runtime.load(sys.argv[1], backend='openvino', batch=1)\n"
        "second = runtime.load(sys.argv[1], backend='openvino', batch=2)\n"
        "del first; gc.collect(); del second; gc.collect()\n"
        "signal.signal(signal.SIGINT, lambda *_: print('handled'))\n"
        "signal.raise_signal(signal.SIGINT)\n"
    )
    command = [sys.executable, "-c", code, str(write_model())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
