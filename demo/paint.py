"""Paints the performer: skin and face, eyes, hair.

H x W texels, V vertices.  Everything is painted from rest positions in metres, so that a brow is where the brow is
whatever the uv layout.  Colours here are sRGB in 0..1.  Only ``demo/build.py`` uses this module.
"""

from __future__ import annotations

import cv2
import numpy as np

from demo.brushes import blend, blob, noise
from demo.makehuman import BaseMesh, mask_path
from fitting.zbuffer import rasterize_faces

SKIN_TEXELS, EYE_TEXELS, HAIR_TEXELS = 1024, 128, 512
EYE_RADIUS_M = 0.0150


# Skin and face ------------------------------------------------------------------------------------------------------


def skin_texture(mesh: BaseMesh, rng: np.random.Generator, tone: tuple[float, float, float] = (1, 1, 1)) -> np.ndarray:
    """(H, W, 3); ``tone`` multiplies every colour: darker skin has the same marks, darker."""
    size = SKIN_TEXELS
    faces, faces_uv = mesh.triangles("body")
    index, weights, _ = rasterize_faces(mesh.uv * size, np.ones(len(mesh.uv)), faces_uv, (size, size))
    hit = index >= 0
    corner = np.concatenate([weights, 1 - weights.sum(2, keepdims=True)], axis=2)
    points = np.zeros((size, size, 3))
    points[hit] = np.einsum("nk,nkc->nc", corner[hit], mesh.vertices_m[faces[index[hit]]])
    eyes = [np.unique(mesh.quads[f"helper-{s}-eye"]) for s in "lr"]
    eye = [0.5 * (mesh.vertices_m[e].min(0) + mesh.vertices_m[e].max(0)) for e in eyes]
    skin = np.ones((size, size, 3)) * (0.835, 0.625, 0.505)
    skin *= 1 + 0.018 * noise((size, size), 24, rng)[..., None] + 0.012 * noise((size, size), 3, rng)[..., None]
    skin *= 1 + 0.02 * noise((size, size), 60, rng)[..., None] * (0.2, 1, 1)
    skin = _face(skin, points, eye[0], rng)
    # Roots show a little beyond the hairline, and the scalp is dark.
    below = hairline(points - mesh.bone_heads_m[mesh.bone_names.index("head")])
    ragged = below + 0.0016 * noise((size, size), 3, rng)
    roots = np.exp(-((ragged.clip(0) / 0.0045) ** 1.5)) * (points[..., 2] > eye[0][2] - 0.10)
    skin = blend(skin, (0.20, 0.12, 0.08), 0.85 * roots * hit)
    lips = _mask("lips", size)
    z_mouth = points[..., 2][lips > 0.5].mean() if (lips > 0.5).any() else 0
    skin = blend(skin, (0.66, 0.30, 0.28), lips * 0.85)
    line = np.exp(-(((points[..., 2] - z_mouth) / 0.0016) ** 2)) * (lips > 0.3) * (points[..., 1] < eye[0][1] + 0.02)
    skin = blend(skin, (0.30, 0.10, 0.10), line * 0.55)
    skin = blend(skin, (0.86, 0.55, 0.47), _mask("ears", size) * 0.5)
    skin = blend(skin, (0.90, 0.68, 0.62), _mask("fingernails", size) * 0.7)
    # Knuckles and palms a little redder.
    hand = np.clip((np.abs(points[..., 0]) - 0.46) / 0.05, 0, 1) * hit
    skin = blend(skin, (0.80, 0.52, 0.42), hand * 0.35)
    skin = skin * np.array(tone)
    fill = cv2.dilate(skin.astype(np.float32), np.ones((7, 7)))
    return np.where(hit[..., None], skin, fill)


def _mask(name: str, size: int) -> np.ndarray:
    image = cv2.imread(str(mask_path(name)), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.float64) / 255


def _face(skin: np.ndarray, points: np.ndarray, left_eye: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cheeks, nose, lids, lashes, brows, stubble-free; mirrored about x = 0."""
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    mirrored = np.stack([x, y, z], axis=-1)
    ex, ey, ez = left_eye
    front = (y < ey + 0.045) * (z > ez - 0.16)
    skin = blend(
        skin, (0.86, 0.50, 0.43), 0.42 * front * blob(mirrored, (ex + 0.012, ey, ez - 0.045), (0.02, 0.06, 0.018))
    )
    skin = blend(
        skin, (0.80, 0.48, 0.41), 0.35 * front * blob(mirrored, (0, ey - 0.03, ez - 0.042), (0.013, 0.02, 0.012))
    )
    skin = blend(skin, (0.90, 0.72, 0.60), 0.35 * front * blob(mirrored, (0, ey, ez + 0.045), (0.035, 0.06, 0.02)))
    # Sockets, lids, lashes.
    dx, dz = x - ex, z - ez
    socket = np.exp(-((dx / 0.022) ** 2 + ((dz - 0.002) / 0.013) ** 2))
    skin = blend(skin, (0.56, 0.36, 0.30), 0.55 * socket * front)
    lid_top = 0.0052 - 22 * dx**2 + 0.08 * dx
    inside = (np.abs(dx) < 0.0175) * front
    lash = np.exp(-(((dz - lid_top) / 0.0018) ** 2)) * inside
    skin = blend(skin, (0.10, 0.06, 0.05), 0.95 * lash)
    lid_bottom = -0.0048 + 16 * dx**2
    skin = blend(skin, (0.30, 0.17, 0.14), 0.55 * np.exp(-(((dz - lid_bottom) / 0.0014) ** 2)) * inside)
    # Brows: an arch of short strokes.
    arch = 0.0205 + 0.10 * (dx + 0.012) - 6.0 * (dx - 0.004) ** 2
    thick = 0.0038 * np.clip((0.026 - dx) / 0.03, 0.25, 1)
    brow = (
        np.exp(-(((dz - arch) / thick) ** 4))
        * np.clip((dx + 0.0225) / 0.004, 0, 1)
        * np.clip((0.026 - dx) / 0.006, 0, 1)
    )
    strokes = 0.8 + 0.2 * noise(skin.shape[:2], 2.5, rng)
    skin = blend(skin, (0.17, 0.10, 0.07), 0.88 * brow * strokes.clip(0.4, 1) * front)
    # Nostrils and the shade under nose and lower lip.
    skin = blend(
        skin,
        (0.25, 0.12, 0.10),
        0.8 * front * blob(mirrored, (0.0085, ey - 0.022, ez - 0.0545), (0.0045, 0.012, 0.0028)),
    )
    skin = blend(skin, (0.62, 0.40, 0.33), 0.30 * front * blob(mirrored, (0, ey, ez - 0.093), (0.014, 0.05, 0.004)))
    return skin


def eye_uv(vertices_m: np.ndarray) -> np.ndarray:
    """(V, 2): looking straight at the iris."""
    left = vertices_m[:, 0] > 0
    uv = np.zeros((len(vertices_m), 2))
    for side in (left, ~left):
        points = vertices_m[side]
        centre = 0.5 * (points.min(axis=0) + points.max(axis=0))
        uv[side] = 0.5 + 0.5 * (points - centre)[:, [0, 2]] * (1, -1) / EYE_RADIUS_M
    return uv.clip(0.01, 0.99)


def eye_texture() -> np.ndarray:
    v, u = (np.mgrid[0:EYE_TEXELS, 0:EYE_TEXELS] + 0.5) / EYE_TEXELS * 2 - 1
    r = np.hypot(u, v) * EYE_RADIUS_M
    eye = np.ones((EYE_TEXELS, EYE_TEXELS, 3)) * (0.90, 0.87, 0.84)
    eye = blend(eye, (0.80, 0.55, 0.50), ((r - 0.009) / 0.005).clip(0, 0.6))
    angle = np.arctan2(v, u)
    spokes = 0.5 + 0.5 * np.sin(angle * 23 + 2 * np.sin(angle * 7))
    eye = blend(eye, (0.16, 0.09, 0.05), ((0.0062 - r) / 0.0006).clip(0, 1))
    eye = blend(eye, (0.36, 0.21, 0.10), ((0.0055 - r) / 0.0006).clip(0, 1) * (0.5 + 0.5 * spokes))
    eye = blend(eye, (0.02, 0.02, 0.02), ((0.0027 - r) / 0.0005).clip(0, 1))
    return blend(
        eye, (1, 1, 1), ((0.0014 - np.hypot(u * EYE_RADIUS_M + 0.0022, v * EYE_RADIUS_M + 0.0022)) / 0.0005).clip(0, 1)
    )


# Hair ---------------------------------------------------------------------------------------------------------------


def hairline(points: np.ndarray) -> np.ndarray:
    """(...) metres below the hairline, negative in the hair; points relative to the head joint."""
    azimuth = np.degrees(np.arctan2(np.abs(points[..., 0]), -(points[..., 1] - 0.012)))  # 0 = front, 180 = back
    degrees = [0, 25, 40, 48, 54, 58, 64, 88, 97, 110, 135, 180]
    line = [0.110, 0.108, 0.092, 0.066, 0.040, 0.040, 0.047, 0.045, 0.008, -0.024, -0.040, -0.046]
    wisps = 0.0012 * np.sin(azimuth * 0.61) * np.sin(azimuth * 0.23 + 1)
    return np.interp(azimuth, degrees, line) + wisps - points[..., 2]


def cap_uv(vertices_m: np.ndarray, tie_m: np.ndarray) -> np.ndarray:
    """(V, 2) strands run towards the tie: u round it, mirrored so that there is no seam, v towards it."""
    centre = tie_m + np.array([0, -0.1, -0.03])
    axis = (tie_m - centre) / np.linalg.norm(tie_m - centre)
    points = vertices_m - centre
    along = points @ axis
    up = np.array([0, 0, 1.0]) - axis * axis[2]
    up /= np.linalg.norm(up)
    angle = np.arctan2(np.abs(points[:, 0]), points @ up)
    return np.stack([angle / np.pi, 0.02 + 0.3 * np.clip((along + 0.1) / 0.25, 0, 1)], axis=1)


def hair_texture(rng: np.random.Generator) -> np.ndarray:
    shape = (HAIR_TEXELS, HAIR_TEXELS)
    strands = np.zeros(shape)
    for columns, weight in ((220, 0.5), (90, 0.6), (30, 0.5), (12, 0.35)):
        profile = rng.standard_normal((6, columns)).astype(np.float32)
        strands += weight * cv2.resize(
            np.concatenate([profile, profile[:, :1]], 1), shape, interpolation=cv2.INTER_CUBIC
        )
    strands = strands - strands.mean()
    hair = np.ones((*shape, 3)) * (0.215, 0.130, 0.085)
    hair *= (1 + 0.28 * strands)[..., None].clip(0.25, 2.2)
    return blend(hair, (0.52, 0.33, 0.19), (0.30 * (strands - 0.5)).clip(0, 0.45))


def curl_texture(rng: np.random.Generator) -> np.ndarray:
    """Black curls: light catches only their tops."""
    shape = (HAIR_TEXELS, HAIR_TEXELS)
    curls = 0.6 * noise(shape, 5, rng) + 0.5 * noise(shape, 11, rng) + 0.3 * noise(shape, 40, rng)
    hair = np.ones((*shape, 3)) * (0.085, 0.068, 0.058) * (1 + 0.35 * curls)[..., None].clip(0.3, 2)
    return blend(hair, (0.30, 0.23, 0.19), (0.25 * (curls - 0.6)).clip(0, 0.4))
