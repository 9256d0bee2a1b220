"""The colours of an avatar on its texture: what its networks paint from all sides, put back on the skin.

K texels that lie in a chart, V vertices, T texels per side, h x w pixels of a crop.  Enters: an avatar alone, no
recording.  For programs that know meshes and pictures but no networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from capture.camera import Camera, project
from fitting.body.model import BodyModel
from fitting.body.skinning import vertex_normals
from fitting.zbuffer import rasterize_faces
from rendering import close_up as closer
from rendering.avatar import Avatar, surface_of
from rendering.framing import person_box
from rendering.networks import RGB
from rendering.pasting import Box
from rendering.poses import standing
from rendering.rasterize import Raster, rasterize, rasterize_covered
from rendering.texels import DETAIL_STEP, push_pull
from rendering.viewpoints import View, orbit

AZIMUTHS, ELEVATIONS = 16, np.radians([-15, 10, 35])  # about what was filmed; from above, networks guess
IMAGE_WH = (600, 960)
SHARPNESS = 24  # how much head-on views count for more than slanted ones: cosine to this power
LEAST_WEIGHT = 1e-3  # of a texel: less was hardly seen
MIN_MASK = 0.9  # less opaque is half background
BEHIND_M = 0.02  # a texel this far behind what the camera sees is hidden
MOST_ROWS = 32_000  # that OpenCV's remap takes


@dataclass(frozen=True)
class _Skin:
    """Where the texels lie on the body."""

    texel: np.ndarray  # (K,) flat index into T * T
    corners: np.ndarray  # (K, 3) vertices
    weights: np.ndarray  # (K, 3)

    @staticmethod
    def of(body: BodyModel, texture_px: int) -> _Skin:
        face, share, _ = rasterize_faces(
            body.uv * texture_px, np.ones(len(body.uv)), body.face_uv, (texture_px, texture_px)
        )
        texel = np.flatnonzero(face >= 0)
        share = share.reshape(-1, 2)[texel]
        weights = np.column_stack([share, 1 - share.sum(axis=1)])
        return _Skin(texel, body.faces[face.reshape(-1)[texel]], weights)

    def at(self, values: np.ndarray) -> np.ndarray:
        """(K, 3) of what vertices (V, 3) have."""
        return np.einsum("kc,kcd->kd", self.weights, values[self.corners])


def baked_colors(avatar: Avatar, subject: str, texture_px: int) -> np.ndarray:
    """(T, T, 3) uint8 sRGB: the person standing, seen from ``AZIMUTHS`` sides at each of ``ELEVATIONS``.

    The head is seen by close-up, where there is one, and everything with its detail.  Texels that no view shows are
    filled from their neighbours, and so is what lies between the charts.
    """
    skin = _Skin.of(avatar.bodies[subject].body, texture_px)
    total = _baked(avatar, subject, skin, person_box)
    close, head = avatar.close_up_of(subject), closer.head_vertices(avatar.bodies[subject].body)
    if close is not None and head is not None:

        def head_box(vertices_m: np.ndarray, camera: Camera, crop_wh: tuple[int, int]) -> Box | None:
            return person_box(vertices_m[head], camera, crop_wh, closer.MARGINS)

        sharper = _baked(close, subject, skin, head_box)
        is_head = np.isin(skin.corners, head).all(axis=1) & (sharper[:, RGB] > LEAST_WEIGHT)
        total[is_head] = sharper[is_head]
    weight = np.zeros(texture_px * texture_px, np.float32)
    colors = np.zeros((texture_px * texture_px, RGB), np.float32)
    weight[skin.texel] = total[:, RGB] > LEAST_WEIGHT
    colors[skin.texel] = total[:, :RGB] / np.maximum(total[:, RGB:], 1e-9)
    shape_hw = (texture_px, texture_px)
    filled = push_pull(colors.reshape(*shape_hw, RGB), weight.reshape(shape_hw))
    texture = avatar.textures[subject]
    if texture.detail is not None:  # it lies on the skin as it is
        detail = texture.detail_level(0) * np.float32(DETAIL_STEP)
        way = cv2.INTER_AREA if detail.shape[0] > texture_px else cv2.INTER_LINEAR
        filled = filled + cv2.resize(detail, shape_hw, interpolation=way)
    return np.rint(filled * 255).clip(0, 255).astype(np.uint8)


def _baked(
    avatar: Avatar,
    subject: str,
    skin: _Skin,
    box_of: Callable[[np.ndarray, Camera, tuple[int, int]], Box | None],
) -> np.ndarray:
    """(K, 4) weighted colours and their weights from all views; ``box_of`` vertices (V, 3), camera and crop size says
    what is painted."""
    shape = avatar.bodies[subject]
    pose, world_from_body = standing(shape)
    total = np.zeros((len(skin.texel), RGB + 1), np.float32)
    for view in _views(shape.vertices_camera_m(pose, world_from_body)):
        vertices_m = shape.vertices_camera_m(pose, view.camera_from_world @ world_from_body)
        box = box_of(vertices_m, view.camera, avatar.image_wh)
        assert box is not None  # the camera looks at the person
        crop = view.camera.crop(box, avatar.image_wh)
        image, mask, _ = avatar.render_raster(subject, surface_of(rasterize_covered(shape.body, vertices_m, crop)))
        painted = np.concatenate([(image[0].cpu().numpy() + 1) / 2, mask[0].cpu().numpy()])  # (4, h, w)
        normals = vertex_normals(vertices_m, shape.body.faces)
        seen = rasterize(shape.body, vertices_m, crop)
        total += _seen_by(crop, seen, painted, skin.at(vertices_m), skin.at(normals))
    return total


def _seen_by(camera: Camera, seen: Raster, painted: np.ndarray, points_m: np.ndarray, normals: np.ndarray):
    """(K, 4) weighted colour and weight that one view gives to texels at ``points_m`` (K, 3), in its own frame."""
    assert seen.inverse_z is not None
    x, y = np.asarray(project(camera, points_m) - 0.5, np.float32).T[..., None]  # (K, 1)
    planes = np.ascontiguousarray(np.concatenate([painted, seen.inverse_z[None]]).transpose(1, 2, 0), np.float32)
    found = np.concatenate(
        [
            cv2.remap(planes, x[begin : begin + MOST_ROWS], y[begin : begin + MOST_ROWS], cv2.INTER_LINEAR)[:, 0]
            for begin in range(0, len(x), MOST_ROWS)
        ]
    )
    ray = -points_m / np.linalg.norm(points_m, axis=1, keepdims=True)
    facing = np.maximum((normals * ray).sum(axis=1), 0)
    is_seen = points_m[:, 2] < 1 / np.maximum(found[:, 4], 1e-3) + BEHIND_M
    weight = np.where(is_seen & (found[:, 3] > MIN_MASK), facing**SHARPNESS, 0)[:, None]
    return np.concatenate([found[:, :RGB], np.ones_like(weight)], axis=1) * weight


def _views(vertices_world_m: np.ndarray) -> list[View]:
    """Around the person, at several heights."""
    low, high = vertices_world_m.min(axis=0), vertices_world_m.max(axis=0)
    target, height_m = np.tile((low + high) / 2, (AZIMUTHS, 1)), float(high[2] - low[2])
    azimuths, facing = np.arange(AZIMUTHS) * 2 * np.pi / AZIMUTHS, np.array([0.0, -1.0, 0.0])
    rings = [orbit(target, azimuths, height_m, facing, IMAGE_WH, float(angle)) for angle in ELEVATIONS]
    return [view for ring in rings for view in ring]
