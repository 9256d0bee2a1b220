"""Turned and mirrored sources put upright: pictures, depth and cameras together.

A phone on its side, or an app that stores what a mirror shows, is the user's knowledge: no format says it reliably.
H x W colour pixels, h x w depth pixels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from capture.camera import Camera, Rig
from capture.errors import UserError
from capture.files import decode_color
from capture.importers import ImportConfig
from capture.recording import RecordingWriter


def open_writer(
    config: ImportConfig, out_dir: Path, rig: Rig, source: str, focal_is_known: bool = True
) -> RecordingWriter:
    """A writer that puts each frame upright as ``recording.turn_deg`` and ``recording.mirrored`` say."""
    if not config.turn_deg and not config.mirrored:
        return RecordingWriter(out_dir, rig, source, focal_is_known)
    return _UprightWriter(config, out_dir, rig, source, focal_is_known)


class _UprightWriter(RecordingWriter):
    """Takes frames as the source stores them."""

    def __init__(self, config: ImportConfig, out_dir: Path, rig: Rig, source: str, focal_is_known: bool) -> None:
        self._turns, self._mirrored = config.turn_deg // 90, config.mirrored
        super().__init__(out_dir, upright_rig(rig, self._turns, self._mirrored), source, focal_is_known)
        if self._turns:
            self.note(f"turned by {config.turn_deg} degrees clockwise (recording.turn_deg)")
        if self._mirrored:
            self.note("left and right exchanged (recording.mirrored)")

    def add(self, time_s: float, color: np.ndarray | bytes, depth_mm: np.ndarray | None = None) -> None:
        """As in RecordingWriter.  Raises UserError for a picture that cannot be decoded."""
        image = decode_color(color) if isinstance(color, bytes) else color
        if image is None:
            raise UserError(f"frame {len(self)} of the source is not a readable picture; copy it again")
        depth = None if depth_mm is None else upright(depth_mm, self._turns, self._mirrored)
        super().add(time_s, upright(image, self._turns, self._mirrored), depth)

    def add_mask(self, index: int, mask: np.ndarray) -> None:
        """As in RecordingWriter; masks beside a source are turned with its pictures."""
        super().add_mask(index, upright(mask, self._turns, self._mirrored))

    def add_plate(self, color: np.ndarray, depth_mm: np.ndarray | None) -> None:
        """As in RecordingWriter; so is the empty room."""
        depth = None if depth_mm is None else upright(depth_mm, self._turns, self._mirrored)
        super().add_plate(upright(color, self._turns, self._mirrored), depth)

    def add_openpose(self, index: int, data: bytes) -> None:
        """Refuses: landmarks beside a source belong to its pictures as they are stored.  Raises UserError."""
        raise UserError(
            "OpenPose's files beside the source belong to its pictures as they are stored; with recording.turn_deg or "
            "recording.mirrored move them away, or run OpenPose on 01_recording/color"
        )


def upright(image: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    """(H, W, ...) mirrored first, then turned clockwise by so many quarters."""
    if mirrored:
        image = image[:, ::-1]
    return np.ascontiguousarray(np.rot90(image, -turns))


def upright_rig(rig: Rig, turns: int, mirrored: bool) -> Rig:
    """The cameras of the pictures after ``upright``; the scene is mirrored with them."""
    color = upright_camera(rig.color, turns, mirrored)
    if rig.depth is None or rig.depth_from_color is None:
        return Rig(color)
    change = np.eye(4)
    change[:2, :2] = _matrix(turns, mirrored)
    depth_from_color = change @ rig.depth_from_color @ np.linalg.inv(change)
    return Rig(color, upright_camera(rig.depth, turns, mirrored), depth_from_color)


def upright_camera(camera: Camera, turns: int, mirrored: bool) -> Camera:
    """The camera of a picture after ``upright``.

    Radial coefficients stay.  p1 and p2 are the displacement (p2, p1) of the lens, a vector: it turns with the picture.
    """
    width, height = camera.image_wh
    center = _matrix(turns, mirrored) @ (camera.cx_px - width / 2, camera.cy_px - height / 2)
    k1, k2, p1, p2, k3 = camera.distortion
    moved = _matrix(turns, mirrored) @ (p2, p1)
    is_on_its_side = turns % 2 == 1
    new_wh = (height, width) if is_on_its_side else (width, height)
    focal = (camera.fy_px, camera.fx_px) if is_on_its_side else (camera.fx_px, camera.fy_px)
    return replace(
        camera,
        image_wh=new_wh,
        fx_px=focal[0],
        fy_px=focal[1],
        cx_px=float(center[0]) + new_wh[0] / 2,
        cy_px=float(center[1]) + new_wh[1] / 2,
        distortion=(k1, k2, float(moved[1]), float(moved[0]), k3),
    )


def _matrix(turns: int, mirrored: bool) -> np.ndarray:
    """(2, 2) what ``upright`` does to x right, y down."""
    clockwise = np.array([[0.0, -1.0], [1.0, 0.0]])  # right becomes down
    flip = np.diag([-1.0 if mirrored else 1.0, 1.0])
    return np.linalg.matrix_power(clockwise, turns % 4) @ flip
