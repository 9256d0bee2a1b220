"""The report's strips of pictures, made small and put into data URIs.

Enters: stage folders and what lies in them.  Leaves: ``Picture``s.  h x w pixels of a small picture.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from capture.files import encode_jpeg
from capture.sampling import evenly
from fitting.residuals import caption
from rendering.avatar import Avatar
from rendering.captured import Captured
from rendering.light import gain
from rendering.rasters import Rasters
from training.dataset import crop_image
from training.heads import WITH, WITHOUT
from training.pictures import at_height
from training.score import AVATAR, NEAREST, TEXTURE

STILLS, MASKS, KEYFRAMES = 8, 8, 18  # pictures per strip
CUT_OUT_COLOR = (38.0, 168.0, 122.0)  # behind a cut-out person: a green that few clothes have


@dataclass(frozen=True)
class Picture:
    """A picture with a caption, as a data URI."""

    uri: str
    caption: str = ""


@dataclass(frozen=True)
class HeldoutRow:
    """One held-out frame in all versions."""

    frame: int
    pictures: tuple[Picture, ...]


def heldout_rows(folder: Path) -> list[HeldoutRow]:
    """The pictures that ``evaluate`` left, a row per frame."""
    captions = {"truth": "truth", AVATAR: "avatar", "error": "error", NEAREST: "nearest frame", TEXTURE: "texture only"}
    return _rows(folder, "heldout", captions)


def _rows(folder: Path, name: str, captions: Mapping[str, str]) -> list[HeldoutRow]:
    rows = []
    for path in sorted(folder.glob(f"{name}_*_truth.jpg")):
        frame = int(path.stem.split("_")[1])
        versions = [(folder / f"{name}_{frame:06d}_{kind}.jpg", words) for kind, words in captions.items()]
        rows.append(HeldoutRow(frame, tuple(Picture(data_uri(p.read_bytes()), w) for p, w in versions if p.is_file())))
    return rows


def head_rows(folder: Path) -> list[HeldoutRow]:
    """Heads as ``score_heads`` left them, a row per frame."""
    captions = {"truth": "truth", WITH: "avatar with its close-up", WITHOUT: "without it"}
    return _rows(folder, "head", captions)


def orbit_strip(folder: Path) -> list[Picture]:
    """The views around the person, by angle."""
    paths = sorted(folder.glob("turntable_*.jpg"))
    return [Picture(data_uri(path.read_bytes()), f"{int(path.stem.rpartition('_')[2])}°") for path in paths]


def overlays(folder: Path) -> list[Picture]:
    """The fit stage's stills, made small."""
    paths = sorted(folder.glob("*.jpg"))
    if not paths:
        return []
    pictures = []
    for path in evenly(paths, STILLS):
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is not None:
            pictures.append(Picture(jpeg_uri(at_height(image, 300)), f"frame {int(path.stem)}"))
    return pictures


def worst_strip(folder: Path, fit: Any) -> list[Picture]:
    """The fit stage's worst frames, with what is wrong in them."""
    pictures = []
    for path in sorted(folder.glob("*.jpg")):
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is not None:
            pictures.append(Picture(jpeg_uri(at_height(image, 420)), caption(fit, int(path.stem))))
    return pictures


def coverage_pictures(folder: Path) -> list[Picture]:
    """The body and the charts of its texture, painted with what was filmed."""
    captions = {
        "coverage.png": "the body at rest, from front and back",
        "coverage_uv.png": "the same on the charts of the texture: how near",
    }
    paths = [(folder / name, words) for name, words in captions.items()]
    return [Picture(data_uri(path.read_bytes(), "png"), words) for path, words in paths if path.is_file()]


def mask_strip(captured: Captured, rasters: Rasters) -> list[Picture]:
    """The person cut out with the matte, on a flat colour that no clothes have."""
    tracked = np.flatnonzero(captured.fit.tracked)
    pictures = []
    for index in evenly(tracked, MASKS):
        color, alpha = person_crop(captured, rasters, int(index), 260)
        cut = color * alpha[..., None] + np.array(CUT_OUT_COLOR) * (1 - alpha[..., None])
        pictures.append(Picture(jpeg_uri(np.rint(cut).astype(np.uint8)), f"frame {index}"))
    return pictures


def keyframe_sheet(captured: Captured, rasters: Rasters, keyframe_indices: np.ndarray) -> list[Picture]:
    """The frames that the texture learns from."""
    return [
        Picture(jpeg_uri(person_crop(captured, rasters, int(i), 200)[0].astype(np.uint8)), f"frame {i}")
        for i in evenly(keyframe_indices, KEYFRAMES)
    ]


def person_crop(captured: Captured, rasters: Rasters, index: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour (h, w, 3) float32 in [0, 255] and alpha (h, w) of a frame's raster box."""
    image_wh = (round(height * rasters.image_wh[0] / rasters.image_wh[1]), height)
    box = rasters.boxes_px[index]
    color = crop_image(captured.recording.color(index), box, image_wh, cv2.BORDER_REPLICATE).astype(np.float32)
    return color, crop_image(np.asarray(captured.masks[index], np.float32), box, image_wh, cv2.BORDER_CONSTANT)


def texture_pictures(avatar: Avatar, name: str) -> list[Picture]:
    """The first three channels of the learned texture, which stay close to colours, and the charts they lie on."""
    texels = avatar.textures[name].texels.detach().cpu().numpy()
    size = len(texels)
    colors = np.rint((texels[..., :3].clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    body = avatar.bodies[name].body
    layout = np.full((size * 2, size * 2, 3), 245, np.uint8)
    corners = np.rint(body.uv[body.face_uv] * size * 2 * 16).astype(np.int32)  # (F, 3, 2) in sixteenths of a pixel
    for corner, part in zip(corners, body.face_part, strict=True):
        hsv = np.array([[[int(part) * 37 % 180, 90, 225]]], np.uint8)
        hue = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]
        cv2.fillPoly(layout, [corner], hue.tolist(), cv2.LINE_AA, 4)
    found = [
        Picture(jpeg_uri(at_height(colors, 384), 90), "learned texture, first three channels"),
        Picture(jpeg_uri(at_height(layout, 384), 90), "charts of the body it lies on"),
    ]
    light = avatar.textures[name].light
    if light is not None:
        found.append(Picture(jpeg_uri(lit_ball(light.cpu(), 384), 90), "the light it was filmed in, on a grey ball"))
    return found


def lit_ball(light: torch.Tensor, size_px: int) -> np.ndarray:
    """(size_px, size_px, 3) uint8: a grey ball in ``light`` (``rendering.light``), as the camera would see it."""
    y, x = torch.meshgrid(*2 * [torch.linspace(-1.1, 1.1, size_px)], indexing="ij")
    z = -(1 - x**2 - y**2).clamp(min=0).sqrt()
    normal = torch.nn.functional.normalize(torch.stack([x, y, z], dim=-1).flatten(0, 1), dim=1)
    shown = (0.5 * gain(normal, light)).clamp(max=1) * 255
    shown[(x**2 + y**2 > 1).flatten()] = 245
    return shown.reshape(size_px, size_px, 3).round().numpy().astype(np.uint8)


def jpeg_uri(image: np.ndarray, quality: int = 84) -> str:
    return data_uri(encode_jpeg(image, quality))


def data_uri(picture: bytes, kind: str = "jpeg") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
