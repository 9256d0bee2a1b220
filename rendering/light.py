"""A texture in the light of its recording (``fitting.light``), for torch.

A texture that is one average of all that was seen shows it in the mean of the lights it stood in.  Taken apart into a
colour and a light that depends on the normal alone, it is also right where somebody turns as he never did while he was
filmed.

K covered pixels.  Light is (LIGHT_TERMS, 3) per identity, channel by channel.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fitting.light import HEAD_ON, LIGHT_TERMS, MOST_LOG, harmonics


def gain(normal: Tensor, light: Tensor) -> Tensor:
    """(K, 3) by how much brighter or darker what faces along ``normal`` (K, 3), unit, camera frame, is than what faces
    the camera.

    What faces away was not seen, and is lit by where the harmonics go on to; its light turns grey, the further away it
    faces the more, as brightness goes on well and colour does not (docs/results.md)."""
    terms = harmonics(*normal.unbind(dim=1))
    # No matrix product: autocast would round it to bfloat16 in training, and nowhere else.
    parts = [(terms[i] - HEAD_ON[i])[:, None] * light[i] for i in range(LIGHT_TERMS)]
    log_gain = torch.stack(parts).sum(dim=0)
    grey = log_gain.mean(dim=1, keepdim=True)
    away = normal[:, 2:].clamp(0, 1)
    return log_gain.lerp(grey.expand_as(log_gain), away).clamp(-MOST_LOG, MOST_LOG).exp()


def gains(normal: np.ndarray, light: Tensor) -> np.ndarray:
    """``gain`` for arrays."""
    return gain(torch.from_numpy(normal), light.cpu()).numpy()


def lit(colors: Tensor, normal: Tensor, light: Tensor) -> Tensor:
    """Colours (K, 3) in [-1, 1], where -1 is black, as the light shows them on a surface along ``normal`` (K, 3)."""
    return (colors + 1) * gain(normal, light) - 1
