"""What the avatar's picture is made of, one layer at a time: mesh, texture coordinates, R1, R2, mask, and the whole.

H x W pixels of a picture, h x w of the person crop that the networks paint, K covered pixels of the crop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from capture.camera import Camera
from rendering import close_up as closer
from rendering.avatar import Avatar, Shape, body_from_pixel, surface_of, turned
from rendering.framing import person_box
from rendering.networks import NeuralTexture
from rendering.pasting import crispness, resample
from rendering.rasterize import rasterize_covered
from rendering.rasters import BODY_MARGINS, Margins

Box = tuple[float, float, float, float]
KEY_LIGHT = np.array([-0.35, -0.55, -0.76])  # camera frame: over the viewer's left shoulder
PART_HUES = np.array([0.37, 0.71, 0.53])  # neighbouring parts get far colours
TILE_PX = 4  # between tiles
INK, PAPER = (40, 42, 48), (255, 255, 255)
LABEL_SCALE = 0.5
GROUND = 228


@dataclass(frozen=True)
class Figure:
    """Who is to be painted, in which clothes and pose, before which camera."""

    shape: Shape
    texture: NeuralTexture
    pose: np.ndarray  # (J, 3) rad
    camera_from_body: np.ndarray  # (4, 4) metres
    lit_from_camera: np.ndarray | None = None  # (3, 3) as ``View.lit_from_camera``
    margins: Margins = BODY_MARGINS  # around the person, as in training


@dataclass(frozen=True)
class Painted:
    """One figure as the rasteriser and the networks see it: planes of the crop ``box_px`` of a picture."""

    box_px: Box  # left, top, right, bottom in the picture
    part: np.ndarray  # (h, w) uint8, 0 = not the body
    uv: np.ndarray  # (h, w, 2) float32
    normal: np.ndarray  # (h, w, 3) float32, camera frame
    rough: np.ndarray  # (h, w, 3) float32 in [0, 1], what R1 makes
    image: np.ndarray  # (h, w, 3) float32 in [0, 1], what R2 makes
    mask: np.ndarray  # (h, w) float32 in [0, 1]


def crop_wh(avatar: Avatar, scale: float) -> tuple[int, int]:
    """The size of the person crop at ``scale`` of the one that the networks were trained on."""
    width, height = avatar.image_wh
    return max(16, round(width * scale / 8) * 8), max(16, round(height * scale / 8) * 8)


def paint(
    avatar: Avatar, figure: Figure, camera: Camera, size_wh: tuple[int, int], is_head: bool = False
) -> Painted | None:
    """All layers of a figure, its crop, or that of its head, at ``size_wh``; None when nothing of it is before the
    camera."""
    shape, body = figure.shape, figure.shape.body
    vertices_m = shape.vertices_camera_m(figure.pose, figure.camera_from_body)
    if is_head:
        box = person_box(vertices_m[closer.head_vertices(body)], camera, size_wh, closer.MARGINS)
    else:
        box = person_box(vertices_m, camera, size_wh, figure.margins)
    if box is None:
        return None
    crop_camera = camera.crop(box, size_wh)
    covered = rasterize_covered(body, vertices_m, crop_camera)
    if not len(covered.pixel):
        return None
    surface = surface_of(covered)
    if figure.texture.needs_view:
        surface = replace(surface, body_from_pixel=body_from_pixel(crop_camera, figure.camera_from_body)[None])
    surface = turned(surface, figure.lit_from_camera)
    image, mask, rough = avatar.painter.paint(figure.texture, surface.to(avatar.device))
    width, height = size_wh

    def plane(values: np.ndarray) -> np.ndarray:
        dense = np.zeros((height * width, *values.shape[1:]), values.dtype)
        dense[covered.pixel] = values
        return dense.reshape(height, width, *values.shape[1:])

    return Painted(
        box_px=box,
        part=plane(covered.part),
        uv=plane(covered.uv),
        normal=plane(covered.normal),
        rough=(rough[0].cpu().numpy().transpose(1, 2, 0) + 1) / 2,  # in numpy: torch would wake its other threads
        image=(image[0].cpu().numpy().transpose(1, 2, 0) + 1) / 2,
        mask=mask[0, 0].cpu().numpy(),
    )


def avatar_rgba(painted: Painted) -> np.ndarray:
    """(h, w, 4): R2's image through its mask, as in every video."""
    return np.dstack([painted.image, painted.mask])


def mesh_rgba(painted: Painted) -> np.ndarray:
    """(h, w, 4): the tracked body in plaster, by its normals."""
    light = np.clip(painted.normal @ KEY_LIGHT.astype(np.float32), 0, 1)
    fill = 0.5 - 0.5 * painted.normal[..., 1]
    grey = 0.22 + 0.58 * light + 0.16 * fill
    return np.dstack([grey * 0.98, grey * 0.97, grey, painted.part > 0]).astype(np.float32)


def iuv_rgba(painted: Painted) -> np.ndarray:
    """(h, w, 4): the raster that samples the texture, red and green its u and v, blue the part."""
    blue = painted.part * PART_HUES[0] % 1
    return np.dstack([painted.uv, blue, painted.part > 0]).astype(np.float32)


def rough_rgba(painted: Painted) -> np.ndarray:
    """(h, w, 4): the first three channels of R1, which already resemble a picture; the body's pixels and no others."""
    return np.dstack([painted.rough, painted.part > 0]).astype(np.float32)


def image_rgba(painted: Painted) -> np.ndarray:
    """(h, w, 4): everything R2 paints, before the mask cuts it out."""
    return np.dstack([painted.image, np.ones_like(painted.mask)])


def mask_rgba(painted: Painted) -> np.ndarray:
    """(h, w, 4): the soft mask as a grey picture."""
    return np.dstack([painted.mask, painted.mask, painted.mask, np.ones_like(painted.mask)])


AVATAR = "Avatar"
LAYERS: dict[str, Callable[[Painted], np.ndarray]] = {
    AVATAR: avatar_rgba,
    "Mesh": mesh_rgba,
    "IUV raster": iuv_rgba,
    "R1: rough image": rough_rgba,
    "R2: image": image_rgba,
    "Mask": mask_rgba,
}
ALL = "All, side by side"


def lay_over(picture: np.ndarray, rgba: np.ndarray, box_px: Box) -> np.ndarray:
    """A copy of ``picture`` (H, W, 3) uint8 with a crop (h, w, 4) where it was cut, ``box_px``."""
    left, top, right, bottom = _window(picture, box_px)
    laid = picture.copy()
    if right <= left or bottom <= top:
        return laid
    inner = (box_px[0] - left, box_px[1] - top, box_px[2] - left, box_px[3] - top)
    alpha = rgba[..., 3:]
    premultiplied = cv2.convertScaleAbs(np.concatenate([rgba[..., :3] * alpha, alpha], axis=2), alpha=255.0)
    pasted = _crisp(resample(premultiplied, inner, (right - left, bottom - top)), crispness(box_px, rgba.shape[0]))
    through = cv2.cvtColor(255 - pasted[..., 3], cv2.COLOR_GRAY2BGR)
    under = laid[top:bottom, left:right]
    laid[top:bottom, left:right] = cv2.add(cv2.multiply(under, through, scale=1 / 255), pasted[..., :3])
    return laid


def _crisp(premultiplied: np.ndarray, contrast: float) -> np.ndarray:
    """A layer (H, W, 4) uint8 with that contrast of its alpha about one half, as ``pasting.paste`` has it."""
    if contrast == 1:
        return premultiplied
    levels = np.arange(256, dtype=np.float32)
    crisp = ((levels - 127.5) * contrast + 127.5).clip(0, 255)
    ratio = crisp / np.maximum(levels, 1)
    alpha = premultiplied[..., 3]
    soft = np.nonzero((alpha > 0) & (alpha < 255))
    some = alpha[soft]
    crisper = premultiplied.copy()
    crisper[soft] = np.rint(premultiplied[soft] * ratio[some][:, None]).clip(0, 255).astype(np.uint8)
    return crisper


def lay_in(laid: np.ndarray, behind: np.ndarray, rgba: np.ndarray, box_px: Box) -> np.ndarray:
    """A copy of ``laid`` (H, W, 3) uint8, where inside ``box_px`` a close-up (h, w, 4) stands over what is ``behind``,
    mixed along the box's sides as ``close_up.inset`` does."""
    left, top, right, bottom = _window(laid, box_px)
    mixed = laid.copy()
    if right <= left or bottom <= top:
        return mixed
    inner = (box_px[0] - left, box_px[1] - top, box_px[2] - left, box_px[3] - top)
    close = lay_over(behind[top:bottom, left:right], rgba, inner)
    rows = closer.ramp(np.arange(bottom - top) + 0.5, inner[1], inner[3])
    columns = closer.ramp(np.arange(right - left) + 0.5, inner[0], inner[2])
    share = np.outer(rows, columns)
    under = mixed[top:bottom, left:right]
    mixed[top:bottom, left:right] = cv2.blendLinear(close, under, share, 1 - share)
    return mixed


def _window(picture: np.ndarray, box_px: Box) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels of a picture (H, W, ...) that a box touches."""
    height, width = picture.shape[:2]
    left, top = max(0, int(np.floor(box_px[0]))), max(0, int(np.floor(box_px[1])))
    return left, top, min(width, int(np.ceil(box_px[2]))), min(height, int(np.ceil(box_px[3])))


def tiles(painted: Painted | None, image_wh: tuple[int, int], text: float = 1.0) -> np.ndarray:
    """(H, W, 3) uint8 of ``image_wh``: every layer of a crop with its name, at ``text`` of its size."""
    width, height = image_wh
    columns = min((len(LAYERS), 3, 2), key=lambda n: _waste(painted, (width, height), n))
    rows = -(-len(LAYERS) // columns)
    sheet = np.full((height, width, 3), 250, np.uint8)
    for index, (name, layer) in enumerate(LAYERS.items()):
        row, column = divmod(index, columns)
        left, right = width * column // columns + TILE_PX, width * (column + 1) // columns - TILE_PX
        top, bottom = height * row // rows + TILE_PX, height * (row + 1) // rows - TILE_PX
        tile = sheet[top:bottom, left:right]
        if min(tile.shape[:2]) < 24:
            continue
        tile[:] = GROUND
        if painted is not None:
            tile[:] = lay_over(tile, layer(painted), _fitted(painted, tile.shape[1], tile.shape[0], text))
        label(tile, name, text)
    return sheet


def _waste(painted: Painted | None, image_wh: tuple[int, int], columns: int) -> float:
    """How little of the picture the crops fill in so many columns."""
    rows = -(-len(LAYERS) // columns)
    height, width = (3, 2) if painted is None else painted.mask.shape
    return -min(image_wh[0] / columns / width, image_wh[1] / rows / height)


def _fitted(painted: Painted, width: int, height: int, text: float) -> Box:
    """The largest box of the crop's aspect in the middle of a tile, below its label."""
    bar = min(round(24 * text), height // 6)
    crop_height, crop_width = painted.mask.shape
    scale = min(width / crop_width, (height - bar) / crop_height)
    left, top = (width - crop_width * scale) / 2, bar + (height - bar - crop_height * scale) / 2
    return left, top, left + crop_width * scale, top + crop_height * scale


def label(picture: np.ndarray, text: str, size: float = 1.0, right: bool = False) -> None:
    """Write ``text`` into an upper corner of a picture (H, W, 3) uint8, in place, at ``size`` of its usual size."""
    scale, pad = LABEL_SCALE * size, max(2, round(6 * size))
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left = picture.shape[1] - width - 2 * pad if right else 0
    cv2.rectangle(picture, (left, 0), (left + width + 2 * pad, height + base + pad), PAPER, -1)
    origin = (left + pad, height + pad * 2 // 3)
    cv2.putText(picture, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)
