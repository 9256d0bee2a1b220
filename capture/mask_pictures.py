"""What people look at to judge masks: cut-outs of some frames, the least certain ones, and the whole clip.

H x W pixels.  Everything is shown over a chequered ground, which no clothes have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numba
import numpy as np

from capture.files import encode_jpeg, write_atomically
from capture.recording import Recording
from capture.video import VideoWriter

VIDEO_HEIGHT_PX = 540

MaskOf = Callable[[int], np.ndarray]  # frame -> (H, W) uint8


def write_sheets(
    out_dir: Path, recording: Recording, mask_of: MaskOf, found: Sequence[int], doubts: Sequence[float]
) -> None:
    """strip.jpg and uncertain.jpg; ``found`` are the frames with a person, ``doubts`` is per frame."""
    if not found:
        return
    chosen = sorted({found[round(k * (len(found) - 1) / 7)] for k in range(8)})
    worst = sorted(found, key=lambda i: (-doubts[i], i))[:10]

    def strip() -> np.ndarray:
        own = Recording.load(recording.folder)  # a file to read from for each thread
        return np.hstack([cut_out(own.color(i), mask_of(i), 400) for i in chosen])

    with ThreadPoolExecutor(1) as beside:
        other = beside.submit(strip)
        write_atomically(out_dir / "uncertain.jpg", encode_jpeg(uncertain(recording, mask_of, worst), quality=88))
        write_atomically(out_dir / "strip.jpg", encode_jpeg(other.result(), quality=88))


def write_film(out_dir: Path, tiles: Iterable[np.ndarray], frames_per_second: float) -> None:
    """checker.mp4 of its frames (h, w, 3)."""
    with VideoWriter(out_dir / "checker.mp4", frames_per_second, crf=23) as video:
        for image in tiles:
            video.add(image)


def tile(color: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(h, w, 3) a frame of the film: a picture (H, W, 3) cut out by its mask (H, W) uint8."""
    height = min(VIDEO_HEIGHT_PX, color.shape[0])
    wh = (round(color.shape[1] * height / color.shape[0]), height)
    return over_checker(_resized(color, wh), _resized(mask, wh))


def uncertain(recording: Recording, mask_of: MaskOf, frames: Sequence[int]) -> np.ndarray:
    """(H, W, 3) the picture beside its cut-out for each of ``frames``, with their numbers, five pairs to a row."""
    tiles = []
    for i in frames:
        color, mask = recording.color(i), mask_of(i)
        tile = np.hstack([cut_out(color, np.full_like(mask, 255), 420, mask), cut_out(color, mask, 420)])
        cv2.putText(tile, str(i), (6, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 4)
        cv2.putText(tile, str(i), (6, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 0), 2)
        tiles.append(tile)
    rows = [np.hstack(tiles[k : k + 5]) for k in range(0, len(tiles), 5)]
    width = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def cut_out(color: np.ndarray, mask: np.ndarray, height_px: int, around: np.ndarray | None = None) -> np.ndarray:
    """(height_px, W, 3) the surroundings of the person in ``around`` (default ``mask``) over a chequered ground."""
    rows, columns = np.nonzero((mask if around is None else around) > 127)
    margin = round(0.05 * np.ptp(rows)) + 2
    part = np.s_[
        max(0, rows.min() - margin) : rows.max() + margin, max(0, columns.min() - margin) : columns.max() + margin
    ]
    height, width = color[part].shape[:2]
    wh = (max(1, round(width * height_px / height)), height_px)
    return over_checker(_resized(color[part], wh), _resized(mask[part], wh))


@numba.njit(cache=True, nogil=True)
def over_checker(color: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of a picture with its mask (H, W) uint8."""
    height, width = mask.shape
    result = np.empty((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            ground = 235 if (y // 12 + x // 12) % 2 == 0 else 190
            alpha = int(mask[y, x])
            for c in range(3):
                mixed = int(color[y, x, c]) * alpha + ground * (255 - alpha) + 128
                result[y, x, c] = (mixed + (mixed >> 8)) >> 8  # divided by 255, rounded
    return result


def _resized(image: np.ndarray, wh: tuple[int, int]) -> np.ndarray:
    # Down to half the size, interpolation misses no pixel; the mean over areas takes five times longer.
    is_much_smaller = 2 * wh[1] < image.shape[0]
    return cv2.resize(image, wh, interpolation=cv2.INTER_AREA if is_much_smaller else cv2.INTER_LINEAR)
