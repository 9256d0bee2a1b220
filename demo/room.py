"""The room behind the performer: boxes with painted faces, ray cast once per film because nothing in it moves.

H x W pixels, S x S samples a pixel.  World: z up, floor at 0, the camera looks along +y.  Enters: a camera and where it
stands.  Leaves, linear light per pixel: what ambient light shows, what the lamp adds, where the lamp hits; and depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

from capture.camera import Camera
from demo.decor import paint

LAMP = np.array([-0.42, -0.62, 0.80]) / np.linalg.norm(
    [-0.42, -0.62, 0.80]
)  # towards the lamp: above, behind the camera's left
LAMP_LIGHT = np.array([1.02, 0.98, 0.90])
AMBIENT_LIGHT = np.array([0.50, 0.53, 0.58])


@dataclass(frozen=True)
class Box:
    low_m: tuple[float, float, float]
    high_m: tuple[float, float, float]
    textures: tuple[str, str, str]  # for faces across x, y, z
    repeat_m: float  # a texture's side; 0 = stretched over the face


ROOM = Box((-2.75, -3.6, 0.0), (2.55, 1.75, 2.75), ("wall", "wall", "floor"), 1.6)
FURNITURE = (
    Box((-2.35, 1.22, 0.0), (-0.95, 1.75, 0.82), ("wood", "drawers", "wood"), 0.0),
    Box((-2.2, 1.35, 0.82), (-1.95, 1.6, 1.12), ("crate", "crate", "crate"), 0.4),
    Box((-1.62, 1.33, 0.82), (-1.16, 1.50, 1.06), ("books", "books", "plain"), 0.0),
    Box((0.55, 1.71, 1.15), (1.45, 1.75, 2.25), ("plain", "poster", "plain"), 0.0),
    Box((1.72, 0.55, 0.0), (2.55, 1.35, 0.43), ("sofa", "sofa", "sofa"), 0.5),
    Box((2.33, 0.55, 0.43), (2.55, 1.35, 0.88), ("sofa", "sofa", "sofa"), 0.5),
    Box((-2.75, -0.9, 0.95), (-2.72, 0.35, 2.1), ("window", "plain", "plain"), 0.0),
    Box((-2.75, 1.73, 0.0), (2.55, 1.75, 0.09), ("plain", "plain", "plain"), 0.0),
    Box((-1.5, -1.5, 0.0), (1.5, 1.05, 0.006), ("rug", "rug", "rug"), 0.0),
)


@dataclass(frozen=True)
class Backdrop:
    """The empty room through one camera."""

    ambient: np.ndarray  # (H, W, 3) float32 linear light
    lamp: np.ndarray  # (H, W, 3) float32 linear light the lamp adds when nobody stands in its way
    points_m: np.ndarray  # (H, W, 3) float32 world
    is_floor: np.ndarray  # (H, W) bool

    def save(self, path: Path) -> None:
        np.savez(path, **{name: getattr(self, name) for name in ("ambient", "lamp", "points_m", "is_floor")})

    @staticmethod
    def load(path: Path) -> Backdrop:
        with np.load(path, allow_pickle=False) as arrays:
            return Backdrop(**{name: arrays[name] for name in ("ambient", "lamp", "points_m", "is_floor")})


def look(
    camera: Camera, world_from_camera: np.ndarray, samples: int = 2, shadow_rays: int = 4, seed: int = 0
) -> Backdrop:
    """Ray cast the room."""
    height, width = camera.image_wh[::-1]
    rng = np.random.default_rng(seed)
    lows, highs, skins, repeats, textures = _scene()
    jitter = rng.uniform(-0.05, 0.05, (samples * samples, shadow_rays, 3))
    ambient, lamp = np.zeros((height, width, 3), np.float32), np.zeros((height, width, 3), np.float32)
    rotation, origin = world_from_camera[:3, :3], world_from_camera[:3, 3]
    for sample in range(samples * samples):
        shift = ((sample % samples + 0.5) / samples - 0.5, (sample // samples + 0.5) / samples - 0.5)
        moved = camera.crop((shift[0], shift[1], width + shift[0], height + shift[1]), camera.image_wh)
        rays = _rays(moved, rotation)
        _shade(rays, origin, lows, highs, skins, repeats, textures, LAMP, jitter[sample], ambient, lamp)
    rays = _rays(camera, rotation)
    _, points, _ = _measure(rays, origin, lows, highs, skins, repeats, textures)
    scale = 1.0 / samples**2
    return Backdrop(
        ambient=(ambient * (AMBIENT_LIGHT * scale)).astype(np.float32),
        lamp=(lamp * (LAMP_LIGHT * scale)).astype(np.float32),
        points_m=points,
        is_floor=points[..., 2] < 0.02,
    )


def measure(camera: Camera, world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth (H, W) float32 metres along the camera's axis, and infrared albedo times cosine (H, W) float32."""
    rays = _rays(camera, world_from_camera[:3, :3])
    depth, _, reflect = _measure(rays, world_from_camera[:3, 3], *_scene())
    return depth, reflect


def _scene() -> tuple[np.ndarray, ...]:
    """The boxes as arrays: lows, highs (B, 3), texture of each axis (B, 3), repeats (B,), textures (K, T, T, 3)."""
    textures, names = paint(np.random.default_rng(5))
    boxes = (ROOM, *FURNITURE)
    lows, highs = np.array([b.low_m for b in boxes]), np.array([b.high_m for b in boxes])
    skins = np.array([[names.index(t) for t in b.textures] for b in boxes])
    return lows, highs, skins, np.array([b.repeat_m for b in boxes]), textures


def _rays(camera: Camera, world_from_camera: np.ndarray) -> np.ndarray:
    """(H, W, 3) world directions of depth 1 along the camera's axis; ``capture.camera.pixel_rays``, compiled."""
    numbers = np.array([camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px, *camera.distortion])
    return _cast(*camera.image_wh, numbers, np.ascontiguousarray(world_from_camera))


@njit(cache=True)
def _cast(width, height, numbers, rotation):
    fx, fy, cx, cy, k1, k2, p1, p2, k3 = numbers
    rays = np.empty((height, width, 3))
    for i in range(height):
        for j in range(width):
            dx, dy = (j + 0.5 - cx) / fx, (i + 0.5 - cy) / fy
            x, y = dx, dy
            for _ in range(12):
                r2 = x * x + y * y
                radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
                step_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) - dx
                step_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y - dy
                x, y = x - step_x, y - step_y
                if step_x * step_x + step_y * step_y < 1e-16:
                    break
            for k in range(3):
                rays[i, j, k] = rotation[k, 0] * x + rotation[k, 1] * y + rotation[k, 2]
    return rays


@njit(cache=True)
def _hit(ray, origin, lows, highs):
    """Nearest box: its index, the axis of the face, the ray parameter.  Box 0 is the room, seen from inside."""
    best, box, axis = 1e9, 0, 0
    for b in range(len(lows)):
        near, far, near_axis, far_axis = -1e9, 1e9, 0, 0
        missed = False
        for k in range(3):
            direction = ray[k] if abs(ray[k]) > 1e-12 else 1e-12
            t0, t1 = (lows[b, k] - origin[k]) / direction, (highs[b, k] - origin[k]) / direction
            if t0 > t1:
                t0, t1 = t1, t0
            if t0 > near:
                near, near_axis = t0, k
            if t1 < far:
                far, far_axis = t1, k
            if near > far:
                missed = True
                break
        if missed:
            continue
        if b == 0:
            if 1e-4 < far < best:
                best, box, axis = far, b, far_axis
        elif 1e-4 < near < best:
            best, box, axis = near, b, near_axis
    return box, axis, best


@njit(cache=True)
def _albedo(point, box, axis, lows, highs, skins, repeats, textures, color):
    a, b = (1, 2) if axis == 0 else ((0, 2) if axis == 1 else (0, 1))
    if repeats[box] > 0:
        u, v = point[a] / repeats[box], -point[b] / repeats[box]
    else:
        u = (point[a] - lows[box, a]) / (highs[box, a] - lows[box, a])
        v = 1 - (point[b] - lows[box, b]) / (highs[box, b] - lows[box, b])
    size = textures.shape[1]
    skin = skins[box, axis]
    if box == 0 and axis == 2 and point[2] > 1:
        skin = 0  # the ceiling
    i, j = int((v % 1.0) * size), int((u % 1.0) * size)
    for k in range(3):
        color[k] = textures[skin, min(i, size - 1), min(j, size - 1), k]


@njit(cache=True)
def _shade(rays, origin, lows, highs, skins, repeats, textures, to_lamp, jitter, ambient, lamp):
    color, point, direction = np.empty(3), np.empty(3), np.empty(3)
    shadow = np.empty(3)
    for i in range(rays.shape[0]):
        for j in range(rays.shape[1]):
            for k in range(3):
                direction[k] = rays[i, j, k]
            box, axis, t = _hit(direction, origin, lows, highs)
            for k in range(3):
                point[k] = origin[k] + t * direction[k]
            _albedo(point, box, axis, lows, highs, skins, repeats, textures, color)
            sign = -1.0 if direction[axis] > 0 else 1.0
            # Corners and the foot of furniture are dimmer.
            dim = 1.0
            for k in range(3):
                if not (box == 0 and k == axis):
                    wall = min(point[k] - lows[0, k], highs[0, k] - point[k])
                    dim *= 1 - 0.30 * np.exp(-max(wall, 0.0) / 0.22)
            if box == 0 and axis == 2 and point[2] < 1:
                for b in range(1, len(lows)):
                    dx = max(lows[b, 0] - point[0], 0.0, point[0] - highs[b, 0])
                    dy = max(lows[b, 1] - point[1], 0.0, point[1] - highs[b, 1])
                    if lows[b, 2] < 0.01 and highs[b, 2] > 0.2:
                        dim *= 1 - 0.35 * np.exp(-np.sqrt(dx * dx + dy * dy) / 0.10)
            facing = sign * to_lamp[axis]
            lit = 0.0
            if facing > 0:
                point[axis] += sign * 1e-3
                for s in range(len(jitter)):
                    for k in range(3):
                        shadow[k] = to_lamp[k] + jitter[s, k]
                    if _reaches_lamp(shadow, point, lows, highs):
                        lit += facing / len(jitter)
            for k in range(3):
                ambient[i, j, k] += color[k] * dim
                lamp[i, j, k] += color[k] * lit


@njit(cache=True)
def _reaches_lamp(ray, origin, lows, highs):
    for b in range(1, len(lows)):
        near, far = 1e-4, 1e9
        for k in range(3):
            direction = ray[k] if abs(ray[k]) > 1e-12 else 1e-12
            t0, t1 = (lows[b, k] - origin[k]) / direction, (highs[b, k] - origin[k]) / direction
            near, far = max(near, min(t0, t1)), min(far, max(t0, t1))
        if near < far:
            return False
    return True


@njit(cache=True)
def _measure(rays, origin, lows, highs, skins, repeats, textures):
    height, width = rays.shape[:2]
    depth = np.empty((height, width), np.float32)
    points = np.empty((height, width, 3), np.float32)
    reflect = np.empty((height, width), np.float32)
    color, point, direction = np.empty(3), np.empty(3), np.empty(3)
    for i in range(height):
        for j in range(width):
            for k in range(3):
                direction[k] = rays[i, j, k]
            box, axis, t = _hit(direction, origin, lows, highs)
            for k in range(3):
                point[k] = origin[k] + t * direction[k]
                points[i, j, k] = point[k]
            _albedo(point, box, axis, lows, highs, skins, repeats, textures, color)
            length = np.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
            depth[i, j] = t  # rays have depth 1 along the camera's axis
            # Paint that looks dark is less dark in the infrared.
            reflect[i, j] = (0.25 + 0.6 * np.sqrt(max(color[0], 0.0))) * abs(direction[axis]) / length
    return depth, points, reflect
