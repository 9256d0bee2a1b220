"""Detail (``rendering.detail``) from frames that trained: what the finished avatar's enlarged painting lacks of them.

At the recording's own size the avatar paints a frame; what is left to the truth, without what is smooth, is put onto
the texture.  Over many frames prints, seams and eyes stay, for the body is tracked; what is of one moment, a fold, a
shadow, a finger that is elsewhere, averages out; what is left of it is told from detail by how much frames differ
(Wiener 1949), and where hardly a frame has been, nothing is claimed.  Poses are some pixels off, which would average
detail away, too: each frame is first laid onto the painting by optical flow (after Zhou and Koltun 2014).

D x D detail texels, K covered pixels, H x W pixels of a frame's crop.  Colours in [0, 1].
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numba import njit
from torch import Tensor

from capture.sampling import evenly
from capture.workers import num_threads
from fitting.keyframes import Keyframes
from rendering.avatar import Avatar
from rendering.captured import Captured
from rendering.close_up import WORTH
from rendering.detail import MOST_PX, as_stored, texels_per_m
from rendering.framing import visible_depth
from rendering.light import gains
from rendering.networks import RGB, NeuralTexture
from rendering.rasterize import rasterize_covered
from rendering.rasters import Rasters
from training.cast import PERSON
from training.dataset import crop_image
from training.train import reproducible

FRAMES, MOST_FRAMES = 24, 64  # evenly spread ones beside the keyframes, which differ in pose; and of both at most
MOST_ROWS = 1024  # that a frame's crop is looked at in
PX_STEP = 256  # D is a multiple of it
OWN_ALPHA = 0.97  # of the matte, and of the painting as it is shown: less is background, or an outline
SMOOTH_PX = 2.0  # of the networks' crop: what is smoother than that they can paint themselves
FLOW_PX, FLOW_EVERY = 4.0, 2  # of the networks' crop, how smoothly a frame is warped; found on each second pixel
LEAST_FLOW_PX = 12  # longer side; OpenCV finds no flow in smaller pictures
SPLAT_TEXELS = 0.8  # sigma
ERROR = 0.1  # of colour, by which a sample's weight is halved (Cauchy)
ROUNDS = 2  # of reweighting
LIKE = 3.0  # sigma in texels of 1024 over which detail and noise are compared
LEAST_FRAMES, BLOCK = 3, 4  # frames that must have seen a block of so many texels per side
LEAST_WEIGHT, NOTHING = 1e-3, 1e-9
COLUMNS = 6  # sums over samples: weight, weighted colours, weighted squares, squared weights

log = logging.getLogger(__name__)


def add_detail(avatar_dir: Path, subjects: Mapping[str, Path], device: str) -> None:
    """Give the subjects of a finished avatar, {name: folder}, their detail, in the files of their textures."""
    avatar = Avatar.load(avatar_dir, device)
    with reproducible(avatar.device):
        for name, folder in subjects.items():
            plain = replace(avatar, textures={**avatar.textures, name: without_detail(avatar.textures[name])})
            detail = found_detail(plain, name, folder)
            if detail is not None:
                log.info("%s: detail of %d x %d texels", name, *detail.shape[:2])
                tensors = {**plain.textures[name].state_dict(), "detail": detail}
                replace(avatar, textures={name: NeuralTexture.of(tensors)}).save_texture(avatar_dir, name)


def without_detail(texture: NeuralTexture) -> NeuralTexture:
    """A copy of the texture as it was trained."""
    kept = {name: value for name, value in texture.state_dict().items() if name != "detail"}
    return NeuralTexture.of(kept).to(texture.texels.device).requires_grad_(False)


def found_detail(avatar: Avatar, name: str, folder: Path) -> Tensor | None:
    """(D, D, 3) int8, what the avatar of somebody without detail lacks in his training frames; None where the recording
    shows no more than the avatar paints."""
    captured, rasters = Captured.load(folder), Rasters.load(folder / PERSON)
    frames = _frames(Keyframes.load(folder / "04_keyframes"), captured, rasters)
    # From far away nothing is lacking.
    near = frames[looked_rows(rasters.boxes_px[frames]) >= WORTH * avatar.image_wh[1]]
    if 2 * len(near) < len(frames) or not len(near):
        log.info("%s: no detail, as the recording shows no more than the crops do", name)
        return None
    looked = Looked(avatar, name, captured, rasters)
    detail_px = looked.detail_px(near)
    return as_stored(averaged(list(looked.at(near, detail_px)), detail_px))


def _frames(keyframes: Keyframes, captured: Captured, rasters: Rasters) -> np.ndarray:
    """The training frames to look at."""
    covered = np.diff(rasters.pixel_offsets) > 0
    train = [int(i) for i in keyframes.train_indices if captured.fit.tracked[i] and covered[i]]
    keys = np.intersect1d(keyframes.keyframe_indices, train)
    return evenly(np.union1d(keys, evenly(np.array(train, np.int64), FRAMES)), MOST_FRAMES).astype(np.int64)


class Samples(NamedTuple):
    """What one frame says of detail."""

    texel: np.ndarray  # (K,) int32, flat index into D * D
    colors: np.ndarray  # (K, 3) float32, as the surface would show them head-on
    weight: np.ndarray  # (K,) float32


class Looked(NamedTuple):
    """An avatar beside the recording of one of its cast."""

    avatar: Avatar
    name: str
    captured: Captured
    rasters: Rasters

    def detail_px(self, frames: np.ndarray) -> int:
        """Texels per side for as many on a metre of the body as these frames have pixels there."""
        px_per_m = []
        for i in frames.tolist():
            top, bottom = self.rasters.boxes_px[i][[1, 3]]
            seen = looked_rows(self.rasters.boxes_px[i]) / (bottom - top)
            vertices_m = self.captured.fit.vertices_color_m(i)
            px_per_m.append(seen * self.rasters.camera.fy_px / visible_depth(vertices_m, self.rasters.camera))
        wanted = float(np.median(px_per_m)) / texels_per_m(self.avatar.bodies[self.name], 1)
        return int(np.clip(np.ceil(wanted / PX_STEP) * PX_STEP, PX_STEP, MOST_PX))

    def at(self, frames: np.ndarray, detail_px: int) -> Iterator[Samples]:
        """What each frame says; several at once on a CPU, in their order."""
        for painting in (self.avatar, self.avatar.close_up):
            if painting is not None:
                painting.painter  # noqa: B018  made once, before there are threads
        threads = num_threads() if self.avatar.device.type == "cpu" else 1
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(partial(self.said, detail_px=detail_px), frames.tolist())

    def said(self, index: int, detail_px: int) -> Samples:
        """What one frame says."""
        fit, camera, box_px = self.captured.fit, self.rasters.camera, self.rasters.boxes_px[index]
        wh = looked_wh(box_px, self.avatar.image_wh)
        cut = camera.crop(tuple(box_px), wh)
        color, alpha = self.captured.recording.color(index), self.captured.masks[index]
        true = crop_image(color, box_px, wh, cv2.BORDER_REPLICATE).astype(np.float32) / 255
        matte = crop_image(alpha, box_px, wh, cv2.BORDER_CONSTANT)
        pose, placed = fit.pose[index], fit.camera_from_body[index]
        shown = self.avatar.render(self.name, pose, placed, cut, (0.0, 0.0, float(wh[0]), float(wh[1])))
        shape = self.avatar.bodies[self.name]
        covered = rasterize_covered(shape.body, shape.vertices_camera_m(pose, placed), cut)
        is_body = np.zeros(wh[0] * wh[1], np.float32)
        is_body[covered.pixel] = ~self.rasters.part_doubted[index][covered.part]
        enlarged = float(looked_rows(box_px)) / self.avatar.image_wh[1]
        true, matte = laid_on(shown, true, matte, FLOW_PX * enlarged)
        is_own = is_body.reshape(wh[1], wh[0]) * (matte >= OWN_ALPHA) * (shown[..., 3] >= OWN_ALPHA)
        lacking = true - shown[..., :3]
        lacking -= _smooth(lacking, is_own, SMOOTH_PX * enlarged)
        inside = cv2.erode(is_own, np.ones((3, 3))).ravel()[covered.pixel] > 0
        light = self.avatar.textures[self.name].light
        lit = np.ones((len(covered.pixel), RGB), np.float32) if light is None else gains(covered.normal, light)
        facing = np.maximum(-covered.normal[:, 2], 0) * lit.mean(axis=1)
        weight = np.where(inside, facing**2, 0).astype(np.float32)
        column, row = (covered.uv.T * detail_px).astype(np.int64).clip(0, detail_px - 1)
        kept = weight > LEAST_WEIGHT
        colors = lacking.reshape(-1, RGB)[covered.pixel] / lit
        return Samples((row * detail_px + column)[kept].astype(np.int32), colors[kept].astype(np.float32), weight[kept])


def looked_rows(boxes_px: np.ndarray) -> np.ndarray:
    """(...) how many rows of what is in boxes (..., 4) of a recording are looked at."""
    return np.minimum(boxes_px[..., 3] - boxes_px[..., 1], MOST_ROWS)


def looked_wh(box_px: np.ndarray, crop_wh: tuple[int, int]) -> tuple[int, int]:
    """The size that what is in ``box_px`` is looked at in, in the proportions of a crop of ``crop_wh``."""
    scale = float(looked_rows(box_px)) / crop_wh[1]
    return round(crop_wh[0] * scale), round(crop_wh[1] * scale)


def laid_on(shown: np.ndarray, true: np.ndarray, matte: np.ndarray, sigma_px: float) -> tuple[np.ndarray, np.ndarray]:
    """The picture true (H, W, 3) of somebody and his matte (H, W), warped onto the painting shown (H, W, 4) of him.

    By dense inverse search (Kroeger et al. 2016) inside both outlines, smoothed over ``sigma_px``.
    """
    height, width = matte.shape
    both = ((matte >= 0.5) & (shown[..., 3] >= 0.5)).astype(np.float32)
    small_wh = width // FLOW_EVERY, height // FLOW_EVERY
    if max(small_wh) < LEAST_FLOW_PX:
        return true, matte
    coarse = cv2.resize(both, small_wh, interpolation=cv2.INTER_AREA)
    gray = []
    for picture in (shown[..., :3], true):
        small = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), small_wh, interpolation=cv2.INTER_AREA)
        # Neither how bright a film is nor what stands behind anybody is to be matched.
        small -= _smooth(small[..., None], coarse, 2 * sigma_px / FLOW_EVERY)[..., 0]
        gray.append(((small * coarse + 0.5) * 255).clip(0, 255).astype(np.uint8))
    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = np.asarray(flow_of.calc(gray[0], gray[1], np.zeros((*coarse.shape, 2), np.float32)))
    flow = _smooth(flow, coarse, sigma_px / FLOW_EVERY) * FLOW_EVERY
    flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    row, column = np.mgrid[:height, :width].astype(np.float32)
    x, y = column + flow[..., 0], row + flow[..., 1]
    color = cv2.remap(true, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return color, cv2.remap(matte, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _smooth(values: np.ndarray, mask: np.ndarray, sigma_px: float) -> np.ndarray:
    """values (H, W, C) blurred, as far as the mask (H, W) goes."""
    share = cv2.GaussianBlur(mask, (0, 0), sigma_px)
    blurred = cv2.GaussianBlur(values * mask[..., None], (0, 0), sigma_px).reshape(values.shape)
    return blurred / np.maximum(share, 0.05)[..., None]


def averaged(samples: list[Samples], detail_px: int) -> np.ndarray:
    """(D, D, 3) float32 colours about 0: the samples' robust mean, shrunk by what it has of noise."""
    sums = _summed(samples, detail_px, np.zeros((detail_px * detail_px, RGB), np.float32), np.inf)
    for _ in range(ROUNDS):
        sums = _summed(samples, detail_px, _mean(sums), ERROR**2)
    mean, weight = _mean(sums), np.maximum(sums[:, 0], NOTHING)
    is_known = sums[:, 0] > LEAST_WEIGHT
    power = (mean**2).sum(axis=1)
    variance = np.maximum(sums[:, 4] / weight - power, 0)
    noise = variance * sums[:, 5] / weight**2  # of the mean of so many samples
    power, noise = (
        cv2.GaussianBlur(np.where(is_known, values, 0).reshape(detail_px, detail_px), (0, 0), LIKE * detail_px / 1024)
        for values in (power, noise)
    )
    # The root keeps the contrast that detail has; the share itself would have the least error, and be dull.
    share = np.sqrt(np.clip(1 - noise / np.maximum(power, NOTHING), 0, 1)) * _often_seen(samples, detail_px)
    share = np.where(is_known.reshape(share.shape), share, 0)
    return (mean.reshape(detail_px, detail_px, RGB) * share[..., None]).astype(np.float32)


def _summed(samples: list[Samples], detail_px: int, mean: np.ndarray, most: float) -> np.ndarray:
    """(D * D, COLUMNS) float32 sums over all samples; ``most`` is the squared distance from the mean (D * D, 3) that
    halves a weight."""
    sums = np.zeros((detail_px * detail_px, COLUMNS), np.float32)
    for frame in samples:
        _sum_up(sums, *frame, mean, most)
    spread = cv2.GaussianBlur(sums.reshape(detail_px, detail_px, COLUMNS), (0, 0), SPLAT_TEXELS)
    return np.asarray(spread, np.float32).reshape(-1, COLUMNS)


def _mean(sums: np.ndarray) -> np.ndarray:
    """(D * D, 3) float32."""
    return np.ascontiguousarray(sums[:, 1:4] / np.maximum(sums[:, :1], NOTHING))


def _often_seen(samples: list[Samples], detail_px: int) -> np.ndarray:
    """(D, D) float32: 1 where frames enough have been, falling to 0."""
    blocks = detail_px // BLOCK
    count = np.zeros(blocks * blocks, np.int64)
    for frame in samples:
        row, column = np.divmod(frame.texel, detail_px)
        count[np.unique(row // BLOCK * blocks + column // BLOCK)] += 1
    enough = np.clip((count - LEAST_FRAMES + 1) / 2, 0, 1).reshape(blocks, blocks)
    return np.kron(cv2.GaussianBlur(enough, (0, 0), 1.0), np.ones((BLOCK, BLOCK))).astype(np.float32)


@njit(cache=True, nogil=True)
def _sum_up(sums, texel, colors, weight, mean, most):
    """The samples into ``sums`` (D * D, COLUMNS), in place; those far from the mean (D * D, 3) count less."""
    for k in range(len(texel)):
        at = texel[k]
        away = np.float32(0)
        for c in range(3):
            away += (colors[k, c] - mean[at, c]) ** 2
        share = weight[k] / (1 + away / most)
        sums[at, 0] += share
        square = np.float32(0)
        for c in range(3):
            sums[at, 1 + c] += share * colors[k, c]
            square += colors[k, c] * colors[k, c]
        sums[at, 4] += share * square
        sums[at, 5] += share * share
