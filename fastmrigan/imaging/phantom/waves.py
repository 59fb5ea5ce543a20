"""Smooth random fields as sums of plane waves: seeded, three-dimensional, evaluated anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Waves:
    """A random field of unit variance: sqrt(2 / M) times the sum of M cosines.

    With all wavelengths near one value its zero set is a labyrinth of sheets half a wavelength
    apart, which is what makes the cortex fold.
    """

    k: Float32  # [M, 3] radians a millimetre
    phase: Float32  # [M]

    @classmethod
    def draw(
        cls, rng: np.random.Generator, count: int, wavelength_mm: float, spread: float = 0.15
    ) -> Waves:
        """`count` waves in all directions, wavelengths scattered by the share `spread`."""
        direction = rng.standard_normal((count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = wavelength_mm * (1.0 + spread * rng.uniform(-1.0, 1.0, (count, 1)))
        phase = rng.uniform(0.0, 2.0 * np.pi, count)
        k = direction * (2.0 * np.pi / length)
        return cls(k.astype(np.float32), phase.astype(np.float32))

    @property
    def scale(self) -> float:
        return float((2.0 / len(self.phase)) ** 0.5)

    def value(self, points: Float32) -> Float32:
        """points: [3, P] millimetres; returns [P]."""
        angle = self.k @ points + self.phase[:, None]  # [M, P]
        value: Float32 = np.cos(angle, out=angle).sum(axis=0) * np.float32(self.scale)
        return value

    def value_and_slope(self, points: Float32) -> tuple[Float32, Float32]:
        """The field and the length of its gradient a millimetre: [P], [P]."""
        angle = self.k @ points + self.phase[:, None]  # [M, P]
        value = np.cos(angle).sum(axis=0) * np.float32(self.scale)
        gradient = self.k.T @ np.sin(angle, out=angle)  # [3, P]
        slope = np.sqrt(np.einsum("cp,cp->p", gradient, gradient)) * np.float32(self.scale)
        return value, slope
