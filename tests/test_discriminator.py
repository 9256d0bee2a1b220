"""The multi-scale patch discriminator."""

from __future__ import annotations

import torch

from rendering.networks import num_parameters
from training.discriminator import MultiScaleDiscriminator
from training.losses import discriminator_loss


def test_one_grid_of_scores_per_scale_each_coarser_than_the_one_before():
    scores = MultiScaleDiscriminator(8, 3)(torch.rand(2, 3, 128, 96))
    assert len(scores) == 3
    assert all(score.shape[:2] == (2, 1) for score in scores)
    assert scores[0].shape[2] > scores[1].shape[2] > scores[2].shape[2]


def test_a_scale_has_pix2pixhds_number_of_parameters():
    with torch.device("meta"):
        assert abs(num_parameters(MultiScaleDiscriminator(64, 1)) / 1e6 - 2.77) < 0.02


def test_it_learns_to_tell_noise_from_flat_pictures():
    torch.manual_seed(0)
    discriminator = MultiScaleDiscriminator(4, 2)
    optimizer = torch.optim.Adam(discriminator.parameters(), 2e-3)
    real, fake = torch.randn(4, 3, 32, 32), torch.zeros(4, 3, 32, 32) + torch.randn(4, 3, 1, 1)
    losses = []
    for _ in range(30):
        loss = discriminator_loss(discriminator(real), discriminator(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
