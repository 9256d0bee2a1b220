"""Who says what the person is: the methods behind ``matte.method``, and how ``auto`` chooses.

embedded   MediaPipe finds the person, the room is learned from the clip
rembg      a network of rembg on this disk outlines whom MediaPipe finds
plate      as embedded, the room from a picture of it without the person
chroma     as embedded, before a green or blue screen
given      the user's own masks, as they are
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from capture.beside import mask_files
from capture.errors import UserError
from capture.files import read_gray
from capture.importers.masks import files_by_frame, read_mask
from capture.local_model import digest, weights_path
from capture.matte_config import AUTO, CHROMA, EMBEDDED, GIVEN, PLATE, REMBG, MatteConfig
from capture.plate import Plate
from capture.recording import Recording
from capture.screen import from_picture, from_screen, screen_hue

SCREEN_FRAMES = 5  # looked at for a screen


@dataclass(frozen=True)
class Matter:
    """A method that was chosen for one recording."""

    method: str  # one of METHODS, but not auto
    note: str = ""  # for the user
    background: Path | None = None  # the picture of the empty room
    hue: int | None = None  # OpenCV's hue of the screen

    def room(self, learned: Plate | None, recording: Recording) -> Plate | None:
        """The plate to use, given the one learned from the clip.  Raises UserError where picture and clip disagree."""
        if learned is None:
            return None
        if self.background is not None:
            return from_picture(learned, self.background, recording)
        return learned if self.hue is None else from_screen(learned, self.hue)


def chosen(config: MatteConfig, recording: Recording) -> Matter:
    """The method for a recording.  Raises UserError, before anything is computed, where what it needs is absent."""
    method = config.method
    background = Path(config.background).expanduser() if config.background else recording.plate_path
    if method == AUTO:
        method = _automatic(config, recording, background)
    if method == GIVEN and not config.masks and not has_masks(recording):
        raise UserError(
            "matte.method = given, but the recording brought no masks; put them beside the source "
            "(clip_masks/000000.png beside clip.mp4, masks/ in a folder) and record again, or name their folder: "
            "matte.masks"
        )
    if method == REMBG:
        path = weights_path(config.model, config.weights_sha256)
        return Matter(REMBG, f"outlined by {path.name}, SHA-256 {digest(path)}")
    if method == PLATE:
        if background is None or not background.is_file():
            raise UserError(
                f"matte.method = plate, but there is no picture of the empty room{_where(background)}; put it beside "
                "the source (clip_background.png beside clip.mp4, background.png in a folder) and record again, or "
                "name it: matte.background"
            )
        return Matter(PLATE, f"the empty room is {background.name}", background=background)
    if method == CHROMA:
        hue = _screen(recording)
        if hue is None:
            raise UserError(
                "matte.method = chroma, but the border of the picture shows no green or blue screen; use "
                "matte.method=embedded"
            )
        return Matter(CHROMA, f"before a screen of hue {2 * hue} degrees", hue=hue)
    return Matter(method, "masks are the user's own" if method == GIVEN else "")


def has_masks(recording: Recording) -> bool:
    """Whether the recording brought masks along, as pictures or as alpha of its own pictures."""
    count = len(recording)
    return any(recording.mask_path(i) is not None for i in range(count)) or _own_alpha(recording, 0) is not None


def given_mask(config: MatteConfig, recording: Recording, index: int) -> np.ndarray:
    """(H, W) uint8, the user's mask of one frame, empty where there is none.  Raises UserError for one of another
    size."""
    width, height = recording.rig.color.image_wh
    mask = None
    if config.masks:
        path = _files(Path(config.masks).expanduser(), len(recording)).get(index)
        mask = None if path is None else read_mask(path)
    else:
        path = recording.mask_path(index)
        mask = _own_alpha(recording, index) if path is None else read_gray(path)
    if mask is None:
        return np.zeros((height, width), np.uint8)
    if mask.shape != (height, width):
        raise UserError(
            f"mask of frame {index}: {mask.shape[1]}x{mask.shape[0]} pixels, the recording has {width}x{height}; "
            "make masks of the same pictures"
        )
    return mask


@functools.lru_cache(maxsize=1)
def _files(folder: Path, num_frames: int) -> dict[int, Path]:
    if not mask_files(folder):
        raise UserError(f"matte.masks = {folder}: holds no masks (000000.png, ...); give their folder")
    return files_by_frame(folder, num_frames)


def _automatic(config: MatteConfig, recording: Recording, background: Path | None) -> str:
    if config.masks or has_masks(recording):
        return GIVEN
    if background is not None:
        return PLATE
    return EMBEDDED if _screen(recording) is None else CHROMA


def _screen(recording: Recording) -> int | None:
    return screen_hue(recording, sorted({*np.linspace(0, len(recording) - 1, SCREEN_FRAMES).round().astype(int)}))


def _own_alpha(recording: Recording, index: int) -> np.ndarray | None:
    """(H, W) alpha of a frame's own picture, None where it has none."""
    if not recording.color_names[index].endswith(".png"):
        return None
    data = np.frombuffer(recording.color_bytes(index), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4 or image[..., 3].min() == 255:
        return None
    return np.ascontiguousarray(image[..., 3])


def _where(path: Path | None) -> str:
    return "" if path is None else f" at {path}"
