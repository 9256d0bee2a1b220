"""Draws the performer into the room: a small deferred renderer for one person, one lamp and soft ambient light.

V vertices, F faces, H x W output pixels, S = SAMPLES sub-samples along each axis.  Enters: posed vertices in the world,
a ``Backdrop``.  Leaves: linear light, the true soft alpha (sub-sample coverage), and z with reflectance for the depth
sensor.  Lens distortion is applied to the vertices: faces are a few pixels small, straight edges between them suffice.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

from capture.camera import Camera, project, transform
from demo.character import Character, vertex_normals
from demo.room import AMBIENT_LIGHT, LAMP, LAMP_LIGHT, Backdrop
from demo.shading import shade
from fitting.zbuffer import rasterize_faces

SAMPLES = 2  # colour sub-samples along each axis
SHADOW_TEXEL_M = 0.004
SHADOW_BIAS_M = 0.009
# Per material: highlight strength, sharpness, infrared albedo, how far light wraps round (skin scatters it).
SURFACES = {
    "skin": (0.10, 18.0, 0.62, 0.22),
    "eye": (0.55, 90.0, 0.40, 0.05),
    "hair": (0.22, 26.0, 0.20, 0.10),
    "shirt": (0.02, 8.0, 0.60, 0.08),
    "skirt": (0.03, 8.0, 0.42, 0.08),
    "legging": (0.05, 12.0, 0.26, 0.08),
    "trousers": (0.03, 8.0, 0.50, 0.08),
    "shoe": (0.12, 20.0, 0.50, 0.05),
}


@dataclass(frozen=True)
class Shot:
    """One posed performer, ready to be seen by any camera."""

    vertices_m: np.ndarray  # (V, 3) world
    normals: np.ndarray  # (V, 3)
    openness: np.ndarray  # (V,) float32, 1 = sees the whole sky
    blobs: np.ndarray  # (B, 4) spheres x, y, z, radius that stand for the body in soft shadows
    shadow: np.ndarray  # (T, T) float32 distance towards the lamp of the nearest surface, -inf none
    shadow_origin: np.ndarray  # (2,) world offset of the shadow map in the lamp's frame


LAMP_FRAME = np.linalg.qr(np.stack([LAMP, [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], axis=1))[0]
LAMP_FRAME = np.stack([LAMP_FRAME[:, 1], LAMP_FRAME[:, 2], LAMP], axis=0)  # rows: across, across, towards the lamp


def prepare(character: Character, vertices_m: np.ndarray, joints_m: np.ndarray) -> Shot:
    """Normals, soft shadows and the shadow map of one pose; joints (J, 3) world."""
    normals = vertex_normals(vertices_m, character.faces)
    blobs = body_blobs(character, joints_m)
    lamp = vertices_m @ LAMP_FRAME.T
    origin = lamp[:, :2].min(axis=0) - 0.02
    size = np.ceil((lamp[:, :2].max(axis=0) + 0.02 - origin) / SHADOW_TEXEL_M).astype(int)
    far = lamp[:, 2].max() + 1.0
    _, _, z = rasterize_faces(
        (lamp[:, :2] - origin) / SHADOW_TEXEL_M, far - lamp[:, 2], character.faces, (int(size[0]), int(size[1]))
    )
    shadow = np.where(np.isfinite(z), far - z, -np.inf).astype(np.float32)
    return Shot(vertices_m, normals, _openness(vertices_m, normals, blobs), blobs, shadow, origin)


def body_blobs(character: Character, joints_m: np.ndarray) -> np.ndarray:
    """(B, 4) spheres along the bones."""

    def at(name: str) -> np.ndarray:
        return joints_m[character.joint(name)]

    up = np.array([0, 0, 1.0])
    across = (at("upperleg01.L") - at("upperleg01.R")) * (1, 1, 0)
    forward = np.array([across[1], -across[0], 0]) / np.linalg.norm(across)
    blobs = [(at("head") + 0.07 * up, 0.10), (at("spine01"), 0.13), (at("spine03"), 0.13), (at("root"), 0.15)]
    for s in "LR":
        hip, knee, foot = at(f"upperleg01.{s}"), at(f"lowerleg01.{s}"), at(f"foot.{s}")
        elbow, wrist, shoulder = at(f"lowerarm01.{s}"), at(f"wrist.{s}"), at(f"upperarm01.{s}")
        blobs += [(0.6 * hip + 0.4 * knee, 0.085), (0.2 * hip + 0.8 * knee, 0.07), (0.5 * knee + 0.5 * foot, 0.055)]
        blobs += [
            (foot - 0.03 * up, 0.05),
            (0.5 * shoulder + 0.5 * elbow, 0.055),
            (0.5 * elbow + 0.5 * wrist, 0.045),
            (wrist, 0.04),
        ]
        toe = foot + 0.11 * forward
        blobs.append((np.array([toe[0], toe[1], 0.03]), 0.045))
    return np.array([[*centre, radius] for centre, radius in blobs])


def draw_color(character: Character, shot: Shot, camera: Camera, camera_from_world: np.ndarray, backdrop: Backdrop):
    """Linear light (H, W, 3) float32 of the whole picture and alpha (H, W) float32."""
    points = transform(camera_from_world, shot.vertices_m)
    pixels = project(camera, points)
    width, height = camera.image_wh
    low = np.clip(np.floor(pixels.min(axis=0)).astype(int) - 2, 0, (width, height))
    high = np.clip(np.ceil(pixels.max(axis=0)).astype(int) + 2, 0, (width, height))
    light = _backdrop_light(backdrop, shot)
    alpha = np.zeros((height, width), np.float32)
    wh = (int(high[0] - low[0]), int(high[1] - low[1]))
    if min(wh) <= 0:
        return light, alpha
    index, weights, _ = rasterize_faces(
        (pixels - low) * SAMPLES, points[:, 2], character.faces, (wh[0] * SAMPLES, wh[1] * SAMPLES)
    )
    eye = -camera_from_world[:3, :3].T @ camera_from_world[:3, 3]
    color = np.zeros((wh[1], wh[0], 3), np.float32)
    cover = np.zeros((wh[1], wh[0]), np.float32)
    pictures, starts, shapes = _texture_stack(character)
    surfaces = np.array([SURFACES[m] for m in character.materials])
    shade(
        index, weights, character.faces, character.face_uv, character.uv, character.material, pictures, starts, shapes,
        surfaces, shot.vertices_m, shot.normals, shot.openness, eye, LAMP, LAMP_FRAME, LAMP_LIGHT, AMBIENT_LIGHT,
        shot.shadow, shot.shadow_origin, SHADOW_TEXEL_M, SHADOW_BIAS_M, SAMPLES, _LINEAR, color, cover,
    )  # fmt: skip
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    alpha[window] = cover
    light[window] = light[window] * (1 - cover[..., None]) + color
    return light, alpha


_LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)
_stack_cache: dict[int, tuple] = {}


def _texture_stack(character: Character):
    """All textures in one flat array, for the compiled shader."""
    key = id(character)
    if key not in _stack_cache:
        _stack_cache.clear()
        shapes = np.array([t.shape[:2] for t in character.textures], np.int64)
        starts = np.cumsum([0, *(int(h) * int(w) for h, w in shapes)])[:-1].astype(np.int64)
        _stack_cache[key] = (np.concatenate([t.reshape(-1, 3) for t in character.textures]), starts, shapes)
    return _stack_cache[key]


def _backdrop_light(backdrop: Backdrop, shot: Shot) -> np.ndarray:
    """The room with the performer's shadow: sharp near her feet, softer farther away."""
    cover = np.isfinite(shot.shadow).astype(np.float32)
    pad = 60
    cover = cv2.copyMakeBorder(cover, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    levels = np.stack([cv2.GaussianBlur(cover, (0, 0), s) for s in (2.5, 9.0, 22.0)])
    light = np.empty_like(backdrop.ambient)
    _shadowed(
        backdrop.ambient, backdrop.lamp, backdrop.points_m, backdrop.is_floor, LAMP_FRAME, levels,
        shot.shadow_origin - pad * SHADOW_TEXEL_M, SHADOW_TEXEL_M, shot.blobs, light,
    )  # fmt: skip
    return light


@njit(cache=True)
def _shadowed(ambient, lamp, points, is_floor, frame, levels, origin, texel, blobs, light):
    height, width = is_floor.shape
    rows, columns = levels.shape[1:]
    middle = np.zeros(2)
    for b in range(len(blobs)):
        middle[0] += blobs[b, 0] / len(blobs)
        middle[1] += blobs[b, 1] / len(blobs)
    for i in range(height):
        for j in range(width):
            x, y, z = points[i, j, 0], points[i, j, 1], points[i, j, 2]
            u = (frame[0, 0] * x + frame[0, 1] * y + frame[0, 2] * z - origin[0]) / texel - 0.5
            v = (frame[1, 0] * x + frame[1, 1] * y + frame[1, 2] * z - origin[1]) / texel - 0.5
            shade = 0.0
            iu, iv = int(np.floor(u)), int(np.floor(v))
            away = np.sqrt((x - middle[0]) ** 2 + (y - middle[1]) ** 2)
            if 0 <= iu < columns - 1 and 0 <= iv < rows - 1:
                # Penumbra grows with the way from the feet: choose between three blurs.
                level = min(max(away / 0.8, 0.0), 1.999)
                first = int(level)
                mix = level - first
                fu, fv = u - iu, v - iv
                for n in range(2):
                    m = levels[first + n]
                    value = (m[iv, iu] * (1 - fu) + m[iv, iu + 1] * fu) * (1 - fv) + (
                        m[iv + 1, iu] * (1 - fu) + m[iv + 1, iu + 1] * fu
                    ) * fv
                    shade += value * (mix if n == 1 else 1 - mix)
            open_sky = 1.0
            if is_floor[i, j] and away < 1.4:
                for b in range(len(blobs)):
                    dx, dy, dz = blobs[b, 0] - x, blobs[b, 1] - y, blobs[b, 2] - z
                    d2 = dx * dx + dy * dy + dz * dz
                    r2 = blobs[b, 3] ** 2
                    open_sky *= 1 - 0.8 * min(max(dz, 0.0) / np.sqrt(d2) * r2 / max(d2, r2), 1.0)
            for k in range(3):
                light[i, j, k] = ambient[i, j, k] * open_sky + lamp[i, j, k] * (1 - shade)


@njit(cache=True)
def _openness(vertices, normals, blobs):
    out = np.empty(len(vertices), np.float32)
    for v in range(len(vertices)):
        sky = 0.5 + 0.5 * (0.5 + 0.5 * normals[v, 2])  # the floor is darker than the ceiling
        for b in range(len(blobs)):
            dx, dy, dz = blobs[b, 0] - vertices[v, 0], blobs[b, 1] - vertices[v, 1], blobs[b, 2] - vertices[v, 2]
            d = np.sqrt(dx * dx + dy * dy + dz * dz)
            r = blobs[b, 3]
            # A sphere that the vertex sits on is its own body part: fade it out.
            foreign = min(max((d - 1.15 * r) / (0.35 * r), 0.0), 1.0)
            facing = (normals[v, 0] * dx + normals[v, 1] * dy + normals[v, 2] * dz) / max(d, 1e-6)
            sky *= 1 - foreign * max(facing, 0.0) * min(r * r / max(d * d, r * r), 1.0)
        out[v] = sky
    return out


def draw_depth(character: Character, shot: Shot, camera: Camera, camera_from_world: np.ndarray, samples: int):
    """z (H*s, W*s) float32 metres and reflectance, of the performer alone; inf where she is not."""
    points = transform(camera_from_world, shot.vertices_m)
    wh = (camera.image_wh[0] * samples, camera.image_wh[1] * samples)
    index, weights, z = rasterize_faces(project(camera, points) * samples, points[:, 2], character.faces, wh)
    normals = shot.normals @ camera_from_world[:3, :3].T
    albedo = np.array([SURFACES[m][2] for m in character.materials])[character.material]
    return z, _reflect(index, weights, character.faces, normals, points, albedo)


@njit(cache=True)
def _reflect(index, weights, faces, normals, points, albedo):
    out = np.zeros(index.shape, np.float32)
    for i in range(index.shape[0]):
        for j in range(index.shape[1]):
            f = index[i, j]
            if f < 0:
                continue
            w0, w1 = weights[i, j, 0], weights[i, j, 1]
            dot, length = 0.0, 0.0
            for k in range(3):
                n = (
                    w0 * normals[faces[f, 0], k]
                    + w1 * normals[faces[f, 1], k]
                    + (1 - w0 - w1) * normals[faces[f, 2], k]
                )
                p = points[faces[f, 0], k]
                dot += n * p
                length += p * p
            out[i, j] = albedo[f] * abs(dot) / np.sqrt(length)
    return out
