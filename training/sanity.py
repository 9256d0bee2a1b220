"""Baselines that anything worth training must beat, scored by the same evaluator.

nearest   the training frame whose pose is closest, its crop and its matte used again as they are
texture   colours of the training frames averaged into one texture, in the light found in them, on the mesh, without a
          network: once on the mesh that the avatar has too, with its clothes, once on the bare body, without

N frames, J joints, K covered pixels, T texels per side, H x W pixels of the person crop.  Enters: what training may
see.  Leaves: for a held-out frame a crop's colour (H, W, 3) in [0, 1] and its alpha (H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from capture.errors import UserError
from capture.sampling import evenly
from rendering.networks import NeuralTexture, Surface
from rendering.rasterize import Covered, rasterize_covered
from rendering.rasters import CompactRaster, Rasters
from training.dataset import ALPHA, COLOR, VALID, SubjectFrames, crop_planes
from training.warmstart import back_projected, proven_light

TEXTURE_SIZE = 256  # that of the neural texture: the comparison is fair
TEXTURE_FRAMES = 200  # evenly spread; more do not sharpen an average


@dataclass(frozen=True)
class Crop:
    """What a method says a frame looks like: colour (H, W, 3) float32 in [0, 1] and alpha (H, W)."""

    color: np.ndarray
    alpha: np.ndarray


def true_crop(
    color: np.ndarray, alpha: np.ndarray, box_px: Sequence[float], image_wh: tuple[int, int]
) -> tuple[Crop, np.ndarray]:
    """The recorded person, cut out of a frame (H0, W0, 3) uint8 with its matte as for training, and where the crop lies
    inside the picture (H, W) bool."""
    planes = crop_planes(color, alpha, box_px, image_wh)
    picture = planes[COLOR].transpose(1, 2, 0).astype(np.float32) / 255
    return Crop(picture, planes[ALPHA][0].astype(np.float32) / 255), planes[VALID][0] > 0


def nearest_frames(fit: Any, train_indices: np.ndarray, wanted_indices: np.ndarray) -> np.ndarray:
    """(M,) the training frame nearest in pose to each of the M ``wanted_indices``.

    Distance: how far the joints are apart relative to the root, in a frame that looks along the ray through the root,
    so that walking across the picture does not count as turning; weighted by bone length, so that ten fingers do
    not outvote two arms.
    """
    body = fit.body.bare
    joints = _view_aligned(np.asarray(fit.joints_color_m[:, : body.num_joints], float))
    rest_m, parents = np.asarray(body.joints_template_m, float), np.maximum(body.parents, 0)
    weight = np.linalg.norm(rest_m - rest_m[parents], axis=1)
    candidates = np.array([i for i in train_indices if fit.tracked[i] and np.isfinite(joints[i]).all()], np.int64)
    if not len(candidates):
        raise UserError("no training frame has a tracked body; look at 03_fit/overlay.mp4")
    others = joints[candidates]  # (F, J, 3); one frame at a time: of all pairs a long film has gigabytes
    nearest = [np.argmin(np.linalg.norm(others - joints[i], axis=-1) @ weight) for i in wanted_indices]
    return candidates[np.array(nearest, np.int64)]


def _view_aligned(joints_color_m: np.ndarray) -> np.ndarray:
    """(N, J, 3) joints relative to the root, turned so that the ray to the root is the z axis."""
    roots = joints_color_m[:, 0]
    z = roots / np.linalg.norm(roots, axis=-1, keepdims=True)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    view_from_color = np.stack([x, np.cross(z, x), z], axis=1)  # (N, 3, 3)
    return np.einsum("nij,nkj->nki", view_from_color, joints_color_m - roots[:, None])


@dataclass(frozen=True)
class BareRasters:
    """Rasters of the body without its vertex offsets, in the same crops; made when asked for."""

    fit: Any
    dressed: Rasters

    @property
    def image_wh(self) -> tuple[int, int]:
        return self.dressed.image_wh

    @property
    def boxes_px(self) -> np.ndarray:
        return self.dressed.boxes_px

    @property
    def part_doubted(self) -> np.ndarray:
        return self.dressed.part_doubted

    def covered(self, index: int) -> Covered:
        """The covered pixels of one tracked frame."""
        fit, bare = self.fit, self.fit.body.bare
        vertices_m, _ = bare.posed(fit.shape, fit.pose[index], fit.camera_from_body[index])
        return rasterize_covered(bare, vertices_m, self.dressed.cameras[index])

    def __getitem__(self, index: int) -> CompactRaster:
        return CompactRaster.of(self.covered(index))


def average_texture(name: str, train_indices: np.ndarray, recording: Any, masks: Any, rasters: Any) -> NeuralTexture:
    """(T, T, 3) back-projected colours of the training frames, head-on views counting most, and the light in them."""
    frames = SubjectFrames.load(name, evenly(train_indices, TEXTURE_FRAMES), recording, masks, rasters)
    positions = np.arange(len(frames))
    light = proven_light(frames, positions)
    return NeuralTexture(back_projected(frames, positions, TEXTURE_SIZE, light), light).requires_grad_(False)


def textured_mesh(texture: NeuralTexture, surface: Surface) -> Crop:
    """The mesh of one frame's raster with ``texture`` (T, T, 3) on it, in its light."""
    color = (texture(surface)[0].permute(1, 2, 0).numpy() + 1) / 2
    alpha = surface.plane(torch.ones(len(surface.pixel), 1))[0, 0].numpy()
    return Crop((color * alpha[..., None]).clip(0, 1), alpha)
