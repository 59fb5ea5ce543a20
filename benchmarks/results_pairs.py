"""Experiments of results_of.py that are judged on true targets: registered pairs held out."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from results_experiment import Experiment
from results_figures import Bars, Figure, above_table, decibels_above, pair_figures, report

# Registered pairs


def write_csv(path: Path, heads: tuple[str, str], rows: Iterable[tuple[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(heads)
        writer.writerows(rows)


PAIR = ("source", "target")
CONTRAST = {"T1": "t1", "T2": "t2", "CT": "ct", "MRI": "unknown"}  # the last: T2 or PD


@dataclass(frozen=True)
class Pairs:
    """A data set of registered pairs of two contrasts, some of them held out."""

    folder: str  # of the data
    held_out: str  # in words, for the title
    options: str  # of prepare: the split; {data} and {work} are folders
    lay_out: Callable[[Path, Path], None]  # writes {work}/T1-T2.csv, say, of every way
    size: int = 256

    def prepared(self, source: str, target: str) -> str:
        """The command that prepares them, as the folder T1-T2, say; all ways hold out the same."""
        way = f"{source}-{target}"
        return (
            f"prepare {{data}}/{self.folder} --pairs {{work}}/{way}.csv --contrast "
            f"{CONTRAST[source]} --target-contrast {CONTRAST[target]} --size {self.size} "
            f"{self.options} --out {{work}}/{way}"
        )


# T1 and T2 of one simulated subject. The two folders are registered: the manifest gives each slice
# its position. Held out is a block of nine slices, its neighbours set aside.

FOLDERS = {"T1": "TrainT1", "T2": "TrainT2"}


def one_subject_pairs(data: Path, work: Path) -> None:
    """A CSV of the pairs of each way, of a side with itself too: slices of one position."""
    by_position: dict[str, dict[str, str]] = {folder: {} for folder in FOLDERS.values()}
    with (data / ONE_SUBJECT.folder / "manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            by_position[row["file"].partition("/")[0]][row["slice_position"]] = row["file"]
    both = sorted(set.intersection(*map(set, by_position.values())), key=int)
    for source, of_source in FOLDERS.items():
        for target, of_target in FOLDERS.items():
            sides = by_position[of_source], by_position[of_target]
            rows = [(sides[0][position], sides[1][position]) for position in both]
            write_csv(work / f"{source}-{target}.csv", PAIR, rows)


ONE_SUBJECT = Pairs(
    "t1t2-upgrad",
    "one simulated subject, a block of nine slices held out",
    "--split block --test-fraction 0.273 --seed 4",  # positions 41 to 49
    one_subject_pairs,
)

# T1 and T2 volumes of two patients, both with a glioma: brats2012-hg0015 trains, since the other
# has fewer slices and is what fits in half of all.

PATIENTS = ("brats2012-hg0015", "tcga-fg-6692")


def patients_pairs(data: Path, work: Path) -> None:
    for source in FOLDERS:
        for target in FOLDERS:
            names = (f"{source.lower()}.nii.gz", f"{target.lower()}.nii.gz")
            rows = [(f"{patient}/{names[0]}", f"{patient}/{names[1]}") for patient in PATIENTS]
            write_csv(work / f"{source}-{target}.csv", PAIR, rows)


TWO_PATIENTS = Pairs(
    "nifti",
    "one patient trained on (BRATS 2012 HG0015), the other held out (TCGA FG-6692)",
    "--plane axial --split patient --test-fraction 0.5",
    patients_pairs,
)


def judged(model: str, way: str) -> tuple[str, str]:
    """A model translates the sources of a paired set, and is held against its targets."""
    return (
        f"translate {{work}}/{model}.onnx --inputs {{work}}/{way} --precision fp32 "
        f"--out {{work}}/{model}-{way}",
        f"evaluate --real {{work}}/{way} --synthetic {{work}}/{model}-{way} --only pairs "
        f"--out {{work}}/{model}-{way}.html",
    )


# Engines differ from PyTorch by up to 1.4e-4 on random slices: an instance norm after another
# magnifies rounding. 1e-3 is an eighth of a grey level of 8 bits.
TOLERANCE = "--tolerance 0.001"


def pix2pix(name: str, pairs: Pairs, source: str, target: str, settings: str) -> Experiment:
    """Bars for the one subject alone; of the patients it is reported."""
    way = f"{source}-{target}"

    def figures(work: Path) -> list[Figure]:
        bars = {"ssim": above_table, "psnr": decibels_above(2)} if pairs is ONE_SUBJECT else {}
        return pair_figures(report(work / f"model-{way}.json"), f"{source} to {target}", bars)

    return Experiment(
        name,
        f"{source} to {target}: {pairs.held_out}",
        (
            pairs.prepared(source, target),
            f"train pix2pix-attention-unet --data {{work}}/{way} --out {{work}}/run {settings}",
            f"export {{work}}/run --out {{work}}/model.onnx {TOLERANCE}",
            *judged("model", way),
        ),
        figures,
        pairs.lay_out,
    )


# Batch 1 and instance norm, as few slices want; half the width, a third of the time of a step.
PIX2PIX = (
    "--set batch=1 --set generator.norm=instance --set discriminator.norm=instance "
    "--set generator.width=32 --set precision=bf16 --set augmentation.shift=16 "
    "--set augmentation.horizontal_flip=true --set schedule.kind=linear "
)
EPOCHS_150 = "--set schedule.constant_epochs=75 --set schedule.decay_epochs=75"  # of 20 pairs
EPOCHS_16 = "--set schedule.constant_epochs=8 --set schedule.decay_epochs=8"  # of 142

# Mahajan gives SSIM and PSNR of two identities; which is of T1 is left open, so both are held
# against the higher one.
IDENTITY = {"ssim": 0.94, "psnr": 33.09}


def both_ways(recipe: str, name: str, pairs: Pairs, settings: str = "") -> Experiment:
    """Unpaired training on the slices of both sides. Bars for the one subject alone."""

    def figures(work: Path) -> list[Figure]:
        identity: Bars = {
            key: lambda _, least=least: (f"at least {least:g} (the paper's)", least)
            for key, least in IDENTITY.items()
        }
        beaten: Bars = {"ssim": lambda table: (f"above the table, {table:.3f}", table)}
        if pairs is not ONE_SUBJECT:
            identity, beaten = {}, {}
        return [
            *pair_figures(report(work / "forth-T2-T2.json"), "T2 to itself", identity),
            *pair_figures(report(work / "back-T1-T1.json"), "T1 to itself", identity),
            *pair_figures(report(work / "forth-T1-T2.json"), "T1 to T2", beaten),
            *pair_figures(report(work / "back-T2-T1.json"), "T2 to T1", {}),
        ]

    return Experiment(
        name,
        f"T1 to T2 and back, unpaired, {pairs.size}x{pairs.size}: {pairs.held_out}",
        (
            *(pairs.prepared(source, target) for source in FOLDERS for target in FOLDERS),
            f"train {recipe} --data {{work}}/T1-T2 --out {{work}}/run {settings}",
            f"export {{work}}/run --out {{work}}/forth.onnx {TOLERANCE}",
            f"export {{work}}/run --back --out {{work}}/back.onnx {TOLERANCE}",
            *judged("forth", "T1-T2"),
            *judged("back", "T2-T1"),
            *judged("forth", "T2-T2"),
            *judged("back", "T1-T1"),
        ),
        figures,
        pairs.lay_out,
    )


# CT and MRI of eight patients, of which two are held out (20, and 33 with a large lesion). Trained
# on, unpaired: slices of many patients and contrasts, and those of the other six.

KAGGLE, AANLIB = "ctmri-unpaired-kaggle", "ctmri-paired-aanlib"
HELD_OUT = frozenset({"aanlib-case20", "aanlib-case33"})


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def ct_mri_slices(data: Path, work: Path) -> None:
    """CSVs of the pairs both ways; as work/unpaired, the slices to train on."""
    names = [
        Path(row["file"]).name for row in manifest(data / AANLIB) if row["file"].startswith("MRI/")
    ]
    for source, target in (("CT", "MRI"), ("MRI", "CT")):
        rows = [(f"{source}/{name}", f"{target}/{name}") for name in sorted(names)]
        write_csv(work / f"{source}-{target}.csv", PAIR, rows)
    shutil.rmtree(work / "unpaired", ignore_errors=True)
    for folder in (KAGGLE, AANLIB):
        for row in manifest(data / folder):
            if row["group"] not in HELD_OUT:
                side, _, name = row["file"].partition("/")
                copy = work / "unpaired" / side / f"{folder}-{name}"
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(data / folder / row["file"], copy)


CASES = Pairs(
    AANLIB,
    "patients 20 and 33 held out",
    f"--groups {{data}}/{AANLIB}/manifest.csv --split patient --test-fraction 0.24 --seed 4",
    ct_mri_slices,
)


# Half the width; 16 epochs in place of 200.
CT_MRI = (
    "--set precision=bf16 --set generator.width=32 --set discriminator.width=32 "
    "--set schedule.constant_epochs=8 --set schedule.decay_epochs=8"
)


def ct_mri(settings: str) -> Experiment:
    def figures(work: Path) -> list[Figure]:
        return [
            *pair_figures(report(work / "forth-CT-MRI.json"), "CT to MRI", {}),
            *pair_figures(report(work / "back-MRI-CT.json"), "MRI to CT", {}),
        ]

    return Experiment(
        "ct-mri",
        f"CT to MRI and back, unpaired: {CASES.held_out}",
        (
            CASES.prepared("CT", "MRI"),
            CASES.prepared("MRI", "CT"),
            "prepare {work}/unpaired --size 256 --test-fraction 0 --out {work}/set",
            f"train ct-mri-cyclegan-resnet --data {{work}}/set --out {{work}}/run {settings}",
            f"export {{work}}/run --out {{work}}/forth.onnx {TOLERANCE}",
            f"export {{work}}/run --back --out {{work}}/back.onnx {TOLERANCE}",
            *judged("forth", "CT-MRI"),
            *judged("back", "MRI-CT"),
        ),
        figures,
        CASES.lay_out,
    )
