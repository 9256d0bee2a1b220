"""What no frame shows of a person: colours carried on over the body from what was seen.

T texels per side, V vertices, F faces.  Unknown colours are the least uneven ones on the surface (a Dirichlet problem,
by linear finite elements), where around a trunk or limb counts for much and along it for little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix, identity
from scipy.sparse.linalg import spsolve

from fitting.body.model import BodyModel
from rendering.avatar import Shape
from rendering.worn import nearest_vertices, spread

LEAST_SURE = 0.6  # of what is known of the median vertex: rims say what was behind
# Clothes end around a trunk or limb, not along it: of what goes around, how much goes along.  Where hair and face or
# fingers and palm meet, there is no such rule.
ALONG, UPRIGHT = 0.01, ("torso", "legs")
FINER = 2  # times that faces are cut in four: a hem is not as broad as a face
ENDS, LEAK = ("head", "hands", "feet"), 0.01  # hair, skin and shoes seldom go on as what they stick out of
GLIMPSED = 0.15  # of what is known of the median texel: with less, it is what is around it, too
STRAY, LEAST_M2 = 1e-8, 1e-9  # how much a vertex is drawn to the mean; no face has less area


def continued(colors: np.ndarray, seen: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Colours (T, T, 3) carried on along the body to all its texels, and which those are (T, T) bool.

    seen (T, T): how well each is known, 0 = not at all.  What is unknown is as smooth on the surface as can be, around
    trunk and limbs above all: a jacket that was seen from the front ends behind where it ends in front, and below the
    edge of a picture trousers go on from the last that was seen, forearms from elbows.
    """
    mesh = _Mesh.of(shape)
    vertex, is_body = nearest_vertices(mesh, len(seen))
    count = len(mesh.places_m)
    weight = np.bincount(vertex[is_body], seen[is_body], count)
    totals = [np.bincount(vertex[is_body], (seen * colors[..., k])[is_body], count) for k in range(3)]
    known = weight > LEAST_SURE * (np.median(weight[weight > 0]) if weight.any() else 0)
    if not known.any():
        return colors, seen > 0
    vertex_colors = np.stack(totals, axis=1) / np.maximum(weight, 1e-9)[:, None]
    # Pieces of the mesh that show nothing known are as the whole person is.
    mean = np.average(vertex_colors[known], axis=0, weights=weight[known])
    stiffness = mesh.stiffness()
    given = STRAY * mean - stiffness[~known][:, known] @ vertex_colors[known]
    if (~known).any():
        free = (stiffness + STRAY * identity(count, format="csr"))[~known][:, ~known].tocsc()
        low, high = vertex_colors[known].min(axis=0), vertex_colors[known].max(axis=0)
        vertex_colors[~known] = np.clip(spsolve(free, given).reshape(-1, 3), low, high)
    smooth = spread(mesh, vertex_colors.astype(np.float32), len(seen))
    sure = np.clip(seen / (GLIMPSED * np.median(seen[seen > 0])), 0, 1)[..., None]
    filled = np.where(is_body[..., None], sure * colors + (1 - sure) * smooth, colors)
    return filled.astype(np.float32), is_body | (seen > 0)


@dataclass(frozen=True)
class _Mesh:
    """A body at rest in finer faces, and what colours take the same course along."""

    places_m: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)
    uv: np.ndarray  # (U, 2)
    face_uv: np.ndarray  # (F, 3)
    passed: np.ndarray  # (F, 3, 3) how much of a slope of colour goes through

    @staticmethod
    def of(shape: Shape) -> _Mesh:
        body = shape.body
        places_m, faces, uv, face_uv = body.shaped(shape.shape)[0].astype(float), body.faces, body.uv, body.face_uv
        passed = _passed(body)
        for _ in range(FINER):
            (places_m, faces), (uv, face_uv) = _midpoints(places_m, faces), _midpoints(uv, face_uv)
            passed = np.repeat(passed, 4, axis=0)
        return _Mesh(places_m, faces, uv, face_uv, passed)

    def stiffness(self) -> csr_matrix:
        """(V, V) of linear finite elements: the sum over faces of area * grad_i . passed grad_j."""
        corners = self.places_m[self.faces]  # (F, 3, 3)
        opposite = corners[:, [2, 0, 1]] - corners[:, [1, 2, 0]]  # the edge opposite to each corner
        normal = np.cross(opposite[:, 0], opposite[:, 1])
        twice = np.maximum(np.linalg.norm(normal, axis=1), LEAST_M2)
        slope = np.cross(normal[:, None], opposite) / twice[:, None, None] ** 2  # (F, 3, 3) of the hat functions
        local = np.einsum("fix,fxy,fjy->fij", slope, self.passed, slope) * (twice / 2)[:, None, None]
        rows, columns = np.repeat(self.faces, 3, axis=1), np.tile(self.faces, (1, 3))
        return csr_matrix((local.ravel(), (rows.ravel(), columns.ravel())), shape=(len(self.places_m),) * 2)


def _passed(body: BodyModel) -> np.ndarray:
    """(F, 3, 3) ``_Mesh.passed`` of a body's faces."""
    region = np.array(body.region_names)[body.face_region]
    along = np.zeros((len(region), 3, 3))
    along[np.isin(region, UPRIGHT), 2, 2] = 1
    arms, bones = region == "arms", body.joint_axes[:, :, 0].astype(float)
    along[arms] = np.einsum("fcj,jx,jy->fxy", body.skin_weights[body.faces[arms]] / 3, bones, bones)
    passed = np.eye(3) - (1 - ALONG) * along
    ends = np.isin(region, ENDS)
    others = np.isin(np.arange(len(body.template_m)), body.faces[~ends])
    passed[ends & others[body.faces].any(axis=1)] *= LEAK
    return passed


def _midpoints(values: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (V + E, C) of the vertices and of the middles of edges, and faces (4 F, 3): each in four."""
    edges, edge = np.unique(
        np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0, return_inverse=True
    )
    a, b, c = faces.T
    ab, bc, ca = (len(values) + edge.reshape(-1, 3)).T
    finer = np.stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca], axis=1).reshape(-1, 3)
    return np.concatenate([values, values[edges].mean(axis=1)]), finer.astype(faces.dtype)
