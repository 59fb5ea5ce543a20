"""Experiments of results_of.py that make tumour slices: judged as a set against real ones."""

from __future__ import annotations

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


def sampled(recipe: str, size: int, settings: str = "") -> Experiment:
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


def normal_to_tumour(recipe: str, size: int, settings: str = "") -> Experiment:
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
            f"train {recipe} --data {{work}}/set --out {{work}}/run {settings}",
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
