"""MediaPipe's 33 pose landmarks on the body, as weights over its vertices.

In: the coarse mesh of the mean person, sampled people, joints.  Out: (33, V) weights, rows sum to 1, none negative.
V vertices, N sampled people.  A landmark on the skin is a point of a triangle.  A landmark inside (a joint's centre) is
the blend of the vertices around it that follows Anny's joint best over all sampled people, or SMPL's own regressor.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

MEDIAPIPE_NAMES = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index", "left_thumb",
    "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_heel",
    "right_heel", "left_foot_index", "right_foot_index",
)  # fmt: skip
_JOINT_OF = {
    "shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist", "pinky": "finger5-1", "index": "finger2-1",
    "thumb": "finger1-2", "hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot",
}  # fmt: skip
_FROM_NOSE_M = {  # the left half of an adult's face, measured on the shipped body; x mirrored for the right half
    "{side}_eye_inner": np.array([0.018, 0.024, 0.038]),
    "{side}_eye": np.array([0.031, 0.022, 0.042]),
    "{side}_eye_outer": np.array([0.043, 0.030, 0.039]),
    "mouth_{side}": np.array([0.027, 0.020, -0.030]),
}


def landmark_weights(
    samples_m: np.ndarray,
    joint_samples_m: np.ndarray,
    joint_names: tuple[str, ...],
    faces: np.ndarray,
    skin_points_m: dict[str, np.ndarray],
    mirror: np.ndarray,
) -> np.ndarray:
    """(33, V): samples_m (N, V, 3), joint_samples_m (N, J, 3), skin_points_m points of the mean person by MediaPipe's
    name (nose and left side only), mirror (V,) the vertex on the other side of the body."""
    mean_m = samples_m.mean(0)
    weights = np.zeros((len(MEDIAPIPE_NAMES), len(mean_m)))
    for name, point_m in skin_points_m.items():
        weights[MEDIAPIPE_NAMES.index(name)] = _on_surface(point_m, mean_m, faces)
    for stem, joint in _JOINT_OF.items():
        target = joint_samples_m[:, joint_names.index(f"{joint}.L")]
        weights[MEDIAPIPE_NAMES.index(f"left_{stem}")] = _inside(target, samples_m)
    for row, name in enumerate(MEDIAPIPE_NAMES):
        if "right" in name:
            weights[row] = weights[MEDIAPIPE_NAMES.index(name.replace("right", "left")), mirror]
    return weights


def _on_surface(point_m: np.ndarray, vertices_m: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) barycentric weights of the surface point nearest to ``point_m``."""
    corners = vertices_m[faces]  # (F, 3, 3)
    best: tuple[int, np.ndarray] | None = None
    best_m = np.inf
    for f in np.argsort(((corners - point_m) ** 2).sum(2).min(1))[:60]:
        bary, _ = nnls(np.vstack([corners[f].T, np.full(3, 1e3)]), np.append(point_m, 1e3))
        distance_m = float(np.linalg.norm(bary @ corners[f] - point_m))
        if distance_m < best_m:
            best, best_m = (int(f), bary / bary.sum()), distance_m
    assert best is not None
    weights = np.zeros(len(vertices_m))
    weights[faces[best[0]]] = best[1]
    return weights


def _inside(target_m: np.ndarray, samples_m: np.ndarray, ring: int = 60) -> np.ndarray:
    """(V,) blend of the vertices around a joint centre, (N, 3) in N people: near their mean, and on the centre."""
    distance_m = np.linalg.norm(samples_m - target_m[:, None], axis=2).mean(0)
    near = np.argsort(distance_m, kind="stable")[:ring]
    A = (samples_m[:, near] - target_m[:, None]).transpose(0, 2, 1).reshape(-1, ring)  # (3N, ring), wanted: A w = 0
    spread = 0.01 * np.sqrt(len(A)) * np.eye(ring)  # metres of error that an uneven blend costs
    rows = np.vstack([A, spread, np.full((1, ring), 1e3)])
    blend, _ = nnls(rows, np.concatenate([np.zeros(len(A)), spread.sum(1) / ring, [1e3]]))
    weights = np.zeros(samples_m.shape[1])
    weights[near] = blend / blend.sum()
    return weights


def skin_points(
    vertices_m: np.ndarray,
    head_vertices: np.ndarray,
    foot_vertices: np.ndarray,
    eye_loop: np.ndarray,
    eye_center: int,
    lip_loop: np.ndarray,
) -> dict[str, np.ndarray]:
    """Nose and left-side landmarks that lie on the skin of the mean person's dense mesh, metres."""
    head, foot, eye = vertices_m[head_vertices], vertices_m[foot_vertices], vertices_m[eye_loop]
    lips = vertices_m[lip_loop]
    middle = np.abs(head[:, 0]) < 1e-6
    ear_m = head[head[:, 0] > head[:, 0].max() - 0.012]  # the rim of the ear
    lobe_to_tip = ear_m[:, 2].min(), ear_m[:, 2].max()
    tragus_m = np.array([head[:, 0].max() - 0.014, ear_m[:, 1].min() - 0.008, np.mean(lobe_to_tip)])
    toes = foot[foot[:, 2] < 0.05]
    toe_m = toes[toes[:, 1].argmin()]
    heel = foot[(foot[:, 2] < 0.04)]
    return {
        "nose": head[middle][head[middle, 1].argmin()],
        "left_eye_inner": eye[eye[:, 0].argmin()],
        "left_eye": vertices_m[eye_center],
        "left_eye_outer": eye[eye[:, 0].argmax()],
        "left_ear": tragus_m,
        "mouth_left": lips[lips[:, 0].argmax()],
        "left_heel": heel[heel[:, 1].argmax()],
        "left_foot_index": toe_m,
    }


def regressed_landmarks(
    template_m: np.ndarray,
    faces: np.ndarray,
    joint_regressor: np.ndarray,
    skin_weights: np.ndarray,
    joint_names: tuple[str, ...],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(33, V) weights for a body with a joint regressor (J, V), and the tips of its feet by side, metres.

    Joint centres come from the regressor.  The face and the feet are found by their shape: the nose is what stands out
    furthest, eyes and mouth lie at an adult's distances from it, heel and toe tip are the ends of the foot.
    """
    weights = np.zeros((len(MEDIAPIPE_NAMES), len(template_m)))
    toes_m = {}
    owner = skin_weights.argmax(1)
    head = np.flatnonzero(owner == joint_names.index("head"))
    nose_m = template_m[head[template_m[head, 1].argmin()]]
    ear = {"left": template_m[head, 0].argmax(), "right": template_m[head, 0].argmin()}
    points_m = {"nose": nose_m}
    for side, sign in (("left", 1), ("right", -1)):
        for name, offset_m in _FROM_NOSE_M.items():
            points_m[name.format(side=side)] = nose_m + np.array([sign, 1, 1]) * offset_m
        points_m[f"{side}_ear"] = template_m[head[ear[side]]] + np.array([-sign * 0.014, -0.015, 0])
        letter = side[0].upper()
        foot_joints = [j for j, joint in enumerate(joint_names) if joint in (f"foot.{letter}", f"toe1-1.{letter}")]
        foot = template_m[np.isin(owner, foot_joints)]
        low = foot[foot[:, 2] < 0.05]
        points_m[f"{side}_foot_index"] = toes_m[letter] = low[low[:, 1].argmin()]
        points_m[f"{side}_heel"] = low[low[:, 1].argmax()]
        for stem, joint in _JOINT_OF.items():
            chosen = next((n for n in (f"{joint}.{letter}", f"hand.{letter}") if n in joint_names), None)
            assert chosen is not None, joint
            weights[MEDIAPIPE_NAMES.index(f"{side}_{stem}")] = joint_regressor[joint_names.index(chosen)]
    for name, point_m in points_m.items():
        weights[MEDIAPIPE_NAMES.index(name)] = _on_surface(point_m, template_m, faces)
    return weights / weights.sum(1, keepdims=True), toes_m
