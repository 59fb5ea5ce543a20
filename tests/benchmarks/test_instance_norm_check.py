"""The instance-norm benchmarks time no side that is wrong: what is right passes, planted mistakes
are found, named, and make the exit code 6. The CUDA half runs here on the CPU, up to its clock."""

from __future__ import annotations

import argparse
import json
from functools import partial
from types import SimpleNamespace

import instance_norm
import instance_norm_cuda
import instance_norm_sides as sides
import pytest
import torch
from instance_norm_floor import autograd_floor
from instance_norm_launches import Turn, check_launches
from torch import Tensor

SHAPE = (2, 3, 7, 9)
eager = sides.eager
dtypes = pytest.mark.parametrize("dtype", list(sides.DTYPES))
layouts = pytest.mark.parametrize("layout", list(sides.LAYOUTS))
affines = pytest.mark.parametrize("affine", [False, True])


@dtypes
@layouts
@affines
@pytest.mark.parametrize("gradients", [False, True])
def test_what_is_right_passes(dtype, layout, affine, gradients):
    inputs = sides.make_inputs(SHAPE, dtype, layout, affine=affine, gradients=gradients)
    right = {"eager": eager} if dtype == "fp16" else {"eager": eager, "fused": sides.fused}
    sides.check_sides(right, inputs)


def steeper(t: Tensor) -> Tensor:
    """t itself, with a gradient 1.2 times too large."""
    return t.detach() + 1.2 * (t - t.detach())


MISTAKES = {
    "no ReLU": (lambda x, w, b: torch.nn.functional.instance_norm(x, weight=w, bias=b), "y: "),
    "another eps": (
        lambda x, w, b: torch.nn.functional.instance_norm(x, weight=w, bias=b, eps=1.0).relu_(),
        "y: ",
    ),
    "one element": (lambda x, w, b: eager(x, w, b) + (x == x.max()).to(x.dtype), "y: 1 of 378"),
    "NaN": (lambda x, w, b: eager(x, w, b) / (x != x.max()).to(x.dtype), "y: 1 of 378"),
    "another type": (lambda x, w, b: eager(x, w, b).double(), "y is torch.float64"),
    "another shape": (lambda x, w, b: eager(x, w, b)[:, :2], "y is [2, 2, 7, 9]"),
    "gradient to x": (lambda x, w, b: eager(steeper(x), w, b), "the gradient to x: "),
    "gradient to weight": (
        lambda x, w, b: eager(x, steeper(w), b),
        "the gradient to weight: ",
    ),
    "gradient to bias": (lambda x, w, b: eager(x, w, steeper(b)), "the gradient to bias: "),
}


@dtypes
@layouts
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found_and_its_side_named(mistake, dtype, layout):
    wrong, said = MISTAKES[mistake]
    inputs = sides.make_inputs(SHAPE, dtype, layout, affine=True, gradients=True)
    with pytest.raises(AssertionError) as error:
        sides.check_sides({"eager": eager, "compile": wrong}, inputs)
    assert str(error.value).startswith(f"compile: {said}")
    assert "eager" not in str(error.value)


def test_every_side_that_is_wrong_is_named():
    wrong = MISTAKES["no ReLU"][0]
    with pytest.raises(AssertionError, match=r"^eager: y: .*; compile: y: "):
        sides.check_sides({"eager": wrong, "compile": wrong}, sides.make_inputs(SHAPE))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@affines
def test_the_autograd_floor_computes_what_the_operator_does(dtype, affine):
    inputs = sides.make_inputs(SHAPE, dtype, affine=affine, gradients=True)
    nan_like = partial(torch.full_like, fill_value=float("nan"))
    floor = autograd_floor(inputs, nan_like)(inputs.grad)
    for got, expected in zip(
        floor, sides.forward_and_backward(sides.fused, inputs, inputs.grad), strict=True
    ):
        assert torch.equal(got, expected)


def wrong_in_the_gradient(x: Tensor, weight: object = None, bias: object = None) -> Tensor:
    return eager(steeper(x))


OPTIONS = {"threads": 1, "quick": True, "compile": False, "seconds": 60, "launch": "queue"}


def test_on_the_cpu_a_wrong_side_is_not_timed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(instance_norm, "SHAPES", (SHAPE,))
    monkeypatch.setattr(instance_norm, "eager", wrong_in_the_gradient)
    before, file = torch.get_num_threads(), tmp_path / "figures.json"
    options = argparse.Namespace(**OPTIONS, only=["backward"], json=file)
    assert instance_norm.on_cpu(options) == 6
    torch.set_num_threads(before)
    assert "WRONG RESULT, not timed: eager: the gradient to x: " in capsys.readouterr().out
    (row,) = json.loads(file.read_text())["rows"]
    assert not row["met"]
    assert "times" not in row


@pytest.fixture
def on_cuda(monkeypatch, tmp_path):
    """on_cuda(dtype) is the exit code and the document of one row, whose tensors are the CPU's and
    whose clock stands still."""

    def one_round(turns: dict[str, Turn], rounds: int) -> dict[str, list[float]]:
        for turn in turns.values():
            turn.replay()
        return {name: [1.0] for name in turns}

    def run(dtype: str) -> tuple[int, dict]:
        case = instance_norm_cuda.Case((3, 9), dtype, "channels_last", True, False)
        small = partial(sides.make_inputs, (2, 3, 7, 9))
        facts = SimpleNamespace(name="none", major=0, minor=0, L2_cache_size=2000)
        file = tmp_path / "figures.json"
        for name, value in {
            "cases": lambda *_: [case],
            "checks": list,
            "make_inputs": lambda shape, *rest, device, **options: small(*rest, **options),
            "time_turns": one_round,
        }.items():
            monkeypatch.setattr(instance_norm_cuda, name, value)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: facts)
        options = argparse.Namespace(**OPTIONS, json=file)
        return instance_norm_cuda.on_cuda(options), json.loads(file.read_text())

    return run


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_on_cuda_every_side_is_checked_and_timed(on_cuda, dtype):
    status, document = on_cuda(dtype)
    assert status == 0, document["failed"]
    (row,) = document["rows"]
    assert list(row["ms"]) == ["fused", "eager", "copy"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("side", ["fused", "eager"])
def test_on_cuda_a_wrong_side_is_not_timed(on_cuda, monkeypatch, side, dtype):
    monkeypatch.setattr(instance_norm_cuda, side, wrong_in_the_gradient)
    status, document = on_cuda(dtype)
    assert status == 6
    assert not document["rows"]
    (failed,) = document["failed"]
    assert failed["why"].startswith(f"AssertionError: {side}: the gradient to x: ")


@pytest.mark.parametrize("name", ["fused", "eager", "copy"])
def test_a_launch_that_went_wrong_is_found(name):
    sets = [sides.make_inputs(SHAPE, seed=seed) for seed in (0, 1)]
    calls = {
        "fused": lambda number: sides.fused(sets[number].x),
        "eager": lambda number: eager(sets[number].x),
        "copy": lambda number: sets[number].x.clone(),
    }
    turns = {side: Turn(call, sets=2, calls=5, launch="queue") for side, call in calls.items()}
    for turn in turns.values():
        turn.replay()
    check_launches(turns, sets)
    turns[name].kept[-1][0, 0] += 1
    with pytest.raises(AssertionError, match=f"^{name}: [^;]*$"):
        check_launches(turns, sets)
