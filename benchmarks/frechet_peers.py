"""The Frechet distance of the peers between (mu, sigma) and (mu, sigma), by their own functions."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import torch
from peers import peer_module, tqdm

Array = npt.NDArray[np.float64]
Statistics = tuple[Array, Array]  # mu [d], sigma [d, d]
Distance = Callable[[Statistics, Statistics], float]


def pytorch_fid() -> Distance:
    """calculate_frechet_distance."""
    score = peer_module(
        "pytorch_fid.fid_score",
        tqdm={"tqdm": tqdm},
        torchvision={},
        torchvision__transforms={},
        pytorch_fid__inception={
            "InceptionV3": SimpleNamespace(BLOCK_INDEX_BY_DIM={2048: 3})  # read at import
        },
    )
    return lambda a, b: float(score.calculate_frechet_distance(*a, *b))


def torch_fidelity() -> Distance:
    """fid_statistics_to_metric."""
    unused = (
        "get_cacheable_input_name",
        "cache_lookup_one_recompute_on_miss",
        "extract_featuresdict_from_input_id_cached",
        "create_feature_extractor",
        "resolve_feature_extractor",
        "resolve_feature_layer_for_metric",
    )
    metric = peer_module("torch_fidelity.metric_fid", torch_fidelity__utils=dict.fromkeys(unused))

    def distance(a: Statistics, b: Statistics) -> float:
        first, second = ({"mu": mu, "sigma": sigma} for mu, sigma in (a, b))
        return float(metric.fid_statistics_to_metric(first, second, False)[metric.KEY_METRIC_FID])

    return distance


def torchmetrics() -> Distance:
    """_compute_fid."""
    metric = peer_module(
        "torchmetrics.image.fid",
        torchmetrics__metric={"Metric": object},
        torchmetrics__utilities={},
        torchmetrics__utilities__imports=dict.fromkeys(
            ("_MATPLOTLIB_AVAILABLE", "_TORCH_FIDELITY_AVAILABLE"), False
        ),
        torchmetrics__utilities__plot={"_AX_TYPE": object, "_PLOT_OUT_TYPE": object},
    )

    def distance(a: Statistics, b: Statistics) -> float:
        return float(metric._compute_fid(*(torch.from_numpy(x) for x in (*a, *b))))

    return distance


PEERS = {
    "pytorch-fid": pytorch_fid,
    "torch-fidelity": torch_fidelity,
    "torchmetrics": torchmetrics,
}


def statistics(features: npt.NDArray[np.float32]) -> Statistics:
    """As pytorch-fid and torch-fidelity make them of features [N, d]."""
    return np.mean(features, axis=0).astype(np.float64), np.cov(features, rowvar=False)
