"""Experiments of results_of.py that make tumour slices: judged as a set against real ones."""

from __future__ import annotations

import shutil
from pathlib import Path

from results_experiment import Experiment
from results_figures import Figure, report, set_figures, value_of

# T2 slices with and without tumour; slices of one group, a patient as far as is known, stand on
# one side of the split.

T2 = "t2-tumour-nontumour"
SETS = {
    "fd_random": None,
    "fd_random_over_floor": None,
    "recall": None,
    "precision": None,
    "pair_ssim": None,
    "real_or_fake": None,
    "called_tumour": None,
    "classifier_accuracy": None,
    "utility_real": None,
    "utility_synthetic": None,
    "utility_both": None,
    "utility_gain": None,
}


DISCRIMINATOR = (
    "discriminator_train",
    "discriminator_test",
    "discriminator_synthetic",
)


def t2_set(size: int) -> str:
    return (
        f"prepare {{data}}/{T2} --groups {{data}}/{T2}/manifest.csv --contrast t2 --size {size} "
        "--test-fraction 0.2 --out {work}/set"
    )


def sampled(recipe: str, size: int, *, critic: bool = False) -> Experiment:
    """Tumour slices from latents. critic: in place of a discriminator; it calls nothing real."""

    def figures(work: Path) -> list[Figure]:
        numbers = report(work / "report.json")
        most = 3 * value_of(numbers, "fd_random_floor")
        bars = SETS | {
            "fd_random": (f"at most {most:.3g} (3 times the split half)", most),
            "copies_flagged": ("at most 0", 0.0),
            **dict.fromkeys(() if critic else DISCRIMINATOR),
            "discriminator_memory": None,
        }
        return set_figures(numbers, "2,000 slices", bars)

    return Experiment(
        "tumour",
        f"Tumour slices of {size}x{size}, against all 620 of {T2}, 445 of them trained on",
        (
            t2_set(size),
            f"train {recipe} --data {{work}}/set --out {{work}}/run --set label=tumour",
            "export {work}/run --out {work}/model.onnx",
            "synth {work}/model.onnx --count 2000 --seed 7 --precision fp32 --out {work}/slices",
            "evaluate --real {work}/set --label tumour --synthetic {work}/slices --run {work}/run "
            "--classifier-data {work}/set --thorough --out {work}/report.html",
        ),
        figures,
    )


def normal_to_tumour(recipe: str, size: int, settings: str = "") -> Experiment:
    def figures(work: Path) -> list[Figure]:
        trained_on, held_out = (report(work / f"{name}.json") for name in ("train", "test"))
        half = value_of(trained_on, "fd_random_untranslated") / 2
        bars = SETS | {
            "fd_random": (f"at most {half:.3g} (half of the untranslated ones')", half),
            "fd_random_untranslated": None,
            "source_ssim": None,
        }
        del bars["called_tumour"]  # the classifier has learned these slices as normal
        calls = {
            "called_tumour": ("at least 60 %", 0.6),
            "called_tumour_untranslated": None,
            "classifier_accuracy": None,
            "fd_random": None,
            "fd_random_untranslated": None,
            "source_ssim": None,
        }
        return [
            *set_figures(trained_on, "normal slices trained on", bars),
            *set_figures(held_out, "held-out normal slices", calls),
        ]

    against = "evaluate --real {work}/set --label tumour --classifier-data {work}/set"
    return Experiment(
        "normal-tumour",
        f"Normal to tumour at {size}x{size}, against all 620 tumour slices of {T2}, 445 of them "
        "trained on",
        (
            t2_set(size),
            f"train {recipe} --data {{work}}/set --out {{work}}/run {settings}",
            "export {work}/run --out {work}/model.onnx",
            *(
                f"translate {{work}}/model.onnx --inputs {{work}}/set --label nontumour --split "
                f"{split} --precision fp32 --out {{work}}/slices-{split}"
                for split in ("train", "test")
            ),
            f"{against} --synthetic {{work}}/slices-train --thorough --out {{work}}/train.html",
            f"{against} --synthetic {{work}}/slices-test --only classifier,sources,frechet "
            "--out {work}/test.html",
        ),
        figures,
    )


# Half the width, at a sixteenth of the pixels; 20 epochs in place of 100.
STYLE = (
    "--set size=64 --set precision=bf16 --set generator.width=32 --set generator_back.width=32 "
    "--set generator_back.blocks=6 --epochs 20"
)
AGAINST_REAL = "evaluate --real {work}/set --label tumour --classifier-data {work}/set --thorough"


def generated(count: int) -> str:
    return (
        f"synth {{used}}/model.onnx --count {count} --seed 9 --precision fp32 --format png "
        f"--shard-size {count} --out {{work}}/generated"
    )


def with_and_without(work: Path, left: tuple[str, ...], untold: tuple[str, ...]) -> list[Figure]:
    """Both stages begin with real slices: that alone makes their figures look well, and what they
    left of them (the figures `left`) stands beside. Of those that the classifier has learned as
    tumour nothing is said by its calling them tumour, nor by what `untold` names."""
    without, styled = (report(work / f"{name}.json") for name in ("without", "with"))
    told = {name: bar for name, bar in SETS.items() if name not in ("called_tumour", *untold)}
    return [
        *set_figures(without, "without the stage", SETS | {"copies_flagged": None}),
        *set_figures(styled, "with it, from real slices", told | dict.fromkeys(left)),
    ]


def styled(recipe: str, settings: str) -> Experiment:
    """Tumour slices of the training split, in the style of the DCGAN's; beside them as many of the
    DCGAN's own."""
    return Experiment(
        "style",
        f"Tumour slices trained on, in the style of generated ones, 64x64, on {T2}",
        (
            t2_set(64),
            generated(445),
            "prepare {work}/generated/shard-000000 --label tumour --size 64 --test-fraction 0 "
            "--out {work}/style",
            f"train {recipe} --data {{work}}/style --source-data {{work}}/set --out {{work}}/run "
            f"--set source_label=tumour --set target_label=tumour {settings}",
            "export {work}/run --out {work}/model.onnx",
            "translate {work}/model.onnx --inputs {work}/set --label tumour --split train "
            "--precision fp32 --out {work}/slices",
            f"{AGAINST_REAL} --synthetic {{work}}/generated --out {{work}}/without.html",
            f"{AGAINST_REAL} --synthetic {{work}}/slices --out {{work}}/with.html",
        ),
        lambda work: with_and_without(
            work, ("copies_flagged", "source_ssim", "fd_random_untranslated"), ()
        ),
        uses="tumour-dcgan64-improved/tumour",
    )


def every_tenth(data: Path, work: Path) -> None:
    """Tumour slices of all patients: an optimisation a slice is too slow for all of them."""
    (work / "contents").mkdir(exist_ok=True)
    for picture in sorted((data / T2 / "tumour").iterdir())[::10]:
        shutil.copyfile(picture, work / "contents" / picture.name)


def optimised(steps: int) -> Experiment:
    """Every tenth tumour slice in the style of one of the DCGAN's, by random filters of VGG19's
    shape: its weights are no part of the project."""
    return Experiment(
        "style",
        f"Every tenth tumour slice of {T2} in the style of a generated one, 64x64, {steps} "
        "iterations, random filters",
        (
            t2_set(64),
            generated(62),
            "prepare {work}/contents --label tumour --contrast t2 --size 64 --test-fraction 0 "
            "--out {work}/content",
            f"style-transfer --content {{work}}/content --style {{work}}/generated --steps {steps} "
            "--out {work}/slices",
            f"{AGAINST_REAL} --synthetic {{work}}/generated --out {{work}}/without.html",
            f"{AGAINST_REAL} --synthetic {{work}}/slices --out {{work}}/with.html",
        ),
        # Some contents are held out: copies of those are not looked for, and a classifier that
        # learned what was made of them would be tested on them.
        lambda work: with_and_without(
            work, (), ("utility_synthetic", "utility_both", "utility_gain")
        ),
        every_tenth,
        uses="tumour-dcgan64-improved/tumour",
    )
