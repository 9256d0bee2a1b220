"""What an avatar starts from: the true colours, averaged onto the texture, and the light that they were filmed in.

K covered pixels, T texels per side.
"""

from __future__ import annotations

import logging

import numpy as np
import torch

from capture.sampling import evenly
from fitting.light import found_light, light_terms
from rendering.avatar import Shape
from rendering.light import gain, lit
from rendering.networks import NeuralTexture
from rendering.texels import push_pull
from training.dataset import ALPHA, COLOR, VALID, SubjectFrames
from training.unseen import continued

MIN_ALPHA = 0.95  # a half-covered pixel shows background
NUM_CORNERS = 4
LIGHT_FRAMES = 60  # evenly spread: a light has 24 unknowns
LIGHT_TEXELS = 128  # per side: in coarser ones slopes of colour look like light
LEAST_SEEN = 1e-3  # of a pixel seen head-on
LEAST_FACING = 0.2  # cosine: more slanted pixels show the edge

log = logging.getLogger(__name__)


def warm_texture(
    initial: torch.Tensor,
    frames: SubjectFrames,
    positions: np.ndarray,
    light: torch.Tensor | None = None,
    shape: Shape | None = None,
) -> torch.Tensor:
    """``initial`` (T, T, C) with its first three channels replaced by the colours of the frames at ``positions``, the
    light taken out of them."""
    warm = initial.clone()
    warm[..., :3] = back_projected(frames, positions, initial.shape[0], light, shape)
    return warm


def back_projected(
    frames: SubjectFrames,
    positions: np.ndarray,
    texture_px: int,
    light: torch.Tensor | None = None,
    shape: Shape | None = None,
) -> torch.Tensor:
    """(T, T, 3) float32 in [-1, 1]: colours of the frames at ``positions``, seen head-on rather than slanted, with
    ``light`` (``rendering.light``) as they would be seen head-on.

    Texels that no frame shows are filled from their neighbours: on the body's own surface where its ``shape`` is given,
    otherwise in the atlas, where the neighbour of a hip may be a foot.
    """
    total = np.zeros((texture_px * texture_px, 4))
    for position in positions:
        own = frames.covered(position)
        colors, facing, is_seen = _seen(frames, position)
        weight = np.where(is_seen, facing**2, 0)
        if light is not None:
            gains = gain(frames.normal(own), light.to(frames.normal_i8.device)).cpu().numpy()  # (K, 3)
            colors, weight = colors / gains, weight * gains.mean(axis=1) ** 2  # bright pixels know more
        values = np.concatenate([2 * colors - 1, np.ones((len(facing), 1))], axis=1)
        for corner, share in _corners(frames.uv(own).cpu().numpy(), texture_px):
            for channel in range(NUM_CORNERS):
                amount = values[:, channel] * weight * share
                total[:, channel] += np.bincount(corner, amount, minlength=len(total))
    seen = total[:, 3].astype(np.float32).reshape(texture_px, texture_px)
    colors = (total[:, :3] / np.maximum(total[:, 3:], 1e-9)).astype(np.float32).reshape(texture_px, texture_px, 3)
    known = seen > LEAST_SEEN
    if shape is not None and known.any():
        colors, known = continued(colors, np.where(known, seen, 0), shape)
    return torch.from_numpy(push_pull(colors, known.astype(np.float32)))


def light_of(frames: SubjectFrames, positions: np.ndarray) -> torch.Tensor:
    """(LIGHT_TERMS, 3) float32, the light in the frames at ``positions`` (``fitting.light``), with a colour for every
    texel of a coarse texture."""
    parts = []
    for position in evenly(positions, LIGHT_FRAMES):
        own = frames.covered(position)
        colors, facing, is_seen = _seen(frames, position)
        kept = np.flatnonzero(is_seen & (facing > LEAST_FACING))
        column, row = (frames.uv(own).cpu().numpy()[kept].T * LIGHT_TEXELS).astype(np.int64).clip(0, LIGHT_TEXELS - 1)
        terms = light_terms(frames.normal(own).cpu().numpy()[kept])
        frame = np.full(len(kept), position, np.int64)
        parts.append((row * LIGHT_TEXELS + column, frame, facing[kept] ** 2, terms, colors[kept]))
    light = found_light(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return torch.from_numpy(light.astype(np.float32))


def proven_light(frames: SubjectFrames, positions: np.ndarray) -> torch.Tensor | None:
    """``light_of``, where it helps to foretell frames; None where colours alone foretell them better.

    Judged on the first and on the last fifth of the frames by colours and light of the others: an avatar is for what is
    beyond, and a light that only fits what it was found in, a body that is a little off for instance, is none.  The
    worse of the two counts once more: what one end gains is no proof where the other loses a third of it.
    """
    chosen = evenly(positions, LIGHT_FRAMES)
    fifth = len(chosen) // 5
    if fifth:
        ends = ((chosen[fifth:], chosen[:fifth]), (chosen[:-fifth], chosen[-fifth:]))
        gains_db = []
        for known, unknown in ends:
            lit_db, plain_db = (foretold_db(frames, known, unknown, of) for of in (light_of(frames, known), None))
            gains_db.append(lit_db - plain_db)
        if np.mean(gains_db) + min(gains_db) < 0:
            log.info("%s: shown without a light, which does not foretell his frames better throughout", frames.name)
            return None
    return light_of(frames, positions)


def foretold_db(frames: SubjectFrames, known: np.ndarray, unknown: np.ndarray, light: torch.Tensor | None) -> float:
    """PSNR, dB, mean over the frames at ``unknown``: their covered pixels by colours from the frames at ``known``."""
    texture = NeuralTexture(back_projected(frames, known, LIGHT_TEXELS, light))
    found = []
    for position in unknown:
        own = frames.covered(position)
        colors, _, is_seen = _seen(frames, position)
        with torch.no_grad():
            shown = texture.sample(frames.uv(own).cpu())
        if light is not None:
            shown = lit(shown, frames.normal(own).cpu(), light)
        if is_seen.any():
            squared = ((shown.numpy() + 1) / 2 - colors)[is_seen] ** 2
            found.append(-10 * np.log10(max(float(squared.mean()), 1e-10)))
    return float(np.mean(found)) if found else 0.0


def _seen(frames: SubjectFrames, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the covered pixels of a frame the colour (K, 3) in [0, 1], the cosine to the view axis (K,), and whether they
    show the person (K,) bool."""
    own = frames.covered(position)
    planes = frames.planes[position].flatten(1).cpu().numpy()[:, frames.pixel[own].cpu().numpy()]  # (8, K)
    facing = np.maximum(-frames.normal(own)[:, 2].cpu().numpy(), 0)
    is_seen = (planes[ALPHA][0] >= MIN_ALPHA * 255) & (planes[VALID][0] > 0)
    return planes[COLOR].T / 255, facing, is_seen


def _corners(uv: np.ndarray, texture_px: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The four texels around each uv (K, 2), with their bilinear shares."""
    xy = np.clip(uv * texture_px - 0.5, 0, texture_px - 1)
    low = np.minimum(np.floor(xy), texture_px - 2).astype(np.int64)
    fraction = xy - low
    corners = []
    for right in (0, 1):
        for down in (0, 1):
            share = np.abs(1 - right - fraction[:, 0]) * np.abs(1 - down - fraction[:, 1])
            corners.append(((low[:, 1] + down) * texture_px + low[:, 0] + right, share))
    return corners
