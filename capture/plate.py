"""What the room looks like without the person: learned from the clip itself, or from a picture of the empty room.

A recording and the network's rough masks enter, a ``Plate`` leaves.  h x w pixels of the plate (the picture, reduced),
H x W pixels of a crop, K sample frames.  A camera that sways is followed by a homography per frame; one that travels
leaves a plate whose noise is large, and so says little.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numba
import numpy as np

from capture.files import write_atomically

SIDE_PX = 960  # of the plate: half of a picture of 1080 lines, which is reduced twice as fast as by other ratios
ALIGN_SIDE_PX = 480  # of the pictures that are aligned
SAMPLES = 32  # frames that a plate is learned from
MIN_SEEN = 3  # times that a pixel must be seen without the person: the median of three outvotes one mistake
WELL_SEEN = 8  # times, for a spread of its own
NOISE_GREY = 2.0  # least standard deviation: rounding, JPEG and the reduction of the picture
EDGE_SHIFT_PX = 0.3  # how far alignment may be off: matters at strong edges
STILL_PX = 0.5  # a camera that moves less, at ALIGN_SIDE_PX, stands still
EXPLAINED = 0.8  # alignment must leave less of the difference than this, or the camera stands still
BLOCK = 16384  # values of a picture that are sorted at a time: all samples of them fit a core's cache
BINS = 16  # of a colour channel in the histogram of the person's colours
NO_MASK: Any = None  # OpenCV's "not given", which its type stubs do not know


@dataclass(frozen=True)
class Plate:
    """The empty room, and the colours of the person in front of it."""

    color: np.ndarray  # (h, w, 3) float32, NaN where the room was never seen
    sigma: np.ndarray  # (h, w) float32 grey levels, how much it varies from frame to frame; NaN where color is
    depth_m: np.ndarray  # (h, w) float32 in the colour camera, NaN where unknown
    person_log: np.ndarray  # (BINS, BINS, BINS) float32, log density of the person's colours per cubic grey level
    is_still: bool  # the camera stands still

    def save(self, path: Path) -> None:
        arrays = {name: getattr(self, name) for name in ("color", "sigma", "depth_m", "person_log")}
        packed = io.BytesIO()
        np.savez(packed, is_still=np.array(self.is_still), **arrays)
        write_atomically(path, packed.getvalue())

    @staticmethod
    def load(path: Path) -> Plate:
        with np.load(path, allow_pickle=False) as stored:
            return Plate(
                stored["color"], stored["sigma"], stored["depth_m"], stored["person_log"], bool(stored["is_still"])
            )

    @property
    def image_wh(self) -> tuple[int, int]:
        return self.color.shape[1], self.color.shape[0]

    def frame_from_plate(self, color: np.ndarray, probability: np.ndarray) -> np.ndarray | None:
        """(3, 3) pixels of the plate to pixels of a picture (H, W, 3), both scaled to the plate's size; None where no
        motion explains the picture."""
        if self.is_still:
            return np.eye(3)
        width, height = self.image_wh
        scale = ALIGN_SIDE_PX / max(width, height)
        wh = (max(16, round(width * scale)), max(16, round(height * scale)))
        is_room = cv2.resize(probability, wh) < 0.1
        known = np.isfinite(self.color[..., 0]).astype(np.uint8)
        is_known = cv2.resize(known, wh, interpolation=cv2.INTER_NEAREST) > 0
        found = aligned(_gray(np.nan_to_num(self.color).astype(np.uint8), wh), _gray(color, wh), is_room & is_known)
        if found is None:
            return None
        shrink = np.diag([wh[0] / width, wh[1] / height, 1.0])
        return np.linalg.inv(shrink) @ found @ shrink

    def seen(
        self,
        frame_from_plate: np.ndarray,
        crop_px: Sequence[float],
        image_wh: tuple[int, int],
        work_wh: tuple[int, int],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(color (H, W, 3), sigma (H, W), depth_m (H, W)) behind the crop of a picture of ``image_wh``, NaN unknown."""
        left, top, right, bottom = crop_px
        scale_x, scale_y = self.image_wh[0] / image_wh[0], self.image_wh[1] / image_wh[1]
        step_x, step_y = scale_x * (right - left) / work_wh[0], scale_y * (bottom - top) / work_wh[1]
        frame_from_work = np.array(
            [
                [step_x, 0, scale_x * left + step_x / 2 - 0.5],
                [0, step_y, scale_y * top + step_y / 2 - 0.5],
                [0, 0, 1],
            ]
        )
        plate_from_work = np.linalg.inv(frame_from_plate) @ frame_from_work

        def warped(image: np.ndarray, flags: int) -> np.ndarray:
            return cv2.warpPerspective(
                image,
                plate_from_work,
                work_wh,
                flags=flags | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=(np.nan,) * 4,
            )

        # A bilinear value with one unknown neighbour is unknown: NaN spreads by itself.
        color, sigma = warped(self.color, cv2.INTER_LINEAR), warped(self.sigma, cv2.INTER_LINEAR)
        return color, sigma, warped(self.depth_m, cv2.INTER_NEAREST)


@dataclass(frozen=True)
class Sample:
    """One frame that the room is learned from, at the size of the plate."""

    color: np.ndarray  # (h, w, 3) uint8
    depth_mm: np.ndarray | None  # (h, w) uint16 in the colour view, 0 = no return

    def halved(self) -> Sample:
        """The same at half the size."""
        height, width = self.color.shape[:2]
        color = cv2.resize(self.color, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        depth_mm = None if self.depth_mm is None else self.depth_mm[: height // 2 * 2 : 2, : width // 2 * 2 : 2]
        return Sample(color, depth_mm)


def fitted_wh(image_wh: tuple[int, int], side_px: int) -> tuple[int, int]:
    """(w, h) of a picture of ``image_wh``, reduced so that its longer side is at most ``side_px``."""
    scale = min(1.0, side_px / max(image_wh))
    return max(16, round(image_wh[0] * scale)), max(16, round(image_wh[1] * scale))


def learned(samples: Sequence[Sample], masks: Sequence[np.ndarray], margin: float) -> Plate | None:
    """The plate of a clip from K samples; None where the room is seen too rarely.

    ``masks`` are the person in each (any size, 1 = surely), who is widened by ``margin`` of the picture's longer side.
    """
    height, width = samples[0].color.shape[:2]
    radius = max(2, round(margin * max(width, height)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    sized = [cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR) for mask in masks]
    rooms = [cv2.dilate((mask > 0.1).astype(np.uint8), disc) == 0 for mask in sized]
    colors = [sample.color for sample in samples]
    depths = [sample.depth_mm for sample in samples if sample.depth_mm is not None]
    is_still, is_used = _moved_to_first(colors, rooms, depths)
    if is_used.sum() < MIN_SEEN:
        return None
    keep = [int(k) for k in np.flatnonzero(is_used)]
    stack, is_room = np.stack([colors[k] for k in keep]), np.stack([rooms[k] for k in keep])
    coarse = np.s_[:, ::4, ::4]
    center, _, _ = _middle(stack[coarse], is_room[coarse])
    stack = _exposed_alike(stack, center, is_room)
    center, spread, count = _middle(stack, is_room)
    is_seen = count >= MIN_SEEN
    if is_seen.mean() < 0.05:
        return None
    sigma = spread.max(axis=-1) / 1.645  # the spread is the 90th percentile of the deviation
    usual = float(np.median(sigma[count >= WELL_SEEN])) if (count >= WELL_SEEN).any() else 10.0
    sigma = np.where(count >= WELL_SEEN, sigma, np.maximum(sigma, usual))
    depth_m = np.full((height, width), np.nan, np.float32)
    if depths:
        depth_mm, _, num_depth = _middle_depth(np.stack([depths[k] for k in keep]), is_room)
        depth_m = np.where(num_depth >= MIN_SEEN, depth_mm * np.float32(1e-3), np.float32(np.nan))
    color = np.where(is_seen[..., None], center, np.nan).astype(np.float32)
    gradient = np.hypot(*(cv2.Sobel(center, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) for dx in (1, 0))).max(axis=-1)
    sigma = np.where(is_seen, np.sqrt(sigma**2 + NOISE_GREY**2 + (EDGE_SHIFT_PX * gradient) ** 2), np.nan)
    persons = [(colors[k], sized[k]) for k in keep]
    return Plate(color, sigma.astype(np.float32), depth_m.astype(np.float32), person_colors(persons), is_still)


def person_colors(pictures: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(BINS, BINS, BINS) log density of the colours in the core of the person, from (picture, mask) pairs; a fifth is
    spread over all colours, for what this person has not shown yet."""
    total = np.zeros((BINS,) * 3, np.float32)
    for color, mask in pictures:
        whole = cv2.resize(mask, (color.shape[1], color.shape[0]), interpolation=cv2.INTER_LINEAR)
        core = cv2.erode((whole > 0.9).astype(np.uint8), np.ones((5, 5), np.uint8))
        total += cv2.calcHist([color], [0, 1, 2], core, [BINS] * 3, [0, 256] * 3)
    for axis in range(3):  # neighbouring bins share: a limb in the shade has its own colour only nearly
        line = np.moveaxis(np.pad(total, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge"), axis, 0)
        total = np.moveaxis(0.25 * line[:-2] + 0.5 * line[1:-1] + 0.25 * line[2:], 0, axis)
    share = total / max(1.0, float(total.sum()))
    return np.log(0.8 * share / (256 / BINS) ** 3 + 0.2 / 256**3).astype(np.float32)


def reduced_to(color: np.ndarray, wh: tuple[int, int]) -> np.ndarray:
    """A picture at ``wh``; the mean over each pixel's footprint."""
    return color if (color.shape[1], color.shape[0]) == wh else cv2.resize(color, wh, interpolation=cv2.INTER_AREA)


def _moved_to_first(
    colors: list[np.ndarray], rooms: list[np.ndarray], depths: list[np.ndarray]
) -> tuple[bool, np.ndarray]:
    """Align all samples with the middle one, in place.  Returns (whether the camera stands still, (K,) bool usable)."""
    height, width = colors[0].shape[:2]
    scale = min(1.0, ALIGN_SIDE_PX / max(width, height))
    wh = (max(16, round(width * scale)), max(16, round(height * scale)))
    grays = [_gray(color, wh) for color in colors]
    smalls = [cv2.resize(room.astype(np.uint8), wh, interpolation=cv2.INTER_NEAREST) > 0 for room in rooms]
    middle = len(colors) // 2
    motions = [aligned(grays[middle], gray, smalls[middle] & room) for gray, room in zip(grays, smalls, strict=True)]
    corners = np.array([[[0, 0], [wh[0], 0], [0, wh[1]], [wh[0], wh[1]]]], np.float64)
    shifts = [
        np.inf if motion is None else float(np.abs(cv2.perspectiveTransform(corners, motion) - corners).max())
        for motion in motions
    ]
    left = [
        [
            _left(grays[middle], gray, smalls[middle] & room, np.eye(3) if is_held else motion)
            for gray, room, motion in zip(grays, smalls, motions, strict=True)
            if motion is not None
        ]
        for is_held in (True, False)
    ]
    # A room without texture cannot be aligned, and need not be: motion must explain what standing still does not.
    is_better = len(left[0]) > 1 and np.mean(left[1]) < EXPLAINED * np.mean(left[0])
    if not is_better or np.quantile(shifts, 0.9) < STILL_PX:
        return True, np.ones(len(colors), bool)
    shrink = np.diag([wh[0] / width, wh[1] / height, 1.0])
    for k, motion in enumerate(motions):
        if motion is None:
            continue
        move = np.linalg.inv(shrink) @ motion @ shrink
        flags = cv2.WARP_INVERSE_MAP
        colors[k] = cv2.warpPerspective(colors[k], move, (width, height), flags=flags | cv2.INTER_LINEAR)
        rooms[k] = cv2.warpPerspective(rooms[k].astype(np.uint8), move, (width, height), flags=flags) > 0
        if depths:
            depths[k] = cv2.warpPerspective(depths[k], move, (width, height), flags=flags | cv2.INTER_NEAREST)
    return False, np.array([motion is not None for motion in motions])


def _left(gray: np.ndarray, other: np.ndarray, is_room: np.ndarray, motion: np.ndarray) -> float:
    """Mean difference of grey levels between a picture (h, w) and another that is moved to it."""
    moved = cv2.warpPerspective(
        other, motion, gray.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return float(cv2.absdiff(moved, gray)[is_room].mean()) if is_room.any() else 0.0


def aligned(gray: np.ndarray, other: np.ndarray, is_room: np.ndarray) -> np.ndarray | None:
    """(3, 3) homography from pixels of ``gray`` to pixels of ``other`` (h, w) uint8 that explains what is in
    ``is_room``; None where too few points agree."""
    mask = cv2.erode(is_room.astype(np.uint8), np.ones((5, 5), np.uint8))
    points = cv2.goodFeaturesToTrack(gray, 400, 0.01, 6, mask=mask)
    if points is None or len(points) < 20:
        return None
    there, is_found, _ = cv2.calcOpticalFlowPyrLK(gray, other, points, NO_MASK, winSize=(15, 15), maxLevel=3)
    ok = is_found[:, 0] > 0
    if ok.sum() < 20:
        return None
    cv2.setRNGSeed(0)
    motion, inliers = cv2.findHomography(points[ok], there[ok], cv2.RANSAC, 1.0)
    if motion is None or inliers.sum() < max(15, 0.4 * ok.sum()):
        return None
    return motion


def _gray(color: np.ndarray, wh: tuple[int, int]) -> np.ndarray:
    return cv2.cvtColor(reduced_to(color, wh), cv2.COLOR_RGB2GRAY)


def _exposed_alike(stack: np.ndarray, center: np.ndarray, is_room: np.ndarray) -> np.ndarray:
    """The samples (K, h, w, 3) with a gain per frame and channel, from every fourth pixel (``center``), so that a
    camera that adapts does not count as noise."""
    grey = np.arange(256)[:, None]
    result = np.empty_like(stack)
    for k, (color, room) in enumerate(zip(stack, is_room, strict=True)):
        gain = gains(color[::4, ::4].astype(np.float32), center, room[::4, ::4])
        table = np.rint(grey / gain).clip(0, 255).astype(np.uint8)  # (256, 3)
        result[k] = cv2.LUT(color, table[None])
    return result


def gains(color: np.ndarray, room: np.ndarray, is_room: np.ndarray) -> np.ndarray:
    """(3,) by how much a picture (H, W, 3) is brighter than the room (H, W, 3) where only the room is seen."""
    rows = np.flatnonzero(is_room)
    rows = rows[:: max(1, len(rows) // 20000)]
    seen, behind = color.reshape(-1, 3)[rows], room.reshape(-1, 3)[rows]
    usable = ((behind > 20) & (behind < 235)).all(axis=-1)  # NaN is neither
    if usable.sum() < 300:
        return np.ones(3, np.float32)
    ratio = seen[usable] / behind[usable]
    return np.median(ratio, axis=0).astype(np.float32).clip(0.5, 2.0)


def _middle(stack: np.ndarray, is_room: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(median (h, w, C), 90th percentile of the deviation (h, w, C), count (h, w)) of samples (K, h, w, C) of unsigned
    whole numbers where ``is_room`` (K, h, w)."""
    _, height, width, channels = stack.shape
    center = np.empty((height, width, channels), np.float32)
    spread = np.empty((height, width, channels), np.float32)
    count = is_room.sum(axis=0)
    last = np.iinfo(stack.dtype).max  # what is not the room sorts behind it
    rows = max(1, BLOCK // (width * channels))
    for top in range(0, height, rows):
        part = np.s_[top : top + rows]
        planes = _sorted([np.where(r[part][..., None], s[part], last) for s, r in zip(stack, is_room, strict=True)])
        _ranked(np.stack(planes), count[part], center[part], spread[part])
    return center, spread, count


def _sorted(planes: list[np.ndarray]) -> list[np.ndarray]:
    """K planes of one shape, sorted at each place: Batcher's odd-even merge sort, a fixed sequence of comparisons
    (Knuth, The Art of Computer Programming 3, 5.2.2), each over a whole plane at once.  The planes are overwritten."""
    num, spare = len(planes), np.empty_like(planes[0])
    step = 1 << max(0, (num - 1).bit_length() - 1)
    first = step
    while step:
        reach, offset, bit = first, step, 0
        while True:
            for i in range(num - offset):
                if i & step == bit:
                    low, high = planes[i], planes[i + offset]
                    np.minimum(low, high, out=spare)
                    np.maximum(low, high, out=high)
                    planes[i], spare = spare, low
            if reach == step:
                break
            offset, reach, bit = reach - step, reach >> 1, step
        step >>= 1
    return planes


@numba.njit(cache=True)
def _ranked(planes: np.ndarray, count: np.ndarray, center: np.ndarray, spread: np.ndarray) -> None:
    """Median and spread of the first ``count`` (h, w) of sorted planes (K, h, w, C), into (h, w, C)."""
    _, height, width, channels = planes.shape
    for y in range(height):
        for x in range(width):
            n = count[y, x]
            dropped = n - 1 - int(np.ceil(0.9 * (n - 1)))
            for c in range(channels):
                center[y, x, c] = spread[y, x, c] = 0
                if not n:
                    continue
                middle = 0.5 * (float(planes[(n - 1) // 2, y, x, c]) + float(planes[n // 2, y, x, c]))
                low, high = 0, n - 1  # the furthest tenth is dropped from both ends
                for _ in range(dropped):
                    if middle - planes[low, y, x, c] > planes[high, y, x, c] - middle:
                        low += 1
                    else:
                        high -= 1
                center[y, x, c] = middle
                spread[y, x, c] = max(middle - planes[low, y, x, c], planes[high, y, x, c] - middle)


def _middle_depth(depths_mm: np.ndarray, is_room: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(median, spread, count), each (h, w), of depth samples (K, h, w) uint16 with a return where ``is_room``."""
    center, spread, count = _middle(depths_mm[..., None], is_room & (depths_mm > 0))
    return center[..., 0], spread[..., 0], count
