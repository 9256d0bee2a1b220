"""Paints the performer: skin and face, eyes, hair, a checked shirt, a denim skirt, leggings, shoes.

H x W texels, V vertices.  Everything is painted from rest positions in metres, so that a brow is where the brow is
whatever the uv layout.  Colours here are sRGB in 0..1.  Only ``demo/build.py`` uses this module.
"""

from __future__ import annotations

import cv2
import numpy as np

from capture.recording import encode_jpeg
from demo.makehuman import BaseMesh, mask_path
from fitting.zbuffer import rasterize_faces

SKIN_TEXELS, EYE_TEXELS, HAIR_TEXELS, SHIRT_TEXELS, SKIRT_WH = 1024, 128, 512, 1152, (1280, 448)
SHIRT_SIDE_M = 1.12  # the shirt's panels share one square texture
PANEL_ORIGIN_M = ((0.02, 0.02), (0.56, 0.02), (0.22, 0.84), (0.68, 0.84))  # front, back, sleeves
EYE_RADIUS_M = 0.0150
SHOE_SIDE_M = 0.42


def textures(mesh: BaseMesh, parts: list[dict]) -> dict[str, np.ndarray]:
    """Material name to the bytes of a JPEG, as uint8 arrays."""
    rng = np.random.default_rng(7)
    pictures = {
        "skin": skin_texture(mesh, rng),
        "eye": eye_texture(),
        "hair": hair_texture(rng),
        "shirt": shirt_texture(parts, rng),
        "skirt": skirt_texture(rng),
        "legging": legging_texture(rng),
        "shoe": shoe_texture(rng),
    }
    return {
        name: np.frombuffer(encode_jpeg((picture.clip(0, 1) * 255 + 0.5).astype(np.uint8), quality=90), np.uint8)
        for name, picture in pictures.items()
    }


def to_texture(part: dict) -> np.ndarray:
    """(V, 2) uv in [0, 1] of a part's own texture."""
    if part["material"] != "shirt":
        return part["uv"]
    return (part["uv"] + PANEL_ORIGIN_M[part["panel"]]) / SHIRT_SIDE_M


def noise(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> np.ndarray:
    """(H, W) smooth noise of about unit variance; features are ``cell`` texels wide."""
    coarse = rng.standard_normal((int(shape[0] / cell) + 3, int(shape[1] / cell) + 3)).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def blob(points: np.ndarray, centre: tuple[float, ...], radius: tuple[float, ...], sharp: float = 2.0) -> np.ndarray:
    """Soft ellipsoid: 1 at the centre, 1/e at ``radius``."""
    return np.exp(-(np.sum(((points - centre) / radius) ** 2, axis=-1) ** (sharp / 2)))


def blend(picture: np.ndarray, color: tuple[float, ...], weight: np.ndarray) -> np.ndarray:
    return picture + (np.array(color) - picture) * weight[..., None].clip(0, 1)


# Skin and face ------------------------------------------------------------------------------------------------------


def skin_texture(mesh: BaseMesh, rng: np.random.Generator) -> np.ndarray:
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
    fill = cv2.dilate(skin.astype(np.float32), np.ones((7, 7)))
    return np.where(hit[..., None], skin, fill)


def _mask(name: str, size: int) -> np.ndarray:
    image = cv2.imread(str(mask_path(name)), cv2.IMREAD_GRAYSCALE)
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
    """(V,) metres below the hairline, negative in the hair; points relative to the head joint."""
    azimuth = np.degrees(np.arctan2(np.abs(points[:, 0]), -(points[:, 1] - 0.012)))  # 0 = front, 180 = back
    degrees = [0, 25, 40, 48, 54, 58, 64, 88, 97, 110, 135, 180]
    line = [0.110, 0.108, 0.092, 0.066, 0.040, 0.040, 0.047, 0.045, 0.008, -0.024, -0.040, -0.046]
    return np.interp(azimuth, degrees, line) - points[:, 2]


def cap_uv(vertices_m: np.ndarray, tie_m: np.ndarray) -> np.ndarray:
    """(V, 2) strands run towards the tie: u round it, mirrored so that there is no seam, v towards it."""
    centre = tie_m + (0, -0.1, -0.03)
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


def shirt_texture(parts: list[dict], rng: np.random.Generator) -> np.ndarray:
    size = SHIRT_TEXELS
    metre = (np.arange(size) + 0.5) / size * SHIRT_SIDE_M
    u_all, v_all = np.meshgrid(metre, metre)
    shirt = np.ones((size, size, 3)) * CREAM
    for part in (p for p in parts if p["material"] == "shirt"):
        origin = np.array(PANEL_ORIGIN_M[part["panel"]])
        low, high = part["uv"].min(0) + origin - 0.02, part["uv"].max(0) + origin + 0.02
        rows, columns = (
            slice(*np.clip(np.array([a, b]) / SHIRT_SIDE_M * size, 0, size).astype(int))
            for a, b in ((low[1], high[1]), (low[0], high[0]))
        )
        u, v = u_all[rows, columns] - origin[0], v_all[rows, columns] - origin[1]
        shirt[rows, columns] = _panel(part, u, v)
    weave = 1 + 0.02 * rng.standard_normal((size, size)) + 0.03 * noise((size, size), 40, rng)
    return shirt * weave[..., None]


def _panel(part: dict, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    position, uv = part["position"], part["uv"]
    middle = uv[np.abs(position[:, 0]) < 0.012, 0].mean() if part["panel"] < 2 else 0.0
    bottom = uv[:, 1].max()
    cloth = checks(u - middle + 0.018, v)
    neck = spread(part, "neck", u, v)
    seam = lambda s, width=0.0012: np.exp(-((s / width) ** 2))  # noqa: E731
    hem = seam(v - (bottom - 0.022)) * 0.55 + 0.25 * (v > bottom - 0.022)
    cloth = blend(cloth, NAVY, hem if part["panel"] < 2 else hem * 1.2)
    if part["panel"] == 0:
        cloth = _front(cloth, u - middle, v, seam)
    elif part["panel"] == 1:
        cloth = _back(cloth, u - middle, v, seam)
    rib = (neck < 0.016) * (0.85 + 0.15 * np.sin(u * 2 * np.pi / 0.004))
    cloth = blend(cloth, NAVY, rib)
    return blend(cloth, WHITE, 0.5 * seam(neck - 0.0175, 0.0012))


def spread(part: dict, name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A per-vertex value of a panel at metric panel coordinates, by its flat triangles; 1 outside them."""
    step = u[0, 1] - u[0, 0]
    pixels = (part["uv"] - (u[0, 0], v[0, 0])) / step + 0.5
    index, weights, _ = rasterize_faces(pixels, np.ones(len(pixels)), part["faces"], (u.shape[1], u.shape[0]))
    corner = np.concatenate([weights, 1 - weights.sum(2, keepdims=True)], axis=2)
    values = np.ones(u.shape)
    hit = index >= 0
    values[hit] = (corner[hit] * part[name][part["faces"][index[hit]]]).sum(1)
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
    height, width = u.shape
    stencil = np.zeros((300, 340), np.uint8)
    cv2.putText(stencil, "47", (48, 228), cv2.FONT_HERSHEY_DUPLEX, 6.2, 255, 30, cv2.LINE_AA)
    map_u = ((u / 0.085 + 1) * 170).astype(np.float32)
    map_v = (((v - 0.275) / 0.075 + 1) * 150).astype(np.float32)
    return blend(cloth, NAVY, cv2.remap(stencil, map_u, map_v, cv2.INTER_LINEAR).astype(float) / 255)


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


def legging_uv(vertices_m: np.ndarray) -> np.ndarray:
    """(V, 2): u from the front round the outside to the back, v down."""
    x = np.abs(vertices_m[:, 0])
    middle = 0.135 + 0.03 * np.clip((0.5 - vertices_m[:, 2]) / 0.4, -1, 1)
    angle = np.arctan2(np.abs(x - middle), -(vertices_m[:, 1] - 0.0))
    outside = np.where(x > middle, 0.25, 0.75)
    return np.stack([outside + 0.24 * (angle / np.pi - 0.5) * 2, 1 - vertices_m[:, 2]], axis=1)


def legging_texture(rng: np.random.Generator) -> np.ndarray:
    size = 256
    cloth = np.ones((size, size, 3)) * (0.165, 0.165, 0.185)
    cloth *= (1 + 0.10 * rng.standard_normal((size, size)))[..., None]
    u = (np.arange(size) + 0.5) / size
    stripe = np.clip((0.030 - np.abs(u - 0.25)) / 0.006, 0, 1)[None]
    return blend(cloth, (0.72, 0.28, 0.20), np.broadcast_to(stripe, (size, size)))


def shoe_uv(vertices_m: np.ndarray, ankle: np.ndarray) -> np.ndarray:
    """(V, 2): the outline seen from the side; laces come from the front part of it."""
    u = 0.5 + (vertices_m[:, 1] - ankle[1] + 0.06) / SHOE_SIDE_M
    return np.stack([u, 0.9 - (vertices_m[:, 2] + 0.02) / SHOE_SIDE_M * 2], axis=1)


def shoe_texture(rng: np.random.Generator) -> np.ndarray:
    """u: 0.5 is 6 cm before the ankle, toe at small u; v: 0.9 is the ground, up 0.21 m to v = -0.1."""
    size = 512
    v, u = (np.mgrid[0:size, 0:size] + 0.5) / size
    height = (0.9 - v) * SHOE_SIDE_M / 2  # metres above the ground
    along = (u - 0.5) * SHOE_SIDE_M  # metres, negative towards the toe
    shoe = np.ones((size, size, 3)) * (0.74, 0.22, 0.16)
    shoe *= (1 + 0.05 * rng.standard_normal((size, size)))[..., None]
    swoosh = np.exp(-(((height - 0.050 - 0.35 * (along + 0.02)) / 0.006) ** 4)) * (np.abs(along - 0.0) < 0.05)
    shoe = blend(shoe, (0.95, 0.94, 0.92), swoosh)
    tongue = (along < -0.035) & (along > -0.095) & (height > 0.058)
    shoe = blend(shoe, (0.93, 0.92, 0.90), 0.9 * tongue * (np.mod(along, 0.014) < 0.006))
    shoe = blend(shoe, (0.93, 0.92, 0.89), ((0.026 - height) / 0.002).clip(0, 1))
    shoe = blend(shoe, (0.55, 0.53, 0.5), np.exp(-(((height - 0.027) / 0.0012) ** 2)))
    return blend(shoe, (0.25, 0.25, 0.26), ((0.0045 - height) / 0.001).clip(0, 1))
