"""The rasteriser on the GPU: the spans of ``fitting.zbuffer`` in the same order of operations, hence the same pixels.

B images of H x W pixels, V vertices, F faces, R rows of faces, K covered pixels.  Plain tensor operations, so it needs
no compiler and runs (and is tested) on the CPU too.  Every face spreads into its rows, every row into its pixels; the
nearest face wins by an integer maximum over (1/z, face), which is exact and does not depend on the order of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from capture.camera import Camera
from fitting.zbuffer import MIN_AREA_PX2, NEAR_M
from rendering.rasterize import Covered

if TYPE_CHECKING:
    from fitting.body.model import BodyModel

Planes = torch.Tensor  # (..., 3): value at the top corner, slope in x, slope in y
FACE_BITS = 31  # 1/z as float32 bits above, face below, in one int64


@dataclass(frozen=True)
class TorchSurface:
    """A body's tables on a device."""

    faces: torch.Tensor  # (F, 3) int64
    corner_uv: torch.Tensor  # (F, 3, 2) float64
    face_part: torch.Tensor  # (F,) uint8

    @staticmethod
    def of(body: BodyModel, device: torch.device | str) -> TorchSurface:
        return TorchSurface(
            faces=torch.as_tensor(np.asarray(body.faces, np.int64), device=device),
            corner_uv=torch.as_tensor(np.asarray(body.uv, np.float32)[body.face_uv], device=device).double(),
            face_part=torch.as_tensor(np.asarray(body.face_part, np.uint8), device=device),
        )


def rasterize_torch(surface: TorchSurface, vertices_camera_m: torch.Tensor, cameras: Sequence[Camera]) -> Covered:
    """Vertices (B, V, 3) in their cameras' frames, one camera per image and all of one size, to covered pixels.

    The tensors of the result lie on the device of the vertices.
    """
    image_wh = cameras[0].image_wh
    assert len(cameras) == len(vertices_camera_m) and all(camera.image_wh == image_wh for camera in cameras)
    width, height = image_wh
    num_images, num_faces = len(cameras), len(surface.faces)
    vertices = vertices_camera_m.double()
    points_px = project(cameras, vertices)
    faces = surface.faces
    corners = torch.stack([points_px[:, faces, 0], points_px[:, faces, 1], vertices[:, faces, 2]], -1)
    corners = corners.reshape(-1, 3, 3)  # (B F, corner, x y z)
    boxes = _boxes(points_px, vertices[..., 2], image_wh).repeat_interleave(num_faces, 0)
    setup = _Setup.of(corners, boxes)

    nearest = torch.zeros(num_images * height * width, dtype=torch.int64, device=vertices.device)
    face, row, column, inverse_z = _pixels(setup, boxes)
    key = (inverse_z.view(torch.int32).long() << FACE_BITS) | (2**FACE_BITS - 1 - face)
    at = (torch.div(face, num_faces, rounding_mode="floor") * height + row) * width + column
    nearest.scatter_reduce_(0, at, torch.where(inverse_z > 0, key, 0), "amax")

    at = torch.nonzero(nearest).squeeze(1)  # (K,)
    face = 2**FACE_BITS - 1 - (nearest[at] & (2**FACE_BITS - 1))
    image = torch.div(at, height * width, rounding_mode="floor")
    pixel = at - image * (height * width)
    uv, normal = _shade(surface, setup, vertices, face, pixel, width)
    return Covered(image_wh, num_images, image, pixel, surface.face_part[face % num_faces], uv, normal)  # type: ignore[arg-type]


def project(cameras: Sequence[Camera], points_m: torch.Tensor) -> torch.Tensor:
    """``capture.camera.project`` for one camera per image: points (B, N, 3) to pixels (B, N, 2), NaN behind."""

    def column(values: list) -> torch.Tensor:
        return torch.tensor(values, dtype=points_m.dtype, device=points_m.device)[:, None]

    z = torch.where(points_m[..., 2] > 1e-6, points_m[..., 2], torch.nan)
    x, y = points_m[..., 0] / z, points_m[..., 1] / z
    if any(any(camera.distortion) for camera in cameras):
        k1, k2, p1, p2, k3 = (column([camera.distortion[k] for camera in cameras]) for k in range(5))
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        x, y = (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )
    u = x * column([camera.fx_px for camera in cameras]) + column([camera.cx_px for camera in cameras])
    v = y * column([camera.fy_px for camera in cameras]) + column([camera.cy_px for camera in cameras])
    return torch.stack([u, v], -1)


def _boxes(points_px: torch.Tensor, depth_m: torch.Tensor, image_wh: tuple[int, int]) -> torch.Tensor:
    """(B, 4) float64 left, top, right, bottom: ``fitting.zbuffer.visible_box`` of each image."""
    valid = ((depth_m > NEAR_M) & points_px.isfinite().all(-1))[..., None]
    low = torch.where(valid, points_px, torch.inf).amin(1).floor().clamp(-1e6, 1e6)
    high = torch.where(valid, points_px, -torch.inf).amax(1).ceil().clamp(-1e6, 1e6)
    size = torch.tensor(image_wh, dtype=low.dtype, device=low.device)
    return torch.cat([low.clamp(min=0), torch.minimum(high, size)], -1)


@dataclass(frozen=True)
class _Setup:
    """``fitting.zbuffer.face_setups`` for all faces at once; everything (B F, ...) float64 unless noted."""

    x: torch.Tensor  # (B F, 3) corners sorted downwards
    y: torch.Tensor
    middle_is_left: torch.Tensor  # bool
    weights: torch.Tensor  # (B F, 3, 3): planes of the three corners' barycentric / z
    first_row: torch.Tensor  # int64
    num_rows: torch.Tensor  # int64, 0 for dropped faces

    @staticmethod
    def of(corners: torch.Tensor, boxes: torch.Tensor) -> _Setup:
        x, y, z = corners.unbind(-1)
        area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
        left, top, right, bottom = boxes.unbind(-1)
        valid = ((z > NEAR_M) & corners.isfinite().all(-1)).all(-1)
        valid &= (area.abs() > MIN_AREA_PX2) & area.isfinite()
        valid &= (x.amax(-1) > left) & (x.amin(-1) < right) & (y.amax(-1) > top) & (y.amin(-1) < bottom)
        x, y = torch.where(valid[:, None], x, 0), torch.where(valid[:, None], y, 0)
        iz, area = torch.where(valid[:, None], 1 / z, 0), torch.where(valid, area, 1)
        slope_x = torch.stack([y[:, 1] - y[:, 2], y[:, 2] - y[:, 0], y[:, 0] - y[:, 1]], -1) / area[:, None] * iz
        slope_y = torch.stack([x[:, 2] - x[:, 1], x[:, 0] - x[:, 2], x[:, 1] - x[:, 0]], -1) / area[:, None] * iz
        order = _downwards(x, y)
        value = torch.where(torch.arange(3, device=x.device) == order[:, :1], iz, 0)
        x, y = x.gather(1, order), y.gather(1, order)
        turn = (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0]) - (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0])
        first_row = torch.maximum(y[:, 0] - 0.5, top).ceil().long()
        end_row = torch.minimum(y[:, 2] - 0.5, bottom).ceil().long()
        num_rows = torch.where(valid, end_row - first_row, 0).clamp(min=0)
        return _Setup(x, y, turn > 0, torch.stack([value, slope_x, slope_y], -1), first_row, num_rows)

    @property
    def inverse_z(self) -> Planes:
        """(B F, 3), summed in the order of the CPU."""
        return self.weights[:, 0] + self.weights[:, 1] + self.weights[:, 2]


def _downwards(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(N, 3) int64: each face's corners by y, then by x."""
    by_x = torch.argsort(x, dim=1, stable=True)
    return by_x.gather(1, torch.argsort(y.gather(1, by_x), dim=1, stable=True))


def _spread(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Item i repeated counts[i] times: which item, and which repetition of it."""
    item = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return item, torch.arange(len(item), device=counts.device) - (counts.cumsum(0) - counts)[item]


def _pixels(setup: _Setup, boxes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Every pixel of every face: face, row, column (int64) and 1/z (float32), before the depth test."""
    face, step = _spread(setup.num_rows)  # (R,)
    row = setup.first_row[face] + step
    y = row + 0.5
    (xa, xb, xc), (ya, yb, yc) = setup.x[face].unbind(-1), setup.y[face].unbind(-1)
    long_x = xa + (y - ya) * ((xc - xa) / (yc - ya))
    upper, lower = yb > ya, yc > yb
    upper_slope = torch.where(upper, (xb - xa) / torch.where(upper, yb - ya, 1), 0)
    lower_slope = torch.where(lower, (xc - xb) / torch.where(lower, yc - yb, 1), 0)
    short_x = torch.where(y < yb, xa + (y - ya) * upper_slope, xb + (y - yb) * lower_slope)
    is_left = setup.middle_is_left[face]
    left_x, right_x = torch.where(is_left, short_x, long_x), torch.where(is_left, long_x, short_x)
    left, right = boxes[face, 0], boxes[face, 2]
    begin = torch.minimum(torch.maximum(left_x - 0.5, left), right).ceil().long()
    end = torch.maximum(torch.minimum(right_x - 0.5, right), left).ceil().long()
    plane = setup.inverse_z[face]
    start = (plane[:, 0] + (begin + 0.5 - xa) * plane[:, 1] + (y - ya) * plane[:, 2]).float()
    slope = plane[:, 1].float()

    span, i = _spread((end - begin).clamp(min=0))  # (pixels,)
    return face[span], row[span], begin[span] + i, start[span] + i.float() * slope[span]


def _shade(
    surface: TorchSurface, setup: _Setup, vertices: torch.Tensor, face: torch.Tensor, pixel: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """uv (K, 2) and normal (K, 3), float32, of the faces (K,) that won."""
    num_faces = len(surface.faces)
    normals = _vertex_normals(vertices, surface.faces)
    weights = setup.weights[face]  # (K, corner, plane)
    corner_uv = surface.corner_uv[face % num_faces]  # (K, corner, 2)
    image = torch.div(face, num_faces, rounding_mode="floor")
    corner_normal = normals[image[:, None], surface.faces[face % num_faces]]  # (K, corner, 3)
    dx = (pixel % width + 0.5 - setup.x[face, 0]).float()
    dy = (torch.div(pixel, width, rounding_mode="floor") + 0.5 - setup.y[face, 0]).float()

    def at_pixel(values: torch.Tensor) -> torch.Tensor:
        first, second, third = (values[:, c, None] * weights[:, c] for c in range(3))
        planes = (first + second + third).float()
        return planes[:, 0] + dx * planes[:, 1] + dy * planes[:, 2]

    z = 1 / at_pixel(torch.ones_like(corner_uv[..., 0]))
    uv = torch.stack([at_pixel(corner_uv[..., d]) * z for d in range(2)], -1)
    uv = uv.clamp(corner_uv.amin(1).float(), corner_uv.amax(1).float())
    normal = torch.stack([at_pixel(corner_normal[..., d]) for d in range(3)], -1)
    return uv, normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def _vertex_normals(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """(B, V, 3) float64: area-weighted means of the faces around a vertex, as ``fitting.body.skinning`` has them."""
    a, b, c = (vertices[:, faces[:, i]] for i in range(3))
    per_face = torch.cross(b - a, c - a, dim=-1)
    normals = torch.zeros_like(vertices)
    for i in range(3):
        normals.index_add_(1, faces[:, i], per_face)
    return normals / normals.norm(dim=-1, keepdim=True).clamp(min=1e-30)
