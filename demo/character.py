"""A performer's arrays and how her skeleton carries them.

V vertices, F faces, J joints.  Enters: ``performer.npz`` or ``dana.npz`` (written by ``demo/build.py``), and joint
rotations.  Leaves: joints and skinned vertices in the world frame.
A joint's rotation is given in body-aligned axes at rest, as in SMPL: G_j = G_parent T(j_j - j_parent) R_j.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numba import njit

PERFORMER = Path(__file__).with_name("performer.npz")
PERFORMERS = {"demo": PERFORMER, "dana": Path(__file__).with_name("dana.npz")}


@dataclass(frozen=True)
class Character:
    """A rigged, textured mesh; see ``demo/build.py`` for the layout."""

    vertices_m: np.ndarray  # (V, 3) at rest, body frame
    faces: np.ndarray  # (F, 3) int32
    hidden_faces: np.ndarray  # (G, 3) cloth that other cloth covers: simulated, not drawn
    uv: np.ndarray  # (U, 2)
    face_uv: np.ndarray  # (F, 3) int32
    material: np.ndarray  # (F,) uint8
    materials: tuple[str, ...]
    textures: tuple[np.ndarray, ...]  # (h, w, 3) uint8 sRGB, one per material
    skin_joints: np.ndarray  # (V, 4)
    skin_values: np.ndarray  # (V, 4) float32
    joint_names: tuple[str, ...]
    joint_parents: np.ndarray  # (J,)
    joints_m: np.ndarray  # (J, 3) at rest
    layer: np.ndarray  # (V,) 0 body and what follows it, 1 shirt, 2 skirt
    attach: np.ndarray  # (C,) of the cloth vertices, in order: 1 = held by the skin
    reach_m: np.ndarray  # (C,) how far one may stray from there
    under_m: np.ndarray  # (C, 3) body surface under it

    @staticmethod
    def load(path: Path = PERFORMER) -> Character:
        """Read the shipped performer."""
        with np.load(path, allow_pickle=False) as arrays:
            materials = tuple(str(m) for m in arrays["materials"])
            textures = tuple(_decode(arrays[f"texture_{m}"]) for m in materials)
            values = arrays["skin_values"].astype(np.float32)
            return Character(
                vertices_m=arrays["vertices_m"].astype(np.float64),
                faces=arrays["faces"].astype(np.int32),
                hidden_faces=arrays["hidden_faces"].astype(np.int32),
                uv=arrays["uv"].astype(np.float32),
                face_uv=arrays["face_uv"].astype(np.int32),
                material=arrays["material"],
                materials=materials,
                textures=textures,
                skin_joints=arrays["skin_joints"].astype(np.int64),
                skin_values=values / values.sum(axis=1, keepdims=True),
                joint_names=tuple(str(n) for n in arrays["joint_names"]),
                joint_parents=arrays["joint_parents"].astype(np.int64),
                joints_m=arrays["joints_m"].astype(np.float64),
                layer=arrays["layer"],
                attach=arrays["attach"].astype(np.float64),
                reach_m=arrays["reach_m"].astype(np.float64),
                under_m=arrays["under_m"].astype(np.float64),
            )

    def joint(self, name: str) -> int:
        return self.joint_names.index(name)

    def bone_transforms(self, rotations: np.ndarray, world_from_root: np.ndarray) -> np.ndarray:
        """(J, 4, 4) world transforms of the joints' frames.

        rotations (J, 3, 3) local; world_from_root (4, 4) places the root joint, its rotation included.
        """
        world = np.zeros((len(rotations), 4, 4))
        world[:, 3, 3] = 1
        for joint, parent in enumerate(self.joint_parents):
            if parent < 0:
                world[joint] = world_from_root
                continue
            offset = self.joints_m[joint] - self.joints_m[parent]
            world[joint, :3, :3] = world[parent, :3, :3] @ rotations[joint]
            world[joint, :3, 3] = world[parent, :3, :3] @ offset + world[parent, :3, 3]
        return world

    def skin(
        self, world: np.ndarray, points_m: np.ndarray | None = None, vertices: np.ndarray | None = None
    ) -> np.ndarray:
        """Vertices (V, 3) in the world; ``points_m`` are other rest positions, of the ``vertices`` (indices) named."""
        relative = world[:, :3].copy()
        relative[:, :, 3] -= np.einsum("jab,jb->ja", world[:, :3, :3], self.joints_m)
        rest = self.vertices_m if points_m is None else points_m
        joints = self.skin_joints if vertices is None else self.skin_joints[vertices]
        values = self.skin_values if vertices is None else self.skin_values[vertices]
        return _skin(relative, rest, joints, values.astype(np.float64))


def _decode(jpeg: np.ndarray) -> np.ndarray:
    image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@njit(cache=True)
def _skin(relative, rest, joints, values):
    result = np.zeros((len(rest), 3))
    for v in range(len(rest)):
        for k in range(joints.shape[1]):
            w = values[v, k]
            if w == 0:
                continue
            m = relative[joints[v, k]]
            for a in range(3):
                result[v, a] += w * (m[a, 0] * rest[v, 0] + m[a, 1] * rest[v, 1] + m[a, 2] * rest[v, 2] + m[a, 3])
    return result


@njit(cache=True)
def vertex_normals(vertices, faces):
    """(V, 3) float32 unit normals, area-weighted over the faces."""
    normals = np.zeros((len(vertices), 3))
    for f in range(len(faces)):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in range(3):
            v = faces[f, k]
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    out = np.zeros((len(vertices), 3), np.float32)
    for v in range(len(vertices)):
        length = np.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2)
        if length > 1e-12:
            for k in range(3):
                out[v, k] = normals[v, k] / length
    return out
