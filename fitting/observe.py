"""What one frame says about the body: surface points, outline, landmarks, on one small grid around the person.

h x w grid cells.  The grid is an ideal pinhole camera, so lens distortion ends here: the solver never sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numba import njit

from capture.camera import Camera, Rig, invert, kept_rays, undistort
from fitting.keypoints import LEG_MIRROR, MIRROR

MIN_DEPTH_MM = 200  # nothing is nearer; smaller values are noise
LAYER_M = 0.04  # of the points in one cell, those this close to the front-most are one surface
STEP, MAX_JUMP_M = 2, 0.06  # of the differences that make a normal
EDGE = 0.03  # of the longer side: landmarks nearer to the picture's edge lose confidence
PERSON_M = 1.7
BORDER_PX = 3.0  # an outline this close to the picture's edge is the edge, not the person
# An outline's normals: the mask smoothed by a Gaussian of 1.5 cells, then Sobel's differences, both in one filter.
_GAUSS = cv2.getGaussianKernel(13, 1.5)[:, 0]
_SMOOTH, _SLOPE = np.convolve(_GAUSS, [1.0, 2.0, 1.0, 0.0]), np.convolve(_GAUSS, [-1.0, 0.0, 1.0, 0.0])
_REACH, _TAPS = 7, 16  # one tap is zero: sixteen are four whole vectors


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
    outward: np.ndarray  # (33, 2) of -1, 0, 1: the edges of the picture at or beyond which the detector puts a landmark
    edge_px: np.ndarray  # (33, 2) grid pixels: the place in the picture that is nearest to the landmark

    @cached_property
    def standing_px(self) -> float:
        """How tall the whole person would stand here, grid pixels: of half a person ``height_px`` is only half.

        From the landmarks' spread in the picture and in metres; ``height_px`` where nothing tells metres.
        """
        sure = (self.confidence > 0.5) & np.isfinite(self.world_m[:, 0]) & np.isfinite(self.landmarks_px[:, 0])
        if sure.sum() < 8:
            return self.height_px
        spread_m = float(np.sqrt(self.world_m[sure, :2].var(0).sum()))
        spread_px = float(np.sqrt(self.landmarks_px[sure].var(0).sum()))
        return float(np.clip(PERSON_M * spread_px / max(spread_m, 0.05), self.height_px, 3 * self.height_px))

    def with_sides_exchanged(self) -> Observation:
        """The same frame if the detector had taken left for right."""
        return self._with_landmarks(MIRROR)

    def with_legs_exchanged(self) -> Observation:
        """The same frame if the detector had taken one leg for the other, from the knees down."""
        return self._with_landmarks(LEG_MIRROR)

    def _with_landmarks(self, order: np.ndarray) -> Observation:
        return replace(
            self,
            landmarks_px=self.landmarks_px[order],
            confidence=self.confidence[order],
            visibility=self.visibility[order],
            world_m=self.world_m[order],
            outward=self.outward[order],
            edge_px=self.edge_px[order],
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
        color_from_depth = np.eye(4) if rig.depth_from_color is None else invert(rig.depth_from_color)
        camera = grid.fx_px, grid.fy_px, grid.cx_px, grid.cy_px
        surface_m = _splat(depth_mm, kept_rays(rig.depth), color_from_depth, mask, *camera, LAYER_M)
        normals = _surface_normals(surface_m)
    pixels = _ideal_pixels(landmarks_px, rig_color, grid)
    width, height = rig_color.image_wh
    with np.errstate(invalid="ignore"):
        # The detector moves landmarks that are out of view to the picture's edge: the edge is not believed.
        to_edges = landmarks_px, (width, height) - landmarks_px
        margin = EDGE * max(width, height)
        believed = np.clip(np.nan_to_num(np.minimum(*to_edges).min(-1)) / margin, 0, 1)
        # But it knows well enough that they are out of view, and beyond which edge.
        outward = (to_edges[1] < margin).astype(float) - (to_edges[0] < margin)
    rows = np.flatnonzero(_covered(mask)[0])
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
        outward=outward,
        edge_px=_ideal_pixels(np.clip(landmarks_px, 0, (width, height)), rig_color, grid),
    )


def outline_of(mask: np.ndarray, max_points: int) -> Outline:
    """The outer boundary of a boolean mask (h, w), evenly thinned to ``max_points``."""
    mask = np.ascontiguousarray(mask, bool)
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    long = [c[:, 0] for c in contours if len(c) >= 12]
    if not long:
        return Outline(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2), int))
    cells = np.concatenate(long)[:, ::-1]
    cells = cells[:: max(1, len(cells) // max_points)]
    border = _REACH, _TAPS - _REACH, _REACH, _TAPS - _REACH
    outward = _downhill(cv2.copyMakeBorder(mask.view(np.uint8), *border, cv2.BORDER_REFLECT_101), cells)
    length = np.linalg.norm(outward, axis=1)
    keep = length > 1e-3
    cells, outward = cells[keep], outward[keep] / length[keep, None]
    # The boundary runs half a cell outside the outermost covered centre.
    return Outline(cells[:, ::-1] + 0.5 + 0.5 * outward, outward, cells)


def _person_box(alpha: np.ndarray, margin: float = 0.12) -> tuple[float, float, float, float] | None:
    covered_rows, covered_columns = _covered(alpha)
    rows, columns = np.flatnonzero(covered_rows), np.flatnonzero(covered_columns)
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
    """The mask on the grid, averaged over a cell's size, and which cells the colour picture covers."""
    width, height = color.image_wh
    map_x, map_y = _picture_map(
        grid.image_wh, grid.fx_px, grid.fy_px, grid.cx_px, grid.cy_px,
        color.fx_px, color.fy_px, color.cx_px, color.cy_px, np.array(color.distortion, float),
    )  # fmt: skip
    margin = BORDER_PX
    inside = (map_x > margin) & (map_y > margin) & (map_x < width - margin) & (map_y < height - margin)
    cell_px = max(1, round(color.fx_px / grid.fx_px))
    # Only the part of the picture under the grid; what the blur reads beside it comes along.
    reach = cell_px + 2
    left, right = (int(np.clip(x, 0, width)) for x in (map_x.min() - reach, map_x.max() + reach))
    top, bottom = (int(np.clip(y, 0, height)) for y in (map_y.min() - reach, map_y.max() + reach))
    part = alpha[top:bottom, left:right]
    smooth = cv2.blur(part, (cell_px, cell_px)) if cell_px > 1 else part
    mask = cv2.remap(
        smooth, map_x - (0.5 + left), map_y - (0.5 + top), cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return mask, inside


def _ideal_pixels(points_px: np.ndarray, color: Camera, grid: Camera) -> np.ndarray:
    xy = (points_px - (color.cx_px, color.cy_px)) / (color.fx_px, color.fy_px)
    return undistort(xy, color.distortion) * (grid.fx_px, grid.fy_px) + (grid.cx_px, grid.cy_px)


def _true_outline(mask: np.ndarray, inside: np.ndarray) -> Outline:
    outline = outline_of(mask > 0.5, 240)
    keep = inside[outline.cells[:, 0], outline.cells[:, 1]]
    return Outline(outline.points_px[keep], outline.normals[keep], outline.cells[keep])


@njit(cache=True, nogil=True)
def _covered(alpha):  # type: ignore[no-untyped-def]
    """(H,) and (W,) bool: the rows and columns of a mask (H, W) in which somebody is."""
    height, width = alpha.shape
    rows, columns = np.zeros(height, np.bool_), np.zeros(width, np.bool_)
    for row in range(height):
        count = 0
        for column in range(width):
            covered = alpha[row, column] > 0.5
            columns[column] |= covered
            count += covered
        rows[row] = count > 0
    return rows, columns


@njit(cache=True, nogil=True)
def _picture_map(image_wh, fx, fy, cx, cy, color_fx, color_fy, color_cx, color_cy, distortion):  # type: ignore[no-untyped-def]
    """Where each cell of the grid lies in the colour picture: x and y (h, w) float32, lens as in ``camera.distort``."""
    width, height = image_wh
    k1, k2, p1, p2, k3 = distortion
    map_x, map_y = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    for row in range(height):
        y = (row + 0.5 - cy) / fy
        for column in range(width):
            x = (column + 0.5 - cx) / fx
            r2 = x * x + y * y
            radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
            map_x[row, column] = (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)) * color_fx + color_cx
            map_y[row, column] = (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) * color_fy + color_cy
    return map_x, map_y


@njit(cache=True, nogil=True)
def _downhill(mask, cells):  # type: ignore[no-untyped-def]
    """Minus the gradient (M, 2) in x and y of a mask at its cells (M, 2), row and column, by a separable filter.

    mask (h, w) uint8 with a border of ``_REACH`` cells before and more behind, which the cells do not count.
    """
    out = np.zeros((len(cells), 2))
    smoothed, sloped = np.empty(_TAPS), np.empty(_TAPS)
    for i in range(len(cells)):
        smoothed[:], sloped[:] = 0.0, 0.0
        for a in range(_TAPS - 1):
            line = mask[cells[i, 0] + a, cells[i, 1] : cells[i, 1] + _TAPS]
            for b in range(_TAPS):
                smoothed[b] += _SMOOTH[a] * line[b]
                sloped[b] += _SLOPE[a] * line[b]
        for b in range(_TAPS):
            out[i, 0] -= _SLOPE[b] * smoothed[b]
            out[i, 1] -= _SMOOTH[b] * sloped[b]
    return out


@njit(cache=True, nogil=True)
def _splat(depth_mm, rays, color_from_depth, mask, fx, fy, cx, cy, layer_m):  # type: ignore[no-untyped-def]
    """A depth picture (h', w') on the grid: the mean of the front-most points per cell where the mask says person.

    rays (h', w', 3) through the depth pixels at z = 1; returns (h, w, 3) metres in the colour camera's frame.
    """
    height, width = mask.shape
    is_moved = not np.array_equal(color_from_depth, np.eye(4))
    r, t = color_from_depth[:3, :3], color_from_depth[:3, 3]
    right, bottom = width - cx, height - cy
    nearest = np.full((height, width), np.inf)
    points_m = np.empty((depth_mm.size, 3))
    cell = np.empty(depth_mm.size, np.int32)
    count = 0
    for i in range(depth_mm.shape[0]):
        for k in range(depth_mm.shape[1]):
            if depth_mm[i, k] <= MIN_DEPTH_MM:
                continue
            z = depth_mm[i, k] * 1e-3
            x, y = rays[i, k, 0] * z, rays[i, k, 1] * z
            if is_moved:
                x, y, z = (
                    r[0, 0] * x + r[0, 1] * y + r[0, 2] * z + t[0],
                    r[1, 0] * x + r[1, 1] * y + r[1, 2] * z + t[1],
                    r[2, 0] * x + r[2, 1] * y + r[2, 2] * z + t[2],
                )
            # Most pixels look past the person: multiplying is cheaper than dividing.
            if not (z > 0 and -cx * z <= x * fx < right * z and -cy * z <= y * fy < bottom * z):
                continue
            column, row = int(np.floor(x / z * fx + cx)), int(np.floor(y / z * fy + cy))
            if 0 <= row < height and 0 <= column < width and mask[row, column] > 0.5:
                points_m[count, 0], points_m[count, 1], points_m[count, 2] = x, y, z
                cell[count] = row * width + column
                nearest[row, column] = min(nearest[row, column], z)
                count += 1
    out = np.zeros((height, width, 3))
    members = np.zeros((height, width), np.int32)
    for i in range(count):
        row, column = cell[i] // width, cell[i] % width
        if points_m[i, 2] < nearest[row, column] + layer_m:
            members[row, column] += 1
            for k in range(3):
                out[row, column, k] += points_m[i, k]
    for row in range(height):
        for column in range(width):
            for k in range(3):
                out[row, column, k] = out[row, column, k] / members[row, column] if members[row, column] else np.nan
    return out


@njit(cache=True, nogil=True)
def _surface_normals(surface_m):  # type: ignore[no-untyped-def]
    """Central differences over ``STEP`` cells; NaN beside holes and at depth edges, where flying pixels gather."""
    height, width = surface_m.shape[:2]
    out = np.full((height, width, 3), np.nan)
    for row in range(STEP, height - STEP):
        for column in range(STEP, width - STEP):
            if not np.isfinite(surface_m[row, column, 2]):
                continue
            east, west = surface_m[row, column + STEP], surface_m[row, column - STEP]
            south, north = surface_m[row + STEP, column], surface_m[row - STEP, column]
            ax, ay, az = east[0] - west[0], east[1] - west[1], east[2] - west[2]
            bx, by, bz = south[0] - north[0], south[1] - north[1], south[2] - north[2]
            if not (abs(az) <= MAX_JUMP_M and abs(bz) <= MAX_JUMP_M):  # nor where one of them is NaN
                continue
            x, y, z = by * az - bz * ay, bz * ax - bx * az, bx * ay - by * ax  # south x east, towards the camera: z < 0
            length = np.sqrt(x * x + y * y + z * z)
            if length > 1e-12:
                out[row, column, 0], out[row, column, 1], out[row, column, 2] = x / length, y / length, z / length
    return out
