"""The same performer in other colours: clothes dyed, another skin, other hair; prints keep their patterns.

Enter: a character's textures.  Leave: others, drawn at random.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from demo.character import Character

SKIN, CLOTH = (0.25, 0.72), (0.12, 0.80)  # darkest and lightest mean
HAIR_HUE_DEG, HAIR_LIGHTER = (10.0, 45.0), (0.6, 4.0)


def dyed(character: Character, rng: np.random.Generator) -> Character:
    """``character`` in colours drawn from ``rng``; eyes stay."""
    textures = tuple(
        _as_bytes(_dyed(texture.astype(np.float32) / 255, material, rng))
        for material, texture in zip(character.materials, character.textures, strict=True)
    )
    return replace(character, textures=textures)


def _dyed(picture: np.ndarray, material: str, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) sRGB of a picture (H, W, 3) in [0, 1]."""
    if material == "eye":
        return picture
    if material == "skin":
        lightness, warmer = rng.uniform(*SKIN), rng.uniform(-0.04, 0.04)
        return picture * (lightness / picture.mean()) * (1 + warmer, 1.0, 1 - warmer)
    hue_deg, saturation, value = cv2.split(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV))
    if material == "hair":
        hue_deg = np.full_like(hue_deg, rng.uniform(*HAIR_HUE_DEG))
        saturation, value = saturation * rng.uniform(0.2, 1.3), value * rng.uniform(*HAIR_LIGHTER)
        return _rgb(hue_deg, saturation, value)
    cloth = _rgb((hue_deg + rng.uniform(0, 360)) % 360, saturation * rng.uniform(0.1, 1.3), value)
    return cloth ** (np.log(rng.uniform(*CLOTH)) / np.log(np.clip(cloth.mean(), 0.02, 0.98)))


def _rgb(hue_deg: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    planes = hue_deg, saturation.clip(0, 1), value.clip(0, 1)
    return cv2.cvtColor(cv2.merge([np.asarray(plane, np.float32) for plane in planes]), cv2.COLOR_HSV2RGB)


def _as_bytes(picture: np.ndarray) -> np.ndarray:
    return (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8)
