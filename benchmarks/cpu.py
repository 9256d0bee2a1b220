"""From a pose to RGBA on one CPU core: what a frame costs, and where the time goes.

    python benchmarks/cpu.py [--avatar workspace/demo/06_avatar] [--frames 60] [--size 960x540]

One table: milliseconds of each part, median over the frames of a slow turn, by the thread's own clock (a busy neighbour
slows it through the shared caches only) and by the wall's.  Without a trained avatar one of the demo preset's size is
made up, which has neither close-up nor detail: the speed of the rest does not depend on what was learned.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture.camera import Camera
from fitting.body.model import BodyModel
from rendering.avatar import OURS, Avatar, Shape, surface_of
from rendering.framing import person_frame
from rendering.networks import NeuralRenderer, NeuralTexture, compute_dtype, num_parameters
from rendering.painter import one_thread
from rendering.pasting import paste
from rendering.rasters import RasterConfig
from training.detail import without_detail
from training.train import TrainConfig

DISTANCE_M = 2.7
TOTAL = "pose -> RGBA of the whole picture"


def made_up() -> Avatar:
    """Untrained, of the demo preset's size."""
    config, raster, body = TrainConfig(), RasterConfig(), BodyModel.default()
    renderer = OURS.renderer(vars(config))
    texture = NeuralTexture(NeuralTexture.shared_initial(config.texture_px, config.texture_channels, 0))
    shape = Shape(body, np.zeros(body.num_shape, np.float32), np.zeros(len(body.template_m), np.float32))
    settings = {"subjects": ["somebody"], "image_wh": [raster.width_px, raster.height_px], "train": vars(config)}
    return Avatar(renderer.eval().requires_grad_(False), {"somebody": texture}, {"somebody": shape}, settings)


def turning(body: BodyModel, count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Poses (N, J, 3) that swing a little, and places (4, 4) before a camera at chest height, once around."""
    swing = np.random.default_rng(0).normal(0, 0.12, (body.num_joints, 3))
    swing[0] = 0
    poses = np.sin(np.linspace(0, 6, count))[:, None, None] * swing
    places = []
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        place = np.array([[1.0, 0, 0, 0], [0, 0, -1, 1.0], [0, 1, 0, DISTANCE_M], [0, 0, 0, 1]])
        place[:3, :3] = place[:3, :3] @ cv2.Rodrigues(np.array([0, 0, angle]))[0]
        places.append(place)
    return poses, places


class Clock:
    """Milliseconds per part, by the thread's clock and by the wall's."""

    def __init__(self) -> None:
        self.thread_ms: dict[str, list[float]] = {}
        self.wall_ms: dict[str, list[float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of a ``with`` block."""
        thread_s, wall_s = time.thread_time(), time.perf_counter()
        yield
        self.thread_ms.setdefault(name, []).append(1e3 * (time.thread_time() - thread_s))
        self.wall_ms.setdefault(name, []).append(1e3 * (time.perf_counter() - wall_s))

    def rows(self) -> list[tuple[str, float, float]]:
        return [
            (part, float(np.median(self.thread_ms[part])), float(np.median(self.wall_ms[part])))
            for part in self.thread_ms
        ]


@torch.inference_mode()
def measure(avatar: Avatar, camera: Camera, count: int) -> Clock:
    """Time ``count`` frames, part by part and as a whole."""
    subject, clock = avatar.subjects[0], Clock()
    shape, texture, painter = avatar.bodies[subject], avatar.textures[subject], avatar.painter
    network = painter.renderer
    assert isinstance(network, NeuralRenderer)
    poses, places = turning(shape.body, count)
    limits = avatar.px_per_m(subject)
    plain = replace(avatar, close_up=None)
    bare = replace(plain, textures={subject: without_detail(texture)})
    bare.layer(subject, poses[0], places[0], camera)
    plain.layer(subject, poses[0], places[0], camera)
    avatar.layer(subject, poses[0], places[0], camera)  # compiles
    for pose, place in zip(poses, places, strict=True):
        with clock.part("posing"):
            vertices_m = shape.vertices_camera_m(pose, place)
        with clock.part("framing"):
            frame = person_frame(vertices_m, camera, avatar.image_wh, limits)
        assert frame is not None
        crop = camera.crop(frame.box_px, frame.crop_wh)
        with clock.part("raster"):
            surface = surface_of(avatar._rasterize(subject, vertices_m, crop))
        with clock.part("texture sampling"):
            features = surface.plane(texture.features(surface).to(painter.dtype))
            normals = surface.plane(surface.normal.to(painter.dtype))
        with clock.part("R1"):
            latent = network.first(features)
        with clock.part("R2"):
            network.second(torch.cat([latent, normals], 1))
        rgba = painter.rgba(texture, surface)
        with clock.part("paste"):
            paste(rgba, frame.box_px, camera.image_wh)
        with clock.part("pose -> RGBA of the person"):
            avatar.layer(subject, pose, place, camera)
        with clock.part("the same without the close-up"):
            plain.layer(subject, pose, place, camera)
        with clock.part("the same without the close-up and without detail"):
            bare.layer(subject, pose, place, camera)
        with clock.part(TOTAL):
            avatar.render(subject, pose, place, camera)
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--avatar", type=Path, default=Path("workspace/demo/06_avatar"))
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", default="960x540")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    is_trained = (arguments.avatar / "avatar.json").exists()
    avatar = Avatar.load(arguments.avatar, "cpu") if is_trained else made_up()
    width, height = (int(word) for word in arguments.size.split("x"))
    focal_px = 0.99 * height  # a Kinect V2's colour camera
    camera = Camera((width, height), focal_px, focal_px, width / 2, height / 2)
    crop = "x".join(map(str, avatar.image_wh))
    size = f"{num_parameters(avatar.renderer) / 1e6:.2f} M parameters"
    print(f"{arguments.avatar if is_trained else 'untrained'}: {size}, ", end="")
    print(f"crop {crop}, {str(compute_dtype(torch.device('cpu')))[6:]}, picture {width}x{height}, one thread\n")
    print("| part | ms of the thread, median | ms of the wall, median |\n|---|---|---|")
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    with one_thread():
        rows = measure(avatar, camera, arguments.frames).rows()
    for part, thread_ms, wall_ms in rows:
        print(f"| {part} | {thread_ms:.2f} | {wall_ms:.2f} |")
    total = next(thread_ms for part, thread_ms, _ in rows if part == TOTAL)
    print(f"\n{1e3 / total:.0f} frames/s of one core; load before {load_before:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
