"""The IUV atlas: one chart per body part, one texture for all of them, no texel owned twice.

In: the coarse mesh of the mean person and the part of each face.  Out: uv (U, 2) in [0, 1], v down, and face_uv (F, 3).
A tube (arm, leg) is cut open along its inner side.  Right-hand charts are mirror images of the left-hand ones.  Faces
keep their sense of rotation: read as an image, the texture shows the skin unmirrored, mostly with the head's side up.
V vertices, F faces, U texture vertices, C vertices of one chart.
"""

from __future__ import annotations

import heapq
import logging

import numpy as np

from fitting.body.flatten import flatten, stretch
from fitting.body.packing import pack

log = logging.getLogger(__name__)

# How much longer an edge is in the texture than it would be at an even spread: people look at faces and hands.
PART_SCALE = {"face": 1.55, "head_back": 1.2, "palm": 1.4, "hand_back": 1.4, "instep": 1.1, "sole": 0.8}
FACE_FEATURE_SCALE, FACE_FEATURE_REACH_M = 1.5, 0.09  # more again around eyes, nose and mouth
_CUT_TOWARD = {  # where the cut of a left-hand tube should be hidden
    "upper_arm": (-0.8, 0.2, -0.6), "lower_arm": (-0.7, 0.7, -0.3), "upper_leg": (-1.0, 0.3, 0.0),
    "lower_leg": (-1.0, 0.4, 0.0), "instep": (0.0, 1.0, 0.0),
}  # fmt: skip


def build_atlas(
    vertices_m: np.ndarray,
    faces: np.ndarray,
    face_part: np.ndarray,
    part_names: tuple[str, ...],
    nose_m: np.ndarray,
    mirror: np.ndarray | None,
    rng: np.random.Generator,
    tries: int = 40,
) -> tuple[np.ndarray, np.ndarray]:
    """uv (U, 2), face_uv (F, 3).  nose_m (3,) where the face needs detail; mirror (V,) the vertex on the other side,
    None for a mesh that is not symmetric.  A part without faces has no chart."""
    charts: list[np.ndarray] = []
    triangles: list[np.ndarray] = []
    members: list[np.ndarray] = []
    turns: list[tuple[int, ...]] = []
    made: dict[str, int] = {}
    face_of = {tuple(sorted(face)): index for index, face in enumerate(faces.tolist())}
    for part in range(1, len(part_names)):
        name = part_names[part]
        stem, _, side = name.partition(".")
        if side == "R" and mirror is not None:
            twin = made[f"{stem}.L"]
            image = [face_of[tuple(sorted(mirror[faces[f]].tolist()))] for f in members[twin]]
            # corner k of the image sits at the mirror of some corner of the original
            order = np.array(
                [
                    [mirror[faces[f]].tolist().index(v) for v in faces[g]]
                    for f, g in zip(members[twin], image, strict=True)
                ]
            )
            charts.append(charts[twin] * [-1, 1])
            triangles.append(np.take_along_axis(triangles[twin], order, 1))
            members.append(np.array(image))
        else:
            mine = np.flatnonzero(face_part == part)
            if len(mine) == 0:
                continue
            scale = _detail(stem, vertices_m[faces[mine]].mean(1), nose_m)
            chart, local = _chart(vertices_m, faces[mine], scale, _cut_toward(stem, side))
            made[name] = len(charts)
            charts.append(chart)
            triangles.append(local)
            members.append(mine)
            log.info("chart %-12s %4d faces, median stretch %.2f, worst %.1f", name, len(mine), *_distortion(
                chart, local, vertices_m[faces[mine]], scale))  # fmt: skip
        turns.append((0, 1, 2, 3) if side else (0,))
    packed = pack(charts, triangles, turns, rng, tries)
    first = np.cumsum([0, *map(len, packed)])
    face_uv = np.empty_like(faces)
    for start, mine, local in zip(first, members, triangles, strict=False):
        face_uv[mine] = start + local
    return np.concatenate(packed), face_uv


def _detail(stem: str, centers_m: np.ndarray, nose_m: np.ndarray) -> np.ndarray:
    """(F,) wanted length of an edge in the texture per metre."""
    scale = np.full(len(centers_m), PART_SCALE.get(stem, 1.0))
    if stem == "face":
        near = np.exp(-0.5 * (np.linalg.norm(centers_m - nose_m, axis=1) / FACE_FEATURE_REACH_M) ** 2)
        scale *= 1 + (FACE_FEATURE_SCALE - 1) * near
    return scale


def _chart(
    vertices_m: np.ndarray, faces: np.ndarray, scale: np.ndarray, cut_toward: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Flatten one part: positions (C, 2) with y up the body, and its faces (F, 3) over C."""
    local, vertex_of = _split_corners(faces, set())
    while len(rims := _open_loops(local)) > 1:  # a tube, or a patch with a hole: cut from rim to rim
        cuts = _cut(vertices_m[vertex_of], local, rims, cut_toward)
        local, inner = _split_corners(local, cuts)
        vertex_of = vertex_of[inner]
    assert len(rims) == 1, "a chart must have a rim"
    frames = _frames(vertices_m[faces], scale)
    points = flatten(local, frames, np.array(rims[0]))
    return _upright(points, vertices_m[vertex_of, 2]), local


def _frames(corners_m: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(F, 2, 2) triangles laid flat at their wanted size: columns are the edges 0-1 and 0-2."""
    e1, e2 = corners_m[:, 1] - corners_m[:, 0], corners_m[:, 2] - corners_m[:, 0]
    length = np.linalg.norm(e1, axis=1)
    x = (e1 * e2).sum(1) / length
    y = np.linalg.norm(np.cross(e1, e2), axis=1) / length
    frames = np.stack([np.stack([length, x], 1), np.stack([np.zeros_like(x), y], 1)], 1)
    return frames * scale[:, None, None]


def _open_loops(faces: np.ndarray) -> list[list[int]]:
    """Rims of a patch, each walked so that the patch lies to the left (counter-clockwise in the plane)."""
    directed = {(a, b) for face in faces.tolist() for a, b in zip(face, face[1:] + face[:1], strict=True)}
    following = {a: b for a, b in sorted(directed) if (b, a) not in directed}
    loops = []
    while following:
        start = min(following)
        loop = [start]
        while (at := following.pop(loop[-1])) != start:
            loop.append(at)
        loops.append(loop)
    return loops


def _cut_toward(stem: str, side: str) -> np.ndarray | None:
    """Unit vector to the side of a tube where its cut is hidden, None when it does not matter."""
    if stem not in _CUT_TOWARD:
        return None
    toward = np.array(_CUT_TOWARD[stem]) * ([-1, 1, 1] if side == "R" else 1)
    return toward / np.linalg.norm(toward)


def _cut(
    vertices_m: np.ndarray, faces: np.ndarray, loops: list[list[int]], toward: np.ndarray | None
) -> set[tuple[int, int]]:
    """Edges of a cheap path from one rim of a tube to the next, on the side of the tube that ``toward`` points to."""
    toward = np.zeros(3) if toward is None else toward
    axis = vertices_m[loops[1]].mean(0) - vertices_m[loops[0]].mean(0)
    axis /= np.linalg.norm(axis)
    radial = vertices_m - vertices_m[loops[0]].mean(0)
    radial = radial - (radial @ axis)[:, None] * axis
    radial -= radial.mean(0)
    away = 1 - radial @ toward / np.maximum(np.linalg.norm(radial, axis=1), 1e-9)  # 0 on the wanted side, 2 opposite
    near: dict[int, set[int]] = {int(v): set() for v in range(len(vertices_m))}
    for a, b, c in faces.tolist():
        near[a] |= {b, c}
        near[b] |= {a, c}
        near[c] |= {a, b}
    goals, rim = {v for loop in loops[1:] for v in loop}, set(loops[0])
    heap = [(float(away[v]) * 0.1, v, -1) for v in loops[0]]
    heapq.heapify(heap)
    came: dict[int, int] = {}
    while heap:
        cost, v, before = heapq.heappop(heap)
        if v in came:
            continue
        came[v] = before
        if v in goals:
            break
        for w in sorted(near[v] - rim - came.keys()):
            step = np.linalg.norm(vertices_m[v] - vertices_m[w]) * (1 + 10 * (away[v] + away[w]))
            heapq.heappush(heap, (cost + float(step), w, v))
    edges: set[tuple[int, int]] = set()
    while came[v] >= 0:
        edges |= {(v, came[v]), (came[v], v)}
        v = came[v]
    return edges


def _split_corners(faces: np.ndarray, cuts: set[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Give every face corner a chart vertex; corners are shared across edges that are not cut.

    Returns local (F, 3) over C, and vertex_of (C,)."""
    parent = np.arange(faces.size)

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    seen: dict[tuple[int, int], tuple[int, int]] = {}
    for f, face in enumerate(faces.tolist()):
        for k in range(3):
            u, v = face[k], face[(k + 1) % 3]
            mine = 3 * f + k, 3 * f + (k + 1) % 3
            if (v, u) in seen and (u, v) not in cuts:
                theirs = seen[(v, u)]
                parent[root(mine[0])] = root(theirs[1])
                parent[root(mine[1])] = root(theirs[0])
            seen[(u, v)] = mine
    roots = np.array([root(i) for i in range(faces.size)])
    first, local = np.unique(roots, return_inverse=True)
    return local.reshape(-1, 3), faces.ravel()[first]


def _upright(points: np.ndarray, height_m: np.ndarray) -> np.ndarray:
    """Turn a chart so that the body's height grows along +y, and centre it."""
    points = points - points.mean(0)
    slope, *_ = np.linalg.lstsq(points, height_m - height_m.mean(), rcond=None)
    x, y = slope / np.linalg.norm(slope)
    return points @ np.array([[y, x], [-x, y]])


def _distortion(points: np.ndarray, local: np.ndarray, corners_m: np.ndarray, scale: np.ndarray) -> tuple[float, float]:
    values = stretch(points, local, _frames(corners_m, scale))
    worst = np.maximum(values[:, 0], 1 / values[:, 1])
    return float(np.median(worst)), float(worst.max())
