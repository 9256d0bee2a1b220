"""How the room lights a person: a smooth gain over the directions that skin and clothes may face.

A texture that is one average of all that was seen shows it in the mean of the lights it stood in.  Taken apart into a
colour and a light that depends on the normal alone, it is also right where somebody turns as he never did while he was
filmed.  Far lights on matt surfaces are nine spherical harmonics (Ramamoorthi and Hanrahan 2001); here they are those
of the gain's logarithm, which keeps it positive.

K covered pixels.  Light is (LIGHT_TERMS, 3) per identity, channel by channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

LIGHT_TERMS = 8  # bands 1 and 2; band 0 is the texture's own brightness
MOST_LOG = 1.5  # a gain of 4.5 either way: beyond, an extrapolated light would burn out
HEAD_ON = (0.0, 0.0, -1.0)  # what faces the camera


def harmonics(directions: Tensor) -> Tensor:
    """The nine real spherical harmonics of bands 0 to 2 of unit directions (K, 3), orthonormal: (K, 9)."""
    x, y, z = directions.unbind(dim=1)
    return torch.stack(
        [
            torch.full_like(x, 0.28209479),
            0.48860251 * y,
            0.48860251 * z,
            0.48860251 * x,
            1.09254843 * x * y,
            1.09254843 * y * z,
            0.31539157 * (3 * z * z - 1),
            1.09254843 * x * z,
            0.54627422 * (x * x - y * y),
        ],
        dim=1,
    )


def light_terms(normal: Tensor) -> Tensor:
    """(K, LIGHT_TERMS) of unit normals (K, 3), camera frame; zero for what faces the camera, so that a texture has the
    colours that it shows from the front, whatever its light."""
    head_on = harmonics(normal.new_tensor([HEAD_ON]))
    return (harmonics(normal) - head_on)[:, 1:]


def gain(normal: Tensor, light: Tensor) -> Tensor:
    """(K, 3) by how much brighter or darker what faces along ``normal`` (K, 3) is than what faces the camera."""
    terms = light_terms(normal)
    # No matrix product: autocast would round it to bfloat16 in training, and nowhere else.
    log_gain = torch.stack([terms[:, i : i + 1] * light[i] for i in range(LIGHT_TERMS)]).sum(dim=0)
    return log_gain.clamp(-MOST_LOG, MOST_LOG).exp()


def lit(colors: Tensor, normal: Tensor, light: Tensor) -> Tensor:
    """Colours (K, 3) in [-1, 1], where -1 is black, as the light shows them on a surface along ``normal`` (K, 3)."""
    return (colors + 1) * gain(normal, light) - 1
