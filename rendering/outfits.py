"""What one of a cast can put on in the live view: whose clothes fit, and each choice dressed once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from rendering.avatar import Avatar, Shape
from rendering.networks import NeuralTexture
from rendering.worn import region_words, same_atlas, worn, worn_close

PIECES = {  # what the page calls it, and the body model's word for it
    "Face": "face",
    "Hair": "head_back",
    "Torso": "torso",
    "Upper arms": "upper_arm",
    "Forearms": "lower_arm",
    "Hands": "hands",
    "Legs": "legs",
    "Feet": "feet",
}
KEPT = 24  # 150 MB of textures with 256 texels and 8 channels, and detail of 1024


class Outfit(NamedTuple):
    """Somebody dressed."""

    texture: NeuralTexture
    shape: Shape
    close_texture: NeuralTexture | None  # for the close-up; None without one


class Outfits:
    """Everybody in everybody's clothes.  May be asked from any thread."""

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        self._worn = lru_cache(KEPT)(
            lambda subject, others: Outfit(
                *worn(avatar, subject, dict(others)), worn_close(avatar, subject, dict(others))
            )
        )

    def wearers(self, subject: str) -> tuple[str, ...]:
        """Everybody whose clothes fit ``subject``: himself, and the cast members with the same atlas."""
        others = (name for name in self._avatar.subjects if name != subject)
        return (subject, *(name for name in others if same_atlas(self._avatar, subject, name)))

    def pieces(self, subject: str) -> dict[str, str]:
        """What can be changed, {name: region}, on the body of ``subject``."""
        known = region_words(self._avatar.bodies[subject].body)
        return {name: region for name, region in PIECES.items() if region in known}

    def outfit(self, subject: str, clothes: Mapping[str, str]) -> Outfit:
        """``subject`` in the clothes of others, {region: cast member}.  A new one takes a good part of a second."""
        return self._worn(subject, tuple(sorted((region, name) for region, name in clothes.items() if name != subject)))
