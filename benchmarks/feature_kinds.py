"""Which embedded feature loss does most for held-out frames: random filters, a Laplacian pyramid, SSIM, or none.

    python benchmarks/feature_kinds.py [SUBJECT_FOLDER] [--steps 300] [--frames 12] [--kind random:30 --kind ssim:2 ...]

SUBJECT_FOLDER, by default workspace/demo, holds the stages 01 to 05.  Every run has the same seed, frames, networks and
number of updates; only the feature term differs.  All begin with noise and without a discriminator, as the shipped
weights were made with one of the terms.  Prints one row per KIND:WEIGHT; ``none`` leaves the term out.
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
from training import metrics
from training.config import NONE
from training.score import AVATAR, Subject, comparison, load_scene, predict, spread
from training.train import TrainConfig, train

KINDS = ("none", "random:30", "laplacian:5", "laplacian:20", "ssim:2", "ssim:8")
FIGURES = ("masked_psnr_db", "crop_ssim", "crop_flip", "mask_iou")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("workspace/demo"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--frames", type=int, default=12, help="held-out frames that are scored, evenly spread")
    parser.add_argument("--kind", action="append", help="KIND:WEIGHT; may be repeated")
    parser.add_argument("--seed", type=int, action="append", help="may be repeated; figures are means over the seeds")
    given = parser.parse_args()
    if not (given.folder / "05_rasters").is_dir():
        print(f"skipped: {given.folder} holds no 05_rasters; film the demo first: pipeline.py run --subject demo")
        return
    subject = Subject.load(given.folder.name, given.folder, 640)
    positions = sorted(spread(len(subject.heldout), given.frames))
    print(f"| feature term | {' | '.join(FIGURES)} | training, CPU s |\n|---|{'---|' * (len(FIGURES) + 1)}")
    for kind in given.kind or KINDS:
        rows, cpu_s = [], 0.0
        for seed in given.seed or [0]:
            config = replace(configured(kind), steps=given.steps, seed=seed, device="cpu")
            with tempfile.TemporaryDirectory() as folder:
                started_s = time.process_time()
                train(config, Path(folder), {subject.name: given.folder})
                cpu_s += time.process_time() - started_s
                avatar = Avatar.load(Path(folder), "cpu")
            for position in positions:
                scene = load_scene(subject, int(subject.heldout[position]))
                guess = predict(avatar, subject, position)[AVATAR]
                task: tuple[Any, ...] = (*comparison(scene, guess), True, False)
                rows.append(metrics.measure(*task))
        means = [np.mean([row[figure] for row in rows]) for figure in FIGURES]
        print(f"| {kind} | {' | '.join(f'{mean:.4f}' for mean in means)} | {cpu_s:.0f} |", flush=True)


def configured(kind: str) -> TrainConfig:
    """The demo preset with the feature term that "KIND:WEIGHT" names."""
    plain = TrainConfig(pretrained=NONE, adversarial=False)
    if kind == "none":
        return replace(plain, feature=False)
    name, _, weight = kind.partition(":")
    return replace(plain, feature_kind=name, feature_weight=float(weight) if weight else None)


if __name__ == "__main__":
    main()
