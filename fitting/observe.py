"""What one frame says about the body: surface points, outline, landmarks, on one small grid around the person.

h x w grid cells.  The grid is an ideal pinhole camera, so lens distortion ends here: the solver never sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numba import njit

from capture.camera import Camera, Rig, distort, invert, kept_rays, meters, pixel_rays, transform, undistort
from fitting.keypoints import MIRROR

MIN_DEPTH_MM = 200  # nothing is nearer; smaller values are noise
EDGE = 0.03  # of the longer side: landmarks nearer to the picture's edge lose confidence
BORDER_PX = 3.0  # an outline this close to the picture's edge is the edge, not the person


@dataclass(frozen=True)
class Outline:
    """Points on the boundary of a mask with outward normals, grid pixels."""

    points_px: np.ndarray  # (M, 2)
    normals: np.ndarray  # (M, 2)
    cells: np.ndarray  # (M, 2) int, row and column of the boundary cell inside the mask


@dataclass(frozen=True)
class Observation:
    """One frame, ready for the solver."""

    camera: Camera  # the grid, no distortion
    mask: np.ndarray  # (h, w) float32 alpha
    inside: np.ndarray  # (h, w) bool: the colour picture covers this cell
    surface_m: np.ndarray | None  # (h, w, 3) NaN where unseen; None without depth
    surface_normals: np.ndarray | None  # (h, w, 3) towards the camera; NaN where unknown
    outline: Outline
    landmarks_px: np.ndarray  # (33, 2) grid pixels, NaN = none
    confidence: np.ndarray  # (33,) visibility, less what is doubtful near the picture's edge
    visibility: np.ndarray  # (33,) the detector's word
    world_m: np.ndarray  # (33, 3) NaN = none
    height_px: float  # of the person on the grid: the natural unit of 2-D error

    def with_sides_exchanged(self) -> Observation:
        """The same frame if the detector had taken left for right."""
        return replace(
            self,
            landmarks_px=self.landmarks_px[MIRROR],
            confidence=self.confidence[MIRROR],
            visibility=self.visibility[MIRROR],
            world_m=self.world_m[MIRROR],
        )


def observe(
    rig_color: Camera,
    rig: Rig,
    alpha: np.ndarray,
    depth_mm: np.ndarray | None,
    landmarks_px: np.ndarray,
    visibility: np.ndarray,
    world_m: np.ndarray,
    grid_height: int = 192,
) -> Observation | None:
    """Collect a frame's evidence; None when the mask is empty.

    ``rig_color`` is the colour camera to believe (its focal length may have been refined); ``alpha`` (H, W) float32;
    ``depth_mm`` (h', w') uint16 or None; landmarks in colour pixels.
    """
    box = _person_box(alpha)
    if box is None:
        return None
    grid = _grid_camera(rig_color, box, grid_height)
    mask, inside = _sample_alpha(alpha, rig_color, grid)
    surface_m = normals = None
    if depth_mm is not None and rig.depth is not None:
        seen = depth_mm > MIN_DEPTH_MM
        points_m = kept_rays(rig.depth)[seen] * meters(depth_mm[seen])[:, None]
        if rig.depth_from_color is not None and not np.array_equal(rig.depth_from_color, np.eye(4)):
            points_m = transform(invert(rig.depth_from_color), points_m)
        surface_m = _splat(points_m, mask, grid.fx_px, grid.fy_px, grid.cx_px, grid.cy_px)
        normals = _surface_normals(surface_m)
    pixels = _ideal_pixels(landmarks_px, rig_color, grid)
    width, height = rig_color.image_wh
    with np.errstate(invalid="ignore"):
        # The detector moves landmarks that are out of view to the picture's edge: the edge is not believed.
        to_edge = np.minimum(landmarks_px, (width, height) - landmarks_px).min(-1)
        believed = np.clip(np.nan_to_num(to_edge) / (EDGE * max(width, height)), 0, 1)
    rows = np.flatnonzero((mask > 0.5).any(1))
    return Observation(
        camera=grid,
        mask=mask,
        inside=inside,
        surface_m=surface_m,
        surface_normals=normals,
        outline=_true_outline(mask, inside),
        landmarks_px=pixels,
        confidence=visibility * believed,
        visibility=visibility,
        world_m=world_m,
        height_px=float(rows[-1] - rows[0] + 1) if len(rows) else float(grid_height),
    )


def outline_of(mask: np.ndarray, max_points: int) -> Outline:
    """The outer boundary of a boolean mask (h, w), evenly thinned to ``max_points``."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    long = [c[:, 0] for c in contours if len(c) >= 12]
    if not long:
        return Outline(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2), int))
    cells = np.concatenate(long)[:, ::-1]
    cells = cells[:: max(1, len(cells) // max_points)]
    smooth = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.5)
    gradient = np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)], -1)
    outward = -gradient[cells[:, 0], cells[:, 1]].astype(float)
    length = np.linalg.norm(outward, axis=1)
    keep = length > 1e-3
    cells, outward = cells[keep], outward[keep] / length[keep, None]
    # The boundary runs half a cell outside the outermost covered centre.
    return Outline(cells[:, ::-1] + 0.5 + 0.5 * outward, outward, cells)


def _person_box(alpha: np.ndarray, margin: float = 0.12) -> tuple[float, float, float, float] | None:
    covered = alpha > 0.5
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    if len(rows) < 8 or len(columns) < 4:
        return None
    pad = margin * max(rows[-1] - rows[0], columns[-1] - columns[0])
    return columns[0] - pad, rows[0] - pad, columns[-1] + 1 + pad, rows[-1] + 1 + pad


def _grid_camera(color: Camera, box: tuple[float, float, float, float], grid_height: int) -> Camera:
    left, top, right, bottom = box
    # Square cells; a wide pose gets a wider grid, an extremely wide one a coarser grid.
    cell = max((bottom - top) / grid_height, (right - left) / (1.5 * grid_height))
    height, width = round((bottom - top) / cell), round((right - left) / cell)
    grid = color.crop((left, top, left + width * cell, top + height * cell), (width, height))
    return Camera(grid.image_wh, grid.fx_px, grid.fy_px, grid.cx_px, grid.cy_px)


def _sample_alpha(alpha: np.ndarray, color: Camera, grid: Camera) -> tuple[np.ndarray, np.ndarray]:
    xy = distort(pixel_rays(grid)[..., :2], color.distortion)
    map_x = (xy[..., 0] * color.fx_px + color.cx_px).astype(np.float32)
    map_y = (xy[..., 1] * color.fy_px + color.cy_px).astype(np.float32)
    cell_px = max(1, round(color.fx_px / grid.fx_px))
    smooth = cv2.blur(alpha, (cell_px, cell_px)) if cell_px > 1 else alpha
    mask = cv2.remap(smooth, map_x - 0.5, map_y - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    width, height = color.image_wh
    margin = BORDER_PX
    inside = (map_x > margin) & (map_y > margin) & (map_x < width - margin) & (map_y < height - margin)
    return mask, inside


def _ideal_pixels(points_px: np.ndarray, color: Camera, grid: Camera) -> np.ndarray:
    xy = (points_px - (color.cx_px, color.cy_px)) / (color.fx_px, color.fy_px)
    return undistort(xy, color.distortion) * (grid.fx_px, grid.fy_px) + (grid.cx_px, grid.cy_px)


def _true_outline(mask: np.ndarray, inside: np.ndarray) -> Outline:
    outline = outline_of(mask > 0.5, 240)
    keep = inside[outline.cells[:, 0], outline.cells[:, 1]]
    return Outline(outline.points_px[keep], outline.normals[keep], outline.cells[keep])


@njit(cache=True)
def _splat(points_m, mask, fx, fy, cx, cy, layer_m=0.04):  # type: ignore[no-untyped-def]
    """Mean of the front-most points per grid cell, where the mask says person: (N, 3) -> (h, w, 3)."""
    height, width = mask.shape
    nearest = np.full((height, width), np.inf)
    cell = np.full(len(points_m), -1)
    for i in range(len(points_m)):
        x, y, z = points_m[i]
        column, row = int(np.floor(x / z * fx + cx)), int(np.floor(y / z * fy + cy))
        if 0 <= row < height and 0 <= column < width and mask[row, column] > 0.5:
            cell[i] = row * width + column
            nearest[row, column] = min(nearest[row, column], z)
    total = np.zeros((height, width, 3))
    count = np.zeros((height, width))
    for i in range(len(points_m)):
        if cell[i] >= 0:
            row, column = cell[i] // width, cell[i] % width
            if points_m[i, 2] < nearest[row, column] + layer_m:
                count[row, column] += 1
                for k in range(3):
                    total[row, column, k] += points_m[i, k]
    out = np.full((height, width, 3), np.nan)
    for row in range(height):
        for column in range(width):
            if count[row, column] > 0:
                out[row, column] = total[row, column] / count[row, column]
    return out


@njit(cache=True)
def _surface_normals(surface_m, step=2, max_jump_m=0.06):  # type: ignore[no-untyped-def]
    """Central differences over ``step`` cells; NaN beside holes and at depth edges, where flying pixels gather."""
    height, width = surface_m.shape[:2]
    out = np.full((height, width, 3), np.nan)
    for row in range(step, height - step):
        for column in range(step, width - step):
            z = surface_m[row, column, 2]
            dx = surface_m[row, column + step] - surface_m[row, column - step]
            dy = surface_m[row + step, column] - surface_m[row - step, column]
            if not np.isfinite(z + dx[2] + dy[2]) or abs(dx[2]) > max_jump_m or abs(dy[2]) > max_jump_m:
                continue
            normal = np.cross(dy, dx)  # towards the camera: z < 0
            length = np.sqrt((normal * normal).sum())
            if length > 1e-12:
                out[row, column] = normal / length
    return out
