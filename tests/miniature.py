"""A miniature subject for the tests of rendering and training: a jointed doll of tubes, filmed in a painted room.

The performer is not the tracked body: his clothes stand off it, his texture is drawn by a formula, the poses the tests
track with are slightly wrong, and the exposure drifts.  N frames, V vertices, F faces, J joints, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from capture.camera import Camera, project
from fitting.body.model import BodyModel
from rendering.rasterize import rasterize, rasterize_covered
from rendering.rasters import CompactRaster

# name, from, to (metres, body frame), radius, parent joint
TUBES = (
    ("torso", (0.0, 0.0, 0.85), (0.0, 0.0, 1.45), 0.16, -1),
    ("head", (0.0, 0.0, 1.48), (0.0, 0.0, 1.75), 0.10, 0),
    ("arm.L", (0.18, 0.0, 1.40), (0.62, 0.0, 1.10), 0.055, 0),
    ("arm.R", (-0.18, 0.0, 1.40), (-0.62, 0.0, 1.10), 0.055, 0),
    ("leg.L", (0.09, 0.0, 0.85), (0.13, 0.0, 0.05), 0.08, 0),
    ("leg.R", (-0.09, 0.0, 0.85), (-0.13, 0.0, 0.05), 0.08, 0),
)
RINGS, AROUND = 7, 12
CAMERA = Camera((240, 320), 300.0, 300.0, 120.0, 160.0)
CAMERA_FROM_BODY = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0.9], [0, 1, 0, 2.7], [0, 0, 0, 1]])


@lru_cache(maxsize=1)
def doll() -> BodyModel:
    """The tracked body: 6 tubes, 6 joints, each tube a chart of the atlas and a region."""
    vertices: list[np.ndarray] = []
    uv: list[tuple[float, float]] = []
    faces, face_uv, face_part, weights = [], [], [], []
    for part, (_, bottom, top, radius, _) in enumerate(TUBES):
        base, base_uv = len(vertices), len(uv)
        start, axis = np.array(bottom), np.subtract(top, bottom)
        side = np.cross(axis, (0, 1, 0)) / np.linalg.norm(np.cross(axis, (0, 1, 0)))
        front = np.cross(side, axis) / np.linalg.norm(axis)
        if np.dot(np.cross(side, front), axis) < 0:
            front = -front
        for ring in range(RINGS + 1):
            t = ring / RINGS
            size = radius * np.sqrt(max(1 - (2 * t - 1) ** 6, 0.02))  # rounded ends
            for step in range(AROUND):
                angle = 2 * np.pi * step / AROUND
                vertices.append(start + axis * t + size * (np.cos(angle) * side + np.sin(angle) * front))
                weights.append(np.eye(len(TUBES))[part])
            for step in range(AROUND + 1):
                uv.append(((part % 3 + 0.04 + 0.92 * step / AROUND) / 3, (part // 3 + 0.04 + 0.92 * t) / 2))
        for ring in range(RINGS):
            for step in range(AROUND):
                a, b = base + ring * AROUND + step, base + ring * AROUND + (step + 1) % AROUND
                c, d = a + AROUND, b + AROUND
                ua = base_uv + ring * (AROUND + 1) + step
                uc = ua + AROUND + 1
                faces += [(a, b, d), (a, d, c)]
                face_uv += [(ua, ua + 1, uc + 1), (ua, uc + 1, uc)]
                face_part += [part + 1] * 2
    names = tuple(name for name, *_ in TUBES)
    joints = len(TUBES)
    template = np.array(vertices, np.float32)
    table = np.ones((joints, 3))
    return BodyModel(
        template_m=template,
        shape_basis_m=np.stack([template * (0.05, 0.05, 0)]).astype(np.float32),
        faces=np.array(faces, np.int32),
        uv=np.array(uv, np.float32),
        face_uv=np.array(face_uv, np.int32),
        face_part=np.array(face_part, np.uint8),
        part_names=("background", *names),
        face_region=np.array(face_part, np.uint8) - 1,
        region_names=names,
        joint_names=names,
        parents=np.array([parent for *_, parent in TUBES], np.int32),
        joints_template_m=np.array([start for _, start, *_ in TUBES], np.float32),
        joints_basis_m=np.zeros((1, joints, 3), np.float32),
        skin_weights=np.array(weights, np.float32),
        landmark_names=(),
        landmark_weights=np.zeros((0, len(template)), np.float32),
        joint_free=np.ones((joints, 3), bool),
        joint_lower=-3 * table,
        joint_upper=3 * table,
        joint_prior_mean=0 * table,
        joint_prior_std=table,
        joint_axes=np.stack([np.eye(3)] * joints),
        local_free=np.ones((joints, 3), bool),
        local_lower=-3 * table,
        local_upper=3 * table,
        local_prior_mean=0 * table,
        local_prior_std=table,
    )


def dance(num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """pose (N, J, 3) and camera_from_body (N, 4, 4): arms and legs swing while the doll turns from side to side."""
    pose, placed = np.zeros((num_frames, len(TUBES), 3)), np.stack([CAMERA_FROM_BODY] * num_frames)
    for frame in range(num_frames):
        phase = 2 * np.pi * frame / 24
        pose[frame, 1, 2] = 0.4 * np.sin(phase)
        pose[frame, 2] = (0.4 * np.cos(phase), 0.7 * np.sin(phase), 0)
        pose[frame, 3] = (0.3 * np.sin(1.3 * phase), -0.7 * np.sin(0.8 * phase), 0)
        pose[frame, 4, 0], pose[frame, 5, 0] = 0.5 * np.sin(phase), -0.5 * np.sin(phase)
        turn = 1.2 * np.sin(0.61 * phase)
        placed[frame, :3, :3] = CAMERA_FROM_BODY[:3, :3] @ cv2.Rodrigues(np.array([0, 0, turn]))[0]
        placed[frame, 0, 3] += 0.1 * np.sin(0.37 * phase)
    return pose, placed


def paint_doll(uv: np.ndarray, part: np.ndarray, look: int = 0) -> np.ndarray:
    """The performer's true colours (..., 3) in [0, 1]: stripes and spots of its own on every part, others per look."""
    u, v = uv[..., 0] * 40, uv[..., 1] * 40
    stripes = 0.5 + 0.5 * np.sign(np.sin(u * (2 + look)) * np.where(part % 2 == 1, np.sin(v * 2), 1))
    hue = (part[..., None] + 10 * look) * np.array([1.7, 2.9, 4.3])
    return np.clip((0.5 + 0.4 * np.sin(hue)) * (0.55 + 0.45 * stripes[..., None]), 0, 1)


@dataclass(frozen=True)
class Film:
    """What the stages before training would have left, as far as training reads it."""

    colors: list[np.ndarray]  # (H, W, 3) uint8
    alphas: list[np.ndarray]  # (H, W) float32
    pose: np.ndarray  # (N, J, 3) as tracked: slightly wrong
    camera_from_body: np.ndarray  # (N, 4, 4)
    boxes_px: np.ndarray  # (N, 4)
    image_wh: tuple[int, int]  # of the raster

    @property
    def part_doubted(self) -> np.ndarray:
        return np.zeros((len(self), len(TUBES) + 1), bool)

    def color(self, index: int) -> np.ndarray:
        return self.colors[index]

    def __len__(self) -> int:
        return len(self.colors)

    def __getitem__(self, index: int) -> CompactRaster:
        """The compact raster of one frame."""
        vertices_m, _ = doll().posed(None, self.pose[index], self.camera_from_body[index])
        camera = CAMERA.crop(tuple(self.boxes_px[index]), self.image_wh)
        return CompactRaster.of(rasterize_covered(doll(), vertices_m, camera))


@lru_cache(maxsize=8)
def film(
    num_frames: int, image_wh: tuple[int, int] = (40, 64), seed: int = 0, drift: float = 0.08, look: int = 0
) -> Film:
    """Film the doll: clothes 2.5 cm off the body, an exposure drift, and tracking that is off by 0.02 rad."""
    rng = np.random.default_rng(seed)
    pose, placed = dance(num_frames)
    width, height = CAMERA.image_wh
    fine = CAMERA.resize((2 * width, 2 * height))
    room = cv2.resize(rng.uniform(0.3, 0.8, (12, 9, 3)), fine.image_wh, interpolation=cv2.INTER_CUBIC)
    clothes_m = np.where(np.arange(len(doll().template_m)) < (RINGS + 1) * AROUND, 0.03, 0.01).astype(np.float32)
    colors, alphas, boxes = [], [], []
    for frame in range(num_frames):
        vertices_m, _ = doll().posed(None, pose[frame], placed[frame], clothes_m)
        raster = rasterize(doll(), vertices_m, fine)
        light = 0.75 + 0.25 * (raster.normal @ np.array([0.5, -0.6, -0.6]))
        person = paint_doll(raster.uv, raster.part, look) * light[..., None]
        picture = np.where(raster.mask[..., None], person, room) * (1 + drift * np.sin(frame))
        picture = cv2.resize(picture, CAMERA.image_wh, interpolation=cv2.INTER_AREA)
        colors.append(np.rint(picture.clip(0, 1) * 255).astype(np.uint8))
        alphas.append(cv2.resize(raster.mask.astype(np.float32), CAMERA.image_wh, interpolation=cv2.INTER_AREA))
        points_px = project(CAMERA, vertices_m)
        centre, half_h = (points_px.min(0) + points_px.max(0)) / 2, 0.62 * np.ptp(points_px[:, 1])
        half_w = half_h * image_wh[0] / image_wh[1]
        boxes.append((centre[0] - half_w, centre[1] - half_h, centre[0] + half_w, centre[1] + half_h))
    tracked = pose + rng.normal(0, 0.02, pose.shape) * (np.arange(len(TUBES)) > 0)[None, :, None]
    return Film(colors, alphas, tracked, placed, np.array(boxes), image_wh)
