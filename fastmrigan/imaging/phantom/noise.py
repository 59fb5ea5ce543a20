"""What the scanner adds: Rician noise, a smooth bias field, and the noise of CT."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

CT_NOISE_HU = 200.0
"""CT noise in HU for a noise level of 1: the default level of 0.02 gives 4 HU."""


def rician(signal: Float32, sigma: float, rng: np.random.Generator) -> Float32:
    """The magnitude of `signal` plus complex Gaussian noise of standard deviation `sigma`.

    Where there is no signal this is Rayleigh noise of mean sigma sqrt(pi / 2) (Gudbjartsson and
    Patz, "The Rician distribution of noisy MRI data", Magn. Reson. Med. 34(6), 1995).
    """
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(sigma)
    real = signal + noise[0]
    magnitude: Float32 = np.sqrt(real * real + noise[1] * noise[1])
    return magnitude


def gaussian(signal: Float32, sigma: float, rng: np.random.Generator) -> Float32:
    """`signal` plus Gaussian noise of standard deviation `sigma`."""
    return signal + rng.standard_normal(signal.shape, dtype=np.float32) * np.float32(sigma)


def bias_field(size: int, strength: float, rng: np.random.Generator) -> Float32:
    """A smooth multiplicative field in [1 - strength / 2, 1 + strength / 2]: float32 [size, size].

    A random quadratic in the plane, stretched to fill the range; strength 0.2 is what BrainWeb
    calls 20 % intensity non-uniformity.
    """
    step = np.linspace(-1.0, 1.0, size)
    u, v = step[None, :], step[:, None]
    a = rng.uniform(-1.0, 1.0, 5)
    field = a[0] * u + a[1] * v + a[2] * u * v + 0.8 * (a[3] * u * u + a[4] * v * v)
    low, high = field.min(), field.max()
    field = 1.0 + strength * ((field - low) / (high - low) - 0.5)
    return np.asarray(field, dtype=np.float32)
