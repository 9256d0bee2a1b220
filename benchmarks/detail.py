"""What does detail do for held-out frames at the recording's own size?

    python benchmarks/detail.py [--workspace workspace] [--subject demo --subject ...] [--pictures FOLDER]

The finished avatars of subjects, with the detail of their textures and without, painted as every command paints, before
the recording's camera, over grey; at most 1024 rows to a person, and 16 frames of each recording, evenly spread.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture.files import encode_png
from capture.sampling import evenly
from rendering.avatar import Avatar
from training import metrics
from training.detail import looked_wh, without_detail
from training.heads import FIGURES, measured
from training.pictures import to_bytes
from training.sanity import Crop, true_crop
from training.score import GREY, Subject, mean_of, seen_by

FRAMES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--subject", action="append", help="one or more; by default demo")
    parser.add_argument("--pictures", type=Path, help="truth, without and with detail, side by side")
    arguments = parser.parse_args()
    print("| recording (rows to a person) | detail | masked PSNR, dB | SSIM | FLIP | mask IoU | sharpness | ms |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.subject or ["demo"]:
        folder = arguments.workspace / name
        avatar, subject = Avatar.load(folder / "06_avatar"), Subject.load(name, folder, 640)
        plain = replace(avatar, textures={name: without_detail(avatar.textures[name])})
        rows: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
        heights = []
        for index in evenly(subject.heldout, FRAMES).tolist():
            box_px = subject.rasters.boxes_px[index]
            wh = looked_wh(box_px, avatar.image_wh)
            truth, is_filmed = true_crop(
                subject.captured.recording.color(index), subject.captured.masks[index], box_px, wh
            )
            camera, whole = subject.rasters.camera.crop(tuple(box_px), wh), (0.0, 0.0, float(wh[0]), float(wh[1]))
            shown = [metrics.composite(truth.color, truth.alpha, GREY)]
            for kind, painter in (("without", plain), ("with", avatar)):
                began_s = time.perf_counter()
                rgba = seen_by(painter, subject, index, camera, whole)
                took_ms = (time.perf_counter() - began_s) * 1e3
                rows[kind].append({**measured(Crop(rgba[..., :3], rgba[..., 3]), truth, is_filmed), "ms": took_ms})
                shown.append(metrics.composite(rgba[..., :3], rgba[..., 3] * is_filmed, GREY))
            heights.append(wh[1])
            if arguments.pictures is not None:
                arguments.pictures.mkdir(parents=True, exist_ok=True)
                sheet = encode_png(to_bytes(np.concatenate(shown, axis=1)))
                (arguments.pictures / f"{name}_{index:06d}.png").write_bytes(sheet)
        for kind, found in rows.items():
            means = [f"{mean_of([row[figure] for row in found]):.4g}" for figure in FIGURES]
            took_ms = np.median([row["ms"] for row in found])
            print(f"| {name} ({np.median(heights):.0f}) | {kind} | {' | '.join(means)} | {took_ms:.0f} |", flush=True)


if __name__ == "__main__":
    main()
