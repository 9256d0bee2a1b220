"""The paper's losses, each a pure function; they meet in one visible sum in ``train``.  (Section 3.3, Eqs. 3-7.)

B pictures, H x W pixels.  Colours in [-1, 1], masks in [0, 1].  Every loss is a mean, so that a weight means the same
at every resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def composite(image: Tensor, mask: Tensor, background: Tensor) -> Tensor:
    """The paper's I-hat-0: the generated person (B, 3, H, W) over the scene through the predicted mask (B, 1, H, W)."""
    return mask * image + (1 - mask) * background


def pixel_loss(image: Tensor, rough: Tensor, mask: Tensor, target: Tensor) -> Tensor:
    """Eq. 3: M |J - I| + M |I-hat - I|, the predicted mask M weighting both terms.

    M is a weight here, not a variable: with its gradient the cheapest way to lower this term is to shrink the mask
    wherever the colour is still wrong, which eats hands and hair first.  The mask learns from Eqs. 4, 5 and 7.
    """
    weight = mask.detach()
    return (weight * ((rough - target).abs() + (image - target).abs())).mean()


def mask_loss(mask_logit: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """Eq. 4: binary cross entropy with the matte where ``valid``; on logits, where it is exact at any magnitude."""
    return F.binary_cross_entropy_with_logits(mask_logit, mask, weight=valid)


def feature_loss(generated: Sequence[Tensor], real: Sequence[Tensor], layer_weights: Sequence[float]) -> Tensor:
    """Eq. 5: the weighted L1 distance between the features of the composite and of the true picture."""
    distances = [
        weight * (fake - true).abs().float().mean()
        for weight, fake, true in zip(layer_weights, generated, real, strict=True)
    ]
    return torch.stack(distances).sum()


def total_variation(plane: Tensor) -> Tensor:
    """Mean absolute difference between neighbours, both directions; the two terms of Eq. 6 are this."""
    across = (plane[..., :, 1:] - plane[..., :, :-1]).abs().mean()
    down = (plane[..., 1:, :] - plane[..., :-1, :]).abs().mean()
    return across + down


def adversarial_loss(scores: Sequence[Tensor], label: float) -> Tensor:
    """Eq. 7 as in pix2pixHD: least squares distance of every scale's patch scores to the label, mean over scales."""
    return torch.stack([(score.float() - label).square().mean() for score in scores]).mean()


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """What the discriminator minimises: true pictures to 1, composites to 0."""
    return 0.5 * (adversarial_loss(real, 1.0) + adversarial_loss(fake, 0.0))
