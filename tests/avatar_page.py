"""An exported page's picture of a moment, to compare with Python's."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import numpy as np
import torch
from chromium import Page

from rendering.avatar import Avatar, Shape
from rendering.painter import Painter
from rendering.render import facing, follow
from rendering.retarget import Motion
from rendering.viewpoints import View, orbit

GREY = 0.5
PAINT = """(async () => {
  const [camera, motion, frame] = %s, v = viewer;
  v.choose(motion);
  const placed = compose(Float64Array.from(camera.fromWorld), v.of("world_from_body", frame));
  const painted = await v.avatar.paint(v.of("pose", frame), placed, v.lit(camera));
  const pixels = new Float32Array(4 * camera.width * camera.height).fill(%s);
  v.avatar.paste(painted, pixels, camera.width, camera.height, 1);
  const bytes = new Uint8Array(pixels.buffer), text = [];
  for (let i = 0; i < bytes.length; i += 30000) text.push(String.fromCharCode(...bytes.subarray(i, i + 30000)));
  return btoa(text.join(""));
})()"""


def in_javascript(view: View) -> dict:
    camera, (width, height) = view.camera, view.camera.image_wh
    lens = {"fx": camera.fx_px, "fy": camera.fy_px, "cx": camera.cx_px, "cy": camera.cy_px}
    return {"width": width, "height": height, **lens, "fromWorld": view.camera_from_world[:3].ravel().tolist()}


def seen_from(shape: Shape, motion: Motion, frame: int, azimuth: float, image_wh: tuple[int, int]) -> View:
    """An orbit's view of a frame, lit as what nobody filmed."""
    targets_m, height_m = follow(shape, motion)
    return orbit(targets_m[frame : frame + 1], np.array([azimuth]), height_m, facing(motion), image_wh)[0]


def painted_by_page(page: Page, motion_index: int, frame: int, view: View) -> np.ndarray:
    """(H, W, 3) float32: the page's networks and light on a frame of one of its motions, over grey."""
    data = page.value(PAINT % (json.dumps([in_javascript(view), motion_index, frame]), GREY))
    width, height = view.camera.image_wh
    return np.frombuffer(base64.b64decode(data), np.float32).reshape(height, width, 4)[..., :3]


def in_float32(avatar: Avatar) -> Avatar:
    """The avatar with networks that compute as the page's do."""
    close_up = None if avatar.close_up is None else in_float32(avatar.close_up)
    precise = replace(avatar, close_up=close_up)
    precise.__dict__["painter"] = Painter(avatar.renderer, avatar.device, dtype=torch.float32)
    return precise


def over_grey(rgba: np.ndarray) -> np.ndarray:
    """(H, W, 3) of ``Avatar.render``'s (H, W, 4)."""
    return rgba[..., :3] * rgba[..., 3:] + GREY * (1 - rgba[..., 3:])
