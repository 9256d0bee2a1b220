"""Flicker: how much the avatar's skin changes from frame to frame, beside how much the filmed skin does.

Enters: neighbouring held-out frames, the avatar's and the true luminance of every covered pixel.  Leaves: the variance,
over time, of what one spot of the body changes from one frame to the next.  No optical flow: the body's own texture
coordinates say which pixels show the same spot.  K covered pixels of a frame, H x W pixels of the person crop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rendering.rasters import CompactRaster, Rasters

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # Rec. 709, of the encoded colours: flicker is what an eye sees
LIMIT = 1.3  # times the video's variance; more is visible as restlessness
LEAST_SPOTS = 20  # fewer say nothing about a person
NUM_KINDS = 2  # the avatar, the video


@dataclass
class Flicker:
    """Sums over the pairs of neighbouring frames that were added, for every spot (part, texel) of the body.

    Texels are so large that there are as many as covered pixels in a frame; as half of a body is seen, two or three
    pixels are averaged in each, which evens out where the pixel grid happens to lie.
    """

    texels_per_side: int
    num_parts: int
    pairs: int = 0
    count: np.ndarray = field(init=False)  # (spots,) pairs of frames in which both showed the spot
    total: np.ndarray = field(init=False)  # (2, spots) sum of changes, of the avatar and of the video
    squares: np.ndarray = field(init=False)  # (2, spots)
    before: tuple[int, np.ndarray] | None = None  # the frame before, and its luminance per spot (2, spots)

    def __post_init__(self) -> None:
        spots = (self.num_parts + 1) * self.texels_per_side**2
        self.count = np.zeros(spots)
        self.total, self.squares = np.zeros((NUM_KINDS, spots)), np.zeros((NUM_KINDS, spots))

    @staticmethod
    def of(rasters: Rasters, frame_indices: np.ndarray, num_parts: int) -> Flicker:
        """Ready for these frames."""
        covered = np.diff(rasters.pixel_offsets)[frame_indices]
        return Flicker(max(8, round(float(np.sqrt(covered.mean())))) if len(covered) else 8, num_parts)

    def add(self, index: int, raster: CompactRaster, avatar: np.ndarray, truth: np.ndarray, seen: np.ndarray) -> None:
        """Frame ``index``, later than those before it.  avatar, truth (H, W, 3) in [0, 1]; seen (H, W) bool, where the
        video shows the person: elsewhere there is no skin to compare."""
        pixel = np.asarray(raster.pixel, np.int64)
        kept = seen.ravel()[pixel]
        column, row = np.minimum((raster.uv[kept] * self.texels_per_side).astype(np.int64), self.texels_per_side - 1).T
        part = np.asarray(raster.part, np.int64)[kept]
        spot = (part * self.texels_per_side + row) * self.texels_per_side + column
        colors = np.stack([avatar.reshape(-1, 3)[pixel[kept]], truth.reshape(-1, 3)[pixel[kept]]])
        hits = np.bincount(spot, minlength=len(self.count))
        sums = np.stack([np.bincount(spot, weights, minlength=len(self.count)) for weights in colors @ LUMINANCE])
        luminance = np.where(hits > 0, sums / np.maximum(hits, 1), np.nan)
        if self.before is not None and self.before[0] == index - 1:
            change = luminance - self.before[1]
            both = np.isfinite(change).all(axis=0)
            self.count += both
            self.total[:, both] += change[:, both]
            self.squares[:, both] += change[:, both] ** 2
            self.pairs += 1
        self.before = (index, luminance)

    def figures(self) -> dict[str, Any] | None:
        """``ratio``: the avatar's variance over the video's; 1 flickers like the video.  None from too few frames.

        The changes' variance about each spot's own mean, so that light that grows steadily is no flicker, pooled over
        the spots that at least two pairs of frames show.
        """
        often = self.count >= 2
        if np.count_nonzero(often) < LEAST_SPOTS:
            return None
        within = self.squares[:, often] - self.total[:, often] ** 2 / self.count[often]
        avatar, video = within.sum(axis=1).clip(min=0) / (self.count[often] - 1).sum()
        if video <= 0:
            return None
        return {
            "ratio": round(float(avatar / video), 4),
            "avatar_rms": round(float(np.sqrt(avatar)), 5),
            "video_rms": round(float(np.sqrt(video)), 5),
            "pairs": self.pairs,
            "spots": int(np.count_nonzero(often)),
        }
