"""The first run on a machine compiles what it is made of; a process beside it does so ahead of it, on idle cores.

Numba compiles a function when it is first called and keeps it on disk for whoever calls it next; of a first run that is
25 seconds.  So the stages are gone through in miniature, with a body that is drawn here, and the result is thrown away.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attempt
from capture.workers import ONE_THREAD, num_cores

SWITCH = "ANR_REHEARSAL"  # environment variable; 0: never
HOME = Path(__file__).parent
MARK = "rehearsed"
PACKAGES = ("capture", "fitting", "rendering", "training")
LEAST_CORES = 2
LEAVE_S = 5.0
IMAGE_WH, FOCAL_PX, FRAMES, FRAMES_PER_SECOND = (300, 400), 400.0, 12, 30  # enough for keyframes, a close-up and detail
AWAY_M, LENS_M, RAISED_RAD = 2.5, 0.9, 0.1
SKIN = 200, 120, 80
NICEST = 19


@contextmanager
def rehearsed() -> Iterator[None]:
    """While the block runs, and where this code was not compiled before, compile it in another process, which ends with
    the block.  Where that is not possible everything is compiled when it is needed, as it would be anyway."""
    process = _started() if is_needed() else None
    try:
        yield
    finally:
        if process is not None:
            _end(process)


def is_needed() -> bool:
    """Whether something is to be compiled, and there is a core for it that would idle."""
    if os.environ.get(SWITCH) == "0" or num_cores() < LEAST_CORES:
        return False
    try:
        return _mark().read_text() != _stamp()
    except (OSError, ValueError, RuntimeError):  # no mark, no text, no home
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
    config = TrainConfig(steps=2, device="cpu", feature_kind="ssim", adversarial=False)
    train_avatar(config, avatar, {"nobody": folder})


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


# ------------------------------------------------------------------------------------------------------ the process


def _started() -> subprocess.Popen[bytes] | None:
    """The process, silent and out of everybody's way; None where the system has none to spare.  It ends when its
    standard input does, and so with this process however that ends; Ctrl-C is none of its business."""
    # No session of its own: Linux would give that as much of a busy machine as all of this one's together.
    aside: dict[str, Any] = {"process_group": 0}
    if sys.platform == "win32":
        aside = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.IDLE_PRIORITY_CLASS}
    nowhere = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            [sys.executable, str(HOME / "rehearsal.py")],
            stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, env=os.environ | ONE_THREAD, **aside,
        )  # fmt: skip
    except OSError:
        return None
    attempt.aside.add(process.pid)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(LEAVE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    attempt.aside.discard(process.pid)


def _rehearse_aside() -> None:
    """What the process does."""
    if hasattr(os, "nice"):
        os.nice(NICEST)
    folder, is_saving = Path(tempfile.mkdtemp(prefix="rehearsal-")), threading.Lock()
    threading.Thread(target=_leave_when_told, args=(folder, is_saving), daemon=True).start()
    try:
        import cv2

        _save_as_a_whole(is_saving)
        cv2.setNumThreads(1)
        stamp = _stamp()
        rehearse(folder)
        _mark().parent.mkdir(parents=True, exist_ok=True)
        _mark().write_text(stamp)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _leave_when_told(folder: Path, is_saving: threading.Lock) -> None:
    sys.stdin.buffer.read()
    is_saving.acquire()
    while folder.exists():  # the other thread may still write into it
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _save_as_a_whole(is_saving: threading.Lock) -> None:
    """Hold the lock while numba saves: it writes an index and then the code, and an index of new source beside code of
    old source would be believed for ever."""
    from numba.core.caching import IndexDataCacheFile

    save = IndexDataCacheFile.save

    def whole(file: IndexDataCacheFile, key: Any, data: Any) -> None:
        with is_saving:
            save(file, key, data)

    IndexDataCacheFile.save = whole  # type: ignore[method-assign]


def _mark() -> Path:
    """A file where numba keeps what it compiled, which says what that is of."""
    name = f"{MARK}-{hashlib.sha256(str(HOME).encode()).hexdigest()[:8]}"
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen) / name
    return (HOME / "__pycache__" if os.access(HOME, os.W_OK) else Path.home() / ".cache" / "anr") / name


def _stamp() -> str:
    """Of all files that hold something to be compiled, and of the machine that it is compiled for."""
    digest = hashlib.sha256(f"{sys.version} {version('numba')} {platform.node()}".encode())
    for path in sorted(path for package in PACKAGES for path in (HOME / package).rglob("*.py")):
        with suppress(OSError):  # a link that leads nowhere
            source = path.read_bytes()
            if b"njit" in source:
                digest.update(str(path).encode() + source)
    return digest.hexdigest()


if __name__ == "__main__":
    _rehearse_aside()
