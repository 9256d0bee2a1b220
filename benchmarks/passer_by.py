"""Somebody else walks through the picture: does the avatar's subject stay the subject?  Prints one table.

    python benchmarks/passer_by.py [--data ../shared/data] [--frames 100] [--keep FOLDER]

The subject is the RGB-D clip, whose joints and masks are rendered.  The demo performer, cut out by her true masks,
crosses the picture in a second and a third, behind or in front of the subject, in colours and in depth.  Compared are
the frames in which she is in the picture, with her and without her:

mask IoU      of the stage's masks with what of the subject is left to see, median / 5th percentile
taken         frames whose mask misses half of the subject, or covers a quarter of as much of somebody else
joints        12 joints, one fixed offset per joint removed (that of the whole clip), median / 95th percentile, mm
verdicts      tracked / uncertain / lost; of those tracked, how many have a believed joint that is 25 cm off
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import numpy as np
import tracking_figures as figures
from tracking import CLIPS, SHARED, Tracked, spread, table

from capture.files import encode_png, read_gray
from capture.importers import ImportConfig, record
from capture.matting import Masks, MatteConfig, matte
from capture.recording import Recording, RecordingWriter
from demo.performer import DemoConfig, film
from fitting.fit import FitConfig, fit

CROSSING_FRAMES = 40
HEIGHT_M = 1.7
BEHIND_M, BEFORE_M = 3.3, 1.7  # from the camera; the subject stands at 2.2 to 2.8


@dataclass(frozen=True)
class Passage:
    """How somebody crosses the picture."""

    name: str
    depth_m: float  # from the camera; 0 = nobody does


PASSAGES = (Passage("nobody", 0.0), Passage("behind", BEHIND_M), Passage("in front", BEFORE_M))


@dataclass(frozen=True)
class Layer:
    """The passer-by in one picture: colour (H, W, 3) and alpha (H, W)."""

    color: np.ndarray
    alpha: np.ndarray


def cut_outs(performer: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Colour (h, w, 3) and alpha (h, w) of the performer, frame by frame, her bounding box only."""
    recording = Recording.load(performer)
    for i in range(len(recording)):
        alpha = read_gray(performer / "ground_truth" / "masks" / f"{i:06d}.png")
        rows, columns = np.flatnonzero(alpha.max(1) > 127), np.flatnonzero(alpha.max(0) > 127)
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        yield recording.color(i)[box], alpha[box].astype(np.float32) / 255


def layers(passage: Passage, performer: Path, recording: Recording, first: int) -> dict[int, Layer]:
    """Frame of the clip -> the passer-by in it."""
    if not passage.depth_m:
        return {}
    camera = recording.rig.color
    width, height = camera.image_wh
    found = {}
    for step, (color, alpha) in zip(range(CROSSING_FRAMES), cut_outs(performer), strict=False):
        tall = round(camera.fy_px * HEIGHT_M / passage.depth_m)
        wide = round(tall * color.shape[1] / color.shape[0])
        middle = step / (CROSSING_FRAMES - 1) * (width + wide) - wide / 2
        bottom = camera.cy_px + camera.fy_px * 0.9 / passage.depth_m  # the camera hangs 0.9 m above the floor
        put = np.array([[1, 0, middle - wide / 2], [0, 1, bottom - tall]], float)
        small = [cv2.resize(image, (wide, tall), interpolation=cv2.INTER_AREA) for image in (color, alpha)]
        found[first + step] = Layer(*(cv2.warpAffine(image, put, (width, height)) for image in small))
    return found


def compose(
    folder: Path, clip: Path, masks: Path, passage: Passage, performer: Path, count: int
) -> dict[int, np.ndarray]:
    """Write the recording with the passer-by; the true masks (H, W) bool of the frames that she is in."""
    recording = Recording.load(clip)
    first = (count - CROSSING_FRAMES) // 2
    visitors = layers(passage, performer, recording, first)
    writer = RecordingWriter(folder, recording.rig, recording.source, recording.focal_is_known)
    truths = {}
    for i in range(min(count, len(recording))):
        color, depth_mm = recording.color(i), recording.depth_mm(i)
        true = read_gray(masks / f"{i:06d}.png").astype(np.float32) / 255
        in_crossing = first <= i < first + CROSSING_FRAMES
        if i in visitors:
            assert depth_mm is not None
            layer = visitors[i]
            is_before = passage.depth_m * 1e3 < np.where(depth_mm > 0, depth_mm, np.inf)
            alpha = layer.alpha * (is_before if passage.depth_m == BEFORE_M else 1 - true)
            color = np.rint(color * (1 - alpha[..., None]) + layer.color * alpha[..., None]).astype(np.uint8)
            depth_mm = np.where(alpha > 0.5, round(1e3 * passage.depth_m), depth_mm).astype(np.uint16)
            true = true * (1 - alpha)
        if in_crossing:
            truths[i] = true > 0.5
        writer.add(float(recording.times_s[i]), encode_png(color), depth_mm)
    writer.finish()
    return truths


def row(passage: Passage, with_depth: bool, folder: Path, truths: dict[int, np.ndarray], tracked: Tracked) -> list[str]:
    masks, frames = Masks.load(folder / "02_masks"), sorted(truths)
    overlaps, taken = [], 0
    for i in frames:
        ours = masks[i] > 0.5
        overlaps.append((ours & truths[i]).sum() / max(1, (ours | truths[i]).sum()))
        is_half = (ours & truths[i]).sum() < 0.5 * truths[i].sum()
        taken += int(is_half or (ours & ~truths[i]).sum() > 0.25 * truths[i].sum())
    errors_m, believed_m = tracked.errors_m, tracked.believed_m
    assert errors_m is not None and believed_m is not None
    status = [tracked.fit.status[i] for i in frames]
    return [
        passage.name,
        "yes" if with_depth else "no",
        spread(np.array(overlaps), 5, "{:.3f}"),
        str(taken),
        spread(1e3 * errors_m[frames]),
        " / ".join(str(status.count(s)) for s in ("tracked", "uncertain", "lost")),
        str(np.count_nonzero(figures.wrong(believed_m[frames]))),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="keep the stages here, to look at them")
    options = parser.parse_args()
    source = options.data / "casual_rgbd"
    if not source.exists():
        print(f"skipped: {source} is not there")
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        home = options.keep or Path(scratch)
        record(ImportConfig(), home / "clip", source)
        film(replace(DemoConfig(), num_frames=CROSSING_FRAMES), home / "performer")
        for passage in PASSAGES:
            for with_depth in (True, False):
                folder = home / f"{passage.name.replace(' ', '_')}_{'depth' if with_depth else 'colour'}"
                masks = source / "ground_truth" / "mask"
                whole = folder / "whole"
                truths = compose(whole, home / "clip", masks, passage, home / "performer", options.frames)
                record(ImportConfig(no_depth=not with_depth), folder / "01_recording", whole)
                for stage in ("02_masks", "03_fit"):
                    (folder / stage).mkdir(parents=True)
                matte(MatteConfig(), folder / "02_masks", folder / "01_recording")
                fit(FitConfig(), folder / "03_fit", folder / "01_recording", folder / "02_masks")
                clip = next(c for c in CLIPS if c.source == "casual_rgbd" and c.no_depth != with_depth and c.every == 1)
                tracked = Tracked(clip, folder, source / "ground_truth")
                rows.append(row(passage, with_depth, folder, truths, tracked))
                print(" | ".join(rows[-1]), flush=True)
    table(
        f"Somebody walks through, the {CROSSING_FRAMES} frames of it",
        ["passer-by", "depth", "mask IoU", "taken", "joints, mm", "tracked / uncertain / lost", "wrong and believed"],
        rows,
    )


if __name__ == "__main__":
    main()
