"""Adam for textures."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rendering.networks import NeuralRenderer, NeuralTexture
from training.state import TrainState
from training.texel_adam import TexelAdam

BETAS = (0.9, 0.99)


def moved(gradients: torch.Tensor, kind, **settings) -> torch.Tensor:
    """How far a texture (T, T, C) of zeros is after these gradients (N, T, T, C)."""
    texture = nn.Parameter(torch.zeros(gradients.shape[1:]))
    optimizer = kind([texture], betas=BETAS, **settings)
    for gradient in gradients:
        texture.grad = gradient.clone()
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        optimizer.step()
    return texture.detach()


def test_texels_that_all_see_the_same_go_as_adam_moves_them():
    gradients = torch.randn(20, 1, 1, 3, generator=torch.Generator().manual_seed(0)).expand(20, 8, 8, 3)
    usual = moved(gradients, torch.optim.Adam, eps=1e-12)
    assert torch.allclose(moved(gradients, TexelAdam), usual, rtol=1e-4)


def test_a_trace_of_a_gradient_makes_a_trace_of_a_step():
    gradients = torch.ones(30, 8, 8, 3)
    gradients[:, 0, 0] = 1e-4
    found, usual = moved(gradients, TexelAdam), moved(gradients, torch.optim.Adam, eps=1e-12)
    assert (usual[0, 0] / usual[4, 4]).min() > 0.99  # what it is for
    assert 0 < (found[0, 0] / found[4, 4]).max() < 2e-4


def test_texels_without_a_gradient_stay_and_do_not_slow_the_others():
    seen = torch.ones(30, 8, 8, 3)
    half = seen.clone()
    half[:, 4:] = 0
    found = moved(half, TexelAdam)
    assert (found[4:] == 0).all() and torch.allclose(found[:4], moved(seen, TexelAdam)[:4])


def test_channels_are_measured_by_themselves():
    gradients = torch.ones(30, 8, 8, 2) * torch.tensor([1.0, 1e-3])
    found = moved(gradients, TexelAdam)
    assert torch.allclose(found[..., 0], found[..., 1], rtol=1e-3)


def test_it_goes_on_from_a_saved_state_bit_for_bit_and_weights_decay():
    generator = torch.Generator().manual_seed(1)
    texture = nn.Parameter(torch.randn(8, 8, 3, generator=generator))
    gradients = torch.randn(6, 8, 8, 3, generator=generator)

    def go_on(parameter: nn.Parameter, optimizer: TexelAdam, some: torch.Tensor) -> None:
        for gradient in some:
            parameter.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] = 0.01
            optimizer.step()

    optimizer = TexelAdam([{"params": [texture], "weight_decay": 0.5}], BETAS)
    go_on(texture, optimizer, gradients[:3])
    other = nn.Parameter(texture.detach().clone())
    resumed = TexelAdam([{"params": [other], "weight_decay": 0.5}], BETAS)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    go_on(texture, optimizer, gradients[3:])
    go_on(other, resumed, gradients[3:])
    assert torch.equal(texture, other)
    still = nn.Parameter(torch.ones(2, 2, 1))
    go_on(still, TexelAdam([{"params": [still], "weight_decay": 0.5}], BETAS), torch.zeros(1, 2, 2, 1))
    assert still.detach().flatten().tolist() == pytest.approx([0.995] * 4)


def test_training_moves_its_textures_so():
    texture = NeuralTexture(torch.zeros(8, 8, 8))
    exposures = [nn.Parameter(torch.zeros(1, 3))]
    cpu = torch.device("cpu")
    state = TrainState(NeuralRenderer(8, 16, (8,)), [texture], exposures, None, 0.0, 0, cpu, torch.float32, 1)
    gradient = torch.ones(8, 8, 8)
    gradient[0, 0] = 1e-4
    for _ in range(5):
        texture.texels.grad = gradient.clone()
        state.apply_gradients(1.0, 0.01, 1.0)
    moved_by = texture.texels.detach()
    assert moved_by[4, 4].max() < 0 and (moved_by[0, 0] / moved_by[4, 4]).max() < 2e-4
