"""The native core; the faces in imaging.quantise, metrics, runtime.latents and ops state units and
ranges."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

cuda_compiled: bool

def isa() -> str: ...
def isa_supported(name: str) -> bool: ...
def philox_normal(
    seed: int, first: int, count: int, dim: int, threads: int = 0
) -> npt.NDArray[np.float32]: ...
def philox_words(counter: Sequence[int], key: Sequence[int]) -> list[int]: ...
def philox_normal_cuda(
    seed: int, first: int, count: int, dim: int, stream: int, device_out: int
) -> None: ...
def instance_norm_forward(
    shape: tuple[int, int, int],  # N, C, elements of a plane
    channels_last: bool,
    dtype: int,  # 0 float32, 1 bfloat16, 2 float16
    activation: int,  # 0 none, 1 relu, 2 leaky_relu
    slope: float,
    eps: float,
    weight: int,  # pointers are addresses, 0 where there is none
    bias: int,
    x: int,
    x_strides: tuple[int, int],
    residual: int,
    residual_strides: tuple[int, int],
    y: int,
    y_strides: tuple[int, int],
    statistics: int,
    threads: int,
    cuda: bool,
    stream: int,
) -> None: ...
def instance_norm_backward(
    shape: tuple[int, int, int],
    channels_last: bool,
    dtype: int,
    activation: int,
    slope: float,
    eps: float,
    weight: int,
    bias: int,
    x: int,
    x_strides: tuple[int, int],
    statistics: int,
    grad_y: int,
    grad_y_strides: tuple[int, int],
    grad_x: int,
    grad_x_strides: tuple[int, int],
    sums: int,
    grad_weight: int,
    grad_bias: int,
    threads: int,
    cuda: bool,
    stream: int,
) -> None: ...
def moments_update(
    x: npt.NDArray[np.float32] | npt.NDArray[np.float64],  # [n, d]
    shift: npt.NDArray[np.float64],
    sums: npt.NDArray[np.float64],  # [d], added to
    products: npt.NDArray[np.float64],  # [d, d], added to on and above the diagonal
    threads: int,
) -> None: ...
def moments_covariance(
    sums: npt.NDArray[np.float64], products: npt.NDArray[np.float64], count: int, threads: int
) -> npt.NDArray[np.float64]: ...
def moments_update_cuda(
    x: int, wide: bool, rows: int, d: int, shift: int, sums: int, products: int, stream: int
) -> None: ...
def all_finite(x: npt.NDArray[np.float32]) -> bool: ...
def quantise_uint8(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]: ...
def quantise_uint16(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]: ...
def similarity(
    shape: tuple[int, int, int],  # N, H, W
    a: int,  # pointers are addresses, 0 where there is none
    b: int,
    mask: int,
    mask_stride: int,
    c1: float,
    c2: float,
    with_windows: bool,
    sums: int,
    threads: int,
) -> None: ...
def similarity_cuda(
    shape: tuple[int, int, int],
    a: int,
    b: int,
    mask: int,
    mask_stride: int,
    c1: float,
    c2: float,
    with_windows: bool,
    sums: int,
    workspace: int,
    stream: int,
) -> None: ...
def similarity_cuda_workspace(shape: tuple[int, int, int], with_windows: bool) -> int: ...
