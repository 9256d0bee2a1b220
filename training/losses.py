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


def laplacian_loss(image: Tensor, truth: Tensor, num_scales: int) -> Tensor:
    """Mean absolute difference of every band of the Laplacian pyramids of both, the smallest picture included.

    Each band is an edge at one scale, so that a blurred edge costs as much as the edge is strong (Bojanowski et al.
    2018).  Pyramids are linear: the pyramid of the difference is the difference of the pyramids.
    """
    rest, bands = image - truth, []
    for _ in range(num_scales):
        smaller = F.avg_pool2d(rest, 2, ceil_mode=True, count_include_pad=False)
        larger = F.interpolate(smaller, size=rest.shape[-2:], mode="bilinear", align_corners=False)
        bands.append((rest - larger).abs().mean())
        rest = smaller
    return torch.stack([*bands, rest.abs().mean()]).sum()


def ssim_loss(image: Tensor, truth: Tensor, num_scales: int) -> Tensor:
    """1 - SSIM (Wang et al. 2004; Gaussian window 11, sigma 1.5), mean over ``num_scales`` halvings.

    SSIM is defined on [0, 1]: on [-1, 1] its term for brightness means something else.
    """
    image, truth = (image + 1) / 2, (truth + 1) / 2
    taps = torch.exp(-((torch.arange(11, device=image.device, dtype=image.dtype) - 5) ** 2) / (2 * 1.5**2))
    taps = taps / taps.sum()
    channels = image.shape[1]
    rows = taps.view(1, 1, 1, 11).expand(5 * channels, 1, 1, 11)
    c1, c2 = 0.01**2, 0.03**2
    scores = []
    for scale in range(num_scales):
        if scale:
            image, truth = (F.avg_pool2d(p, 2, ceil_mode=True, count_include_pad=False) for p in (image, truth))
        moments = torch.cat([image, truth, image * image, truth * truth, image * truth], dim=1)
        moments = F.conv2d(F.pad(moments, (5, 5, 5, 5), mode="replicate"), rows, groups=5 * channels)
        moments = F.conv2d(moments, rows.transpose(2, 3), groups=5 * channels)
        mean_a, mean_b, square_a, square_b, product = moments.chunk(5, dim=1)
        covariance = product - mean_a * mean_b
        variances = square_a - mean_a**2 + square_b - mean_b**2
        similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
        scores.append((similarity / ((mean_a**2 + mean_b**2 + c1) * (variances + c2))).mean())
    return 1 - torch.stack(scores).mean()


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
