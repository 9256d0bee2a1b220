"""Where a texture shows bare skin: in a neckline or below a short sleeve it is one's own, not the clothes' owner's.

T x T texels, C channels.  Skin is what looks like the hands: by the colours that a texture starts from, which training
keeps in its first three channels.
"""

from __future__ import annotations

import cv2
import numpy as np

from rendering.networks import RGB

BLUR_PX = 1.2  # at 256 texels: single texels are noisy
ALIKE, UNLIKE = 2.0, 3.5  # standard deviations of the hands' colour


def skin_of(texels: np.ndarray, is_hand: np.ndarray, is_covered: np.ndarray) -> np.ndarray:
    """(T, T) float32 in [0, 1]: how surely a texel of texels (T, T, C) is skin.

    is_hand, is_covered (T, T) bool: texels of the hands, and of any chart.  Zero everywhere without hands.
    """
    if is_hand.sum() < 2 * RGB:
        return np.zeros(texels.shape[:2], np.float32)
    sigma = BLUR_PX * texels.shape[0] / 256
    cover = is_covered.astype(np.float32)
    blurred = cv2.GaussianBlur(np.ascontiguousarray(texels[..., :RGB]) * cover[..., None], (0, 0), sigma)
    colors = blurred / np.maximum(cv2.GaussianBlur(cover, (0, 0), sigma), 1e-3)[..., None]
    hands = colors[is_hand]
    middle = np.median(hands, axis=0)
    away = hands - middle
    kept = np.linalg.norm(away, axis=1) <= np.percentile(np.linalg.norm(away, axis=1), 80)  # rims are other things
    spread = np.linalg.inv(np.cov(away[kept].T) + 1e-4 * np.eye(RGB))
    offset = colors - middle
    distance = np.sqrt(np.einsum("hwa,ab,hwb->hw", offset, spread, offset))
    return np.clip((UNLIKE - distance) / (UNLIKE - ALIKE), 0, 1).astype(np.float32)
