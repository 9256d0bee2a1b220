"""A finished little workspace for the tests of evaluation, report and rendering: the miniature doll, stages 01 to 06.

Everything on disk is written by the stages' own types; only filming, matting and fitting are replaced by what the
doll's maker knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from miniature import CAMERA, Film, doll, film

from capture.camera import Rig
from capture.files import encode_png
from capture.recording import RecordingWriter
from fitting.fit import BodyFit
from fitting.keyframes import Keyframes
from rendering.rasters import RasterConfig, rasterize
from training.close_up import train_avatar
from training.train import TrainConfig

NUM_FRAMES, NUM_TRAIN = 24, 18
RASTERS = RasterConfig(height_px=64, width_px=40, close_up_px=32)
LOST = 20  # a held-out frame in which the body was not found


def interrupted_after(steps: int) -> Callable[..., Iterator[int]]:
    """What to put in the place of training's ``progress``: it breaks off after so many steps."""

    def progress(items: Iterable[int], label: str, note: Any = None) -> Iterator[int]:
        for count, item in enumerate(items):
            if count == steps:
                raise KeyboardInterrupt
            yield item

    return progress


def make_workspace(folder: Path, steps: int = 30, name: str = "doll", look: int = 0) -> Path:
    """Write ``folder``/name/01_recording ... 06_avatar and return that subject's folder."""
    subject = make_recording(folder, name, look)
    for stage in ("05_rasters", "06_avatar"):
        (subject / stage).mkdir()
    rasterize(RASTERS, subject / "05_rasters", subject / "01_recording", subject / "03_fit")
    settings = TrainConfig("8,16", steps=steps, texture_px=64, feature=False, adversarial=False, log_every=5)
    train_avatar(settings, subject / "06_avatar", {name: subject})
    return subject


def make_recording(folder: Path, name: str = "doll", look: int = 0) -> Path:
    """Write ``folder``/name/01_recording ... 04_keyframes and return that subject's folder."""
    subject = folder / name
    movie = film(NUM_FRAMES, look=look)
    for stage in ("01_recording", "02_masks/masks", "03_fit/overlay", "04_keyframes"):
        (subject / stage).mkdir(parents=True)
    _record(movie, subject / "01_recording")
    _matte(movie, subject / "02_masks")
    fit_of(movie).save(subject / "03_fit")
    train_indices, heldout = np.arange(NUM_TRAIN), np.arange(NUM_TRAIN, NUM_FRAMES)
    Keyframes(train_indices, np.array([0, 5, 11]), heldout).save(subject / "04_keyframes")
    return subject


def fit_of(movie: Film) -> BodyFit:
    """The doll as tracked, one frame lost."""
    body, count = doll(), len(movie)
    tracked = np.arange(count) != LOST
    pose = np.where(tracked[:, None, None], movie.pose, np.nan)
    placed = np.where(tracked[:, None, None], movie.camera_from_body, np.nan)
    joints = np.stack([body.posed(None, movie.pose[i], movie.camera_from_body[i])[1] for i in range(count)])
    figure = np.where(tracked, 0.9, np.nan)
    return BodyFit(
        shape=np.zeros(1, np.float32),
        pose=pose,
        camera_from_body=placed,
        joints_color_m=np.where(tracked[:, None, None], joints, np.nan),
        joint_names=body.joint_names,
        vertex_offsets_m=np.full(len(body.template_m), 0.02, np.float32),
        residual_mm=np.full(count, np.nan),
        keypoint_px=figure * 3,
        silhouette_iou=figure,
        status=tuple("tracked" if ok else "lost" for ok in tracked),
        reason=tuple("" if ok else "landmarks 80 px off" for ok in tracked),
        limb_doubted=np.zeros((count, 4), bool),
        body=body,
        camera=CAMERA,
        notes=("a doll",),
        first_heldout=NUM_TRAIN,
    )


def _record(movie: Film, folder: Path) -> None:
    writer = RecordingWriter(folder, Rig(CAMERA), "a doll's film")
    for index, color in enumerate(movie.colors):
        writer.add(index / 30, encode_png(color))
    writer.finish()


def _matte(movie: Film, folder: Path) -> None:
    for index, alpha in enumerate(movie.alphas):
        (folder / "masks" / f"{index:06d}.png").write_bytes(encode_png(np.rint(alpha * 255).astype(np.uint8)))
    frames = [{"confidence": 0.9, "box_px": [0, 0, 1, 1]} for _ in movie.alphas]
    (folder / "masks.json").write_text(json.dumps({"frames": frames, "notes": [], "settings": {}}))


def stamp(workspace: Path, name: str) -> None:
    """Write the stage.json of the stages 01 to 05, so that the command line takes them as made."""
    import attempt
    from attempt import Meter
    from commands import open_project
    from pipeline import ATLAS, STAGES

    chosen = [f"raster.{name}={getattr(RASTERS, name)}" for name in ("height_px", "width_px", "close_up_px")]
    project = open_project(ATLAS, workspace, [name], assignments=chosen)
    (workspace / name / "subject.toml").write_text("[raster]\nheight_px = 64\nwidth_px = 40\nclose_up_px = 32\n")
    for stage in STAGES[:5]:
        source = {"kind": "demo"} if stage is STAGES[0] else None
        folder, identity = project.folder(stage, name), project.identity(stage, name)
        attempt.write_manifest(folder, "demo", stage, identity, source, Meter())
