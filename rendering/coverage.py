"""Which skin was filmed: how often, from how near and how head-on, on the texture of the body.

T x T texels, K covered pixels, N recorded frames, F faces.  Enter: rasters and the frames that count.
Leave: planes over the texture, and figures per region of the body.  ``rendering.coverage_picture`` draws them.

Distance is told as millimetres of skin per pixel of the recorded picture, slant included: what decides how much can be
learned, whatever the camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from fitting.body.model import BodyModel
from fitting.zbuffer import rasterize_faces
from rendering.rasters import Rasters

MIN_COSINE = 0.17  # beyond 80 degrees a pixel smears over too much skin to show any
MAX_TEXELS = 128  # per side; a texel is then about 13 mm of skin
PIXELS_PER_TEXEL = 3.0  # of a raster's height: finer texels have holes in a single frame, in the face above all
ENOUGH_FRAMES = 2  # a single frame is likely a glitch of the fit
REGIONS = {  # in the order in which people look at a person; what nobody can film (soles) is left out
    "face": ("face",), "back of the head": ("head_back",), "chest and belly": ("chest",), "back": ("back",),
    "left arm": ("upper_arm.L", "lower_arm.L"), "right arm": ("upper_arm.R", "lower_arm.R"),
    "left hand": ("palm.L", "hand_back.L"), "right hand": ("palm.R", "hand_back.R"),
    "left leg": ("upper_leg.L", "lower_leg.L"), "right leg": ("upper_leg.R", "lower_leg.R"),
    "left foot": ("instep.L",), "right foot": ("instep.R",),
}  # fmt: skip


@dataclass(frozen=True)
class Coverage:
    """What the frames show of every texel; NaN where no frame shows it."""

    frames: np.ndarray  # (T, T) int32, how many frames show it
    mm_per_px: np.ndarray  # (T, T) float32, in the frame that shows it best
    slant_deg: np.ndarray  # (T, T) float32, likewise: 0 = head-on
    part: np.ndarray  # (T, T) uint8, 0 = no skin
    area_m2: np.ndarray  # (T, T) float32, skin per texel
    num_frames: int

    @property
    def seen(self) -> np.ndarray:
        """(T, T) bool: skin that was shown often enough to be believed."""
        return (self.part > 0) & (self.frames >= min(ENOUGH_FRAMES, max(self.num_frames, 1)))


def cover(
    body: BodyModel, rest_vertices_m: np.ndarray, rasters: Rasters, distance_m: np.ndarray, frame_indices: Sequence[int]
) -> Coverage:
    """Coverage by the given frames.  distance_m (N,): of the person from the camera; rest vertices (V, 3)."""
    size = int(np.clip(rasters.image_wh[1] / PIXELS_PER_TEXEL, 32, MAX_TEXELS))
    part, area_m2 = skin(body, rest_vertices_m, size)
    frames: np.ndarray = np.zeros(size * size, np.int32)
    finest: np.ndarray
    best: np.ndarray
    finest, best = np.full(size * size, np.inf, np.float32), np.zeros(size * size, np.float32)
    for i in frame_indices:
        raster = rasters[int(i)]
        cosine = _cosines(raster.normal, raster.pixel, rasters.cameras[int(i)])
        keep = (cosine > MIN_COSINE) & _is_filmed(raster.pixel, rasters, int(i))
        keep &= ~rasters.part_doubted[int(i)][raster.part]
        texel = np.minimum((raster.uv[keep] * size).astype(np.int64), size - 1)
        texel = texel[:, 1] * size + texel[:, 0]
        frames[np.unique(texel)] += 1
        np.maximum.at(best, texel, cosine[keep])
        mm = np.float32(1e3 * distance_m[int(i)] / rasters.camera.fx_px) / cosine[keep]
        np.minimum.at(finest, texel, mm)
    grid = size, size
    frames, finest, best = _fill_pinholes(part, frames.reshape(grid), finest.reshape(grid), best.reshape(grid))
    is_shown = (frames > 0) & (part > 0)
    return Coverage(
        frames=np.where(part > 0, frames, 0),
        mm_per_px=np.where(is_shown, finest, np.nan).astype(np.float32),
        slant_deg=np.where(is_shown, np.degrees(np.arccos(np.clip(best, 0, 1))), np.nan).astype(np.float32),
        part=part,
        area_m2=area_m2,
        num_frames=len(frame_indices),
    )


def skin(body: BodyModel, rest_vertices_m: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Part (T, T) uint8 of every texel, 0 outside the charts, and the skin it holds, square metres (T, T) float32."""
    uv = np.asarray(body.uv, float) * size
    face_index, _, _ = rasterize_faces(uv, np.ones(len(uv)), body.face_uv, (size, size))
    corners_m, corners_uv = np.asarray(rest_vertices_m, float)[body.faces], uv[body.face_uv]
    area_m2 = np.linalg.norm(np.cross(corners_m[:, 1] - corners_m[:, 0], corners_m[:, 2] - corners_m[:, 0]), axis=1)
    edges = corners_uv[:, 1:] - corners_uv[:, :1]  # (F, 2, 2) texels
    per_texel_m2 = area_m2 / np.maximum(np.abs(np.linalg.det(edges)), 1e-9)
    is_skin = face_index >= 0
    part = np.where(is_skin, body.face_part[face_index], 0).astype(np.uint8)
    return part, np.where(is_skin, per_texel_m2[face_index], 0).astype(np.float32)


def by_region(coverage: Coverage, part_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Region -> ``seen``, the share of its skin that was shown, and ``mm_per_px``, the median over what was shown.

    A body with other parts than ours is told part by part.
    """
    regions = {name: [part_names.index(p) for p in parts if p in part_names] for name, parts in REGIONS.items()}
    if not any(regions.values()):
        regions = {name: [number] for number, name in enumerate(part_names) if number}
    found: dict[str, dict[str, Any]] = {}
    for name, parts in regions.items():
        inside = np.isin(coverage.part, parts)
        total_m2 = float(coverage.area_m2[inside].sum())
        if total_m2 > 0:
            shown = inside & coverage.seen
            fine = float(np.median(coverage.mm_per_px[shown])) if shown.any() else None
            share = float(coverage.area_m2[shown].sum()) / total_m2
            found[name] = {"seen": round(share, 4), "mm_per_px": round(fine, 2) if fine is not None else None}
    return found


def _cosines(normal: np.ndarray, pixel: np.ndarray, camera: Any) -> np.ndarray:
    """(K,) cosine between the skin's normal and the direction to the camera."""
    row, column = np.divmod(pixel.astype(np.int64), camera.image_wh[0])
    ray = np.stack([(column + 0.5 - camera.cx_px) / camera.fx_px, (row + 0.5 - camera.cy_px) / camera.fy_px], 1)
    toward = -(normal[:, :2] * ray).sum(1) - normal[:, 2]
    return (toward / np.sqrt(1 + (ray * ray).sum(1))).astype(np.float32)


def _is_filmed(pixel: np.ndarray, rasters: Rasters, index: int) -> np.ndarray:
    """(K,) bool: the crop may reach beyond the picture, where the body goes on but no camera looked."""
    row, column = np.divmod(pixel.astype(np.int64), rasters.image_wh[0])
    left, top, right, bottom = rasters.boxes_px[index]
    x = left + (column + 0.5) * (right - left) / rasters.image_wh[0]
    y = top + (row + 0.5) * (bottom - top) / rasters.image_wh[1]
    width, height = rasters.camera.image_wh
    return (x >= 0) & (y >= 0) & (x < width) & (y < height)


def _fill_pinholes(
    part: np.ndarray, frames: np.ndarray, finest: np.ndarray, best: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texels between pixels take what their neighbours have: the raster is coarser than the picture was."""
    around = np.ones((3, 3), np.uint8)
    closed = cv2.morphologyEx((frames > 0).astype(np.uint8), cv2.MORPH_CLOSE, around, borderValue=0)
    hole = (frames == 0) & (part > 0) & (closed > 0)
    near_frames = cv2.dilate(frames.astype(np.float32), around).astype(np.int32)
    near_finest = cv2.erode(np.where(np.isinf(finest), 1e9, finest).astype(np.float32), around)
    return (
        np.where(hole, near_frames, frames),
        np.where(hole, near_finest, finest),
        np.where(hole, cv2.dilate(best, around), best),
    )
