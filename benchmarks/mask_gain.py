"""Do better masks make a better avatar?  Trains it twice, all else equal, and prints one table.

    python benchmarks/mask_gain.py [--data ../shared/data] [--subject FOLDER [--truth FOLDER]] [--steps 300] [--seeds 1]
                                   [--keep FOLDER]

before   masks by MediaPipe alone
after    masks of the stage

Recording, body fit, split into training and held-out frames, rasters, number of updates and seed are the same; only the
masks that the training sees differ.  Both avatars are scored against the same reference on the same held-out frames:
the true masks where there are any, otherwise once against the masks of each method, as each favours its own avatar.

    mask IoU, FLIP of the crop and of the picture (smaller is better), PSNR inside the mask, dB

Without --subject it is the RGB-D clip, whose true masks are known; recording, masks and fit are then made first.
--subject is a subject's folder in a workspace, with the stages 01 to 03.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from mattes import network_alone

from capture.files import encode_png, read_gray
from capture.importers import ImportConfig, record
from capture.matting import MatteConfig, matte
from capture.recording import Recording
from fitting.fit import FitConfig, fit
from fitting.keyframes import KeyframeConfig, keyframes
from rendering.rasters import RasterConfig, rasterize
from training.config import EvaluateConfig
from training.evaluate import evaluate
from training.train import TrainConfig, train

SHARED_STAGES = ("01_recording", "03_fit", "04_keyframes", "05_rasters")
MEASURED = EvaluateConfig(turntable_frames=2, picture_frames=1)  # figures are wanted, not films
FIGURES = ("mask IoU", "FLIP, crop", "FLIP, picture", "PSNR in the mask")


def write_masks(folder: Path, masks: list[np.ndarray]) -> None:
    """Masks (H, W) uint8 as stage 02 leaves them."""
    (folder / "masks").mkdir(parents=True)
    frames = []
    for index, mask in enumerate(masks):
        (folder / "masks" / f"{index:06d}.png").write_bytes(encode_png(mask))
        rows, columns = np.nonzero(mask > 127)
        if len(rows):
            box_px = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
            frames.append({"confidence": float(mask[mask > 127].mean()) / 255, "box_px": box_px})
        else:
            frames.append({"confidence": None, "box_px": None})
    (folder / "masks.json").write_text(json.dumps({"notes": [], "frames": frames}))


def with_masks(folder: Path, shared: Path, masks: Path) -> Path:
    """A subject of the ``shared`` stages and these masks."""
    folder.mkdir(parents=True)
    for stage in SHARED_STAGES:
        (folder / stage).symlink_to((shared / stage).resolve(), target_is_directory=True)
    (folder / "02_masks").symlink_to(masks.resolve(), target_is_directory=True)
    return folder


def trained(config: TrainConfig, subject: Path) -> Path:
    """The folder of the avatar of a subject."""
    avatar = subject / "06_avatar"
    avatar.mkdir()
    train(config, avatar, {"subject": subject})
    return avatar


def scored(config: EvaluateConfig, home: Path, avatar: Path, reference: Path) -> list[float]:
    """FIGURES of an avatar on the held-out frames of the subject ``reference``."""
    home.mkdir(parents=True)
    evaluate(config, home, avatar, {"subject": reference})
    held_out = json.loads((home / "metrics.json").read_text())["subjects"]["subject"]["heldout"]
    return [
        held_out["mask_iou"],
        held_out["crop"]["flip"],
        held_out["full"]["flip"],
        held_out["masked_psnr_db"],
    ]


def compared(
    home: Path, shared: Path, methods: Mapping[str, Path], references: Mapping[str, Path], configs: list[TrainConfig]
) -> dict[tuple[str, str], np.ndarray]:
    """(method, reference) -> (len(configs), 4) FIGURES of the avatars trained with the masks of each method."""
    ends = {name: with_masks(home / "scored_by" / name, shared, folder) for name, folder in references.items()}
    figures: dict[tuple[str, str], list[list[float]]] = {}
    for config in configs:
        for method, masks in methods.items():
            subject = with_masks(home / f"{method}_{config.seed}", shared, masks)
            avatar = trained(config, subject)
            for name, reference in ends.items():
                row = scored(MEASURED, subject / f"against_{name}", avatar, reference)
                figures.setdefault((method, name), []).append(row)
    return {key: np.array(rows) for key, rows in figures.items()}


def prepared(home: Path, subject: Path | None, data: Path) -> Path:
    """A folder with the stages 01 to 05, all but 02 of which are shared."""
    shared = home / "shared"
    shared.mkdir(parents=True)
    if subject is None:
        for stage in ("01_recording", "02_masks", "03_fit"):
            (shared / stage).mkdir()
        record(ImportConfig(), shared / "01_recording", data / "casual_rgbd")
        matte(MatteConfig(), shared / "02_masks", shared / "01_recording")
        fit(FitConfig(), shared / "03_fit", shared / "01_recording", shared / "02_masks")
    else:
        for stage in ("01_recording", "02_masks", "03_fit"):
            (shared / stage).symlink_to((subject / stage).resolve(), target_is_directory=True)
    for stage in ("04_keyframes", "05_rasters"):
        (shared / stage).mkdir()
    keyframes(KeyframeConfig(), shared / "04_keyframes", shared / "03_fit")
    rasterize(RasterConfig(), shared / "05_rasters", shared / "01_recording", shared / "03_fit")
    return shared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--subject", type=Path, help="a subject with the stages 01 to 03")
    parser.add_argument("--truth", type=Path, help="a folder of its true masks, 000000.png and so on")
    parser.add_argument("--steps", type=int, default=TrainConfig().steps)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="leave avatars, figures and pictures here")
    options = parser.parse_args()
    truth = options.truth
    if options.subject is None:
        if not (options.data / "casual_rgbd").exists():
            print(f"skipped: {options.data / 'casual_rgbd'} is not there")
            return
        truth = options.data / "casual_rgbd" / "ground_truth" / "mask"
    with tempfile.TemporaryDirectory() as temporary:
        home = options.keep or Path(temporary)
        shared = prepared(home, options.subject, options.data)
        recording = Recording.load(shared / "01_recording")
        write_masks(home / "mediapipe", network_alone(recording))
        methods = references = {"before": home / "mediapipe", "after": shared / "02_masks"}
        if truth is not None:
            write_masks(home / "truth", [read_gray(truth / f"{i:06d}.png") for i in range(len(recording))])
            references = {"truth": home / "truth"}
        configs = [replace(TrainConfig(), steps=options.steps, seed=seed) for seed in range(options.seeds)]
        figures = compared(home / "avatars", shared, methods, references, configs)
    print(f"{'masks':10} {'reference':10} {'  '.join(f'{name:>16}' for name in FIGURES)}")
    for (method, reference), rows in figures.items():
        print(f"{method:10} {reference:10} {'  '.join(f'{value:16.4f}' for value in rows.mean(axis=0))}")


if __name__ == "__main__":
    main()
