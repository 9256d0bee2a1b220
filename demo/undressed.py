"""The performer under her clothes: the truth that a fit of the bare body is measured against.

V points, F faces, N frames.  Enters: the performer's mesh and the settings she was filmed with.  Leaves: her skin in
the colour camera's frame.  It is whole but for the hips, which the skirt's waist replaces, and the feet, which shoes
do; nothing is invented there.

Trunk, upper arms and legs were cut from a layer that stands 6 mm off the skin in the base mesh (median; 3.5 to 10 mm
from place to place), and the leggings were tucked in under the skirt by a known amount: both are taken back.  Against
the base mesh itself what is left is exact on head and arms, and elsewhere wrong by 1 mm in the median, 5 at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capture.camera import transform
from demo.character import Character, vertex_normals
from demo.performer import DemoConfig, camera_poses, play
from demo.wardrobe import SHIRT, SHIRT_OVER_M, SKIRT_HEM_M

STANDOFF_M = 0.006  # of the layer that shirt and leggings were cut from
LEGGING_M, TUCK_M = 0.002, 0.014  # as ``wardrobe.legs`` moves the leggings
WAIST_M = SHIRT_OVER_M + 0.06  # below it the shirt's points were moved onto the skirt


@dataclass(frozen=True)
class Skin:
    """Her skin at rest."""

    points_m: np.ndarray  # (V, 3)
    vertices: np.ndarray  # (V,) whose skinning weights they follow, of the performer's
    faces: np.ndarray  # (F, 3) into points_m

    @property
    def height_m(self) -> float:
        """Sole to crown, barefoot: the base mesh stands on z = 0."""
        return float(self.points_m[:, 2].max())


def undress(character: Character) -> Skin:
    """The parts of the skin that the performer's mesh knows."""
    points = character.vertices_m.copy()
    normals = vertex_normals(points, character.faces).astype(float)
    is_cloth = character.layer > 0
    points[is_cloth] = character.under_m
    shirt = character.layer == SHIRT
    under_normals = vertex_normals(points, character.faces[shirt[character.faces].all(axis=1)])
    points[shirt] -= STANDOFF_M * under_normals[shirt]
    of_leg = character.faces[character.material == character.materials.index("legging")]
    leg = np.unique(of_leg)
    tuck = TUCK_M * np.clip((points[leg, 2] - (SKIRT_HEM_M - 0.01)) / 0.05, 0, 1)
    points[leg] -= normals[leg] * (LEGGING_M - tuck + STANDOFF_M)[:, None]

    is_known = shirt & (points[:, 2] > WAIST_M)
    of_skin = character.faces[character.material == character.materials.index("skin")]
    kept = np.concatenate([of_skin, character.faces[is_known[character.faces].all(axis=1)], of_leg])
    vertices, faces = np.unique(kept, return_inverse=True)
    return Skin(points[vertices], vertices, faces.reshape(-1, 3).astype(np.int32))


def skin_color_m(config: DemoConfig, character: Character, skin: Skin) -> np.ndarray:
    """(N, V, 3) float32 of every frame, in the colour camera's frame."""
    color_from_world, _ = camera_poses()
    worlds, sub_steps, _ = play(config, character)
    frames = (character.skin(world, skin.points_m, skin.vertices) for world in worlds[::sub_steps])
    return np.stack([transform(color_from_world, points_m).astype(np.float32) for points_m in frames])
