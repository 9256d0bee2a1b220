"""One picture of a live view: the avatar in a studio, one of its layers, or the avatar beside its recording.

H x W pixels, uint8 RGB.  World: z up, floor at 0, metres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from capture.camera import invert
from rendering.avatar import Avatar, Shape
from rendering.browser import picture_wh, view_of
from rendering.close_up import WORTH
from rendering.detail import lay_detail
from rendering.layers import (
    ALL,
    AVATAR,
    LAYERS,
    Figure,
    Painted,
    avatar_rgba,
    crop_wh,
    label,
    lay_in,
    lay_over,
    paint,
    tiles,
)
from rendering.networks import NeuralTexture
from rendering.pasting import times
from rendering.puppet import Pose
from rendering.rasters import BODY_MARGINS, Margins
from rendering.repertoire import Filmed
from rendering.studio import studio
from rendering.viewpoints import View

ALONE, BESIDE, WIPE = "no", "side by side", "wipe"
BACKDROP_SHRINK = 4  # it has no detail: made small, it costs nothing
LINE = (255, 255, 255)


@dataclass(frozen=True)
class Eye:
    """Where a browser looks from, as viser reports it."""

    wxyz: np.ndarray  # (4,) world_from_camera
    position_m: np.ndarray  # (3,)
    fov_rad: float
    page_wh: tuple[int, int]


@dataclass(frozen=True)
class Wanted:
    """Everything that a picture depends on but its resolution."""

    shape: Shape
    texture: NeuralTexture
    pose: Pose
    layer: str  # of LAYERS, or ALL
    eye: Eye
    compare: str = ALONE
    wipe: float = 0.5
    filmed: Filmed | None = None
    frame_index: int | None = None  # the recorded frame of this pose
    lit_from_world: np.ndarray | None = None  # (3, 3) as ``View.lit_from_world``
    close_texture: NeuralTexture | None = None  # for the close-up; None without one
    margins: Margins = BODY_MARGINS  # around the person, as in training


def picture(avatar: Avatar, wanted: Wanted, scale: float) -> np.ndarray:
    """(H, W, 3) uint8 of what is wanted, at ``scale`` of full resolution."""
    image_wh = picture_wh(wanted.eye.page_wh, scale)
    if wanted.compare != ALONE and wanted.filmed is not None and wanted.frame_index is not None:
        return _compared(avatar, wanted, wanted.filmed, wanted.frame_index, image_wh, scale)
    eye = wanted.eye
    view = view_of(eye.wxyz, eye.position_m, eye.fov_rad, image_wh)
    view = replace(view, lit_from_world=wanted.lit_from_world)
    painted = _painted(avatar, wanted, view, scale)
    if wanted.layer == ALL:
        return tiles(painted, image_wh, _text(wanted, image_wh))
    vertices_m = wanted.shape.vertices_camera_m(wanted.pose.joints, wanted.pose.world_from_body)
    behind = backdrop(view, vertices_m)
    return behind if painted is None else _laid(avatar, wanted, view, scale, behind, painted)


def _painted(avatar: Avatar, wanted: Wanted, view: View, scale: float) -> Painted | None:
    return paint(avatar, _figure(wanted, view, wanted.texture), view.camera, crop_wh(avatar, scale))


def _figure(wanted: Wanted, view: View, texture: NeuralTexture) -> Figure:
    camera_from_body = view.camera_from_world @ wanted.pose.world_from_body
    return Figure(wanted.shape, texture, wanted.pose.joints, camera_from_body, view.lit_from_camera, wanted.margins)


def _laid(avatar: Avatar, wanted: Wanted, view: View, scale: float, behind: np.ndarray, painted: Painted) -> np.ndarray:
    """(H, W, 3) uint8: the layer over what is ``behind``; of the avatar itself the head by close-up, and detail."""
    laid = lay_over(behind, LAYERS[wanted.layer](painted), painted.box_px)
    if wanted.layer != AVATAR:
        return laid
    figure, close = _figure(wanted, view, wanted.texture), avatar.close_up
    is_worth = times(painted.box_px, painted.mask.shape[0]) >= WORTH
    if close is not None and wanted.close_texture is not None and is_worth:
        closer = replace(figure, texture=wanted.close_texture)
        head = paint(close, closer, view.camera, crop_wh(close, scale), is_head=True)
        laid = laid if head is None else lay_in(laid, behind, avatar_rgba(head), head.box_px)
    vertices_m = figure.shape.vertices_camera_m(figure.pose, figure.camera_from_body)
    place = figure.shape, vertices_m, view.camera, figure.lit_from_camera
    lay_detail(laid, painted.mask, painted.box_px, figure.texture, *place)
    return laid


def _compared(
    avatar: Avatar, wanted: Wanted, filmed: Filmed, index: int, image_wh: tuple[int, int], scale: float
) -> np.ndarray:
    """Recorded frame and avatar from the recording's camera, side by side or with a line between them."""
    (width, height), text = image_wh, _text(wanted, image_wh)
    camera = filmed.camera((width // 2, height) if wanted.compare == BESIDE else image_wh)
    recorded, ours = filmed.frame(index, camera), filmed.empty(index, camera)
    view = View(camera, invert(filmed.captured.world_from_color))
    painted = _painted(avatar, wanted, view, scale)
    if wanted.layer == ALL:
        ours = tiles(painted, camera.image_wh, text)
    elif painted is not None:
        ours = _laid(avatar, wanted, view, scale, ours, painted)
    if wanted.compare == WIPE:
        line = round(float(np.clip(wanted.wipe, 0, 1)) * width)
        recorded[:, line:] = ours[:, line:]
        cv2.line(recorded, (line, 0), (line, height), LINE, 1)
        label(recorded, f"recorded, frame {index}", text)
        label(recorded, wanted.layer, text, right=True)
        return recorded
    label(recorded, f"recorded, frame {index}", text)
    label(ours, wanted.layer, text, right=True)
    sheet = np.full((height, width, 3), LINE, np.uint8)
    sheet[:, : recorded.shape[1]], sheet[:, width - ours.shape[1] :] = recorded, ours
    return sheet


def _text(wanted: Wanted, image_wh: tuple[int, int]) -> float:
    """The size of letters in a picture, so that they are as large in the page whatever its resolution."""
    return image_wh[1] / max(wanted.eye.page_wh[1], 1)


def backdrop(view: View, vertices_world_m: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the studio of the videos, with the shadow of vertices (V, 3)."""
    width, height = view.camera.image_wh
    small = (max(1, width // BACKDROP_SHRINK), max(1, height // BACKDROP_SHRINK))
    behind = studio(View(view.camera.resize(small), view.camera_from_world), vertices_world_m)
    return cv2.resize(cv2.convertScaleAbs(behind, alpha=255.0), (width, height), interpolation=cv2.INTER_LINEAR)
