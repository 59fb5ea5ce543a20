"""Other projects' own code for the same figures, without the packages it would pull in.

A peer's module is imported with the `__init__` of its packages left out, and with stand-ins for
modules that it imports and that the compared function does not use (or that are not installed):
torchvision does not load beside another build of torch, OpenCV and scikit-learn are large.
torchvision itself is found in a folder of its own (APART).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

APART = Path(sys.prefix) / "apart"  # requirements-peers-apart.txt: on the path for peers alone


def peer_module(name: str, **stand_ins: dict[str, Any]) -> Any:
    """The module `name` of an installed package, imported by itself.

    stand_ins: modules to be given in place of real ones, each with the names it must have; a
    double underscore stands for a dot. Other users of these packages notice nothing. ImportError
    where the package is not installed.
    """
    sys.path.append(str(APART))
    try:
        return _peer_module(name, stand_ins)
    finally:
        sys.path.remove(str(APART))


def _peer_module(name: str, stand_ins: dict[str, dict[str, Any]]) -> Any:
    modules = _packages_of(name)
    for dotted, names in stand_ins.items():
        module = types.ModuleType(dotted.replace("__", "."))
        vars(module).update(names)
        modules.append(module)
    roots = {module.__name__.partition(".")[0] for module in modules}
    before = _modules_of(roots)
    for known in before:
        del sys.modules[known]
    try:
        for module in modules:
            sys.modules[module.__name__] = module
            above, _, last = module.__name__.rpartition(".")
            if above in sys.modules:
                setattr(sys.modules[above], last, module)
        return importlib.import_module(name)
    finally:
        for found in _modules_of(roots):
            del sys.modules[found]
        sys.modules.update(before)


def _modules_of(roots: set[str]) -> dict[str, types.ModuleType]:
    """What is imported of these top-level packages."""
    return {name: m for name, m in sys.modules.items() if name.partition(".")[0] in roots}


def _packages_of(name: str) -> list[types.ModuleType]:
    """The packages above a module, empty, but with the real folders to find modules in."""
    parts = name.split(".")[:-1]
    spec = find_spec(parts[0])
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"{parts[0]} is not installed: see requirements-peers*.txt")
    folder = Path(next(iter(spec.submodule_search_locations)))
    packages = []
    for depth in range(1, len(parts) + 1):
        package = types.ModuleType(".".join(parts[:depth]))
        package.__path__ = [str(folder.joinpath(*parts[1:depth]))]
        package.__spec__ = importlib.machinery.ModuleSpec(package.__name__, None, is_package=True)
        packages.append(package)
    return packages


def tqdm(rows: Any, **_: Any) -> Any:
    """tqdm's face without its bar."""
    return rows


def clean_fid() -> Any:
    """cleanfid.fid: kernel_distance."""
    features = dict.fromkeys(("build_feature_extractor", "get_reference_statistics"))
    return peer_module(
        "cleanfid.fid",
        tqdm={"tqdm": tqdm},
        cleanfid__features=features,
        cleanfid__utils={},
        cleanfid__resize={},
    )


def torch_fidelity_kid() -> Any:
    """torch_fidelity.metric_kid: kid_features_to_metric."""
    unused = (
        "create_feature_extractor",
        "extract_featuresdict_from_input_id_cached",
        "resolve_feature_extractor",
        "resolve_feature_layer_for_metric",
    )
    return peer_module(
        "torch_fidelity.metric_kid",
        tqdm={"tqdm": tqdm},
        torch_fidelity__utils=dict.fromkeys(unused),
    )


def torch_fidelity_inception() -> Any:
    """torch_fidelity.feature_extractor_inceptionv3: FeatureExtractorInceptionV3."""
    return peer_module("torch_fidelity.feature_extractor_inceptionv3")


def prdc() -> Any:
    """prdc.prdc: compute_prdc, its distances by SciPy's cdist in place of scikit-learn's."""
    from scipy.spatial.distance import cdist

    def distances(x: Any, y: Any, metric: str, n_jobs: int) -> Any:
        return cdist(x, y, metric)

    metrics = {"pairwise_distances": distances}
    return peer_module("prdc.prdc", sklearn={}, sklearn__metrics=metrics)


def pytorch_fid(weights: Path) -> Any:
    """pytorch_fid.fid_score with a file of weights in place of its download.

    Its network is built on torchvision's, whose own modules for it and for reading are used.
    """
    import torch

    inception = peer_module("torchvision.models.inception")
    transforms = peer_module("torchvision.transforms.transforms")
    names = {"inception": inception, "inception_v3": inception.inception_v3}
    stand_ins: dict[str, dict[str, Any]] = {
        "torchvision": {"__version__": "0.28", "inception_v3": inception.inception_v3},
        "torchvision__models": names,
        "torchvision__transforms": {"ToTensor": transforms.ToTensor},
    }
    network = peer_module("pytorch_fid.inception", **stand_ins)
    network.load_state_dict_from_url = lambda *_, **__: torch.load(weights, weights_only=True)
    return peer_module("pytorch_fid.fid_score", pytorch_fid__inception=vars(network), **stand_ins)
