"""Coverage to look at: the body from front and back in its rest pose, and the charts of its texture.

Enter: ``Coverage`` and the body.  Leave: pictures (H, W, 3) uint8 RGB.  Bright is good, hatched was never shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from capture.camera import Camera
from fitting.body.model import BodyModel
from rendering.coverage import Coverage
from rendering.rasterize import rasterize

PAPER, INK, QUIET = (255, 255, 255), (27, 29, 34), (102, 108, 120)
HATCH = ((206, 208, 213), (172, 175, 182))  # never seen: light and dark stripe
BODY_HEIGHT, BODY_WIDTH = 520, 250  # of one view, before the arms decide
FINEST_MM, COARSEST_MM = 1.0, 16.0  # ends of the scale, the same for every recording
MOST_SLANTED_DEG = 80.0


@dataclass(frozen=True)
class Scale:
    """How a figure becomes a colour: 0 = worst ... 1 = best, and what to write beside the colour bar."""

    title: str
    values: Callable[[Coverage], np.ndarray]
    rank: Callable[[np.ndarray, int], np.ndarray]  # figures, number of frames -> [0, 1]
    ticks: Callable[[int], list[float]]
    unit: str


def _log_rank(values: np.ndarray, worst: float, best: float) -> np.ndarray:
    return np.log(np.maximum(values, 1e-6) / worst) / np.log(best / worst)


def _counts(num_frames: int) -> list[float]:
    steps = [float(n) for n in (1, 3, 10, 30, 100, 300, 1000, 3000) if n <= num_frames]
    return steps or [1.0]


SCALES = {
    "fineness": Scale(
        "From how near: skin per pixel of the picture", lambda c: c.mm_per_px,
        lambda v, n: _log_rank(v, COARSEST_MM, FINEST_MM), lambda n: [16, 8, 4, 2, 1], "mm",
    ),
    "frequency": Scale(
        "How often: frames that show it", lambda c: np.where(c.frames > 0, c.frames, np.nan).astype(float),
        lambda v, n: _log_rank(v, 1, max(n, 2)), _counts, "frames",
    ),
    "slant": Scale(
        "How head-on: slant in the best frame", lambda c: c.slant_deg,
        lambda v, n: 1 - v / MOST_SLANTED_DEG, lambda n: [80, 60, 40, 20, 0], "degrees",
    ),
}  # fmt: skip


def draw_bodies(coverage: Coverage, body: BodyModel, rest_vertices_m: np.ndarray) -> np.ndarray:
    """Front and back of the body for each figure, side by side, each with its scale."""
    return np.concatenate([_body_panel(coverage, body, rest_vertices_m, scale) for scale in SCALES.values()], axis=1)


def draw_atlas(coverage: Coverage, body: BodyModel, size: int = 1024) -> np.ndarray:
    """The charts as the texture is read, coloured by how near the camera was; outlines and names of the parts."""
    scale = SCALES["fineness"]
    uv = np.asarray(body.uv, float) * size
    part = _charts(body, uv, size)
    row, column = np.mgrid[:size, :size] * len(coverage.part) // size
    texels, seen = _painted(coverage, scale)
    colors, is_seen = texels[row, column], seen[row, column]
    picture = np.where(is_seen[..., None], colors, _hatch(size, size))
    picture[part == 0] = PAPER
    picture = _outlined(picture, part)
    image = Image.fromarray(np.concatenate([picture, _bar(coverage, scale, size)]))
    draw, font = ImageDraw.Draw(image), _font(17)
    for number in np.unique(body.face_part):
        _label(draw, font, body.part_names[number], _middle(uv[body.face_uv[body.face_part == number]]))
    return np.asarray(image)


def _body_panel(coverage: Coverage, body: BodyModel, rest_vertices_m: np.ndarray, scale: Scale) -> np.ndarray:
    views = [_view(coverage, body, rest_vertices_m, scale, is_back) for is_back in (False, True)]
    both = np.concatenate(views, axis=1)
    image = Image.fromarray(np.concatenate([both, _bar(coverage, scale, both.shape[1])]))
    draw = ImageDraw.Draw(image)
    for x, name in ((0.25, "front"), (0.75, "back")):
        draw.text((x * both.shape[1], BODY_HEIGHT - 2), name, QUIET, _font(21), anchor="mb")
    return np.asarray(image)


def _view(coverage: Coverage, body: BodyModel, rest_vertices_m: np.ndarray, scale: Scale, is_back: bool) -> np.ndarray:
    """(h, w, 3) one side of the body at rest, painted, lightly shaded, parts outlined."""
    vertices_m = np.asarray(rest_vertices_m, float)
    low, high = vertices_m.min(0), vertices_m.max(0)
    middle, height_m = (low + high) / 2, float(high[2] - low[2])
    width = max(BODY_WIDTH, round(BODY_HEIGHT * (high[0] - low[0]) / height_m * 0.92) + 24)
    away_m = 12.0  # far enough for a picture without perspective
    focal = (BODY_HEIGHT - 52) * away_m / height_m
    camera = Camera((width, BODY_HEIGHT), focal, focal, width / 2, (BODY_HEIGHT - 24) / 2)
    side = -1.0 if is_back else 1.0
    x, y, z = (vertices_m - middle).T
    raster = rasterize(body, np.stack([side * x, -z, side * y + away_m], 1), camera)
    texel = np.minimum((raster.uv * len(coverage.part)).astype(int), len(coverage.part) - 1)
    texels, seen = _painted(coverage, scale)
    colors, is_seen = (plane[texel[..., 1], texel[..., 0]] for plane in (texels, seen))
    colors = np.where(is_seen[..., None], colors, _hatch(BODY_HEIGHT, width))
    light = 0.72 + 0.28 * np.clip(-raster.normal[..., 2:], 0, 1)
    picture = np.where(raster.mask[..., None], colors * light, PAPER).astype(np.uint8)
    return _outlined(picture, raster.part)


def _painted(coverage: Coverage, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """Colour (T, T, 3) uint8 of every texel and whether its skin was seen; beyond a chart's rim the rim goes on."""
    from scipy.ndimage import distance_transform_edt

    colors = _ramp(np.nan_to_num(scale.rank(scale.values(coverage), coverage.num_frames)))
    row, column = distance_transform_edt(coverage.part == 0, return_distances=False, return_indices=True)
    return colors[row, column], coverage.seen[row, column]


def _ramp(rank: np.ndarray) -> np.ndarray:
    """[0, 1] to colours (..., 3) uint8: dark violet is poor, bright yellow is good."""
    byte = np.rint(np.clip(rank, 0, 1) * 255).astype(np.uint8)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return table[byte]


def _hatch(height: int, width: int) -> np.ndarray:
    row, column = np.mgrid[:height, :width]
    light, dark = (np.array(color, np.uint8) for color in HATCH)
    stripe: np.ndarray = np.where(((row + column) // 4 % 2 == 0)[..., None], light, dark)
    return stripe


def _outlined(picture: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Dark lines where one part ends."""
    padded = np.pad(part, 1, mode="edge")
    edge = (padded[1:-1, 1:-1] != padded[1:-1, 2:]) | (padded[1:-1, 1:-1] != padded[2:, 1:-1])
    soft = cv2.GaussianBlur(edge.astype(np.float32), (3, 3), 0)[..., None].clip(0, 1) * 0.85
    return np.rint(picture * (1 - soft) + np.array(INK) * soft).astype(np.uint8)


def _charts(body: BodyModel, uv: np.ndarray, size: int) -> np.ndarray:
    """(size, size) uint8 part of every pixel of the texture."""
    part = np.zeros((size, size), np.uint8)
    corners = np.rint(uv[body.face_uv] * 16).astype(np.int32)  # sixteenths of a pixel
    for triangle, number in zip(corners, body.face_part, strict=True):
        cv2.fillConvexPoly(part, triangle, int(number), cv2.LINE_8, 4)
    return part


def _middle(triangles: np.ndarray) -> np.ndarray:
    """(2,) the centre of mass of triangles (n, 3, 2)."""
    area = np.abs(np.linalg.det(triangles[:, 1:] - triangles[:, :1]))
    return (triangles.mean(1) * area[:, None]).sum(0) / max(float(area.sum()), 1e-9)


def _bar(coverage: Coverage, scale: Scale, width: int) -> np.ndarray:
    """(96, width, 3) the colours with their values below, and the hatch."""
    image = Image.new("RGB", (width, 96), PAPER)
    draw, font = ImageDraw.Draw(image), _font(19)
    left, right = 18, min(width - 170, 640)
    draw.text((left, 6), scale.title, INK, _font(21))
    ramp = np.repeat(_ramp(np.linspace(0, 1, right - left))[None], 18, axis=0)
    image.paste(Image.fromarray(ramp), (left, 40))
    ticks = scale.ticks(coverage.num_frames)
    for number, tick in enumerate(ticks):
        rank = float(np.clip(scale.rank(np.array(tick), coverage.num_frames), 0, 1))
        words = f"{tick:g}" + (f" {scale.unit}" if number == len(ticks) - 1 else "")
        anchor = "la" if rank < 0.05 else "ra" if rank > 0.9 else "ma"
        draw.text((left + rank * (right - left), 65), words, QUIET, font, anchor=anchor)
    image.paste(Image.fromarray(_hatch(18, 34)), (right + 22, 40))
    draw.text((right + 64, 49), "not seen", QUIET, font, anchor="lm")
    return np.asarray(image)


def _label(draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont, text: str, middle: np.ndarray) -> None:
    x, y = (float(v) for v in middle)
    box = draw.textbbox((x, y), text, font, anchor="mm")
    draw.rounded_rectangle((box[0] - 5, box[1] - 3, box[2] + 5, box[3] + 3), 5, fill=PAPER)
    draw.text((x, y), text, INK, font, anchor="mm")


def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)  # type: ignore[return-value]
