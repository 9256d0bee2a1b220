"""The paper's losses: each is zero where it should be, and pulls where it should pull."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses import (
    adversarial_loss,
    composite,
    discriminator_loss,
    feature_loss,
    laplacian_loss,
    mask_loss,
    pixel_loss,
    ssim_loss,
    total_variation,
)


def pictures(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    image, target = (torch.rand(2, 3, 8, 6, generator=rng) * 2 - 1 for _ in range(2))
    return image, target, torch.rand(2, 1, 8, 6, generator=rng)


def test_composite_shows_the_person_inside_the_mask_and_the_scene_outside():
    image, background, _ = pictures()
    assert torch.equal(composite(image, torch.ones(2, 1, 8, 6), background), image)
    assert torch.equal(composite(image, torch.zeros(2, 1, 8, 6), background), background)


def test_pixel_loss_is_equation_3():
    image, target, mask = pictures()
    rough = image * 0.5
    expected = (mask * (rough - target).abs() + mask * (image - target).abs()).mean()
    torch.testing.assert_close(pixel_loss(image, rough, mask, target), expected)
    assert pixel_loss(target, target, mask, target) == 0


def test_pixel_loss_does_not_teach_the_mask_to_hide_errors():
    image, target, mask = pictures()
    image.requires_grad_()
    mask.requires_grad_()
    pixel_loss(image, image, mask, target).backward()
    assert mask.grad is None and image.grad.abs().sum() > 0


def test_mask_loss_is_cross_entropy_and_ignores_what_the_camera_did_not_see():
    logit, matte = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert mask_loss(logit, matte, torch.ones(1, 1, 2, 2)).item() == pytest.approx(math.log(2))
    valid = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    wrong = torch.tensor([[[[50.0, 50.0], [-50.0, -50.0]]]])
    assert mask_loss(wrong, matte, valid).item() == pytest.approx(0, abs=1e-6)


def test_feature_loss_weights_its_layers():
    real = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 2, 2)]
    fake = [torch.ones(1, 2, 4, 4), 3 * torch.ones(1, 4, 2, 2)]
    assert feature_loss(fake, real, (0.5, 2.0)).item() == pytest.approx(0.5 + 6.0)


def test_total_variation_is_zero_on_flat_pictures_and_counts_steps():
    assert total_variation(torch.full((1, 3, 5, 5), 0.3)) == 0
    step = torch.zeros(1, 1, 4, 4)
    step[..., 2:] = 1
    assert total_variation(step).item() == pytest.approx(1 / 3)


def test_generator_and_discriminator_want_opposite_scores():
    ones, zeros = [torch.ones(1, 1, 3, 3)] * 2, [torch.zeros(1, 1, 3, 3)] * 2
    assert adversarial_loss(ones, 1.0) == 0
    assert discriminator_loss(ones, zeros) == 0
    assert discriminator_loss(zeros, ones).item() == pytest.approx(1.0)


@pytest.mark.parametrize("loss", [laplacian_loss, ssim_loss])
def test_structure_losses_are_zero_for_equal_pictures_and_their_gradients_are_right(loss):
    rng = torch.Generator().manual_seed(3)
    image, truth = (torch.rand(1, 2, 9, 7, generator=rng, dtype=torch.float64) * 2 - 1 for _ in range(2))
    assert loss(truth, truth, 2).item() == pytest.approx(0, abs=1e-6)
    assert loss(image, truth, 2).item() > 0.1
    image.requires_grad_()
    assert torch.autograd.gradcheck(lambda picture: loss(picture, truth, 2), image, atol=1e-5)


def test_a_blurred_edge_costs_the_pyramid_more_than_the_same_error_spread_out():
    truth = torch.zeros(1, 1, 16, 16)
    truth[..., 8:] = 1
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(truth, (2, 2, 2, 2), "replicate"), 5, 1)
    shifted = truth + (blurred - truth).abs().mean()
    assert laplacian_loss(blurred, truth, 1) > 1.5 * laplacian_loss(shifted, truth, 1)


def test_ssim_loss_is_what_the_metric_says():
    from training.metrics import ssim

    rng = torch.Generator().manual_seed(5)
    image, truth = (torch.rand(1, 3, 40, 32, generator=rng) for _ in range(2))
    image = 0.3 * image + 0.7 * truth
    arrays = [picture[0].permute(1, 2, 0).numpy() for picture in (image, truth)]
    # The metric leaves a border of half a window out, the loss repeats the edge: equal up to that.
    assert 1 - ssim_loss(image * 2 - 1, truth * 2 - 1, 1).item() == pytest.approx(ssim(*arrays), abs=0.02)
