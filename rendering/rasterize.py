"""Body to pixels: mesh + Camera -> part index, uv and normal at every pixel centre.

V vertices, F faces, H x W pixels, B images, K covered pixels in row-major order.  Enter: a body's surface and its
vertices in the camera's frame, metres.  Leave: what the networks eat.  Lens distortion acts on the vertices
(``capture.camera.project``); edges between them are straight in the picture.

``rasterize`` and ``rasterize_covered`` run on the CPU (numba), ``rendering.rasterize_torch`` on the GPU with the same
spans in the same order of operations, hence the same pixels.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from capture.camera import Camera, project
from fitting.body.skinning import vertex_normals
from fitting.zbuffer import draw, face_setups, visible_box

if TYPE_CHECKING:
    from fitting.body.model import BodyModel


@dataclass(frozen=True)
class Raster:
    """Dense planes of one image.  Where nothing was drawn part is 0 (background) and the other planes mean nothing."""

    part: np.ndarray  # (H, W) uint8, 0 = background
    uv: np.ndarray  # (H, W, 2) float32 in [0, 1]
    normal: np.ndarray  # (H, W, 3) float32, camera frame, unit
    inverse_z: np.ndarray | None = None  # (H, W) float32, 1 / metres; None when it was not kept

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool, True where the body is."""
        return self.part > 0

    @property
    def depth_m(self) -> np.ndarray:
        """(H, W) float32, NaN where nothing was drawn."""
        assert self.inverse_z is not None, "a stored raster keeps no depth"
        with np.errstate(divide="ignore"):
            return np.where(self.mask, 1 / self.inverse_z, np.float32(np.nan))


@dataclass(frozen=True)
class Covered:
    """The covered pixels of B images of one size, one image after another.  numpy arrays, or torch tensors."""

    image_wh: tuple[int, int]
    num_images: int
    image: np.ndarray  # (K,) int64 in 0..B-1, rising
    pixel: np.ndarray  # (K,) int64, row * W + column, rising within an image
    part: np.ndarray  # (K,) uint8 in 1..P
    uv: np.ndarray  # (K, 2) float32
    normal: np.ndarray  # (K, 3) float32, camera frame, unit


def rasterize(body: BodyModel, vertices_camera_m: np.ndarray, camera: Camera) -> Raster:
    """Vertices (V, 3) in the camera's frame to dense planes.  Faces nearer than 5 cm are dropped."""
    width, height = camera.image_wh
    # np.zeros leaves untouched pages unmapped, so the empty part of a large picture costs nothing.
    part, inverse_z = np.zeros(height * width, np.uint8), np.zeros(height * width, np.float32)
    uv, normal = np.zeros((height * width, 2), np.float32), np.zeros((height * width, 3), np.float32)
    pixel = np.empty(0, np.int64)
    _visible(body, vertices_camera_m, camera).shade(body, width, pixel, part, uv, normal, inverse_z)
    return Raster(
        part=part.reshape(height, width),
        uv=uv.reshape(height, width, 2),
        normal=normal.reshape(height, width, 3),
        inverse_z=inverse_z.reshape(height, width),
    )


def rasterize_covered(body: BodyModel, vertices_camera_m: np.ndarray, camera: Camera) -> Covered:
    """The same pixels as ``rasterize``, without the empty ones."""
    visible = _visible(body, vertices_camera_m, camera)
    count = int((visible.face_index >= 0).sum())
    pixel, part = np.empty(count, np.int64), np.empty(count, np.uint8)
    uv, normal = np.empty((count, 2), np.float32), np.empty((count, 3), np.float32)
    visible.shade(body, camera.image_wh[0], pixel, part, uv, normal, np.empty(0, np.float32))
    return Covered(camera.image_wh, 1, np.zeros(count, np.int64), pixel, part, uv, normal)


@dataclass(frozen=True)
class _Visible:
    """Which face every pixel of a box sees, and what to interpolate there.  Valid until the thread's next call."""

    left: int
    top: int
    face_index: np.ndarray  # (h, w) int32, -1 = none
    setups: np.ndarray  # (F, 16)
    planes: np.ndarray  # (F, 22) float32

    def shade(self, body: BodyModel, width: int, pixel, part, uv, normal, inverse_z) -> None:
        face_part = np.ascontiguousarray(body.face_part, np.uint8)
        place = (self.left, self.top, width)
        _shade(self.face_index, place, self.setups, self.planes, face_part, pixel, part, uv, normal, inverse_z)


def _visible(body: BodyModel, vertices_camera_m: np.ndarray, camera: Camera) -> _Visible:
    vertices = np.ascontiguousarray(vertices_camera_m, np.float64)
    faces, face_uv = np.ascontiguousarray(body.faces, np.int32), np.ascontiguousarray(body.face_uv, np.int32)
    points_px, depth_m = project(camera, vertices), np.ascontiguousarray(vertices[:, 2])
    box = visible_box(points_px, depth_m, camera.image_wh)
    left, top, right, bottom = box
    setups, rows = face_setups(points_px, depth_m, faces, box, False)
    face_index, inverse_z = _buffers((bottom - top, right - left))
    draw(setups, rows, left, top, face_index, inverse_z)
    uv = np.ascontiguousarray(body.uv, np.float32)
    planes = interpolants(setups, rows, faces, face_uv, uv, vertex_normals(vertices, faces))
    return _Visible(left, top, face_index, setups, planes)


_scratch = threading.local()


def _buffers(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Empty face_index and inverse_z.  Their memory is kept per thread: mapping it anew takes as long as drawing."""
    size = shape[0] * shape[1]
    if getattr(_scratch, "size", -1) < size:
        _scratch.size = size
        _scratch.face_index, _scratch.inverse_z = np.empty(size, np.int32), np.empty(size, np.float32)
    face_index, inverse_z = _scratch.face_index[:size].reshape(shape), _scratch.inverse_z[:size].reshape(shape)
    face_index.fill(-1)
    inverse_z.fill(0)
    return face_index, inverse_z


# A face's interpolants in float32: six planes (1/z, u/z, v/z and the normal / z), each its value at the top corner and
# its slopes in x and y; then the smallest and largest u and v.
_PLANES, _LIMITS = 18, 4


@njit(cache=True, nogil=True)
def interpolants(setups, rows, faces, face_uv, uv, normals):
    """(F, 22) float32 per face that spans a row, from ``fitting.zbuffer.face_setups`` and the tables of the surface."""
    out = np.empty((len(faces), _PLANES + _LIMITS), np.float32)
    values = np.empty((6, 3))
    for f in range(len(faces)):
        if rows[f, 0] >= rows[f, 1]:
            continue
        for c in range(3):
            values[0, c] = 1.0
            values[1, c], values[2, c] = uv[face_uv[f, c], 0], uv[face_uv[f, c], 1]
            for d in range(3):
                values[3 + d, c] = normals[faces[f, c], d]
        for n in range(6):
            for d in range(3):  # value, slope in x, slope in y
                inverse_z, first, second = setups[f, 6 + d], setups[f, 9 + d], setups[f, 12 + d]
                third = inverse_z - first - second
                out[f, 3 * n + d] = values[n, 0] * first + values[n, 1] * second + values[n, 2] * third
        for d in range(2):
            out[f, _PLANES + 2 * d] = min(values[1 + d, 0], values[1 + d, 1], values[1 + d, 2])
            out[f, _PLANES + 2 * d + 1] = max(values[1 + d, 0], values[1 + d, 1], values[1 + d, 2])
    return out


@njit(cache=True, nogil=True)
def _shade(face_index, place, setups, planes, face_part, pixel, part, uv, normal, inverse_z):
    """Interpolate at covered pixels.  An empty ``pixel`` asks for dense planes; else entry k is the k-th one."""
    left, top, width = place
    is_dense = len(pixel) == 0
    one = np.float32(1)
    count = 0
    for row in range(face_index.shape[0]):
        for column in range(face_index.shape[1]):
            f = face_index[row, column]
            if f < 0:
                continue
            at = (row + top) * width + column + left
            p = planes[f]
            dx = np.float32(column + left + 0.5 - setups[f, 0])
            dy = np.float32(row + top + 0.5 - setups[f, 3])
            nearness = p[0] + dx * p[1] + dy * p[2]
            if is_dense:
                inverse_z[at] = nearness
            else:
                pixel[count] = at
                at = count
                count += 1
            z = one / nearness
            part[at] = face_part[f]
            # Rounding must not carry uv outside the face: texels of a neighbouring chart lie there.
            uv[at, 0] = min(max((p[3] + dx * p[4] + dy * p[5]) * z, p[18]), p[19])
            uv[at, 1] = min(max((p[6] + dx * p[7] + dy * p[8]) * z, p[20]), p[21])
            x = p[9] + dx * p[10] + dy * p[11]
            y = p[12] + dx * p[13] + dy * p[14]
            z = p[15] + dx * p[16] + dy * p[17]
            scale = one / max(np.sqrt(x * x + y * y + z * z), np.float32(1e-12))
            normal[at, 0] = x * scale
            normal[at, 1] = y * scale
            normal[at, 2] = z * scale
