"""Poses that need no recording."""

from __future__ import annotations

import numpy as np

from rendering.avatar import Shape


def standing(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """A person at ease, facing -y, soles on the floor: pose (J, 3) rad and world_from_body (4, 4) metres."""
    pose = np.array(shape.body.bare.joint_prior_mean, np.float64)
    pose[0] = 0
    world_from_body = np.eye(4)
    vertices_m = shape.vertices_camera_m(pose, world_from_body)
    world_from_body[:3, 3] = -np.array([*np.median(vertices_m[:, :2], axis=0), vertices_m[:, 2].min()])
    return pose, world_from_body
