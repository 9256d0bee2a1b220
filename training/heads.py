"""How good heads are: held-out frames at the size of the close-up, with it and without.

Enters: an avatar and a subject.  Leaves: figures per frame, their means, and pictures for the report.  h x h pixels of
the head's crop.  Painted as every command paints: ``Avatar.layer`` before the recording's camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from capture.files import encode_jpeg, write_atomically
from capture.progress import progress
from rendering.avatar import Avatar
from rendering.pasting import Box
from rendering.rasters import Rasters
from training import metrics
from training.pictures import to_bytes
from training.sanity import Crop, true_crop
from training.score import GREY, Subject, mean_of, seen_by, spread

WITH, WITHOUT = "close_up", "person_crop"
FIGURES = ("masked_psnr_db", "ssim", "flip", "mask_iou", "sharpness")
SHOWN_PX = 288  # of a head in the report


def score_heads(
    avatar: Avatar, subject: Subject, pictures_dir: Path, num_pictures: int
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """A row of figures per held-out frame and way of painting, and their means; None without a close-up.

    Writes head_<frame>_truth.jpg, _close_up.jpg and _person_crop.jpg of some frames into ``pictures_dir``.
    """
    rasters = subject.close_up
    if rasters is None or avatar.close_up_of(subject.name) is None:
        return [], None
    seen = [int(i) for i in subject.heldout if len(rasters[int(i)].pixel)]
    shown = {seen[position] for position in spread(len(seen), num_pictures)}
    plain = replace(avatar, close_up=None)
    rows: list[dict[str, Any]] = []
    for index in progress(seen, f"heads of {subject.name}"):
        truth, is_filmed = true_head(subject, rasters, index, rasters.image_wh)
        for method, painter in ((WITH, avatar), (WITHOUT, plain)):
            guess = head(painter, subject, rasters, index, rasters.image_wh)
            rows.append({"frame": index, "method": method, **measured(guess, truth, is_filmed)})
        if index in shown:
            draw(pictures_dir, index, avatar, subject, rasters)
    return rows, summary(rows, rasters.image_wh[1])


def summary(rows: Sequence[dict[str, Any]], size_px: int) -> dict[str, Any] | None:
    """Means over the frames, per way of painting."""
    if not rows:
        return None
    found: dict[str, Any] = {"frames": len(rows) // 2, "size_px": size_px}
    for method in (WITH, WITHOUT):
        own = [row for row in rows if row["method"] == method]
        found[method] = {figure: mean_of([row[figure] for row in own]) for figure in FIGURES}
    return found


def true_head(subject: Subject, rasters: Rasters, index: int, image_wh: tuple[int, int]) -> tuple[Crop, np.ndarray]:
    """The recorded head, and which pixels lie inside the recorded picture (h, h) bool."""
    captured = subject.captured
    return true_crop(captured.recording.color(index), captured.masks[index], rasters.boxes_px[index], image_wh)


def head(avatar: Avatar, subject: Subject, rasters: Rasters, index: int, image_wh: tuple[int, int]) -> Crop:
    """The head as the avatar shows it to the recording's camera, the person's crop where it was in training."""
    close_px = rasters.boxes_px[index]
    camera = rasters.camera.crop(tuple(close_px), image_wh)
    rgba = seen_by(avatar, subject, index, camera, within(subject.rasters.boxes_px[index], close_px, image_wh))
    return Crop(rgba[..., :3], rgba[..., 3])


def within(box_px: np.ndarray, part_px: np.ndarray, image_wh: tuple[int, int]) -> Box:
    """``box_px``, left, top, right, bottom in a picture, in the pixels of the part ``part_px`` of it."""
    scale = np.divide(image_wh, part_px[2:] - part_px[:2])
    left, top, right, bottom = ((box_px.reshape(2, 2) - part_px[:2]) * scale).ravel().tolist()
    return left, top, right, bottom


def measured(guess: Crop, truth: Crop, is_filmed: np.ndarray) -> dict[str, float]:
    """The figures of one picture over grey; what is painted beyond the picture's edge is cut off."""
    alpha = guess.alpha * is_filmed
    image = metrics.composite(guess.color, alpha, GREY)
    true = metrics.composite(truth.color, truth.alpha, GREY)
    is_head = truth.alpha > metrics.MASK_THRESHOLD
    return {
        "masked_psnr_db": metrics.psnr_db(image, true, is_head),
        "ssim": metrics.ssim(image, true),
        "flip": float(metrics.flip_map(image, true).mean()),
        "mask_iou": metrics.mask_iou(alpha, truth.alpha),
        "sharpness": metrics.sharpness(image, true, is_head),
    }


def draw(folder: Path, index: int, avatar: Avatar, subject: Subject, rasters: Rasters) -> None:
    """One head three times at SHOWN_PX: as recorded, by close-up, by the person's crop alone."""
    folder.mkdir(parents=True, exist_ok=True)
    wh = (SHOWN_PX, SHOWN_PX)
    truth, is_filmed = true_head(subject, rasters, index, wh)
    pictures = {"truth": truth}
    pictures[WITH] = head(avatar, subject, rasters, index, wh)
    pictures[WITHOUT] = head(replace(avatar, close_up=None), subject, rasters, index, wh)
    for kind, crop in pictures.items():
        image = to_bytes(metrics.composite(crop.color, crop.alpha * is_filmed, GREY))
        write_atomically(folder / f"head_{index:06d}_{kind}.jpg", encode_jpeg(image, 90))
