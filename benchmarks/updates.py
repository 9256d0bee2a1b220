"""How good is an avatar after so many updates: trained as usual, with the split, or adapted from another one?

    python benchmarks/updates.py [SUBJECT_FOLDER] [--steps 100 300 900 1800] [--kind own split adapt] [--avatar FOLDER]
                                 [--set widths=8,16 ...] [--seed 0 ...]

SUBJECT_FOLDER, by default workspace/demo, holds the stages 01 to 05; --avatar is the 06_avatar of others, which
``adapt`` starts from.  Every row is a run of its own from its first step to its last, with its rates falling to zero at
its own end, scored on all held-out frames by the evaluator of ``compare``.  Prints one row each: figures (means over
the seeds), seconds by the clock and of CPU that training took.  An update of the split changes either the networks or
the texture.

What it answers: whether training longer makes held-out frames worse; how many updates the split needs for what the
usual training reaches at its best; how much sooner ``adapt`` is as good as a training of its own.  That one begins with
networks that have painted others; ``--set pretrained=none``: with noise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from rendering.avatar import Avatar
from settings import field_types, read_text
from training.adapt import adapt
from training.config import AdaptConfig, EvaluateConfig
from training.score import Subject
from training.train import TrainConfig, train
from training.trials import score

FIGURES = {"masked_psnr_db": 2, "crop_ssim": 4, "crop_flip": 4, "mask_iou": 4, "sharpness": 3}
OWN, SPLIT, ADAPT = "own", "split", "adapt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("workspace/demo"))
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 300, 900, 1800])
    parser.add_argument("--kind", nargs="+", choices=(OWN, SPLIT, ADAPT), default=[OWN])
    parser.add_argument("--avatar", type=Path)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the train section")
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    if not (given.folder / "05_rasters").is_dir():
        print(f"skipped: {given.folder} holds no 05_rasters; film the demo first: pipeline.py run --subject demo")
        return
    if ADAPT in given.kind and given.avatar is None:
        parser.error("adapt needs --avatar")
    types = field_types(TrainConfig)
    chosen = {key: read_text(text, types[key]) for key, text in (word.split("=", 1) for word in given.set)}
    subject = Subject.load(given.folder.name, given.folder, EvaluateConfig().full_long_side_px)
    print(f"| training | updates | {' | '.join(FIGURES)} | clock s | CPU s |\n|{'---|' * (len(FIGURES) + 4)}")
    for kind in given.kind:
        for steps in given.steps:
            runs = [run(kind, steps, seed, chosen, given.folder, given.avatar, subject) for seed in given.seed]
            cells = [f"{np.mean([r[name] for r in runs]):.{digits}f}" for name, digits in FIGURES.items()]
            cells += [f"{np.median([r[name] for r in runs]):.0f}" for name in ("clock_s", "cpu_s")]
            print(f"| {kind} | {steps} | {' | '.join(cells)} |", flush=True)


def run(
    kind: str, steps: int, seed: int, chosen: dict[str, Any], folder: Path, avatar: Path | None, subject: Subject
) -> dict[str, float]:
    """One training and its figures."""
    config = replace(TrainConfig(), **{"steps": steps, "seed": seed, "device": "cpu", "split": kind == SPLIT, **chosen})
    with tempfile.TemporaryDirectory() as out:
        clock_s, cpu_s = time.monotonic(), time.process_time()
        if kind == ADAPT:
            assert avatar is not None
            own = {"device": "cpu", "seed": seed, **chosen}
            adapt(AdaptConfig(steps=steps), own, Path(out), avatar, subject.name, folder)
        else:
            train(config, Path(out), {subject.name: folder})
        spent = {"clock_s": time.monotonic() - clock_s, "cpu_s": time.process_time() - cpu_s}
        figures = score(EvaluateConfig(), Avatar.load(Path(out), "cpu"), subject, None)
    return {name: float(figures[name] or np.nan) for name in FIGURES} | spent


if __name__ == "__main__":
    main()
