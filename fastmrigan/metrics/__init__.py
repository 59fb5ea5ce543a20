"""How far synthetic slices are from real ones. Needs the extra `train` (torch).

Rules of the room: slices are float32 in [-1, 1] with shape [N, H, W]; distances are computed in
float64; every number that reaches a report carries what it means and which direction is better;
nothing here is called FID unless it is FID on the published Inception features.
`similarity` compares pairs, `frechet` and `features` compare sets, `neighbours` looks for copies,
`classifier` asks whether tumours are there, `evaluation` runs them all, `report` writes the page.
"""

from fastmrigan.metrics.frechet import Frechet, frechet, frechet_distance
from fastmrigan.metrics.similarity import mae, psnr, ssim

__all__ = ["Frechet", "frechet", "frechet_distance", "mae", "psnr", "ssim"]
