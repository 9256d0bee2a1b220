"""The first run on a machine compiles what it is made of; a process beside it does so ahead of it, on idle cores.

Numba compiles a function when it is first called and keeps it on disk for whoever calls it next; of a first run that is
25 seconds.  So the stages are gone through in miniature, with a body that is drawn here, and the result is thrown away.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

SWITCH = "ANR_REHEARSAL"  # environment variable; 0: never
HOME = Path(__file__).parent
MARK = "rehearsed"
PACKAGES = ("capture", "fitting", "rendering", "training", "demo")
LEAST_CORES = 2
IMAGE_WH, FOCAL_PX, FRAMES, FRAMES_PER_SECOND = (300, 400), 400.0, 12, 30  # enough for keyframes, a close-up and detail
AWAY_M, LENS_M, RAISED_RAD = 2.5, 0.9, 0.1
NICEST = 19

SKIN = 200, 120, 80


@contextmanager
def rehearsed() -> Iterator[None]:
    """While the block runs, and where nothing of this code was compiled before, compile it in another process, which
    ends with the block.  Where that is not possible everything is compiled when it is needed, as it would be anyway."""
    if not is_needed():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="rehearsal-", ignore_cleanup_errors=True) as folder:
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_rehearse_aside, args=(Path(folder),), daemon=True)
        process.start()
        try:
            yield
        finally:
            process.terminate()
            process.join()


def is_needed() -> bool:
    """Whether something is to be compiled, and there is a core for it that would idle."""
    if os.environ.get(SWITCH) == "0" or (os.cpu_count() or 1) < LEAST_CORES:
        return False
    try:
        return _mark().read_text() != _stamp()
    except OSError:
        return True


def rehearse(folder: Path) -> None:
    """Go through all stages from the fit to the training in an empty folder."""
    from fitting.fit import FitConfig, fit

    recording, masks, fitted, chosen, rasters, avatar = (
        folder / name for name in ("01_recording", "02_masks", "03_fit", "04_keyframes", "05_rasters", "06_avatar")
    )
    for made in (masks / "masks", fitted, chosen, rasters, avatar):
        made.mkdir(parents=True)
    _film(recording, masks, fitted)
    fit(FitConfig(shape_frames=2, shape_rounds=1), fitted, recording, masks)

    # Not before: the run beside this one waits for nobody, and torch takes seconds to load.
    from fitting.keyframes import KeyframeConfig, keyframes
    from rendering.rasters import RasterConfig, rasterize
    from training.close_up import train_avatar
    from training.config import TrainConfig

    keyframes(KeyframeConfig(), chosen, fitted)
    rasterize(RasterConfig(), rasters, recording, fitted)
    train_avatar(TrainConfig(steps=2, device="cpu"), avatar, {"nobody": folder})


def _film(recording_dir: Path, masks_dir: Path, fit_dir: Path) -> None:
    """Somebody who raises an arm, by an ideal sensor, with his masks and the landmarks that a detector would find."""
    import numpy as np

    from capture.camera import Camera, Rig, project
    from capture.files import encode_png
    from capture.matte_job import mask_path
    from capture.recording import RecordingWriter
    from fitting.body.model import BodyModel
    from fitting.keypoints import Keypoints
    from fitting.zbuffer import rasterize_faces

    body = BodyModel.default()
    camera = Camera(IMAGE_WH, FOCAL_PX, FOCAL_PX, IMAGE_WH[0] / 2, IMAGE_WH[1] / 2)
    placed = np.array([[1, 0, 0, 0], [0, 0, -1, LENS_M], [0, 1, 0, AWAY_M], [0, 0, 0, 1]], float)
    writer = RecordingWriter(recording_dir, Rig(camera, camera, np.eye(4)), "a rehearsal")
    landmarks_m = []
    for i in range(FRAMES):
        pose = np.zeros((body.num_joints, 3))
        pose[body.joint_index("upperarm01.L"), 1] = -RAISED_RAD * i
        vertices_m, _ = body.posed(None, pose, placed)
        face_index, _, z_m = rasterize_faces(project(camera, vertices_m), vertices_m[:, 2], body.faces, IMAGE_WH)
        mask = face_index >= 0
        depth_mm = np.where(mask, 1000 * np.nan_to_num(z_m, posinf=0), 0).astype(np.uint16)
        writer.add(i / FRAMES_PER_SECOND, (mask[..., None] * np.array(SKIN, np.uint8)), depth_mm)
        mask_path(masks_dir, i).write_bytes(encode_png(mask.astype(np.uint8) * 255))
        landmarks_m.append(body.landmarks(vertices_m))
    writer.finish()
    frames = [{"confidence": 1, "box_px": [0, 0, *IMAGE_WH]}] * FRAMES
    (masks_dir / "masks.json").write_text(json.dumps({"frames": frames, "notes": []}))
    points_m = np.array(landmarks_m)
    points_px = np.array([project(camera, each) for each in points_m])
    world_m = points_m - points_m[:, [23, 24]].mean(1, keepdims=True)  # the hips
    seen = np.ones(points_px.shape[:2])
    Keypoints(points_px, seen, world_m, np.zeros(FRAMES, bool)).save(fit_dir / "keypoints.npz")


def _rehearse_aside(folder: Path) -> None:
    """``rehearse``, out of everybody's way."""
    from capture.workers import start_worker

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    if hasattr(os, "nice"):
        os.nice(NICEST)
    start_worker()
    logging.disable()
    stamp = _stamp()
    try:
        rehearse(folder)
        _mark().parent.mkdir(parents=True, exist_ok=True)
        _mark().write_text(stamp)
    except Exception:  # whatever it is, the run beside it will say it, or has no use for this
        os._exit(1)


def _mark() -> Path:
    """A file beside what numba keeps, which says what was compiled there."""
    return Path(os.environ.get("NUMBA_CACHE_DIR", HOME / "__pycache__")) / MARK


def _stamp() -> str:
    """Of all files that hold something to be compiled, as numba looks at them: one that changed is compiled again."""
    digest = hashlib.sha256(f"{sys.version} {version('numba')}".encode())
    for path in sorted(path for package in PACKAGES for path in (HOME / package).rglob("*.py")):
        if b"njit" in path.read_bytes():
            digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()
