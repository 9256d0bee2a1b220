"""Whose clothes: regions of one person's texture on another's body.

Charts follow body parts and never overlap, so a region of the texture is a region of the person.
T x T texels, F faces.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from fitting.body.model import BodyModel
from rendering.avatar import Avatar
from rendering.networks import NeuralTexture

REGIONS = {  # what can be worn, and the parts of the atlas that it covers
    "head": ("face",),
    "hair": ("head_back",),
    "torso": ("chest", "back"),
    "arms": ("upper_arm", "lower_arm"),
    "legs": ("upper_leg", "lower_leg"),
    "feet": ("instep", "sole"),
}
GUTTER_PX = 2  # bilinear reading looks one texel beyond a chart


def wearers(avatar: Avatar, subject: str) -> tuple[str, ...]:
    """Everybody whose texture fits the body of ``subject``: himself, and the cast members with the same atlas."""
    body = avatar.bodies[subject].body
    if not all(_parts(body, region) for region in REGIONS):
        return (subject,)
    same = [name for name, other in avatar.bodies.items() if np.array_equal(other.body.uv, body.uv)]
    same = [name for name in same if avatar.textures[name].texels.shape == avatar.textures[subject].texels.shape]
    return (subject, *(name for name in same if name != subject))


def worn(avatar: Avatar, subject: str, choice: Mapping[str, str]) -> NeuralTexture:
    """The texture of ``subject`` with the regions of ``choice`` (region: cast member) from others."""
    texture = avatar.textures[subject]
    others = {region: name for region, name in choice.items() if name != subject}
    if not others:
        return texture
    texels = texture.texels.detach().clone()
    for region, name in others.items():
        mask = torch.from_numpy(region_texels(avatar.bodies[subject].body, region, len(texels))).to(texels.device)
        texels[mask] = avatar.textures[name].texels[mask]
    return type(texture).of({**texture.state_dict(), "texels": texels}).to(texels.device).requires_grad_(False)


def region_texels(body: BodyModel, region: str, texture_px: int) -> np.ndarray:
    """(T, T) bool: the texels of a region's charts and a little around them."""
    labels = np.zeros((texture_px, texture_px), np.uint8)
    corners = np.round(body.uv[body.face_uv] * texture_px - 0.5).astype(np.int32)  # (F, 3, 2)
    for triangle, part in zip(corners, body.face_part.tolist(), strict=True):
        cv2.fillConvexPoly(labels, triangle, part)
    away_px, nearest = distance_transform_edt(labels == 0, return_indices=True)
    return np.isin(labels[tuple(nearest)], _parts(body, region)) & (away_px <= GUTTER_PX)


def _parts(body: BodyModel, region: str) -> list[int]:
    return [index for index, name in enumerate(body.part_names) if name.split(".")[0] in REGIONS[region]]
