"""The body model: arrays, forward kinematics and linear blend skinning.

In: shape coefficients, joint rotations, a global placement.  Out: posed vertices, joints, landmarks in metres.
V vertices, F faces, U texture coordinates, J joints, S shape coefficients, K influences per vertex, P parts,
L landmarks.

Frame: +x to the body's left, +z up, the face looks along -y, the origin on the floor between the feet.
Kinematics are those of SMPL (Loper et al. 2015, eq. 2-4): a joint's rotation is an axis-angle vector in BODY-ALIGNED
axes at rest, G_j = G_parent(j) T(j_j - j_parent) Rot(pose_j), and v' = sum_j w_vj G_j T(-j_j) v.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from capture.errors import BROKEN_NPZ, UserError
from fitting.body.bones import draped
from fitting.body.outward import outward
from fitting.body.skinning import kinematics, rotations, skin

MAX_INFLUENCES = 6
FINE = ("head", "hands", "feet")  # regions all of clefts
CUT = ("template_m", "shape_basis_m", "skin_weights", "pose_basis_m")  # what a skirt changes in every vertex
HEM = ("hem_points_m", "hem_weights")
OPTIONAL = ("pose_basis_m", *HEM)
OTHERS = {"under": "bare_", "hemmed": "hemmed_"}  # bodies that differ in that, and how they are named in a file
DEFAULT_PATH = Path(__file__).with_name("anny_coarse.npz")


@dataclass(frozen=True)
class BodyModel:
    """A coarse skinned body.  Immutable; every array is as the comment says, float32 unless noted."""

    template_m: np.ndarray  # (V, 3) rest pose of the zero shape
    shape_basis_m: np.ndarray  # (S, V, 3); a coefficient of 1 is one standard deviation, ordered by variance
    faces: np.ndarray  # (F, 3) int32, counter-clockwise from outside
    uv: np.ndarray  # (U, 2) in [0, 1], v down; charts do not overlap
    face_uv: np.ndarray  # (F, 3) int32 into uv
    face_part: np.ndarray  # (F,) uint8 in 1..P, the chart a face lies in
    part_names: tuple[str, ...]  # (P + 1,), [0] = "background"
    face_region: np.ndarray  # (F,) uint8 index into region_names, coarser than parts: what is worn together
    region_names: tuple[str, ...]
    joint_names: tuple[str, ...]  # (J,)
    parents: np.ndarray  # (J,) int32, -1 for the root, parents come first
    joints_template_m: np.ndarray  # (J, 3)
    joints_basis_m: np.ndarray  # (S, J, 3)
    skin_weights: np.ndarray  # (V, J), rows sum to 1, at most MAX_INFLUENCES nonzero
    landmark_names: tuple[str, ...]  # (L,) MediaPipe's pose landmarks in MediaPipe's order; empty when unknown
    landmark_weights: np.ndarray  # (L, V), rows sum to 1
    joint_free: np.ndarray  # (J, 3) bool, rotations that a fit may use
    joint_lower: np.ndarray  # (J, 3) rad, box around the anatomical range in body-aligned axes
    joint_upper: np.ndarray  # (J, 3) rad
    joint_prior_mean: np.ndarray  # (J, 3) rad, a person standing at ease, in body-aligned axes
    joint_prior_std: np.ndarray  # (J, 3) rad, how far a rotation usually goes from there, in body-aligned axes
    joint_axes: np.ndarray  # (J, 3, 3), columns: twist (along the bone), hinge (flexion), swing; right-handed
    local_free: np.ndarray  # (J, 3) bool, the same as joint_free, but about joint_axes: a knee has no swing
    local_lower: np.ndarray  # (J, 3) rad, anatomical range of joint_axes.T @ pose: twist, hinge, swing
    local_upper: np.ndarray  # (J, 3) rad
    local_prior_mean: np.ndarray  # (J, 3) rad
    local_prior_std: np.ndarray  # (J, 3) rad
    pose_basis_m: np.ndarray | None = field(default=None)  # (9 (J0 - 1), V, 3) SMPL's pose correctives, of J0 joints
    # The last joints may be a skirt's bones (fitting.body.bones): a point of the hem under each of its panels, and how
    # the B points hang on the other joints when a pose says nothing of the bones.
    hem_points_m: np.ndarray | None = field(default=None)  # (B, 3)
    hem_weights: np.ndarray | None = field(default=None)  # (B, J0), rows sum to 1; J = J0 + 1 + B
    # Of somebody in a skirt (fitting.skirt), whose surface goes on below its hem and is moved by bones: the same
    # without it, and with one that ends at the hem and is moved by the legs.
    under: BodyModel | None = field(default=None)
    hemmed: BodyModel | None = field(default=None)

    def __post_init__(self) -> None:
        V, J, F = len(self.template_m), len(self.parents), len(self.faces)
        expected = {
            "template_m": (V, 3), "shape_basis_m": (self.num_shape, V, 3), "faces": (F, 3), "face_uv": (F, 3),
            "face_part": (F,), "face_region": (F,), "joints_template_m": (J, 3),
            "joints_basis_m": (self.num_shape, J, 3), "skin_weights": (V, J),
            "landmark_weights": (len(self.landmark_names), V), "joint_axes": (J, 3, 3),
        }  # fmt: skip
        for name in _JOINT_TABLES:
            expected[name] = (J, 3)
        if self.pose_basis_m is not None:
            expected["pose_basis_m"] = (9 * (self.num_skeleton - 1), V, 3)
        if self.hem_points_m is not None:
            B = len(self.hem_points_m)
            expected |= {"hem_points_m": (B, 3), "hem_weights": (B, self.num_skeleton)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise UserError(f"body model: {name} has shape {getattr(self, name).shape}, expected {shape}")
        if (
            J == 0
            or self.parents[0] != -1
            or (self.parents[1:] >= np.arange(1, J)).any()
            or (self.parents[1:] < 0).any()
        ):
            raise UserError("body model: parents must start with -1 and come before their children")
        if F and (self.faces.min() < 0 or self.faces.max() >= V):
            raise UserError(f"body model: faces name vertices outside 0..{V - 1}")

    @property
    def num_shape(self) -> int:
        """S, the number of shape coefficients."""
        return len(self.shape_basis_m)

    @property
    def num_joints(self) -> int:
        """J."""
        return len(self.parents)

    @property
    def num_skeleton(self) -> int:
        """J0, the number of joints that are no bones of a skirt; they come first."""
        return self.num_joints - (0 if self.hem_points_m is None else 1 + len(self.hem_points_m))

    @property
    def bare(self) -> BodyModel:
        """The body without a skirt: itself, where it wears none."""
        return self if self.under is None else self.under

    @cached_property
    def is_cloth(self) -> np.ndarray:
        """(V,) bool: what of a body in a skirt is skirt."""
        skin = self.bare.skin_weights
        return np.asarray((self.skin_weights[:, : skin.shape[1]] != skin).any(1), bool)

    @cached_property
    def _is_spanned(self) -> np.ndarray:
        """(V,) bool: where cloth spans clefts; hair, gloves and shoes are as fine as ears, fingers and toes."""
        fine = np.isin(np.array(self.region_names)[self.face_region], FINE)
        return ~np.isin(np.arange(len(self.template_m)), self.faces[fine])

    def outward(self, rest_m: np.ndarray) -> np.ndarray:
        """(V, 3) float32 unit, read-only: where offsets move vertices (V, 3) at rest (``fitting.body.outward``)."""
        return outward(rest_m, self.faces, self._is_spanned)

    @property
    def tracked(self) -> BodyModel:
        """The body to track this person with: a skirt's surface ends where the skirt does, and goes with the legs."""
        return self if self.hemmed is None else self.hemmed

    @cached_property
    def skin_joints(self) -> np.ndarray:
        """(V, K) int32: the joints that move each vertex, strongest first; padded with joint 0 at weight 0."""
        return self._compact_skin[0]

    @cached_property
    def skin_values(self) -> np.ndarray:
        """(V, K) float32: their weights; rows sum to 1."""
        return self._compact_skin[1]

    @cached_property
    def _compact_skin(self) -> tuple[np.ndarray, np.ndarray]:
        width = max(1, int((self.skin_weights > 0).sum(1).max()))
        order = np.argsort(-self.skin_weights, axis=1, kind="stable")[:, :width]
        values = np.take_along_axis(self.skin_weights, order, axis=1)
        joints = np.where(values > 0, order, 0)
        return joints.astype(np.int32), np.ascontiguousarray(values, dtype=np.float32)

    def joint_index(self, name: str) -> int:
        """Index of a joint.  Raises KeyError for a name that this body does not have."""
        try:
            return self.joint_names.index(name)
        except ValueError:
            raise KeyError(f"no joint {name!r} in this body") from None

    def shaped(
        self, shape: np.ndarray | None = None, vertex_offsets_m: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rest pose of a person: vertices (V, 3) and joints (J, 3), float32 metres, body frame.

        shape (s,) with s <= S (missing coefficients are 0); vertex_offsets_m (V,) moves vertices ``outward``.
        """
        if shape is None or len(shape) == 0:
            vertices_m, joints_m = self.template_m.copy(), self.joints_template_m.copy()
        else:
            coefficients = np.asarray(shape, np.float32)
            assert len(coefficients) <= self.num_shape, (len(coefficients), self.num_shape)
            vertices_m = self.template_m + np.tensordot(coefficients, self.shape_basis_m[: len(coefficients)], 1)
            joints_m = self.joints_template_m + np.tensordot(coefficients, self.joints_basis_m[: len(coefficients)], 1)
        if vertex_offsets_m is not None:
            offsets_m = np.asarray(vertex_offsets_m, np.float32)
            vertices_m = vertices_m + offsets_m[:, None] * self.outward(vertices_m)
        return vertices_m, joints_m

    def posed(
        self,
        shape: np.ndarray | None,
        pose: np.ndarray,
        camera_from_body: np.ndarray | None = None,
        vertex_offsets_m: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V, 3) and joints (J, 3) of a posed person in the frame ``camera_from_body`` (4, 4) leads to.

        pose (J, 3) axis-angle rad, a skirt's bones may be left out (``whole``); without ``camera_from_body`` the result
        stays in the body frame.
        """
        vertices_m, joints_m = self.shaped(shape, vertex_offsets_m)
        return self.pose_vertices(vertices_m, joints_m, pose, camera_from_body)

    def pose_vertices(
        self,
        rest_vertices_m: np.ndarray,
        rest_joints_m: np.ndarray,
        pose: np.ndarray,
        to_from_body: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Skin vertices that ``shaped`` prepared: (V, 3), (J, 3) float32 in the frame of ``to_from_body`` (4, 4)."""
        joints, pose = np.ascontiguousarray(rest_joints_m, np.float64), self.whole(pose, rest_joints_m)
        to_from_body = np.eye(4) if to_from_body is None else np.ascontiguousarray(to_from_body, np.float64)
        to_from_joint = kinematics(pose, joints, self.parents, to_from_body)
        vertices = rest_vertices_m
        if self.pose_basis_m is not None:
            feature = (rotations(pose[1 : self.num_skeleton]) - np.eye(3)).reshape(-1)  # (9 (J0 - 1),)
            vertices = vertices + np.tensordot(feature.astype(np.float32), self.pose_basis_m, 1)
        vertices = np.ascontiguousarray(vertices, np.float32)
        skinned = skin(vertices, joints, to_from_joint, self.skin_joints, self.skin_values)
        return skinned, to_from_joint[:, :, 3].astype(np.float32)

    def whole(self, pose: np.ndarray, rest_joints_m: np.ndarray) -> np.ndarray:
        """(J, 3) float64: ``pose`` without bones that this body lacks, and with those of its skirt, as it hangs, where
        ``pose`` says nothing of them; nothing else may be missing."""
        pose = np.ascontiguousarray(pose, np.float64).reshape(-1, 3)
        assert len(pose) >= self.num_skeleton, f"a pose of {len(pose)} joints for a body of {self.num_skeleton}"
        return pose[: self.num_joints] if len(pose) >= self.num_joints else draped(self, rest_joints_m, pose)

    def joint_transforms(
        self, rest_joints_m: np.ndarray, pose: np.ndarray, to_from_body: np.ndarray | None = None
    ) -> np.ndarray:
        """(J, 3, 4) float64: to_from_joint, the rotation of each joint's axes and its position in metres."""
        to_from_body = np.eye(4) if to_from_body is None else np.ascontiguousarray(to_from_body, np.float64)
        pose = self.whole(pose, rest_joints_m)
        return kinematics(pose, np.ascontiguousarray(rest_joints_m, np.float64), self.parents, to_from_body)

    def landmarks(self, vertices_m: np.ndarray) -> np.ndarray:
        """(L, 3) MediaPipe landmarks of posed vertices of a ``bare`` body, same frame."""
        return self.landmark_weights @ vertices_m

    def save(self, path: Path) -> None:
        """Write a compressed .npz without pickles; equal models give equal bytes."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in OTHERS}
        for other, prefix in OTHERS.items():
            if (body := getattr(self, other)) is not None:
                arrays |= {prefix + name: getattr(body, name) for name in (*CUT, *HEM)}
        arrays = {name: value for name, value in arrays.items() if value is not None}
        members: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
        np.savez_compressed(path, **members)

    @staticmethod
    def load(path: Path) -> BodyModel:
        """Read what ``save`` wrote.  Raises UserError for anything else."""
        try:
            with np.load(path, allow_pickle=False) as data:
                arrays = {name: data[name] for name in data.files}
        except BROKEN_NPZ as error:
            raise UserError(f"{path}: not a readable body model ({error})") from None
        known = {f.name for f in fields(BodyModel)}
        missing = known - set(arrays) - {*OPTIONAL, *OTHERS}
        if missing:
            raise UserError(f"{path}: not a body model, it lacks {', '.join(sorted(missing))}")
        for name in ("part_names", "region_names", "joint_names", "landmark_names"):
            arrays[name] = tuple(str(item) for item in arrays[name])
        model = BodyModel(**{name: value for name, value in arrays.items() if name in known})
        others: dict[str, Any] = {
            other: model._cut({name: arrays.get(prefix + name) for name in (*CUT, *HEM)})
            for other, prefix in OTHERS.items()
            if prefix + CUT[0] in arrays
        }
        if "hemmed" in others:
            others["hemmed"] = replace(others["hemmed"], under=others.get("under"))
        return replace(model, **others)

    def _cut(self, arrays: dict[str, Any]) -> BodyModel:
        """The same body with other arrays of a skirt, and without bones where the weights know none."""
        count = arrays["skin_weights"].shape[1]
        joints = {name: getattr(self, name)[:count] for name in _JOINTS}
        return replace(self, **arrays, **joints, joints_basis_m=self.joints_basis_m[:, :count])

    @staticmethod
    def default() -> BodyModel:
        """The body that ships with the project, built by ``python -m fitting.body.build``."""
        return BodyModel.load(DEFAULT_PATH)


def strongest(weights: np.ndarray, count: int) -> np.ndarray:
    """Skinning weights (V, J) without all but the ``count`` strongest of a row, which sum to 1 again."""
    kept = weights.copy()
    weakest = np.argsort(-weights, axis=1, kind="stable")[:, count:]
    np.put_along_axis(kept, weakest, 0, axis=1)
    return np.asarray(kept / kept.sum(1, keepdims=True))


_JOINT_TABLES = (
    "joint_free", "joint_lower", "joint_upper", "joint_prior_mean", "joint_prior_std",
    "local_free", "local_lower", "local_upper", "local_prior_mean", "local_prior_std",
)  # fmt: skip
_JOINTS = (*_JOINT_TABLES, "joint_names", "parents", "joints_template_m", "joint_axes")
