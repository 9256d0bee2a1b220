"""How good is the avatar from where no camera stood?

    python benchmarks/novel_views.py [--workspace workspace] [--subject demo] [--pictures FOLDER] [--light-follows]
                                     [--scale 1] [--without-detail]

The demo performer's held-out frames are filmed once more, at the same moments, by cameras that stand 30 to 180
degrees further around her on both sides, at the height and distance of the capturing one, without noise.  Masked PSNR
(over the true alpha > 0.5, at --scale times the networks' size, composited over grey) of the avatar there, against the
same avatar from the capturing camera on the same frames, filmed alike.  Poses are the fit's, from the capturing
camera's pictures.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture.camera import Camera, invert
from capture.errors import UserError
from capture.files import encode_png
from capture.manifest import Manifest
from demo import renderer, sensor
from demo.character import Character
from demo.performer import DemoConfig, act, camera_poses
from demo.room import Backdrop
from fitting.fit import BodyFit
from fitting.keyframes import Keyframes
from rendering.avatar import Avatar
from rendering.framing import person_frame
from training.dataset import crop_image
from training.detail import without_detail
from training.metrics import composite, mask_iou, psnr_db

ANGLES_DEG = (0, 30, -30, 60, -60, 90, -90, 120, -120, 180)
FILM_WH = (1280, 720)  # twice as fine as the networks paint
GREY = 0.5
EVERY = 2  # held-out frame


class Performer:
    """The demo's performance, to be seen by any camera."""

    def __init__(self, config: DemoConfig) -> None:
        self._character = Character.load()
        with tempfile.TemporaryDirectory() as scratch:
            act(config, self._character, Path(scratch))
            self._worlds = np.load(Path(scratch) / "worlds.npy")
            self._cloth = np.load(Path(scratch) / "cloth.npy")
        self._cloth_vertices = np.flatnonzero(self._character.layer > 0)

    def hips_m(self, index: int) -> np.ndarray:
        """(3,) in the world."""
        return self._worlds[index, self._character.joint("root"), :3, 3]

    def film(self, index: int, camera: Camera, camera_from_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Her picture (H, W, 3) in [0, 1] before grey, and alpha (H, W)."""
        world = np.array(self._worlds[index])
        vertices_m = self._character.skin(world)
        vertices_m[self._cloth_vertices] = self._cloth[index]
        shot = renderer.prepare(self._character, vertices_m, world[:, :3, 3])
        shape = camera.image_wh[::-1]
        grey = np.full((*shape, 3), 0.2, np.float32)
        room = Backdrop(grey, np.zeros_like(grey), np.zeros((*shape, 3), np.float32), np.zeros(shape, bool))
        light, alpha = renderer.draw_color(self._character, shot, camera, camera_from_world, room)
        picture = sensor.develop(light, np.zeros(1 << 16, np.int8), np.random.default_rng(0))
        return picture.astype(np.float32) / 255, alpha


def around(camera_from_world: np.ndarray, center_m: np.ndarray, angle: float) -> np.ndarray:
    """The camera (4, 4) moved around the vertical through a point (3,), still looking at it; positive to her left."""
    turn, away = np.eye(4), np.eye(4)
    turn[:3, :3] = cv2.Rodrigues(np.array([0, 0, -angle]))[0]
    away[:2, 3] = center_m[:2]
    return camera_from_world @ away @ turn @ invert(away)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--subject", default="demo")
    parser.add_argument("--pictures", type=Path, help="truth above the avatar, one column per angle, at full size")
    parser.add_argument("--light-follows", action="store_true", help="let the light go with the camera, to compare")
    parser.add_argument("--scale", type=float, default=1.0, help="of the pictures that are compared")
    parser.add_argument("--without-detail", action="store_true", help="of the texture, to compare")
    arguments = parser.parse_args()
    folder = arguments.workspace / arguments.subject
    made = Manifest.load(folder / "01_recording")
    if made is None or made.source is None or made.source.get("kind") != "demo":
        raise UserError(f"{folder}: only the demo performer can be filmed again; run pipeline.py run --subject demo")
    settings: dict[str, Any] = {k.removeprefix("demo."): v for k, v in made.settings.items() if k.startswith("demo.")}
    avatar, fit = Avatar.load(folder / "06_avatar", "cpu"), BodyFit.load(folder / "03_fit")
    if arguments.without_detail:
        plain = without_detail(avatar.textures[arguments.subject])
        avatar = replace(avatar, textures={**avatar.textures, arguments.subject: plain})
    heldout = Keyframes.load(folder / "04_keyframes").heldout_indices
    frames = [int(i) for i in heldout if fit.tracked[i]][::EVERY]
    performer = Performer(DemoConfig(**settings))
    color_from_world, _ = camera_poses()
    film_wh = round(FILM_WH[0] * arguments.scale), round(FILM_WH[1] * arguments.scale)
    crop_wh = round(avatar.image_wh[0] * arguments.scale), round(avatar.image_wh[1] * arguments.scale)
    true_camera, camera = sensor.COLOR.resize(film_wh), fit.camera.resize(film_wh)
    scores: dict[int, list[tuple[float, float]]] = {angle: [] for angle in ANGLES_DEG}
    for index in frames:
        columns = []
        for angle in ANGLES_DEG:
            moved_from_world = around(color_from_world, performer.hips_m(index), np.radians(angle))
            picture, true_alpha = performer.film(index, true_camera, moved_from_world)
            placed = moved_from_world @ invert(color_from_world) @ fit.camera_from_body[index]
            vertices_m = avatar.bodies[arguments.subject].vertices_camera_m(fit.pose[index], placed)
            frame = person_frame(vertices_m, camera, avatar.image_wh, avatar.px_per_m(arguments.subject))
            assert frame is not None
            box_px = frame.box_px
            whole = (0.0, 0.0, float(crop_wh[0]), float(crop_wh[1]))
            lit = None if arguments.light_follows else color_from_world[:3, :3] @ moved_from_world[:3, :3].T
            crop_camera = camera.crop(box_px, crop_wh)
            rgba = avatar.render(arguments.subject, fit.pose[index], placed, crop_camera, whole, lit)
            alpha = crop_image(true_alpha, box_px, crop_wh, cv2.BORDER_CONSTANT)
            truth = crop_image(picture, box_px, crop_wh, cv2.BORDER_REPLICATE)
            ours = composite(rgba[..., :3], rgba[..., 3], GREY)
            theirs = np.where(alpha[..., None] > 0.5, truth, GREY).astype(np.float32)
            scores[angle].append((psnr_db(ours, truth, alpha > 0.5), mask_iou(rgba[..., 3], alpha)))
            columns.append(np.concatenate([theirs, ours]))
        if arguments.pictures is not None:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
            height = min(column.shape[0] for column in columns)
            sheet = np.concatenate([column[:height] for column in columns], axis=1)
            larger = max(2 / arguments.scale, 1)
            sheet = cv2.resize(sheet, None, fx=larger, fy=larger, interpolation=cv2.INTER_CUBIC)
            (arguments.pictures / f"{index:06d}.png").write_bytes(
                encode_png(np.rint(sheet * 255).clip(0, 255).astype(np.uint8))
            )
    capture_db = np.array([db for db, _ in scores[0]])
    print(f"{len(frames)} held-out frames of {arguments.subject}\n")
    print("| camera | masked PSNR, dB | against the capturing camera, same frames | worst frame | mask overlap |")
    print("|---|---|---|---|---|")
    for angle in ANGLES_DEG:
        db, overlap = (np.array(column) for column in zip(*scores[angle], strict=True))
        name = "capture" if angle == 0 else f"{angle:+d} degrees"
        fell = db - capture_db
        print(f"| {name} | {db.mean():.2f} | {fell.mean():+.2f} | {fell.min():+.2f} | {overlap.mean():.3f} |")


if __name__ == "__main__":
    main()
