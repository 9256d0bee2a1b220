"""From Anny's mesh to half a body, ready to be simplified.  Needs ``anny`` and torch; only the build script comes here.

Anny's quads carry eyeballs, tongue, a mouth cavity and eye sockets.  What nobody sees is dropped, the three holes are
closed (the eyes with the front of the eyeball), and the half x >= 0 is kept: MakeHuman's mesh is exactly symmetric.
N samples, V dense vertices, F dense faces, J joints.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.csgraph import connected_components

YOUNGEST_YEARS, OLDEST_YEARS = 15.0, 70.0  # the people who are filmed; children would need a basis of their own


@dataclass(frozen=True)
class DenseBody:
    """Anny at full resolution, and the people sampled from it."""

    samples_m: np.ndarray  # (N, V, 3) rest poses, body frame
    joints_m: np.ndarray  # (N, J, 3)
    faces: np.ndarray  # (F, 3) closed surface seen from outside
    skin_weights: np.ndarray  # (V, J)
    joint_names: tuple[str, ...]
    parents: np.ndarray  # (J,)
    hand_uv: np.ndarray  # (F, 3, 2) MakeHuman's own texture coordinates, NaN where the hole caps have none
    eye_loops: dict[str, np.ndarray]  # "L", "R": vertices around the eye
    eye_centers: dict[str, int]  # "L", "R": the vertex at the front of the eyeball
    lip_loop: np.ndarray  # vertices around the mouth opening


def sample_anny(num_samples: int, seed: int) -> DenseBody:
    """Load Anny and sample adults with its calibrated distribution of phenotypes.  Raises ImportError without anny."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import anny
        from anny.face_segmentation import get_face_segmentation_mask
        from anny.shape_distribution import SimpleShapeDistribution

        model = anny.Anny(rig="anny-notoes-noeyes", topology="anny-quads")
        age = torch.distributions.Uniform(*torch.tensor([YOUNGEST_YEARS, OLDEST_YEARS], dtype=model.dtype))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            _, phenotypes = SimpleShapeDistribution(model, morphological_age_distribution=age).sample(num_samples)
            output = model(phenotype_kwargs=phenotypes)
        hidden = get_face_segmentation_mask(model, ["eye_cavity.L", "eye_cavity.R", "mouth_cavity"]).numpy()
    samples_m = output["rest_vertices"].numpy()
    joints_m = output["rest_bone_heads"].numpy()
    num_vertices = samples_m.shape[1]
    skin_weights = np.zeros((num_vertices, len(model.bone_labels)))
    np.add.at(
        skin_weights,
        (np.arange(num_vertices)[:, None], model.vertex_bone_indices.numpy()),
        model.vertex_bone_weights.numpy(),
    )
    quads = model.faces.numpy()
    quad_uv = model.texture_coordinates.numpy()[model.face_texture_coordinate_indices.numpy()]  # (Q, 4, 2)
    component = _components(quads, num_vertices)
    outer = (component[quads[:, 0]] == np.bincount(component).argmax()) & ~hidden
    faces, uv = _triangulate(quads[outer], quad_uv[outer], samples_m.mean(0))
    faces, caps = _close_holes(faces, samples_m.mean(0), component)
    joint_names = tuple(model.bone_labels)
    samples_m, joints_m = _stand_on_floor(samples_m, joints_m, np.unique(faces), joint_names)
    return DenseBody(
        samples_m=samples_m,
        joints_m=joints_m,
        faces=faces,
        skin_weights=skin_weights,
        joint_names=joint_names,
        parents=np.array(model.bone_parents),
        hand_uv=np.concatenate([uv, np.full((len(faces) - len(uv), 3, 2), np.nan)]),
        **caps,
    )


def _components(faces: np.ndarray, num_vertices: int) -> np.ndarray:
    """(V,) number of the connected piece of mesh that a vertex belongs to."""
    pairs = np.concatenate([faces[:, [i, (i + 1) % faces.shape[1]]] for i in range(faces.shape[1])])
    graph = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), shape=(num_vertices, num_vertices))
    return connected_components(graph, directed=False)[1]


def _triangulate(quads: np.ndarray, quad_uv: np.ndarray, vertices_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split each quad along its shorter diagonal."""
    corners = vertices_m[quads]
    first = np.linalg.norm(corners[:, 0] - corners[:, 2], axis=1)
    second = np.linalg.norm(corners[:, 1] - corners[:, 3], axis=1)
    turn = (second < first)[:, None]
    order = np.where(turn, [1, 2, 3, 0], [0, 1, 2, 3])
    quads = np.take_along_axis(quads, order, 1)
    quad_uv = np.take_along_axis(quad_uv, order[:, :, None], 1)
    index = np.array([[0, 1, 2], [0, 2, 3]])
    return quads[:, index].reshape(-1, 3), quad_uv[:, index].reshape(-1, 3, 2)


def _close_holes(faces: np.ndarray, vertices_m: np.ndarray, component: np.ndarray) -> tuple[np.ndarray, dict]:
    """Cap the eyes with a fan to the front of the eyeball and the mouth with a strip between its lips."""
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    known = {(int(a), int(b)) for a, b in directed}
    following = {b: a for a, b in known if (b, a) not in known}  # an open edge, walked so that its cap faces outward
    loops = []
    while following:
        start = min(following)
        walk = [start]
        while (at := following.pop(walk[-1])) != start:
            walk.append(at)
        loops.append(np.array(walk))
    eye_loops, eye_centers, new_faces = {}, {}, [faces]
    lip_loop = None
    for loop in loops:
        x = vertices_m[loop, 0]
        if x.min() < 0 < x.max():
            lip_loop = loop
            new_faces.append(_zip_lips(loop, vertices_m))
            continue
        side = "L" if x.mean() > 0 else "R"
        eyeballs = np.flatnonzero(component != np.bincount(component).argmax())
        near = eyeballs[np.linalg.norm(vertices_m[eyeballs] - vertices_m[loop].mean(0), axis=1) < 0.03]
        center = int(near[vertices_m[near, 1].argmin()])
        eye_loops[side], eye_centers[side] = loop, center
        new_faces.append(np.stack([loop, np.roll(loop, -1), np.full(len(loop), center)], 1))
    assert lip_loop is not None and sorted(eye_loops) == ["L", "R"], "Anny's mesh is not the one this script knows"
    return np.concatenate(new_faces), {"eye_loops": eye_loops, "eye_centers": eye_centers, "lip_loop": lip_loop}


def _zip_lips(loop: np.ndarray, vertices_m: np.ndarray) -> np.ndarray:
    """Triangles between upper and lower lip; each half is walked from the middle of one lip to that of the other."""
    middle = np.flatnonzero(np.abs(vertices_m[loop, 0]) < 1e-6)
    assert len(middle) == 2
    faces = []
    for start, stop in (middle, middle[::-1]):
        path = np.roll(loop, -start)[: (stop - start) % len(loop) + 1]
        for i in range(len(path) // 2 - 1):
            a, b, c, d = path[i], path[i + 1], path[-2 - i], path[-1 - i]
            faces += [(a, b, d), (b, c, d)]
    return np.array(faces)


def _stand_on_floor(
    samples_m: np.ndarray, joints_m: np.ndarray, outer: np.ndarray, joint_names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Move every sample so that the soles are at z = 0 and the ankles' mean is at x = y = 0."""
    feet = [joint_names.index(name) for name in ("foot.L", "foot.R")]
    origin = joints_m[:, feet].mean(1)
    origin[:, 2] = samples_m[:, outer, 2].min(1)
    return samples_m - origin[:, None], joints_m - origin[:, None]
