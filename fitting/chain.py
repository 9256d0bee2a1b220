"""The kinematic chain as the solver sees it: points of the posed body and their derivatives.

J joints, V vertices, L landmarks, P = V + L points, D pose degrees of freedom, C skinning contributions.

A skinned point is  p = sum_c R_j(c) q_c + t_j(c) w_c  with q_c = w_c times the rest position.  A landmark is a weighted
sum of vertices, so it has the same form with the contributions of its vertices added up per joint: points of both kinds
run through one code path, exactly.

Rotating joint j by a small world rotation dw moves p by  dw x (m_j - s_j a_j),  where a_j is the joint's place and
m_j, s_j sum the contributions below j.  The derivative by the axis-angle vector is dw = R_parent J_left(pose_j) dpose_j
with the left Jacobian of SO(3) (Sola et al. 2018, "A micro Lie theory", eq. 145).

A pose DoF is a component of the axis-angle vector along the joint's own axes (twist, hinge, swing), because that is
where anatomy has its limits:  pose_j = axes_j x_j.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from fitting.body.model import BodyModel, kinematics
from fitting.body.skinning import vertex_normals

HAIR_M = 0.03  # short hair stands off by so much, more on one side than on the other, and not the same in every view


@dataclass(frozen=True)
class Chain:
    """A body of fixed shape, ready to be posed.  All arrays float64 or int32."""

    parents: np.ndarray  # (J,)
    joints_m: np.ndarray  # (J, 3) rest
    start: np.ndarray  # (P + 1,) contributions of point p are start[p]:start[p + 1]
    joint: np.ndarray  # (C,)
    weight: np.ndarray  # (C,)
    weighted_m: np.ndarray  # (C, 3)
    num_vertices: int
    axes: np.ndarray  # (J, 3, 3) columns: twist, hinge, swing
    free_joint: np.ndarray  # (D,) which joint a pose DoF belongs to
    free_axis: np.ndarray  # (D,) which of its three axes
    first_dof: np.ndarray  # (J,) index of the joint's first free DoF, -1 = locked
    num_dofs: np.ndarray  # (J,)
    looseness_m: np.ndarray  # (V,) sigma that cloth adds to what is seen of the vertex; 0 = tight, or not known
    hair_m: np.ndarray  # (V,) sigma that hair adds to the outline; 0 where none grows
    limbs: tuple[np.ndarray, ...]  # the joints of left arm, right arm, left leg, right leg

    @staticmethod
    def build(
        body: BodyModel,
        vertices_m: np.ndarray,
        joints_m: np.ndarray,
        looseness_m: np.ndarray | None = None,
        landmark_offsets_m: np.ndarray | None = None,
        bare_m: np.ndarray | None = None,
    ) -> Chain:
        """From the shaped rest body: vertices (V, 3), joints (J, 3), looseness (V,), landmark offsets (L, 3), and the
        vertices (V, 3) of the bare body, on which landmarks lie, where cloth is another surface."""
        weights = np.asarray(body.skin_weights, float)  # (V, J)
        landmarks = np.asarray(body.landmark_weights, float)  # (L, V)
        vertices = np.asarray(vertices_m, float)
        naked = np.asarray(body.bare.skin_weights, float)
        bare_weights = np.pad(naked, ((0, 0), (0, weights.shape[1] - naked.shape[1])))  # a skirt has bones of its own
        bare = vertices if bare_m is None else np.asarray(bare_m, float)
        near = landmarks.any(0)  # few vertices carry landmarks
        landmarks, bare_weights, bare = landmarks[:, near], bare_weights[near], bare[near]
        landmark_weights = landmarks @ bare_weights
        landmark_weighted = np.einsum("lv,vj,vx->ljx", landmarks, bare_weights, bare, optimize=True)
        if landmark_offsets_m is not None:
            landmark_weighted = landmark_weighted + landmark_weights[..., None] * landmark_offsets_m[:, None]
        all_weights = np.concatenate([weights, landmark_weights])
        point, joint = np.nonzero(all_weights > 1e-9)
        weighted = np.empty((len(point), 3))
        is_vertex = point < len(weights)
        weighted[is_vertex] = weights[point[is_vertex], joint[is_vertex], None] * vertices[point[is_vertex]]
        weighted[~is_vertex] = landmark_weighted[point[~is_vertex] - len(weights), joint[~is_vertex]]
        free = np.array(body.local_free, bool)
        free[0] = False  # the root moves as camera_from_body
        free_joint, free_axis = np.nonzero(free)
        num_dofs = free.sum(1)
        first_dof = np.where(num_dofs > 0, np.concatenate([[0], np.cumsum(num_dofs)[:-1]]), -1)
        return Chain(
            parents=np.asarray(body.parents, np.int32),
            joints_m=np.ascontiguousarray(joints_m, float),
            start=np.searchsorted(point, np.arange(len(all_weights) + 1)).astype(np.int32),
            joint=joint.astype(np.int32),
            weight=all_weights[point, joint],
            weighted_m=weighted,
            num_vertices=len(weights),
            axes=np.ascontiguousarray(body.joint_axes, float),
            free_joint=free_joint.astype(np.int32),
            free_axis=free_axis.astype(np.int32),
            first_dof=first_dof.astype(np.int32),
            num_dofs=num_dofs.astype(np.int32),
            looseness_m=np.zeros(len(vertices)) if looseness_m is None else np.asarray(looseness_m, float),
            hair_m=hair_sigma_m(body, vertices),
            limbs=limbs_of(body),
        )

    @property
    def is_dressed(self) -> bool:
        """Whether clothes were measured on this chain: some vertices are looser than others."""
        return bool(self.looseness_m.any())

    @property
    def num_free(self) -> int:
        """D; a whole state has D + 6 unknowns, the last six are the root's rotation and translation."""
        return len(self.free_joint)

    def dofs(self, pose: np.ndarray) -> np.ndarray:
        """The free DoFs (D,) of a pose (J, 3)."""
        return _dofs(self.axes, self.free_joint, self.free_axis, pose)

    def with_dofs(self, pose: np.ndarray, dofs: np.ndarray) -> np.ndarray:
        """A pose (J, 3) whose free DoFs are ``dofs`` (D,) and whose locked ones are those of ``pose``."""
        local = np.einsum("jki,jk->ji", self.axes, pose)
        local[self.free_joint, self.free_axis] = dofs
        return np.einsum("jik,jk->ji", self.axes, local)

    def transforms(self, pose: np.ndarray, camera_from_body: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Skinning rotations (J, 3, 3), skinning translations (J, 3) and joint places (J, 3), in the camera's frame."""
        placed = kinematics(pose, self.joints_m, self.parents, camera_from_body)  # (J, 3, 4)
        rotations, places = np.ascontiguousarray(placed[:, :, :3]), np.ascontiguousarray(placed[:, :, 3])
        return rotations, places - np.einsum("jrc,jc->jr", rotations, self.joints_m), places

    def points(self, rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
        """(P, 3) vertices, then landmarks."""
        return _points(rotations, translations, self.start, self.joint, self.weight, self.weighted_m)

    def landmarks(self, rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
        """(L, 3) the last of ``points``, alone."""
        start = self.start[self.num_vertices :]
        return _points(rotations, translations, start, self.joint, self.weight, self.weighted_m)

    def posed(self, pose: np.ndarray, camera_from_body: np.ndarray) -> np.ndarray:
        """(P, 3) points of a pose, in the camera's frame."""
        rotations, translations, _ = self.transforms(pose, camera_from_body)
        return self.points(rotations, translations)

    def turned(self, directions: np.ndarray, pose: np.ndarray, camera_from_body: np.ndarray) -> np.ndarray:
        """(V, 3): how vertices move in the camera's frame when they move by ``directions`` (V, 3) at rest."""
        rotations, translations, _ = self.transforms(pose, camera_from_body)
        start = self.start[: self.num_vertices + 1]
        point = np.repeat(np.arange(self.num_vertices), np.diff(start))
        weighted = self.weight[: start[-1], None] * np.asarray(directions, float)[point]
        return _points(rotations, np.zeros_like(translations), start, self.joint, self.weight, weighted)

    def jacobian(
        self, pose: np.ndarray, camera_from_body: np.ndarray, point: np.ndarray, gradient: np.ndarray
    ) -> np.ndarray:
        """Rows gradient_r . dp/dx for residuals r that look at one point each.

        point (R,) int32, gradient (R, 3).  Returns (R, D + 6): pose DoFs, root rotation (left-multiplied, about the
        root joint's place), root translation.
        """
        rotations, translations, places = self.transforms(pose, camera_from_body)
        return _jacobian(
            pose, rotations, translations, places, self.parents, self.start, self.joint, self.weight, self.weighted_m,
            self.axes, self.first_dof, self.num_dofs, self.free_axis, point, gradient,
        )  # fmt: skip


def head_vertices(body: BodyModel) -> np.ndarray:
    """The vertices of the region "head"."""
    numbers = [i for i, name in enumerate(body.region_names) if name == "head"]
    return np.unique(body.faces[np.isin(body.face_region, numbers)])


def hair_sigma_m(body: BodyModel, vertices_m: np.ndarray) -> np.ndarray:
    """(V,) sigma that hair adds to the outline, by the rest surface (V, 3): beside and behind the face.

    Not on the crown, whose outline says how tall somebody is and how far away, and no turn of the head makes it wider.
    """
    head = head_vertices(body)
    upward = vertex_normals(vertices_m, body.faces).astype(float)[head, 2]
    sigma_m = np.zeros(len(vertices_m))
    sigma_m[head] = HAIR_M * np.sqrt(np.clip(1 - upward**2, 0, 1))
    return sigma_m


def limbs_of(body: BodyModel) -> tuple[np.ndarray, ...]:
    """The joints of each arm and leg: below where the ways from both wrists, or both ankles, to the root part."""
    owner = (np.asarray(body.landmark_weights, float) @ np.asarray(body.bare.skin_weights, float)).argmax(1)
    parents = np.asarray(body.parents)

    def way(joint: int) -> list[int]:
        return [joint] if parents[joint] < 0 else [joint, *way(int(parents[joint]))]

    found = []
    for left, right in ((15, 16), (27, 28)):
        ways = way(int(owner[left])), way(int(owner[right]))
        for own, others in (ways, ways[::-1]):
            top = [j for j in own if j not in others][-1]
            found.append(np.array([j for j in range(len(parents)) if top in way(j)]))
    return tuple(found)


@njit(cache=True, nogil=True)
def _dofs(axes, free_joint, free_axis, pose):  # type: ignore[no-untyped-def]
    out = np.zeros(len(free_joint))
    for d in range(len(out)):
        for k in range(3):
            out[d] += axes[free_joint[d], k, free_axis[d]] * pose[free_joint[d], k]
    return out


@njit(cache=True, nogil=True)
def rotation_vector(rotation):  # type: ignore[no-untyped-def]
    """(3,) axis times angle in [0, pi] of a rotation matrix, by way of the quaternion, which is exact at both ends."""
    # Shepperd's method: the largest of the four components is found from the diagonal, the others divided by it.
    trace = rotation[0, 0] + rotation[1, 1] + rotation[2, 2]
    vector = np.empty(3)
    largest = 0
    for k in range(1, 3):
        if rotation[k, k] > rotation[largest, largest]:
            largest = k
    if trace >= rotation[largest, largest]:
        real = 1.0 + trace
        vector[0] = rotation[2, 1] - rotation[1, 2]
        vector[1] = rotation[0, 2] - rotation[2, 0]
        vector[2] = rotation[1, 0] - rotation[0, 1]
    else:
        i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
        real = rotation[k, j] - rotation[j, k]
        vector[i] = 1.0 + 2.0 * rotation[i, i] - trace
        vector[j] = rotation[i, j] + rotation[j, i]
        vector[k] = rotation[i, k] + rotation[k, i]
        if real < 0:
            real, vector = -real, -vector
    length = np.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    if length < 1e-7 * real:
        return 2.0 * vector / real
    return vector * (2.0 * np.arctan2(length, real) / length)


@njit(cache=True, nogil=True)
def left_jacobian(vector: np.ndarray) -> np.ndarray:
    """(3, 3): exp(v + dv) = exp(J dv) exp(v) to first order."""
    x, y, z = vector[0], vector[1], vector[2]
    angle2 = x * x + y * y + z * z
    angle = np.sqrt(angle2)
    if angle < 1e-4:
        b, c = 0.5 - angle2 / 24.0, 1.0 / 6.0 - angle2 / 120.0
    else:
        b, c = (1.0 - np.cos(angle)) / angle2, (angle - np.sin(angle)) / (angle2 * angle)
    out = np.empty((3, 3))
    out[0, 0] = 1.0 - c * (y * y + z * z)
    out[1, 1] = 1.0 - c * (x * x + z * z)
    out[2, 2] = 1.0 - c * (x * x + y * y)
    out[0, 1], out[1, 0] = c * x * y - b * z, c * x * y + b * z
    out[0, 2], out[2, 0] = c * x * z + b * y, c * x * z - b * y
    out[1, 2], out[2, 1] = c * y * z - b * x, c * y * z + b * x
    return out


@njit(cache=True, nogil=True)
def _points(rotations, translations, start, joint, weight, weighted_m):  # type: ignore[no-untyped-def]
    count = len(start) - 1
    out = np.zeros((count, 3))
    for p in range(count):
        for i in range(start[p], start[p + 1]):
            j = joint[i]
            for r in range(3):
                out[p, r] += (
                    rotations[j, r, 0] * weighted_m[i, 0]
                    + rotations[j, r, 1] * weighted_m[i, 1]
                    + rotations[j, r, 2] * weighted_m[i, 2]
                    + translations[j, r] * weight[i]
                )
    return out


@njit(cache=True, nogil=True)
def world_axes(pose, rotations, parents, joint_axes, first_dof, num_dofs, free_axis):  # type: ignore[no-untyped-def]
    """(D, 3): the axis in the camera's frame about which each free DoF turns what hangs on its joint."""
    axes = np.zeros((len(free_axis), 3))
    for j in range(len(parents)):
        if num_dofs[j] == 0:
            continue
        jacobian = left_jacobian(pose[j])
        parent = parents[j]
        for d in range(first_dof[j], first_dof[j] + num_dofs[j]):
            own = joint_axes[j, :, free_axis[d]]
            for k in range(3):
                turned = jacobian[k, 0] * own[0] + jacobian[k, 1] * own[1] + jacobian[k, 2] * own[2]
                for r in range(3):
                    axes[d, r] += rotations[parent, r, k] * turned
    return axes


@njit(cache=True, nogil=True)
def _jacobian(  # type: ignore[no-untyped-def]
    pose, rotations, translations, places, parents, start, joint, weight, weighted_m,
    joint_axes, first_dof, num_dofs, free_axis, point, gradient,
):  # fmt: skip
    num_joints = len(parents)
    total = len(free_axis)
    axes = world_axes(pose, rotations, parents, joint_axes, first_dof, num_dofs, free_axis)
    out = np.zeros((len(point), total + 6))
    moment = np.zeros((num_joints, 3))
    mass = np.zeros(num_joints)
    for i in range(len(point)):
        moment[:] = 0.0
        mass[:] = 0.0
        p = point[i]
        px = py = pz = 0.0
        for c in range(start[p], start[p + 1]):
            j = joint[c]
            x = rotations[j, 0, 0] * weighted_m[c, 0] + rotations[j, 0, 1] * weighted_m[c, 1]
            x += rotations[j, 0, 2] * weighted_m[c, 2] + translations[j, 0] * weight[c]
            y = rotations[j, 1, 0] * weighted_m[c, 0] + rotations[j, 1, 1] * weighted_m[c, 1]
            y += rotations[j, 1, 2] * weighted_m[c, 2] + translations[j, 1] * weight[c]
            z = rotations[j, 2, 0] * weighted_m[c, 0] + rotations[j, 2, 1] * weighted_m[c, 1]
            z += rotations[j, 2, 2] * weighted_m[c, 2] + translations[j, 2] * weight[c]
            px += x
            py += y
            pz += z
            while j > 0:
                moment[j, 0] += x
                moment[j, 1] += y
                moment[j, 2] += z
                mass[j] += weight[c]
                j = parents[j]
        gx, gy, gz = gradient[i, 0], gradient[i, 1], gradient[i, 2]
        for j in range(1, num_joints):
            if mass[j] == 0.0 or num_dofs[j] == 0:
                continue
            rx = moment[j, 0] - mass[j] * places[j, 0]
            ry = moment[j, 1] - mass[j] * places[j, 1]
            rz = moment[j, 2] - mass[j] * places[j, 2]
            # g . (axis x r) = axis . (r x g)
            cx, cy, cz = ry * gz - rz * gy, rz * gx - rx * gz, rx * gy - ry * gx
            for d in range(first_dof[j], first_dof[j] + num_dofs[j]):
                out[i, d] = axes[d, 0] * cx + axes[d, 1] * cy + axes[d, 2] * cz
        rx, ry, rz = px - places[0, 0], py - places[0, 1], pz - places[0, 2]
        out[i, total] = ry * gz - rz * gy
        out[i, total + 1] = rz * gx - rx * gz
        out[i, total + 2] = rx * gy - ry * gx
        out[i, total + 3] = gx
        out[i, total + 4] = gy
        out[i, total + 5] = gz
    return out
