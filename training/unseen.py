"""What no frame shows of a person: colours carried on over the body from what was seen.

T texels per side, V vertices, F faces.  Unknown colours are those of least total variation on the surface (Rudin, Osher
and Fatemi 1992; by the lagged diffusivity of Vogel and Oman 1996, on linear finite elements), where around a trunk or
limb counts for much and along it for little: a hem stays an edge, and a leg that was never seen has the colour of most
of what is around its beginning, not of a hand that hung there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix, identity
from scipy.sparse.linalg import spsolve

from fitting.body.model import BodyModel
from rendering.avatar import Shape
from rendering.worn import nearest_vertices, spread

LEAST_SURE = 0.6  # of how well the median vertex is known: rims say what was behind
# Clothes end around a trunk or limb, not along it: of what goes around, how much goes along.  Where hair and face or
# fingers and palm meet, there is no such rule.
ALONG, UPRIGHT = 0.01, ("torso", "legs")
# Faces are cut in four until there are as many, or two texels for each: a hem is not as broad as a face.
LEAST_FACES = 20_000
ENDS, LEAK = ("head", "hands", "feet"), 0.01  # hair, skin and shoes seldom go on as what they stick out of
GLIMPSED = 0.15  # of how well the median texel is known: with less, it is what is around it, too
ROUNDS, GENTLE_PER_M = 6, 1.0  # below this slope (black to white is 2) squares count: shades stay soft
STRAY, LEAST_M2 = 1e-8, 1e-9  # how much a vertex is drawn to the mean; no face has less area


def continued(colors: np.ndarray, seen: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Colours (T, T, 3) carried on along the body to all its texels, and which those are (T, T) bool.

    seen (T, T): how often each was seen, by how much of it, 0 = never; what that says counts by the area on the body,
    which a texel of a hand has less of.  A jacket that was seen from the front ends behind where it ends in front, and
    below the edge of a picture trousers go on from the last that was seen, forearms from elbows.
    """
    mesh = _Mesh.of(shape, len(seen))
    vertex, is_body = nearest_vertices(mesh, len(seen))
    count, own = len(mesh.places_m), vertex[is_body]
    sureness = seen / mesh.texels_m2(len(seen))[vertex]  # per m^2
    texels = np.maximum(np.bincount(own, minlength=count), 1)
    weight = np.bincount(own, sureness[is_body], count) / texels
    known = weight > LEAST_SURE * (np.median(weight[weight > 0]) if weight.any() else 0)
    if not known.any():
        return colors, seen > 0
    sums = np.stack([np.bincount(own, (sureness * colors[..., k])[is_body], count) for k in range(3)], axis=1)
    vertex_colors = _carried_on(mesh, sums / np.maximum(weight * texels, 1e-9)[:, None], weight, known)
    smooth = spread(mesh, vertex_colors.astype(np.float32), len(seen))
    own_share = np.clip(sureness / (GLIMPSED * np.median(sureness[seen > 0])), 0, 1)[..., None]
    return (own_share * colors + (1 - own_share) * smooth).astype(np.float32), is_body | (seen > 0)


def _carried_on(mesh: _Mesh, colors: np.ndarray, weight: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Colours (V, 3) of the vertices, where ``known`` (V,) the given ones; pieces of the mesh that show nothing known
    are as the whole person is."""
    colors, unknown = colors.copy(), ~known
    mean = np.average(colors[known], axis=0, weights=weight[known])
    low, high = colors[known].min(axis=0), colors[known].max(axis=0)
    eased = np.ones(len(mesh.faces))
    for _ in range(ROUNDS if unknown.any() else 0):
        stiffness = mesh.stiffness(eased) + STRAY * identity(len(colors), format="csr")
        given = STRAY * mean - stiffness[unknown][:, known] @ colors[known]
        solved = spsolve(stiffness[unknown][:, unknown].tocsc(), given).reshape(-1, 3)
        colors[unknown] = np.clip(solved, low, high)
        eased = 1 / np.sqrt(1 + mesh.steepness(colors) / GENTLE_PER_M**2)
    return colors


@dataclass(frozen=True)
class _Mesh:
    """A body at rest in finer faces, and what colours take the same course along."""

    places_m: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3)
    uv: np.ndarray  # (U, 2)
    face_uv: np.ndarray  # (F, 3)
    area_m2: np.ndarray  # (F,)
    # (F, 3, 3) of linear finite elements: area * (slope of a corner's hat . passed slope of another's)
    stiff: np.ndarray

    @staticmethod
    def of(shape: Shape, texture_px: int) -> _Mesh:
        body = shape.body
        places_m, faces, uv, face_uv = body.shaped(shape.shape)[0].astype(float), body.faces, body.uv, body.face_uv
        passed = _passed(body)
        while len(faces) < min(LEAST_FACES, texture_px**2 / 2):
            (places_m, faces), (uv, face_uv) = _midpoints(places_m, faces), _midpoints(uv, face_uv)
            passed = np.repeat(passed, 4, axis=0)
        corners = places_m[faces]  # (F, 3, 3)
        opposite = corners[:, [2, 0, 1]] - corners[:, [1, 2, 0]]  # the edge opposite to each corner
        normal = np.cross(opposite[:, 0], opposite[:, 1])
        twice_m2 = np.maximum(np.linalg.norm(normal, axis=1), LEAST_M2)
        slope_per_m = np.cross(normal[:, None], opposite) / twice_m2[:, None, None] ** 2
        stiff = slope_per_m @ passed @ slope_per_m.swapaxes(1, 2) * (twice_m2 / 2)[:, None, None]
        return _Mesh(places_m, faces, uv, face_uv, twice_m2 / 2, stiff)

    def texels_m2(self, texture_px: int) -> np.ndarray:
        """(V,) how much of the body a texel covers around each vertex."""
        edges = np.diff(self.uv[self.face_uv] * texture_px, axis=1)
        texels = np.abs(np.linalg.det(edges)) / 2
        corner = self.faces.ravel()
        of_texels, of_body = (np.bincount(corner, np.repeat(each, 3)) for each in (texels, self.area_m2))
        return of_body / np.maximum(of_texels, 1e-9)

    def stiffness(self, eased: np.ndarray) -> csr_matrix:
        """(V, V): the sum over faces of ``eased`` (F,) times ``stiff``."""
        rows, columns = np.repeat(self.faces, 3, axis=1), np.tile(self.faces, (1, 3))
        values = self.stiff * eased[:, None, None]
        return csr_matrix((values.ravel(), (rows.ravel(), columns.ravel())), shape=(len(self.places_m),) * 2)

    def steepness(self, colors: np.ndarray) -> np.ndarray:
        """(F,) per m^2: the squared slope of colours (V, 3), of what of it goes through."""
        corners = colors[self.faces]
        return (corners * (self.stiff @ corners)).sum(axis=(1, 2)) / self.area_m2


def _passed(body: BodyModel) -> np.ndarray:
    """(F, 3, 3) how much of a slope of colour goes through each of a body's faces."""
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
