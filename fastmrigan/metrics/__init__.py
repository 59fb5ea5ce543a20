"""How far synthetic slices are from real ones. Needs the extra `train` (torch).

Rules of the room: slices are float32 in [-1, 1] with shape [N, H, W]; distances are computed in
float64; every number that reaches a report carries what it means and which direction is better;
nothing here is called FID unless it is FID on the published Inception features.

    pairs       similarity, paired
    features    features (random), inception, radiomics; extraction (all, and a network of yours)
    sets        frechet (moments, overlap, feature_set, nuclear_norm, frechet_range), kid, manifold
    copies      memorisation, neighbours
    classifiers classifier, two_sample, downstream
    intervals   bootstrap
    evaluation  evaluation; evaluation_inputs, slice_sets, translated, direction, choice, needs
                measure, measures, distances, spaces, run_measures, classifier_measures
    the page    report, report_tables, report_pictures, nearest, runs_table
    checks      checks, feature_rows: what callers hand in
"""

from fastmrigan.metrics.frechet import Frechet, frechet, frechet_distance
from fastmrigan.metrics.moments import Moments
from fastmrigan.metrics.similarity import Similarity, compare, mae, ms_ssim, psnr, ssim

__all__ = [
    "Frechet",
    "Moments",
    "Similarity",
    "compare",
    "frechet",
    "frechet_distance",
    "mae",
    "ms_ssim",
    "psnr",
    "ssim",
]
