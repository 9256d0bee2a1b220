"""Stage 04: which frames teach what.  Train, keyframes among them, held-out.

N recorded frames, n candidates, I coverage items, W = I / 64 words.  Enter: the fit.  Leave: keyframes.json.

The renderer learns on the training frames, the texture on the keyframes (the paper's split optimisation), so keyframes
must show every part of the body from every side.  An item is a texel of the body together with how it faces the camera
(straight, or tilted to one of four sides).  The value of a set of frames is the sum over items of a concave function of
how many of its frames show the item: monotone and submodular, so that greedy choice reaches (1 - 1/e) of the optimum
and gains never grow, which is what makes lazy evaluation exact (Minoux, "Accelerated greedy algorithms", 1978;
Leskovec et al., "Cost-effective outbreak detection in networks", 2007).
"""

from __future__ import annotations

import heapq
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from capture.camera import Camera, project
from capture.errors import UserError
from capture.files import write_atomically
from capture.progress import progress
from capture.sampling import evenly
from fitting.zbuffer import rasterize_faces, visible_box

if TYPE_CHECKING:
    from fitting.body.model import BodyModel

log = logging.getLogger(__name__)

MIN_FRAMES = 10  # below this there is nothing to split
TEXELS = 64  # a coverage texel is about one face of the body
SIDES = 5  # straight, or tilted to the left, right, top or bottom of the picture
STRAIGHT_COSINE = 0.8  # within 37 degrees of the line of sight
COVER_GAINS = (16, 4, 1)  # of the first, second and third keyframe that shows an item: breadth first, then repetition


@dataclass(frozen=True)
class KeyframeConfig:
    max_train_frames: int = 1500  # the paper's number
    spread: bool = True  # evenly over what trains of a longer film; false: its first frames, as in the paper
    max_keyframe_fraction: float = 0.1  # strictly fewer than this of the training frames, as in the paper
    image_px: int = 256  # height of the raster that measures coverage; a face is then about 7 pixels


@dataclass(frozen=True)
class Keyframes:
    """Frame indices of the recording, rising.  Keyframes are training frames; held-out frames come after both."""

    train_indices: np.ndarray  # (n,) int64
    keyframe_indices: np.ndarray  # (k,) int64
    heldout_indices: np.ndarray  # (h,) int64, taught neither fit nor avatar
    coverage: dict = field(default_factory=dict)  # for the report: how much of the body was seen, and by what

    def save(self, folder: Path) -> None:
        """Write keyframes.json."""
        fields = {
            "train_indices": self.train_indices.tolist(),
            "keyframe_indices": self.keyframe_indices.tolist(),
            "heldout_indices": self.heldout_indices.tolist(),
            "coverage": self.coverage,
        }
        write_atomically(folder / "keyframes.json", json.dumps(fields, indent=1).encode())

    @staticmethod
    def load(folder: Path) -> Keyframes:
        """Open 04_keyframes.  Raises UserError when the folder holds none."""
        try:
            fields = json.loads((folder / "keyframes.json").read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: no readable keyframes.json ({error}); run the keyframes stage again") from None
        train, chosen, heldout = (
            np.array(fields[name], np.int64) for name in ("train_indices", "keyframe_indices", "heldout_indices")
        )
        return Keyframes(train, chosen, heldout, fields["coverage"])


def keyframes(config: KeyframeConfig, out_dir: Path, fit_dir: Path) -> None:
    """Write 04_keyframes.  Raises UserError when too few frames were tracked."""
    from fitting.fit import BodyFit

    fit = BodyFit.load(fit_dir)
    body, doubted = fit.body, fit.part_doubted
    found = choose_keyframes(config, body, fit.camera, fit.tracked, fit.first_heldout, fit.vertices_color_m, doubted)
    found.save(out_dir)


def choose_keyframes(
    config: KeyframeConfig,
    body: BodyModel,
    camera: Camera,
    tracked: np.ndarray,
    first_heldout: int,
    vertices_color_m: Callable[[int], np.ndarray],
    part_doubted: np.ndarray,
) -> Keyframes:
    """The stage on plain values: tracked (N,) bool; ``vertices_color_m(i)`` (V, 3) metres for tracked frames;
    part_doubted (N, P) bool: what a frame shows of these parts teaches nothing, so it covers nothing."""
    train, heldout = split(config, tracked, first_heldout)
    seen = np.stack(
        [
            seen_items(body, vertices_color_m(i), camera, config.image_px, np.flatnonzero(part_doubted[i]))
            for i in progress(train.tolist(), "keyframes")
        ]
    )
    chosen = choose_greedily(seen, max_keyframes(len(train), config.max_keyframe_fraction))
    by_train, by_chosen = np.bitwise_or.reduce(seen), np.bitwise_or.reduce(seen[chosen])
    coverage = {
        "items_seen": int(np.bitwise_count(by_train).sum()),
        "items_covered": int(np.bitwise_count(by_chosen).sum()),
        "order": train[chosen].tolist(),
    }
    log.info("%d keyframes show %.1f %% of what %d frames show", len(chosen),
             100 * coverage["items_covered"] / max(coverage["items_seen"], 1), len(train))  # fmt: skip
    return Keyframes(train, np.sort(train[chosen]), heldout, coverage)


def split(config: KeyframeConfig, tracked: np.ndarray, first_heldout: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out frame indices: the tracked frames (N,) bool before ``first_heldout``, and from it on.
    Of longer films ``max_train_frames`` train, the rest is neither: it taught the fit.

    Which frames are held out does not depend on how many are believed: better verdicts do not move the goal.
    Raises UserError for too few tracked frames or a fraction outside (0, 1).
    """
    if not 0 < config.max_keyframe_fraction <= 1 or config.max_train_frames < 1:
        raise UserError(
            f"keyframes: max_keyframe_fraction {config.max_keyframe_fraction}, max_train_frames "
            f"{config.max_train_frames}: a fraction lies between 0 and 1, a count is positive"
        )
    if config.image_px < 16:
        raise UserError(f"keyframes.image_px = {config.image_px}: use 16 or more")
    frame_indices = np.flatnonzero(tracked)
    if len(frame_indices) < MIN_FRAMES:
        raise UserError(
            f"the body was tracked in only {len(frame_indices)} of {len(tracked)} frames, {MIN_FRAMES} are needed to "
            "train and to test; film longer, or see the fit's overlay.mp4 for what went wrong"
        )
    train, heldout = frame_indices[frame_indices < first_heldout], frame_indices[frame_indices >= first_heldout]
    if not len(train):
        raise UserError(
            f"the body was tracked in none of the {first_heldout} frames that train, only in those held out; film "
            "longer, or see the fit's overlay.mp4 for what went wrong"
        )
    return evenly(train, config.max_train_frames) if config.spread else train[: config.max_train_frames], heldout


def max_keyframes(num_train: int, fraction: float) -> int:
    """The largest count strictly below ``fraction`` of the training frames, but at least one."""
    return max(1, math.ceil(round(fraction * num_train, 9)) - 1)


def seen_items(
    body: BodyModel,
    vertices_color_m: np.ndarray,
    camera: Camera,
    image_px: int,
    doubted_parts: Sequence[int] | np.ndarray = (),
) -> np.ndarray:
    """(W,) uint64 bitset of the items that one frame shows: texel * SIDES + side.  Only the filmed picture counts, and
    no part that is in doubt."""
    depth_m = vertices_color_m[:, 2]
    box = visible_box(project(camera, vertices_color_m), depth_m, camera.image_wh)
    words = np.zeros((TEXELS * TEXELS * SIDES + 63) // 64, np.uint64)
    width, height = box[2] - box[0], box[3] - box[1]
    if width == 0:
        return words
    scale = image_px / max(width, height)
    crop = camera.crop(box, (max(1, round(width * scale)), max(1, round(height * scale))))
    points_px = project(crop, vertices_color_m)
    face_index, barycentric, _ = rasterize_faces(points_px, depth_m, body.faces, crop.image_wh)
    hit = (face_index >= 0) & ~np.isin(body.face_part[face_index], doubted_parts)
    face = face_index[hit]
    first, second = barycentric[hit].T.astype(float)
    corners = body.uv[body.face_uv[face]]  # (K, 3, 2)
    uv = (
        first[:, None] * corners[:, 0] + second[:, None] * corners[:, 1] + (1 - first - second)[:, None] * corners[:, 2]
    )
    texel = np.clip((uv * TEXELS).astype(np.int64), 0, TEXELS - 1)
    items = np.unique((texel[:, 1] * TEXELS + texel[:, 0]) * SIDES + facing_side(vertices_color_m, body.faces)[face])
    np.bitwise_or.at(words, items // 64, np.uint64(1) << (items % 64).astype(np.uint64))
    return words


def facing_side(vertices_m: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,) int: 0 for faces that look straight at the camera, else 1 + the side of the picture they are tilted to."""
    a, b, c = (vertices_m[faces[:, k]].astype(float) for k in range(3))
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=1) * np.linalg.norm(a, axis=1)
    is_straight = -(normal * a).sum(axis=1) > STRAIGHT_COSINE * length
    x, y = normal[:, 0], normal[:, 1]
    side = np.where(np.abs(x) > np.abs(y), np.where(x < 0, 1, 2), np.where(y < 0, 3, 4))
    return np.where(is_straight, 0, side)


def choose_greedily(seen: np.ndarray, max_count: int) -> np.ndarray:
    """Indices of the chosen of n bitsets (n, W) uint64, in order of choice, at most ``max_count``.

    Each choice is the one of largest gain, the lowest index among equals; it ends early when nothing gains any more.
    A gain computed in an earlier round is an upper bound, so only what comes to the top of the heap is looked at again.
    """
    if len(seen) == 0 or max_count < 1:
        return np.empty(0, np.int64)
    return _celf(np.ascontiguousarray(seen), max_count, np.array(COVER_GAINS, np.int64))


def choose_naively(seen: np.ndarray, max_count: int) -> np.ndarray:
    """What ``choose_greedily`` computes, without bitsets and laziness: the reference for tests and benchmarks."""
    bits = np.unpackbits(seen.view(np.uint8), axis=1).astype(bool)
    times = np.zeros(bits.shape[1], np.int64)
    chosen: list[int] = []
    while len(chosen) < min(max_count, len(seen)):
        gain = sum(worth * np.count_nonzero(bits & (times == level), axis=1) for level, worth in enumerate(COVER_GAINS))
        assert isinstance(gain, np.ndarray)
        gain[chosen] = 0
        best = int(gain.argmax())
        if gain[best] == 0:
            break
        chosen.append(best)
        times += bits[best]
    return np.array(chosen, np.int64)


@njit(cache=True, nogil=True)
def _popcount(x):
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)  # LLVM turns this into one instruction


@njit(cache=True, nogil=True)
def _gain(bits, at_least, gains):
    """at_least[l] holds the items that l + 1 chosen frames show; gains[l] is what the (l + 1)-th showing is worth."""
    total = 0
    for w in range(len(bits)):
        missing = bits[w] & ~at_least[0, w]
        total += gains[0] * np.int64(_popcount(missing))
        for level in range(1, len(gains)):
            once_more = bits[w] & at_least[level - 1, w] & ~at_least[level, w]
            total += gains[level] * np.int64(_popcount(once_more))
    return total


@njit(cache=True, nogil=True)
def _celf(seen, max_count, gains):
    at_least = np.zeros((len(gains), seen.shape[1]), np.uint64)
    heap = [
        (-_gain(seen[i], at_least, gains), i, 0) for i in range(len(seen))
    ]  # -gain, index, round it was computed in
    heapq.heapify(heap)
    chosen = np.empty(min(max_count, len(seen)), np.int64)
    count = 0
    while count < len(chosen):
        negative_gain, i, computed = heapq.heappop(heap)
        if computed < count:
            heapq.heappush(heap, (-_gain(seen[i], at_least, gains), i, count))
            continue
        if negative_gain == 0:
            break
        chosen[count] = i
        count += 1
        for w in range(seen.shape[1]):
            for level in range(len(gains) - 1, 0, -1):
                at_least[level, w] |= at_least[level - 1, w] & seen[i, w]
            at_least[0, w] |= seen[i, w]
    return chosen[:count]
