"""What results_of.py runs: for each recipe its experiments on real slices, and their bars."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

THIRD = 1 / 3  # of what the intensity table leaves to a SSIM of 1


@dataclass(frozen=True)
class Figure:
    """A row: a value, what stands beside it, and whether it meets its bar (None: it has none)."""

    name: str
    value: float
    text: str
    beside: str
    bar: str = ""
    met: bool | None = None
    floors: Mapping[str, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": None if math.isnan(self.value) else self.value,
            "floors": dict(self.floors),
            "bar": self.bar,
            "met": self.met,
        }


@dataclass(frozen=True)
class Experiment:
    """Commands of fastmrigan in their order, and the figures of what they made."""

    name: str
    title: str
    steps: tuple[str, ...]  # a command each; {data} and {work} are folders
    figures: Callable[[Path], list[Figure]]
    lay_out: Callable[[Path, Path], None] = lambda data, work: None  # what the commands need there

    def commands(self, data: Path, work: Path) -> list[list[str]]:
        return [[word.format(data=data, work=work) for word in step.split()] for step in self.steps]


def report(path: Path) -> dict[str, Any]:
    """What `fastmrigan evaluate` wrote beside its page."""
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def unmeasured(name: str, bar: str = "has a bar") -> Figure:
    """A bar that nothing was held against is missed."""
    return Figure(name, math.nan, "not measured", "", bar, met=False)


def pair_figures(
    numbers: dict[str, Any], what: str, bars: Mapping[str, Callable[[float], tuple[str, float]]]
) -> list[Figure]:
    """SSIM, PSNR and MAE of a translation beside its floors. bars: by measure, of the table's
    value the bar's text and value."""
    found = []
    for key in ("ssim", "psnr", "mae", "ssim_brain", "psnr_brain", "mae_brain"):
        measure, floors = numbers["measures"].get(key), numbers["pairs"]["floors"].get(key)
        if measure is None or floors is None:
            if key in bars:
                found.append(unmeasured(f"{what}: {key}"))
            continue
        value, (low, high) = measure["value"], measure["interval"]
        table, copy = floors["intensity_table"], floors["plain_copy"]
        beside = {"table": table} | ({} if copy is None else {"copy": copy})
        digits = 2 if key.startswith("psnr") else 3
        text, met = "", None
        if key in bars:
            text, least = bars[key](table)
            met = value >= least
        found.append(
            Figure(
                f"{what}: {measure['name']}",
                value,
                f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})",
                ", ".join(f"{name} {floor:.{digits}f}" for name, floor in beside.items())
                + (", copy exact" if copy is None else ""),
                text,
                met,
                beside,
            )
        )
    return found


def above_table(table: float) -> tuple[str, float]:
    """A third of what the table leaves to a SSIM of 1."""
    least = table + THIRD * (1 - table)
    return f"at least {least:.3f} (a third of the table's rest)", least


def decibels_above(decibels: float) -> Callable[[float], tuple[str, float]]:
    def bar(table: float) -> tuple[str, float]:
        return f"at least {table + decibels:.2f} (table + {decibels:g} dB)", table + decibels

    return bar


def set_figures(
    numbers: dict[str, Any], what: str, keys: Mapping[str, tuple[str, float] | None]
) -> list[Figure]:
    """Measures of whole sets beside their references. keys: of each the bar, as its text (which
    begins with at most or at least) and its value, or None."""
    found = []
    for key, bar in keys.items():
        measure = numbers["measures"].get(key)
        if measure is None:
            if bar is not None:
                found.append(unmeasured(f"{what}: {key}", bar[0]))
            continue
        value, reference, scale = measure["value"], measure["reference"], 1
        unit = ""
        if measure["share"]:
            scale, unit = 100, " %"
        text = f"{scale * value:.4g}{unit}"
        if measure["interval"] is not None:
            low, high = measure["interval"]
            text += f" ({scale * low:.3g} to {scale * high:.3g})"
        met = None
        if bar is not None:
            met = value <= bar[1] if bar[0].startswith("at most") else value >= bar[1]
        found.append(
            Figure(
                f"{what}: {measure['name']}",
                value,
                text,
                "" if reference is None else f"reference {scale * reference:.4g}{unit}",
                "" if bar is None else bar[0],
                met,
                {} if reference is None else {"reference": reference},
            )
        )
    return found


def value_of(numbers: dict[str, Any], key: str) -> float:
    return float(numbers["measures"][key]["value"])


# T1 and T2 of one simulated subject. The two folders are registered: the manifest gives each slice
# its position. Held out is a block of nine slices, its neighbours set aside.

T1T2 = "t1t2-upgrad"
BLOCK = "--size 256 --split block --test-fraction 0.273 --seed 4"  # positions 41 to 49
FOLDERS = {"T1": "TrainT1", "T2": "TrainT2"}
ONE_SUBJECT = f"{T1T2}, one simulated subject, a block of nine slices held out"


def write_pairs(data: Path, work: Path) -> None:
    """A CSV of the pairs of each direction, of a side with itself too: slices of one position."""
    by_position: dict[str, dict[str, str]] = {folder: {} for folder in FOLDERS.values()}
    with (data / T1T2 / "manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            by_position[row["file"].partition("/")[0]][row["slice_position"]] = row["file"]
    both = set.intersection(*map(set, by_position.values()))
    for source, of_source in FOLDERS.items():
        for target, of_target in FOLDERS.items():
            with (work / f"{source}-{target}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["source", "target"])
                for position in sorted(both, key=int):
                    sides = by_position[of_source], by_position[of_target]
                    writer.writerow([side[position] for side in sides])


def paired_set(source: str, target: str) -> str:
    """The command that prepares it, as the folder T1-T2, say; all have the same slices held out."""
    way = f"{source}-{target}"
    return (
        f"prepare {{data}}/{T1T2} --pairs {{work}}/{way}.csv --contrast {source.lower()} "
        f"--target-contrast {target.lower()} {BLOCK} --out {{work}}/{way}"
    )


def judged(model: str, way: str) -> tuple[str, str]:
    """A model translates the sources of a paired set, and is held against its targets."""
    return (
        f"translate {{work}}/{model}.onnx --inputs {{work}}/{way} --precision fp32 "
        f"--out {{work}}/{model}-{way}",
        f"evaluate --real {{work}}/{way} --synthetic {{work}}/{model}-{way} --only pairs "
        f"--out {{work}}/{model}-{way}.html",
    )


def pix2pix(source: str, target: str) -> Experiment:
    way = f"{source}-{target}"

    def figures(work: Path) -> list[Figure]:
        bars = {"ssim": above_table, "psnr": decibels_above(2)}
        return pair_figures(report(work / f"model-{way}.json"), f"{source} to {target}", bars)

    return Experiment(
        way.lower(),
        f"{source} to {target} on {ONE_SUBJECT}",
        (
            paired_set(source, target),
            f"train pix2pix-attention-unet --data {{work}}/{way} --out {{work}}/run {PIX2PIX}",
            # Engines differ from PyTorch by up to 1.1e-4 on random slices: an instance norm after
            # another magnifies rounding. 1e-3 is an eighth of a grey level of 8 bits.
            "export {work}/run --out {work}/model.onnx --tolerance 0.001",
            *judged("model", way),
        ),
        figures,
        write_pairs,
    )


# Batch 1 and instance norm, as few slices want; half the width, a third of the time of a step.
PIX2PIX = (
    "--set batch=1 --set generator.norm=instance --set discriminator.norm=instance "
    "--set generator.width=32 --set precision=bf16 --set augmentation.shift=16 "
    "--set augmentation.horizontal_flip=true --set schedule.kind=linear "
    "--set schedule.constant_epochs=75 --set schedule.decay_epochs=75"
)

# Mahajan gives SSIM and PSNR of two identities; which is of T1 is left open, so both are held
# against the higher one.
IDENTITY = {"ssim": 0.94, "psnr": 33.09}


def both_ways(recipe: str, name: str, settings: str) -> Experiment:
    def figures(work: Path) -> list[Figure]:
        def least(key: str) -> Callable[[float], tuple[str, float]]:
            return lambda table: (f"at least {IDENTITY[key]:g} (the paper's)", IDENTITY[key])

        identity = {key: least(key) for key in IDENTITY}
        beaten = {"ssim": lambda table: (f"above the table, {table:.3f}", table)}
        return [
            *pair_figures(report(work / "forth-T2-T2.json"), "T2 to itself", identity),
            *pair_figures(report(work / "back-T1-T1.json"), "T1 to itself", identity),
            *pair_figures(report(work / "forth-T1-T2.json"), "T1 to T2", beaten),
            *pair_figures(report(work / "back-T2-T1.json"), "T2 to T1", {}),
        ]

    return Experiment(
        name,
        f"T1 to T2 and back, unpaired, on {ONE_SUBJECT}",
        (
            *(paired_set(source, target) for source in FOLDERS for target in FOLDERS),
            f"train {recipe} --data {{work}}/T1-T2 --out {{work}}/run {settings}",
            "export {work}/run --out {work}/forth.onnx",
            "export {work}/run --back --out {work}/back.onnx",
            *judged("forth", "T1-T2"),
            *judged("back", "T2-T1"),
            *judged("forth", "T2-T2"),
            *judged("back", "T1-T1"),
        ),
        figures,
        write_pairs,
    )


# T2 slices with and without tumour; slices of one group, a patient as far as is known, stand on
# one side of the split.

T2 = "t2-tumour-nontumour"
SETS = {
    "fd_random": None,
    "fd_random_over_floor": None,
    "recall": None,
    "precision": None,
    "pair_ssim": None,
    "called_tumour": None,
    "classifier_accuracy": None,
    "utility_real": None,
    "utility_both": None,
    "utility_gain": None,
}


def t2_set(size: int) -> str:
    return (
        f"prepare {{data}}/{T2} --groups {{data}}/{T2}/manifest.csv --contrast t2 --size {size} "
        "--test-fraction 0.2 --out {work}/set"
    )


def sampled(recipe: str, size: int, settings: str) -> Experiment:
    """Tumour slices from latents."""

    def figures(work: Path) -> list[Figure]:
        numbers = report(work / "report.json")
        most = 3 * value_of(numbers, "fd_random_floor")
        bars = SETS | {
            "fd_random": (f"at most {most:.3g} (3 times the split half)", most),
            "copies_flagged": ("at most 0", 0.0),
            **dict.fromkeys(("discriminator_train", "discriminator_test")),
        }
        return set_figures(numbers, "2,000 slices", bars)

    return Experiment(
        "tumour",
        f"Tumour slices of {size}x{size}, on {T2}",
        (
            t2_set(size),
            f"train {recipe} --data {{work}}/set --out {{work}}/run --set label=tumour {settings}",
            "export {work}/run --out {work}/model.onnx",
            "synth {work}/model.onnx --count 2000 --seed 7 --precision fp32 --out {work}/slices",
            "evaluate --real {work}/set --label tumour --synthetic {work}/slices --run {work}/run "
            "--classifier-data {work}/set --thorough --out {work}/report.html",
        ),
        figures,
    )


def normal_to_tumour(size: int, settings: str) -> Experiment:
    def figures(work: Path) -> list[Figure]:
        everything, held_out = (report(work / f"{name}.json") for name in ("all", "test"))
        half = value_of(everything, "fd_random_untranslated") / 2
        bars = SETS | {
            "fd_random": (f"at most {half:.3g} (half of the untranslated ones')", half),
            "fd_random_untranslated": None,
            "source_ssim": None,
        }
        calls = {
            "called_tumour": ("at least 60 %", 0.6),
            "called_tumour_untranslated": None,
            "classifier_accuracy": None,
            "source_ssim": None,
        }
        return [
            *set_figures(everything, "all normal slices", bars),
            *set_figures(held_out, "held-out normal slices", calls),
        ]

    against = "evaluate --real {work}/set --label tumour --classifier-data {work}/set"
    return Experiment(
        "normal-tumour",
        f"Normal to tumour at {size}x{size}, on {T2}",
        (
            t2_set(size),
            f"train t2-tumour-cyclegan --data {{work}}/set --out {{work}}/run {settings}",
            "export {work}/run --out {work}/model.onnx",
            *(
                f"translate {{work}}/model.onnx --inputs {{work}}/set --label nontumour --split "
                f"{split} --precision fp32 --out {{work}}/slices-{split}"
                for split in ("all", "test")
            ),
            f"{against} --synthetic {{work}}/slices-all --thorough --out {{work}}/all.html",
            f"{against} --synthetic {{work}}/slices-test --only classifier,sources,diversity "
            "--out {work}/test.html",
        ),
        figures,
    )


PLANS: dict[str, tuple[Experiment, ...]] = {
    "pix2pix-attention-unet": (pix2pix("T1", "T2"), pix2pix("T2", "T1")),
    "t1-t2-cyclegan-unet-v4": (
        both_ways("t1-t2-cyclegan-unet-v4", "t1-t2", "--set precision=bf16"),
    ),
    "t1-t2-cyclegan-unet-v4-improved": (both_ways("t1-t2-cyclegan-unet-v4-improved", "t1-t2", ""),),
    "tumour-dcgan64-improved": (sampled("tumour-dcgan64-improved", 64, ""),),
    "t2-tumour-cyclegan": (normal_to_tumour(128, "--set size=128 --set precision=bf16"),),
}
