"""Mesh tools the performer is sewn with: cut along a line, refine, smooth, lay flat.

V vertices, F faces, A attributes.  A ``Piece`` carries any per-vertex attributes through cuts and refinements by
linear interpolation, so that weights, rest positions and cloth settings never have to be looked up again.
Only ``demo/build.py`` uses this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Piece:
    """A triangle mesh with per-vertex attributes."""

    faces: np.ndarray  # (F, 3) int
    attributes: dict[str, np.ndarray]  # name -> (V, ...)

    @property
    def vertices_m(self) -> np.ndarray:
        return self.attributes["position"]

    def replaced(self, **attributes: np.ndarray) -> Piece:
        return Piece(self.faces, {**self.attributes, **attributes})

    def compact(self, keep_faces: np.ndarray) -> Piece:
        """The piece with only the faces of a boolean mask, unused vertices dropped."""
        faces = self.faces[keep_faces]
        used, local = np.unique(faces, return_inverse=True)
        return Piece(local.reshape(-1, 3), {k: a[used] for k, a in self.attributes.items()})


@dataclass(frozen=True)
class Part:
    """A piece of the performer in one material."""

    material: str
    piece: Piece  # attributes: position, weights, and for cloth under, attach, reach
    uv: np.ndarray  # (V, 2) in the material's texture; of shirt panels metres on the panel
    layer: int = 0  # 0 follows the skeleton, 1 shirt, 2 skirt
    panel: int = -1  # which panel of the shirt

    def attribute(self, name: str) -> np.ndarray:
        """(V, ...) of the piece, with the defaults of things that are not cloth."""
        count = len(self.piece.vertices_m)
        defaults = {"under": self.piece.vertices_m, "attach": np.ones(count), "reach": np.zeros(count)}
        return self.piece.attributes[name] if name in self.piece.attributes else defaults[name]


def refine(piece: Piece) -> Piece:
    """Every face into four; new vertices at edge midpoints."""
    edges = np.sort(np.concatenate([piece.faces[:, [0, 1]], piece.faces[:, [1, 2]], piece.faces[:, [2, 0]]]), axis=1)
    unique, inverse = np.unique(edges, axis=0, return_inverse=True)
    middle = inverse.reshape(3, -1) + len(piece.vertices_m)
    a, b, c = piece.faces.T
    ab, bc, ca = middle
    faces = np.concatenate([np.stack(f, 1) for f in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return Piece(faces, {k: np.concatenate([v, v[unique].mean(axis=1)]) for k, v in piece.attributes.items()})


def cut(piece: Piece, height: np.ndarray) -> tuple[Piece, Piece]:
    """Split along the line height = 0 of a per-vertex function (V,): the parts where it is negative and positive.

    Faces are cut exactly; both parts share the positions of the new vertices.
    """
    # A vertex within rounding of the line would make slivers: put it on one side for good.
    height = np.where(np.abs(height) < 1e-5, 1e-5, height)
    faces, below = piece.faces, height < 0
    count = below[faces].sum(axis=1)
    crossing = faces[(count == 1) | (count == 2)]
    # Rotate each crossing face so that its odd corner comes first.
    odd_is_below = below[crossing].sum(axis=1) == 1
    odd = np.argmax(below[crossing] == odd_is_below[:, None], axis=1)
    a, b, c = (np.take_along_axis(crossing, ((odd + k) % 3)[:, None], axis=1)[:, 0] for k in range(3))
    pairs = np.sort(np.concatenate([np.stack([a, b], 1), np.stack([a, c], 1)]), axis=1)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    new = inverse.reshape(2, -1) + len(height)
    t = height[unique[:, 0]] / (height[unique[:, 0]] - height[unique[:, 1]])
    attributes = {}
    for name, values in piece.attributes.items():
        weight = t.reshape(-1, *([1] * (values.ndim - 1)))
        attributes[name] = np.concatenate([values, values[unique[:, 0]] * (1 - weight) + values[unique[:, 1]] * weight])
    tips = np.stack([a, new[0], new[1]], 1)
    stumps = np.concatenate([np.stack([new[0], b, c], 1), np.stack([new[0], c, new[1]], 1)])
    stump_is_below = np.concatenate([~odd_is_below, ~odd_is_below])
    negative = np.concatenate([faces[count == 3], tips[odd_is_below], stumps[stump_is_below]])
    positive = np.concatenate([faces[count == 0], tips[~odd_is_below], stumps[~stump_is_below]])
    parts = [Piece(f, attributes) for f in (negative, positive)]
    return parts[0].compact(np.ones(len(negative), bool)), parts[1].compact(np.ones(len(positive), bool))


def join(pieces: list[Piece], weld_m: float = 1e-7) -> Piece:
    """One piece from several; vertices at the same place become one."""
    offset = np.cumsum([0, *(len(p.vertices_m) for p in pieces)])
    faces = np.concatenate([p.faces + o for p, o in zip(pieces, offset, strict=False)])
    attributes = {k: np.concatenate([p.attributes[k] for p in pieces]) for k in pieces[0].attributes}
    keys = np.round(attributes["position"] / max(weld_m, 1e-9)).astype(np.int64)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return Piece(inverse.reshape(-1)[faces], {k: v[first] for k, v in attributes.items()})


def edges_of(faces: np.ndarray) -> np.ndarray:
    """(E, 2) unique edges."""
    return np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0)


def border_of(faces: np.ndarray) -> np.ndarray:
    """Indices of the vertices on open edges."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    return np.unique(unique[count == 1])


def grid_faces(rows: int, columns: int) -> np.ndarray:
    """Faces of a grid whose rows run down and whose columns run to the right, seen from outside."""
    i = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = i[:-1, :-1].ravel(), i[:-1, 1:].ravel(), i[1:, 1:].ravel(), i[1:, :-1].ravel()
    return np.concatenate([np.stack([a, d, c], 1), np.stack([a, c, b], 1)])


def smooth(values: np.ndarray, faces: np.ndarray, rounds: int, hold: np.ndarray | None = None) -> np.ndarray:
    """Move (V, ...) values towards their neighbours' mean; ``hold`` (V,) bool vertices stay."""
    edges = edges_of(faces)
    count = np.bincount(edges.ravel(), minlength=len(values)).reshape(-1, *([1] * (values.ndim - 1)))
    for _ in range(rounds):
        total = np.zeros_like(values, float)
        np.add.at(total, edges[:, 0], values[edges[:, 1]])
        np.add.at(total, edges[:, 1], values[edges[:, 0]])
        moved = np.where(count > 0, 0.5 * values + 0.5 * total / np.maximum(count, 1), values)
        values = moved if hold is None else np.where(hold.reshape(count.shape), values, moved)
    return values


def smooth_border(values: np.ndarray, faces: np.ndarray, rounds: int) -> np.ndarray:
    """Even out (V, ...) values along open edges only: hems and necklines without the stairs of the mesh."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    rim = unique[count == 1]
    share = np.bincount(rim.ravel(), minlength=len(values)).reshape(-1, *([1] * (values.ndim - 1)))
    for _ in range(rounds):
        total = np.zeros_like(values, float)
        np.add.at(total, rim[:, 0], values[rim[:, 1]])
        np.add.at(total, rim[:, 1], values[rim[:, 0]])
        values = np.where(share == 2, 0.5 * values + 0.25 * total, values)
    return values


def vertex_normals(vertices_m: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, area-weighted."""
    corners = vertices_m[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices_m)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], face_normals)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def lay_flat(vertices_m: np.ndarray, faces: np.ndarray, rounds: int = 30) -> np.ndarray:
    """(V, 2) the flat pattern of a panel of cloth, in metres, u to the right and v down; starts at (0, 0).

    First conformal by least squares (Levy et al., 2002), then as rigid as possible (Liu et al., "A local/global
    approach to mesh parameterization", 2008), so that lengths on the table are lengths on the body.  The panel
    is mirror symmetric about x = 0; pinned on that line, the pattern is too.
    """
    local = _flat_faces(vertices_m, faces)  # (F, 3) complex
    middle = np.flatnonzero(np.abs(vertices_m[:, 0]) < 0.012)
    top, bottom = middle[np.argmax(vertices_m[middle, 2])], middle[np.argmin(vertices_m[middle, 2])]
    flat = _conformal(local, faces, len(vertices_m), int(top), int(bottom))
    # Opposite edge vectors and half cotangents of the angles they face.
    edge = local[:, [2, 0, 1]] - local[:, [1, 2, 0]]  # edge k joins corners k + 1 and k + 2
    area2 = (edge[:, 0].conj() * edge[:, 1]).imag
    cotangent = -(edge[:, [1, 2, 0]].conj() * edge[:, [2, 0, 1]]).real / area2[:, None] / 2
    i, j = faces[:, [1, 2, 0]].ravel(), faces[:, [2, 0, 1]].ravel()
    weights = cotangent.ravel().clip(1e-3)
    solve = _laplacian(i, j, weights, len(vertices_m), int(top))
    for _ in range(rounds):
        now = flat[faces][:, [2, 0, 1]] - flat[faces][:, [1, 2, 0]]
        turn = (cotangent * now * edge.conj()).sum(1)
        pull = weights * ((turn / np.abs(turn))[:, None] * edge).ravel()
        right = np.zeros(len(flat), complex)
        np.add.at(right, j, pull)
        np.add.at(right, i, -pull)
        flat = solve(right)
    flat = (flat - flat[top]) * -1j / ((flat[bottom] - flat[top]) / abs(flat[bottom] - flat[top]))  # bottom at -i
    uv = np.stack([flat.real, -flat.imag], axis=1)
    return uv - uv.min(axis=0)


def _flat_faces(vertices_m: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F, 3) complex: every face moved into the plane, seen from outside."""
    corners = vertices_m[faces]
    x_axis = corners[:, 1] - corners[:, 0]
    length = np.linalg.norm(x_axis, axis=1)
    x_axis = x_axis / length[:, None]
    side = corners[:, 2] - corners[:, 0]
    normal = np.cross(x_axis, side)
    y_axis = np.cross(normal / np.linalg.norm(normal, axis=1, keepdims=True), x_axis)
    return np.stack([np.zeros(len(faces)), length, (side * x_axis).sum(1) + 1j * (side * y_axis).sum(1)], axis=1)


def _conformal(local: np.ndarray, faces: np.ndarray, count: int, top: int, bottom: int) -> np.ndarray:
    """(V,) complex least-squares conformal map with two vertices pinned, scaled to the true area."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    area2 = (local[:, 1].conj() * local[:, 2]).imag
    weights = (local[:, [2, 0, 1]] - local[:, [1, 2, 0]]) / np.sqrt(area2)[:, None]
    rows = np.repeat(np.arange(len(faces)), 3)
    matrix = coo_matrix((weights.ravel(), (rows, faces.ravel())), shape=(len(faces), count)).tocsc()
    free = np.setdiff1d(np.arange(count), [top, bottom])
    flat = np.zeros(count, complex)
    flat[bottom] = -1j
    left = matrix[:, free]
    flat[free] = splu((left.conj().T @ left).tocsc()).solve(-(left.conj().T @ (matrix @ flat)))
    corners = flat[faces]
    flat_area2 = ((corners[:, 1] - corners[:, 0]).conj() * (corners[:, 2] - corners[:, 0])).imag
    return flat * np.sqrt(area2.sum() / np.abs(flat_area2.sum()))


def _laplacian(i: np.ndarray, j: np.ndarray, weights: np.ndarray, count: int, pinned: int):
    """Solver of sum over edges of w (u_i - u_j) = right, with one vertex held."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    rows, columns = np.concatenate([i, j, i, j]), np.concatenate([i, j, j, i])
    matrix = coo_matrix(
        (np.concatenate([weights, weights, -weights, -weights]), (rows, columns)), (count, count)
    ).tolil()
    matrix[pinned] = 0
    matrix[pinned, pinned] = 1
    solver = splu(matrix.tocsc())

    def solve(right: np.ndarray) -> np.ndarray:
        right = right.copy()
        right[pinned] = 0
        return solver.solve(right.real) + 1j * solver.solve(right.imag)

    return solve
