"""Avatars of different presets by one ruler: held-out figures at the avatar's own crop size, and reduced to another.

    python benchmarks/crop_sizes.py [SUBJECT_FOLDER ...] [--height 256] [--every 2]

Each SUBJECT_FOLDER, by default workspace/demo, holds the stages 01 to 05 and the avatar, 06_avatar.  A finer picture of
the same quality has a lower PSNR, as the same error in place moves finer detail; so avatars of two presets are compared
after both picture and truth are reduced, by the mean over each pixel's footprint, to one height.  Prints one row each.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from rendering.avatar import Avatar
from training import metrics
from training.evaluate import EvaluateConfig
from training.score import Subject, comparison, load_scene, predict_avatar

FIGURES = {"masked_psnr_db": 2, "crop_ssim": 4, "crop_flip": 4, "mask_iou": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", default=[Path("workspace/demo")])
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--every", type=int, default=1, help="score every so many held-out frames")
    given = parser.parse_args()
    print(f"| avatar | crop | {' | '.join(FIGURES)} |\n|{'---|' * (len(FIGURES) + 2)}")
    for folder in given.folders:
        if not (folder / "06_avatar" / "avatar.json").is_file():
            print(f"skipped: {folder} holds no 06_avatar")
            continue
        subject = Subject.load(folder.name, folder, EvaluateConfig().full_long_side_px)
        avatar = Avatar.load(folder / "06_avatar", "cpu")
        width, height = avatar.image_wh
        reduced_wh = round(width * given.height / height), given.height
        for image_wh in dict.fromkeys([(width, height), reduced_wh]):
            rows = [figures(avatar, subject, k, image_wh) for k in range(0, len(subject.heldout), given.every)]
            means = [f"{np.nanmean([row[name] for row in rows]):.{digits}f}" for name, digits in FIGURES.items()]
            print(f"| {folder} | {image_wh[0]} x {image_wh[1]} | {' | '.join(means)} |", flush=True)


def figures(avatar: Avatar, subject: Subject, position: int, image_wh: tuple[int, int]) -> dict[str, float]:
    """The evaluator's figures of one held-out frame, its crop reduced to ``image_wh`` first."""
    scene = load_scene(subject, int(subject.heldout[position]))
    crop, truth, full, full_truth, alpha, true_alpha = comparison(scene, predict_avatar(avatar, subject, position))
    crop, truth, alpha, true_alpha = (
        cv2.resize(np.ascontiguousarray(plane, np.float32), image_wh, interpolation=cv2.INTER_AREA)
        for plane in (crop, truth, alpha, true_alpha)
    )
    return metrics.measure(crop, truth, full, full_truth, alpha, true_alpha, True, False)


if __name__ == "__main__":
    main()
