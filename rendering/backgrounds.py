"""What is behind the avatar, by the words of ``--background``: studio, room, transparent, a colour, or a picture.

H x W pixels, colours float32 in [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from capture.camera import Camera
from capture.errors import UserError
from capture.files import read_image
from rendering.studio import shaded, studio
from rendering.viewpoints import View

STUDIO, ROOM, TRANSPARENT = "studio", "room", "transparent"
COLOUR = re.compile(r"#?([0-9a-fA-F]{6}|[0-9a-fA-F]{3})")


@dataclass(frozen=True)
class Moment:
    """One picture to be made."""

    position: int  # in the film
    view: View
    people_m: tuple[np.ndarray, ...]  # (V, 3) vertices in the world of everybody in it: they cast shadows


Background = Callable[[Moment], np.ndarray]  # to (H, W, 3) float32 in [0, 1]


def check_background(word: str) -> None:
    """Raises UserError for a word that says no background."""
    if word in (STUDIO, ROOM, TRANSPARENT) or COLOUR.fullmatch(word):
        return
    if not Path(word).is_file():
        raise UserError(f"--background {word}: neither studio, room, transparent, a colour like #20a040, nor a picture")


def in_studio(moment: Moment) -> np.ndarray:
    """A seamless backdrop with a soft shadow on the floor."""
    picture = studio(moment.view, moment.people_m[0])
    for vertices_m in moment.people_m[1:]:
        picture = shaded(picture, moment.view, vertices_m)
    return picture


def plain(word: str, image_wh: tuple[int, int]) -> Background:
    """A colour such as #20a040, or a picture file that covers everything, cut at its longer side.

    Raises UserError when the file is no picture."""
    match = COLOUR.fullmatch(word)
    if match:
        digits = match.group(1) if len(match.group(1)) == 6 else "".join(2 * digit for digit in match.group(1))
        color = np.array([int(digits[k : k + 2], 16) for k in (0, 2, 4)], np.float32) / 255
        picture = np.broadcast_to(color, (image_wh[1], image_wh[0], 3))
    else:
        picture = np.asarray(covering(read_image(Path(word)), image_wh), np.float32) / 255
    return lambda moment: picture


def covering_box(from_wh: tuple[int, int], image_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box (left, top, right, bottom) in the middle of a picture that has ``image_wh``'s proportions."""
    scale = min(from_wh[0] / image_wh[0], from_wh[1] / image_wh[1])
    width, height = (max(1, min(round(scale * image_wh[k]), from_wh[k])) for k in (0, 1))
    left, top = (from_wh[0] - width) // 2, (from_wh[1] - height) // 2
    return left, top, left + width, top + height


def covering(image: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
    """A picture or mask (h, w, ...) cut in the middle to the proportions of ``image_wh`` and brought to its size."""
    left, top, right, bottom = covering_box((image.shape[1], image.shape[0]), image_wh)
    cut = np.ascontiguousarray(image[top:bottom, left:right])
    if (cut.shape[1], cut.shape[0]) == image_wh:
        return cut
    smaller = cut.shape[1] >= image_wh[0]
    return np.asarray(cv2.resize(cut, image_wh, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC))


def covering_camera(camera: Camera, image_wh: tuple[int, int]) -> Camera:
    """The camera of ``covering``'s picture."""
    return camera.crop(covering_box(camera.image_wh, image_wh), image_wh)
