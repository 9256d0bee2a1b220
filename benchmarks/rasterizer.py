"""Claim: the rasteriser draws what Open3D's ray caster sees, at least 15 times faster.

Same posed bodies, same camera, interleaved, one process.  The ray caster builds its BVH anew per frame because the
body moves; its result is only face and barycentrics, ours is part, uv and normal as well.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from capture.camera import Camera, pixel_rays
from fitting.body.model import BodyModel
from rendering.rasterize import rasterize, rasterize_covered


def poses_color_m(body: BodyModel, count: int) -> list[np.ndarray]:
    """A turning, walking body 2.9 m in front of the camera, (V, 3) each."""
    vertices_m = []
    for k in range(count):
        pose = np.zeros((body.num_joints, 3))
        swing = np.sin(2 * np.pi * k / count)
        for name, amount in (("upperleg01.L", 0.5), ("upperleg01.R", -0.5), ("lowerarm01.L", -0.6)):
            pose[body.joint_index(name), 0] = amount * swing
        turn = 2 * np.pi * k / count
        camera_from_body = np.eye(4)
        camera_from_body[:3, :3] = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) @ [
            [np.cos(turn), -np.sin(turn), 0],
            [np.sin(turn), np.cos(turn), 0],
            [0, 0, 1],
        ]
        camera_from_body[:3, 3] = 0, 0.85, 2.9
        vertices_m.append(body.posed(np.zeros(body.num_shape), pose, camera_from_body)[0])
    return vertices_m


class RayCaster:
    """Open3D: a new scene per frame, one ray per pixel centre."""

    def __init__(self, body: BodyModel, camera: Camera) -> None:
        import open3d as o3d

        self._scene: Any = o3d.t.geometry.RaycastingScene
        self._faces = body.faces.astype(np.uint32)
        rays = pixel_rays(camera)
        self._rays = np.concatenate([np.zeros_like(rays), rays], -1).astype(np.float32)

    def __call__(self, vertices_m: np.ndarray) -> dict:
        scene = self._scene()
        scene.add_triangles(np.ascontiguousarray(vertices_m, np.float32), self._faces)
        return scene.cast_rays(self._rays)


def agreement(body: BodyModel, caster: RayCaster, vertices_m: np.ndarray, camera: Camera) -> tuple[int, int, int]:
    """Pixels covered by either, pixels that differ in part, pixels whose uv differs by more than 1/1024."""
    hits, raster = caster(vertices_m), rasterize(body, vertices_m, camera)
    face = hits["primitive_ids"].numpy().astype(np.int64)
    hit = face != 0xFFFFFFFF
    bary = hits["primitive_uvs"].numpy()[hit].astype(float)
    weights = np.stack([1 - bary.sum(-1), bary[:, 0], bary[:, 1]], -1)
    part = np.zeros(face.shape, np.uint8)
    part[hit] = body.face_part[face[hit]]
    uv = np.zeros((*face.shape, 2))
    uv[hit] = (weights[..., None] * body.uv[body.face_uv[face[hit]]]).sum(1)
    other_part = part != raster.part
    other_uv = ~other_part & (np.abs(uv - raster.uv).max(-1) > 1 / 1024)
    return int((hit | raster.mask).sum()), int(other_part.sum()), int(other_uv.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024, help="pixels of the square picture")
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    side = options.side
    camera = Camera((side, side), side * 1.25, side * 1.25, side / 2, side / 2)
    body = BodyModel.default()
    frames = poses_color_m(body, options.frames)
    caster = RayCaster(body, camera)
    methods: dict[str, Callable] = {
        "Open3D RaycastingScene, BVH + rays": caster,
        "ours, dense part + uv + normal + depth": lambda vertices_m: rasterize(body, vertices_m, camera),
        "ours, covered pixels only": lambda vertices_m: rasterize_covered(body, vertices_m, camera),
    }
    wall_ms: dict[str, list[float]] = {name: [] for name in methods}
    cpu_ms: dict[str, list[float]] = {name: [] for name in methods}
    for method in methods.values():
        method(frames[0])
    for _ in range(options.rounds):
        for vertices_m in frames:
            for name, method in methods.items():
                wall, cpu = time.perf_counter(), time.process_time()
                method(vertices_m)
                wall_ms[name].append(1e3 * (time.perf_counter() - wall))
                cpu_ms[name].append(1e3 * (time.process_time() - cpu))
    covered, other_part, other_uv = np.sum([agreement(body, caster, v, camera) for v in frames], axis=0)
    total = side * side * len(frames)
    print(f"{len(body.faces)} faces, {side} x {side}, {len(frames)} poses, {os.cpu_count()} CPU cores")
    print(f"covered {100 * covered / total:.1f} % of the picture")
    print(f"same part and uv within 1/1024: {100 * (1 - (other_part + other_uv) / total):.4f} % of all pixels, "
          f"{100 * (1 - (other_part + other_uv) / covered):.3f} % of covered ones")  # fmt: skip
    print(f"{'':42}{'best ms':>9}{'median ms':>11}{'CPU ms':>9}{'times faster (median, CPU)':>28}")
    base_wall, base_cpu = (np.median(next(iter(times.values()))) for times in (wall_ms, cpu_ms))
    for name in methods:
        wall, cpu = np.median(wall_ms[name]), np.median(cpu_ms[name])
        ratio = f"{base_wall / wall:.1f}, {base_cpu / cpu:.1f}"
        print(f"{name:42}{min(wall_ms[name]):9.2f}{wall:11.2f}{cpu:9.2f}{ratio:>28}")


if __name__ == "__main__":
    main()
