"""What is printed on the performer's clothes.

H x W texels, V vertices.  Enters: parts with flat patterns in metres.  Leaves: pictures in sRGB 0..1.
Only ``demo/build.py`` uses this.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from demo.brushes import blend, noise
from demo.tailor import Part
from fitting.zbuffer import rasterize_faces

SKIRT_WH = (1280, 448)
SHIRT_M, TEXELS_PER_M = (1.34, 1.05), 960  # the shirt's panels share one texture
PANEL_ORIGIN_M = ((0.02, 0.02), (0.70, 0.02), (0.24, 0.76), (0.74, 0.76))  # front, back, sleeves
SHOE_SIDE_M = 0.42


# Shirt --------------------------------------------------------------------------------------------------------------

CREAM, RUST, NAVY, MUSTARD, WHITE = (
    (0.86, 0.82, 0.71),
    (0.66, 0.20, 0.14),
    (0.13, 0.18, 0.33),
    (0.85, 0.62, 0.18),
    (0.95, 0.94, 0.9),
)


def checks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Tartan of 7.2 cm: two broad and three thin stripes each way; warp and weft mix where they cross."""

    def stripes(s):
        phase = np.mod(s, 0.072)
        edge = 0.0008
        inside = lambda a, b: np.clip((phase - a) / edge, 0, 1) * np.clip((b - phase) / edge, 0, 1)  # noqa: E731
        color = np.ones((*s.shape, 3)) * CREAM
        color = blend(color, RUST, inside(0.006, 0.030))
        color = blend(color, CREAM, inside(0.0165, 0.0195))
        color = blend(color, NAVY, inside(0.042, 0.052))
        return blend(color, MUSTARD, inside(0.060, 0.0635))

    twill = 0.5 + 0.12 * np.sign(np.sin((u + v) * 2 * np.pi / 0.0036))
    return stripes(u) * twill[..., None] + stripes(v) * (1 - twill[..., None])


def place(part: Part) -> np.ndarray:
    """(V, 2) uv in [0, 1] of a shirt panel."""
    uv_m = part.uv + PANEL_ORIGIN_M[part.panel]
    assert (uv_m >= 0).all() and (uv_m <= SHIRT_M).all()
    return uv_m / SHIRT_M


Panel = Callable[[Part, np.ndarray, np.ndarray], np.ndarray]  # a panel's colours at (H, W) metres u, v


def shirt_texture(parts: list[Part], rng: np.random.Generator, paint: Panel | None = None) -> np.ndarray:
    """(H, W, 3) all panels, each painted by ``paint``; checked where nothing else is asked for."""
    paint = paint or _panel
    width, height = (round(side * TEXELS_PER_M) for side in SHIRT_M)
    u_all, v_all = np.meshgrid((np.arange(width) + 0.5) / TEXELS_PER_M, (np.arange(height) + 0.5) / TEXELS_PER_M)
    shirt = np.ones((height, width, 3)) * CREAM
    for part in (p for p in parts if p.material == "shirt"):
        origin = np.array(PANEL_ORIGIN_M[part.panel])
        low, high = part.uv.min(0) + origin - 0.02, part.uv.max(0) + origin + 0.02
        left, top = (np.maximum(low, 0) * TEXELS_PER_M).astype(int)
        right, bottom = (high * TEXELS_PER_M).astype(int)
        rows, columns = slice(top, bottom), slice(left, right)
        u, v = u_all[rows, columns] - origin[0], v_all[rows, columns] - origin[1]
        shirt[rows, columns] = paint(part, u, v)
    weave = 1 + 0.02 * rng.standard_normal((height, width)) + 0.03 * noise((height, width), 40, rng)
    return shirt * weave[..., None]


def _panel(part: Part, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    position, uv = part.piece.vertices_m, part.uv
    middle = uv[np.abs(position[:, 0]) < 0.012, 0].mean() if part.panel < 2 else 0.0
    bottom = uv[:, 1].max()
    cloth = checks(u - middle + 0.018, v)
    neck = spread(part, "neck", u, v)
    seam = lambda s, width=0.0012: np.exp(-((s / width) ** 2))  # noqa: E731
    hem = seam(v - (bottom - 0.022)) * 0.55 + 0.25 * (v > bottom - 0.022)
    cloth = blend(cloth, NAVY, hem if part.panel < 2 else hem * 1.2)
    if part.panel == 0:
        cloth = _front(cloth, u - middle, v, seam)
    elif part.panel == 1:
        cloth = _back(cloth, u - middle, v, seam)
    rib = (neck < 0.016) * (0.85 + 0.15 * np.sin(u * 2 * np.pi / 0.004))
    return blend(cloth, NAVY, rib)


def spread(part: Part, name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A per-vertex value of a panel at metric panel coordinates, by its flat triangles; 1 outside them."""
    step = u[0, 1] - u[0, 0]
    pixels = (part.uv - (u[0, 0], v[0, 0])) / step + 0.5
    index, weights, _ = rasterize_faces(pixels, np.ones(len(pixels)), part.piece.faces, (u.shape[1], u.shape[0]))
    corner = np.concatenate([weights, 1 - weights.sum(2, keepdims=True)], axis=2)
    values = np.ones(u.shape)
    hit = index >= 0
    values[hit] = (corner[hit] * part.attribute(name)[part.piece.faces[index[hit]]]).sum(1)
    return cv2.erode(values, np.ones((9, 9)))


def _front(cloth, u, v, seam):
    """Placket with buttons, a breast pocket with a badge on her left (u > 0)."""
    placket = np.abs(u) < 0.017
    cloth = blend(cloth, NAVY, 0.82 * placket)
    cloth = blend(cloth, WHITE, 0.6 * seam(np.abs(u) - 0.0145, 0.0009) * (np.mod(v, 0.006) < 0.004))
    rows = np.mod(v - 0.03, 0.075) - 0.0375
    r = np.hypot(u, rows)
    cloth = blend(cloth, WHITE, ((0.0072 - r) / 0.0008).clip(0, 1))
    cloth = blend(cloth, (0.35, 0.32, 0.3), ((0.0018 - np.abs(np.hypot(np.abs(u) - 0.002, rows))) / 0.0006).clip(0, 1))
    pu, pv = u - 0.092, v - 0.235
    pocket = np.maximum(np.abs(pu) / 0.052, np.abs(pv) / 0.058)
    cloth = blend(cloth, NAVY, 0.80 * (pocket < 1))
    cloth = blend(cloth, WHITE, 0.75 * seam((pocket - 0.93) * 0.055, 0.001) * (np.mod(pu + pv, 0.006) < 0.004))
    cloth = blend(cloth, MUSTARD, (pocket < 1) * ((0.024 - np.hypot(pu, pv - 0.006)) / 0.001).clip(0, 1))
    star = np.hypot(pu, pv - 0.006) * (1 + 0.35 * np.cos(5 * np.arctan2(pu, -(pv - 0.006))) * -1)
    return blend(cloth, RUST, (pocket < 1) * ((0.0145 - star) / 0.001).clip(0, 1))


def _back(cloth, u, v, seam):
    """A yoke and a big number."""
    yoke = v < 0.155
    cloth = blend(cloth, NAVY, 0.86 * yoke)
    cloth = blend(cloth, WHITE, 0.7 * seam(v - 0.151, 0.001) * (np.mod(u, 0.006) < 0.004))
    patch = np.maximum(np.abs(u) / 0.085, np.abs(v - 0.275) / 0.075)
    cloth = blend(cloth, WHITE, 0.95 * (patch < 1))
    cloth = blend(cloth, RUST, 0.9 * seam((patch - 0.93) * 0.08, 0.0025) * (patch < 1))
    stencil = np.zeros((300, 340), np.uint8)
    cv2.putText(stencil, "47", (48, 228), cv2.FONT_HERSHEY_DUPLEX, 6.2, 255, 30, cv2.LINE_AA)
    map_u = ((u / 0.085 + 1) * 170).astype(np.float32)
    map_v = (((v - 0.275) / 0.075 + 1) * 150).astype(np.float32)
    return blend(cloth, NAVY, cv2.remap(stencil, map_u, map_v, cv2.INTER_LINEAR).astype(float) / 255)


# T-shirt ------------------------------------------------------------------------------------------------------------

TEAL, SUN, DEEP = (0.06, 0.44, 0.42), (0.97, 0.78, 0.16), (0.03, 0.20, 0.22)


def tee_panel(part: Part, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Plain teal with two broad bands round the chest, a sun in front, and white cuffs."""
    middle = part.uv[np.abs(part.piece.vertices_m[:, 0]) < 0.012, 0].mean() if part.panel < 2 else 0.0
    bottom = part.uv[:, 1].max()
    across = u - middle
    cloth = np.ones((*u.shape, 3)) * TEAL
    inside = lambda s, half: ((half - np.abs(s)) / 0.0012).clip(0, 1)  # noqa: E731
    if part.panel < 2:
        up = bottom - v  # from the hem, so that front and back meet at the sides
        cloth = blend(cloth, WHITE, inside(up - 0.235, 0.030))
        cloth = blend(cloth, SUN, inside(up - 0.175, 0.014))
        cloth = blend(cloth, DEEP, 0.6 * inside(up - 0.020, 0.0012))
    else:
        cloth = blend(cloth, WHITE, ((v - (bottom - 0.024)) / 0.0012).clip(0, 1))
    if part.panel == 0:
        r, angle = np.hypot(across, v - 0.185), np.arctan2(v - 0.185, across)
        rays = 0.052 + 0.016 * np.sign(np.sin(12 * angle))
        cloth = blend(cloth, SUN, ((rays - r) / 0.001).clip(0, 1))
        cloth = blend(cloth, TEAL, ((0.006 - np.abs(r - 0.042)) / 0.001).clip(0, 1))
    elif part.panel == 1:
        arrow = np.abs(across) + np.abs(v - 0.17) * 0.7
        cloth = blend(cloth, SUN, inside(arrow - 0.075, 0.011))
        cloth = blend(cloth, WHITE, inside(arrow - 0.035, 0.011))
    return blend(cloth, DEEP, (spread(part, "neck", u, v) < 0.016) * 0.9)


# Skirt, leggings, shoes ---------------------------------------------------------------------------------------------


def skirt_texture(rng: np.random.Generator) -> np.ndarray:
    """u round from the front over her left, v down; denim with seams, buttons, two hem stripes, side pockets."""
    width, height = SKIRT_WH
    v, u = np.mgrid[0:height, 0:width]
    u, v = (u + 0.5) / width, (v + 0.5) / height
    denim = np.ones((height, width, 3)) * (0.20, 0.27, 0.42)
    denim *= (1 + 0.10 * rng.standard_normal((height, width)) + 0.05 * noise((height, width), 50, rng))[..., None]
    denim = blend(denim, (0.42, 0.50, 0.62), 0.25 * np.clip(noise((height, width), 8, rng) * 0.4, 0, 1))
    panel = np.abs(np.mod(u * 8 + 0.5, 1) - 0.5) / 8  # eight panels; distance to the next seam
    denim = blend(denim, (0.10, 0.13, 0.22), 0.7 * np.exp(-((panel / 0.0010) ** 2)))
    stitch = np.exp(-(((panel - 0.0032) / 0.0008) ** 2)) * (np.mod(v, 0.016) < 0.010)
    denim = blend(denim, (0.80, 0.58, 0.25), 0.75 * stitch)
    for at, thick in ((0.90, 0.016), (0.95, 0.008)):
        denim = blend(denim, (0.84, 0.80, 0.70), ((thick - np.abs(v - at)) / 0.003).clip(0, 1))
    middle = np.minimum(u, 1 - u)
    button = np.hypot(middle * 1.45, (np.mod(v - 0.07, 0.13) - 0.065) * 0.48)
    return blend(denim, (0.85, 0.70, 0.40), ((0.0085 - button) / 0.001).clip(0, 1))


def outside_of_leg(points_m: np.ndarray) -> np.ndarray:
    """(N,) bool: farther out than the leg's middle."""
    return np.abs(points_m[:, 0]) > 0.135 + 0.03 * np.clip((0.5 - points_m[:, 2]) / 0.4, -1, 1)


def legging_uv(vertices_m: np.ndarray, outside: bool) -> np.ndarray:
    """(V, 2): u from the front to the back, 0 to 0.5 outside and 0.5 to 1 inside; v down."""
    middle = 0.135 + 0.03 * np.clip((0.5 - vertices_m[:, 2]) / 0.4, -1, 1)
    across = (np.abs(vertices_m[:, 0]) - middle) * (1 if outside else -1)
    angle = np.arctan2(across.clip(0), -vertices_m[:, 1])
    return np.stack([(0.25 if outside else 0.75) + 0.24 * (angle / np.pi - 0.5) * 2, 1 - vertices_m[:, 2]], axis=1)


def legging_texture(rng: np.random.Generator) -> np.ndarray:
    size = 256
    cloth = np.ones((size, size, 3)) * (0.165, 0.165, 0.185)
    cloth *= (1 + 0.10 * rng.standard_normal((size, size)))[..., None]
    u = (np.arange(size) + 0.5) / size
    stripe = np.clip((0.030 - np.abs(u - 0.25)) / 0.006, 0, 1)[None]
    return blend(cloth, (0.72, 0.28, 0.20), np.broadcast_to(stripe, (size, size)))


def trouser_texture(rng: np.random.Generator) -> np.ndarray:
    """Sand-coloured cotton: seams outside and inside, a crease in front, a side pocket, and a hem; v = 1 - height."""
    size = 512
    v, u = (np.mgrid[0:size, 0:size] + 0.5) / size
    cloth = np.ones((size, size, 3)) * (0.70, 0.58, 0.40)
    cloth *= (1 + 0.035 * rng.standard_normal((size, size)) + 0.05 * noise((size, size), 45, rng))[..., None]
    seam = np.exp(-(((u - 0.25) / 0.004) ** 2)) + np.exp(-(((u - 0.75) / 0.004) ** 2))
    cloth = blend(cloth, (0.42, 0.33, 0.21), 0.8 * seam)
    height = 1 - v
    pocket = np.abs(height - 0.60) < 0.085
    flap = np.exp(-(((height - 0.665) / 0.004) ** 2)) + np.exp(-(((np.abs(u - 0.25) - 0.10) / 0.004) ** 2))
    cloth = blend(cloth, (0.42, 0.33, 0.21), 0.75 * flap.clip(0, 1) * pocket * (np.abs(u - 0.25) < 0.106))
    cloth = blend(cloth, (0.60, 0.48, 0.32), 0.5 * pocket * (np.abs(u - 0.25) < 0.10))
    return blend(cloth, (0.42, 0.33, 0.21), 0.7 * np.exp(-(((height - 0.085) / 0.003) ** 2)))


def shoe_uv(vertices_m: np.ndarray, ankle: np.ndarray) -> np.ndarray:
    """(V, 2): the outline seen from the side; laces come from the front part of it."""
    u = 0.5 + (vertices_m[:, 1] - ankle[1] + 0.06) / SHOE_SIDE_M
    return np.stack([u, 0.9 - (vertices_m[:, 2] + 0.02) / SHOE_SIDE_M * 2], axis=1)


def shoe_texture(rng: np.random.Generator, leather: tuple[float, float, float] = (0.74, 0.22, 0.16)) -> np.ndarray:
    """u: 0.5 is 6 cm before the ankle, toe at small u; v: 0.9 is the ground, up 0.21 m to v = -0.1."""
    size = 512
    v, u = (np.mgrid[0:size, 0:size] + 0.5) / size
    height = (0.9 - v) * SHOE_SIDE_M / 2  # metres above the ground
    along = (u - 0.5) * SHOE_SIDE_M  # metres, negative towards the toe
    shoe = np.ones((size, size, 3)) * leather
    shoe *= (1 + 0.05 * rng.standard_normal((size, size)))[..., None]
    swoosh = np.exp(-(((height - 0.050 - 0.35 * (along + 0.02)) / 0.006) ** 4)) * (np.abs(along - 0.0) < 0.05)
    shoe = blend(shoe, (0.95, 0.94, 0.92), swoosh)
    tongue = (along < -0.035) & (along > -0.095) & (height > 0.058)
    shoe = blend(shoe, (0.93, 0.92, 0.90), 0.9 * tongue * (np.mod(along, 0.014) < 0.006))
    shoe = blend(shoe, (0.93, 0.92, 0.89), ((0.026 - height) / 0.002).clip(0, 1))
    shoe = blend(shoe, (0.55, 0.53, 0.5), np.exp(-(((height - 0.027) / 0.0012) ** 2)))
    return blend(shoe, (0.25, 0.25, 0.26), ((0.0045 - height) / 0.001).clip(0, 1))
