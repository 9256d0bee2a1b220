"""The performer's clothes: a loose checked shirt, a flared skirt, leggings, shoes.

V vertices, R rows, C columns.  Enters: the figure.  Leaves: parts.  They are cut from MakeHuman's helper meshes,
loosened so that they stand off the body, refined, and laid flat as panels: checks run straight as in a real shirt.
Only ``demo/build.py`` uses this.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from demo import prints
from demo.figure import Figure
from demo.tailor import (
    Part,
    Piece,
    border_of,
    cut,
    grid_faces,
    join,
    lay_flat,
    refine,
    smooth,
    smooth_border,
    vertex_normals,
)

SHIRT, SKIRT = 1, 2  # layers
HEM_M = 0.835  # the shirt ends below the hip joint
SHIRT_OVER_M = 0.955  # below this the shirt hangs outside the skirt
SLEEVE_END = 0.80  # of the upper arm
SLEEVE_RADIUS_M = 0.062
NECK_M = 0.079  # radius of the shirt's neck
SKIRT_TOP_M, SKIRT_HEM_M = 0.955, 0.44
SKIRT_SHOWS_BELOW_M = HEM_M + 0.05  # the shirt covers the rest
SKIRT_CENTRE_M = np.array([0, 0.012])
SOLE_M = 0.016
TEE_HEM_M = 0.790  # the T-shirt's, of somebody shorter
WAISTBAND_M = 0.010  # how far the trousers stand off at the waist


def legs(figure: Figure) -> list[Part]:
    """Leggings, thinner where the skirt covers them, and shoes with a sole."""
    tights = _tights_below(figure, 0.895)
    ankle = figure.at("foot.L")
    shoes, leggings = cut(tights, _above_shoe(tights, ankle))
    normals = vertex_normals(leggings.vertices_m, leggings.faces)
    tuck = 0.014 * np.clip((leggings.vertices_m[:, 2] - (SKIRT_HEM_M - 0.01)) / 0.05, 0, 1)
    leggings = leggings.replaced(position=leggings.vertices_m + normals * (0.002 - tuck)[:, None])
    # Two parts, so that no face's uv runs from the inside round to the stripe outside.
    is_outside = prints.outside_of_leg(leggings.vertices_m[leggings.faces].mean(axis=1))
    halves = [(leggings.compact(is_outside), True), (leggings.compact(~is_outside), False)]
    parts = [Part("legging", half, prints.legging_uv(half.vertices_m, outside)) for half, outside in halves]
    return [*parts, *_shoes(shoes, ankle)]


def _tights_below(figure: Figure, top_m: float) -> Piece:
    tights = join([figure.piece("helper-tights")])
    tights, _ = cut(tights, tights.vertices_m[:, 2] - top_m)
    tights = tights.compact((np.abs(tights.vertices_m[:, 0]) < 0.32)[tights.faces].all(axis=1))
    tights = refine(tights)
    hold = np.isin(np.arange(len(tights.vertices_m)), border_of(tights.faces))
    return tights.replaced(position=smooth(tights.vertices_m, tights.faces, 3, hold=hold))


def _above_shoe(tights: Piece, ankle: np.ndarray) -> np.ndarray:
    """(V,) metres above the shoe's rim, which rises towards the heel."""
    z, y = tights.vertices_m[:, 2], tights.vertices_m[:, 1]
    return z - (ankle[2] - 0.004 + 0.10 * np.clip(y - ankle[1], -0.05, 0.08))


def trousers(figure: Figure) -> list[Part]:
    """Straight trousers that hang over the shoes' rims, and the shoes."""
    tights = _tights_below(figure, TEE_HEM_M + 0.07)
    ankle = figure.at("foot.L")
    above = _above_shoe(tights, ankle)
    shoes, _ = cut(tights, above)
    _, cloth = cut(tights, above + 0.014)
    normals = smooth(vertex_normals(cloth.vertices_m, cloth.faces), cloth.faces, 6)
    z = cloth.vertices_m[:, 2]
    loose = WAISTBAND_M + 0.010 * np.clip((TEE_HEM_M - z) / 0.2, 0, 1) + 0.016 * np.clip((0.48 - z) / 0.25, 0, 1)
    border = np.isin(np.arange(len(z)), border_of(cloth.faces))
    position = smooth(cloth.vertices_m + normals * loose[:, None], cloth.faces, 6, hold=border)
    # The legs keep apart at the crotch.
    side = np.sign(cloth.vertices_m[:, 0])
    leg = z < figure.at("upperleg01.L")[2] - 0.10
    position[:, 0] = np.where(leg, side * np.maximum(side * position[:, 0], 0.003), position[:, 0])
    cloth = cloth.replaced(position=smooth_border(position, cloth.faces, 4))
    is_outside = prints.outside_of_leg(cloth.vertices_m[cloth.faces].mean(axis=1))
    halves = [(cloth.compact(is_outside), True), (cloth.compact(~is_outside), False)]
    parts = [Part("trousers", half, prints.legging_uv(half.vertices_m, outside)) for half, outside in halves]
    return [*parts, *_shoes(shoes, ankle)]


def _shoes(shoes: Piece, ankle: np.ndarray) -> list[Part]:
    normals = smooth(vertex_normals(shoes.vertices_m, shoes.faces), shoes.faces, 4)
    z = shoes.vertices_m[:, 2]
    puff = 0.004 + 0.006 * np.clip((ankle[2] - z) / 0.05, 0, 1)
    position = shoes.vertices_m + normals * puff[:, None]
    # A flat sole with a slight rise at the toe, wider than the foot.
    toe = np.clip((-(position[:, 1] - ankle[1]) - 0.13) / 0.07, 0, 1)
    bottom = -SOLE_M + 0.010 * toe**2
    low = np.clip((0.022 - z) / 0.022, 0, 1)
    position[:, 2] = np.where(z < 0.022, bottom + (position[:, 2] - bottom).clip(0) * (1 - low), position[:, 2])
    position = smooth(position, shoes.faces, 1, hold=np.isin(np.arange(len(position)), border_of(shoes.faces)))
    return [Part("shoe", shoes.replaced(position=position), prints.shoe_uv(position, ankle))]


def shirt(figure: Figure) -> list[Part]:
    """A loose shirt with short sleeves, over the skirt: front, back and two sleeves."""
    tights = join([figure.piece("helper-tights")])
    cloth, along = _short_sleeved(figure, tights.replaced(under=tights.vertices_m), HEM_M, flare_m=0.027)
    cloth = _over_skirt(figure, cloth, along)
    return [Part("shirt", panel, uv, SHIRT, i) for i, (panel, uv) in enumerate(_panels(figure, cloth))]


def tee(figure: Figure) -> list[Part]:
    """A T-shirt over the waistband of the trousers, cut like the shirt."""
    tights = join([figure.piece("helper-tights")])
    normals = smooth(vertex_normals(tights.vertices_m, tights.faces), tights.faces, 4)
    is_trunk = np.abs(tights.vertices_m[:, 0]) < 0.32
    band = is_trunk * (WAISTBAND_M + 0.006) * np.clip((TEE_HEM_M + 0.11 - tights.vertices_m[:, 2]) / 0.05, 0, 1)
    under = tights.vertices_m + normals * band[:, None]
    cloth, _ = _short_sleeved(figure, tights.replaced(under=under), TEE_HEM_M, flare_m=0.008)
    return [Part("shirt", panel, uv, SHIRT, i) for i, (panel, uv) in enumerate(_panels(figure, cloth))]


def _short_sleeved(figure: Figure, tights: Piece, hem_m: float, flare_m: float) -> tuple[Piece, np.ndarray]:
    """Cut from the tights, loosened; and (V,) how far down the arm, as ``along_arm`` says."""
    _, tights = cut(tights, tights.vertices_m[:, 2] - hem_m)
    tights, _ = cut(tights, figure.along_arm(tights.vertices_m, elsewhere=-1) - SLEEVE_END)
    collar = figure.at("neck01")
    # A round neck, a little deeper in front.
    across = np.hypot(tights.vertices_m[:, 0], tights.vertices_m[:, 1] - (collar[1] - 0.012))
    above = tights.vertices_m[:, 2] - (collar[2] - 0.015 + 0.35 * (tights.vertices_m[:, 1] - collar[1]))
    tights, _ = cut(tights, np.minimum(NECK_M - across, above))
    cloth = refine(tights)
    rim = cloth.vertices_m[border_of(cloth.faces)]
    rim = rim[(np.abs(rim[:, 0]) < 0.1) & (rim[:, 2] > collar[2] - 0.12)]
    neck = np.linalg.norm(cloth.vertices_m[:, None] - rim[None], axis=2).min(axis=1)
    cloth = cloth.replaced(neck=neck)
    along = figure.along_arm(cloth.vertices_m, elsewhere=-1)
    return _loosen(cloth, along, hem_m, flare_m), along


def _loosen(shirt: Piece, along: np.ndarray, hem_m: float, flare_m: float) -> Piece:
    """Let the shirt stand off: little at the shoulders, most at the hem and the sleeves' ends."""
    border = np.isin(np.arange(len(shirt.vertices_m)), border_of(shirt.faces))
    z = shirt.vertices_m[:, 2]
    under = smooth(shirt.attributes["under"], shirt.faces, 2, hold=border)
    tent = smooth(under, shirt.faces, 30, hold=border)  # cloth spans the hollows
    normals = smooth(vertex_normals(under, shirt.faces), shirt.faces, 6)
    is_arm = along > 0.15
    down = np.clip((1.32 - z) / (1.32 - hem_m), 0, 1)
    slack = np.where(is_arm, 0.008 + 0.020 * np.clip((along - 0.15) / 0.65, 0, 1), 0.007 + flare_m * down**1.3)
    slack = smooth(slack, shirt.faces, 4)
    out = np.maximum(((tent - under) * normals).sum(1), 0)
    position = under + normals * (slack + np.minimum(out, 0.03))[:, None]
    position = smooth_border(smooth(position, shirt.faces, 3, hold=border), shirt.faces, 6)
    free = np.where(is_arm, np.clip((along - 0.2) / 0.6, 0, 1), down)
    free = smooth(free, shirt.faces, 3)
    return shirt.replaced(position=position, under=under, attach=(1 - free) ** 2, reach=0.004 + 0.075 * free**1.5)


def _over_skirt(figure: Figure, shirt: Piece, along: np.ndarray) -> Piece:
    """The shirt hangs over the skirt's waist: push it out there, and let the skirt be the body under it."""
    position = shirt.vertices_m
    out = position[:, :2] - SKIRT_CENTRE_M
    angle = np.mod(np.arctan2(out[:, 0], -out[:, 1]), 2 * np.pi)
    grid_angle, heights = np.linspace(0, 2 * np.pi, 121), np.linspace(SHIRT_OVER_M + 0.06, HEM_M - 0.02, 40)
    radius = _skirt_radius(figure, grid_angle, heights)
    row = np.interp(position[:, 2], heights[::-1], np.arange(len(heights))[::-1])
    skirt = np.empty(len(position))
    for v in range(len(position)):
        r = min(int(row[v]), len(heights) - 2)
        ring = radius[r] * (1 - (row[v] - r)) + radius[r + 1] * (row[v] - r)
        skirt[v] = np.interp(angle[v], grid_angle, ring)
    over = np.where(along > -0.2, 0, np.clip((SHIRT_OVER_M + 0.06 - position[:, 2]) / 0.06, 0, 1))
    now = np.linalg.norm(out, axis=1)
    down = np.clip((SHIRT_OVER_M - position[:, 2]) / (SHIRT_OVER_M - HEM_M), 0, 1)
    wanted = np.maximum(now, skirt + 0.014 + 0.014 * down)
    scale = 1 + over * (wanted / now - 1)
    moved = np.column_stack([SKIRT_CENTRE_M + out * scale[:, None], position[:, 2]])
    under = shirt.attributes["under"]
    on_skirt = np.column_stack([SKIRT_CENTRE_M + out / now[:, None] * (skirt + 0.007)[:, None], position[:, 2]])
    under = under + (over > 0.99)[:, None] * (on_skirt - under)
    pelvis = np.zeros_like(shirt.attributes["weights"])
    pelvis[:, 0] = 1
    weights = shirt.attributes["weights"]
    weights = weights + (0.7 * over)[:, None] * (pelvis - weights)
    return shirt.replaced(position=moved, under=under, weights=weights)


def _panels(figure: Figure, shirt: Piece) -> Iterator[tuple[Piece, np.ndarray]]:
    """Cut at the armholes, the sides and the shoulders, and lay every panel flat."""
    shoulder = figure.at("upperarm01.L")
    armhole = np.abs(shirt.vertices_m[:, 0]) - (shoulder[0] + 0.004) + 0.25 * (shirt.vertices_m[:, 2] - shoulder[2])
    # Below the arm the side of the trunk must not count as sleeve.
    along = figure.along_arm(shirt.vertices_m, elsewhere=-1)
    armhole = np.where(along < -0.25, -0.05, armhole)
    trunk, sleeves = cut(shirt, armhole)
    seam = trunk.vertices_m[:, 1] - (shoulder[1] + 0.012)
    front, back = cut(trunk, seam)
    yield front, lay_flat(front.vertices_m, front.faces)
    yield back, lay_flat(back.vertices_m, back.faces)
    for side, sign in ((".L", 1), (".R", -1)):
        sleeve = sleeves.compact((sleeves.vertices_m[:, 0] * sign > 0)[sleeves.faces].all(axis=1))
        top, elbow = figure.at("upperarm01" + side), figure.at("lowerarm01" + side)
        arm = (elbow - top) / np.linalg.norm(elbow - top)
        across = np.cross(arm, [0, 1.0, 0]) * -sign  # up and out
        yield _open_tube(sleeve, top, arm, across)


def _open_tube(tube: Piece, start: np.ndarray, axis: np.ndarray, top: np.ndarray) -> tuple[Piece, np.ndarray]:
    """A tube cut open opposite ``top``, in the armpit, and its (V, 2) metres round and along."""
    points = tube.vertices_m - start
    angle = np.arctan2(points @ np.cross(axis, top), points @ top)
    corners = angle[tube.faces]
    wraps = np.ptp(corners, axis=1) > np.pi
    # Faces across the cut get their own copies of the corners on the far side, a whole turn on.
    again = np.unique(tube.faces[wraps][corners[wraps] < 0])
    copy = np.arange(len(angle))
    copy[again] = len(angle) + np.arange(len(again))
    faces = tube.faces.copy()
    faces[wraps] = np.where(corners[wraps] < 0, copy[faces[wraps]], faces[wraps])
    angle = np.concatenate([angle, angle[again] + 2 * np.pi])
    piece = Piece(faces, {k: np.concatenate([v, v[again]]) for k, v in tube.attributes.items()})
    return piece, np.stack([angle * SLEEVE_RADIUS_M, (piece.vertices_m - start) @ axis], axis=1)


def _skirt_radius(figure: Figure, angle: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """(R, C) distance of the skirt from the vertical through the hips."""
    body = figure.mesh.vertices_m[np.unique(figure.mesh.quads["helper-tights"])]
    body = body[np.abs(body[:, 0]) < 0.3]
    direction = np.stack([np.sin(angle), -np.cos(angle)], 1)  # from the front over her left
    radius = np.zeros((len(heights), len(angle)))
    for row, z in enumerate(heights):
        ring = body[np.abs(body[:, 2] - z) < 0.03][:, :2] - SKIRT_CENTRE_M
        # The convex hull's radius: the cloth spans hollows.
        support = (ring @ direction.T).max(axis=0)
        cosine = direction @ direction.T
        radius[row] = np.where(cosine > 0.2, support[None] / np.maximum(cosine, 0.2), np.inf).min(axis=1)
    radius = np.maximum.accumulate(np.where(heights[:, None] < 0.86, radius, 0), axis=0).clip(radius)
    down = ((SKIRT_TOP_M - heights) / (SKIRT_TOP_M - SKIRT_HEM_M)).clip(0)[:, None]
    pleats = 1 + 0.05 * np.sin(12 * angle)[None] * down**1.2
    return (radius + 0.006 + 0.085 * down**1.5) * pleats


def skirt(figure: Figure, columns: int = 84, rows: int = 26) -> Part:
    """A flared skirt round the hips, wide enough to swing."""
    angle = np.linspace(0, 2 * np.pi, columns + 1)
    direction = np.stack([np.sin(angle), -np.cos(angle)], 1)
    heights = np.linspace(SKIRT_TOP_M, SKIRT_HEM_M, rows)
    down = (SKIRT_TOP_M - heights) / (SKIRT_TOP_M - SKIRT_HEM_M)
    radius = _skirt_radius(figure, angle, heights)
    flat = SKIRT_CENTRE_M + radius[..., None] * direction
    position = np.concatenate([flat, np.broadcast_to(heights[:, None, None], (rows, columns + 1, 1))], axis=2)
    under = position - np.concatenate([direction, np.zeros((columns + 1, 1))], 1) * 0.012
    helper = np.unique(figure.mesh.quads["helper-tights"])
    near = np.argmin(((figure.mesh.vertices_m[helper][None] - position.reshape(-1, 1, 3)) ** 2).sum(2), axis=1)
    skin = figure.weights[helper[near]].reshape(rows, columns + 1, -1)
    skin = smooth(skin.reshape(-1, skin.shape[2]), grid_faces(rows, columns + 1), 8)
    pelvis = np.zeros(figure.weights.shape[1])
    pelvis[0] = 1
    rigid = np.repeat(np.clip(down * 3, 0, 0.6), columns + 1)[:, None]
    skin = pelvis * (1 - rigid) + skin * rigid
    free = np.repeat(np.clip((down - 0.12) / 0.5, 0, 1), columns + 1)
    attributes = {
        "position": position.reshape(-1, 3),
        "weights": skin,
        "under": under.reshape(-1, 3),
        "attach": (1 - free) ** 3,
        "reach": 0.003 + 0.5 * free,
    }
    uv = np.stack(np.broadcast_arrays(angle[None] / (2 * np.pi), down[:, None]), -1)
    return Part("skirt", Piece(grid_faces(rows, columns + 1), attributes), uv.reshape(-1, 2), SKIRT)
