"""The neural texture and the two-stage renderer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from capture.errors import UserError
from rendering.networks import NeuralRenderer, NeuralTexture, Surface, fold_norms, num_parameters
from rendering.widths import parse_widths


def surface(count: int = 50, batch_hw: tuple[int, int, int] = (2, 32, 24), seed: int = 0) -> Surface:
    rng = torch.Generator().manual_seed(seed)
    batch, height, width = batch_hw
    pixel = torch.randperm(batch * height * width, generator=rng)[:count].sort().values
    normal = F.normalize(torch.randn(count, 3, generator=rng), dim=1)
    return Surface(pixel, torch.rand(count, 2, generator=rng), normal, batch_hw)


def small_renderer(norm: bool = True) -> NeuralRenderer:
    torch.manual_seed(0)
    return NeuralRenderer(8, 16, (8, 16, 16), norm)


@pytest.mark.parametrize(
    ("widths", "millions"),
    [("64,128,256,512,1024,1440", 161.3), ("64,128,256,512,512,512,512,512,512,512", 159.2)],
)
def test_the_large_presets_have_the_papers_number_of_parameters(widths, millions):
    with torch.device("meta"):
        renderer = NeuralRenderer(8, 16, parse_widths(widths))
    assert num_parameters(renderer) / 1e6 == pytest.approx(millions, abs=0.05)


def test_covered_sampling_agrees_with_dense_grid_sample_forward_and_backward():
    texture = NeuralTexture(NeuralTexture.shared_initial(16, 4, seed=1))
    uv = torch.rand(300, 2, generator=torch.Generator().manual_seed(2))
    uv[:4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
    weights = torch.rand(300, 4, generator=torch.Generator().manual_seed(3))
    sampled = texture.sample(uv)
    (sampled * weights).sum().backward()
    dense = texture.texels.detach().permute(2, 0, 1)[None].requires_grad_()
    grid = (uv * 2 - 1)[None, None]
    expected = F.grid_sample(dense, grid, padding_mode="border", align_corners=False)[0, :, 0].T
    (expected * weights).sum().backward()
    torch.testing.assert_close(sampled, expected)
    torch.testing.assert_close(texture.texels.grad, dense.grad[0].permute(1, 2, 0))


def test_a_texel_centre_returns_the_texel():
    texture = NeuralTexture(NeuralTexture.shared_initial(8, 3, seed=0))
    sampled = texture.sample(torch.tensor([[(5 + 0.5) / 8, (2 + 0.5) / 8]]))
    torch.testing.assert_close(sampled[0], texture.texels[2, 5])


def test_features_are_zero_outside_the_body_and_in_place_inside():
    where = surface()
    plane = where.plane(where.normal)
    flat = plane.permute(0, 2, 3, 1).reshape(-1, 3)
    torch.testing.assert_close(flat[where.pixel], where.normal)
    assert int((flat != 0).any(dim=1).sum()) == len(where.pixel)
    assert plane.is_contiguous(memory_format=torch.channels_last)


def test_every_identity_starts_from_the_same_uniform_sample():
    first, second = (NeuralTexture.shared_initial(64, 8, seed=0) for _ in range(2))
    assert torch.equal(first, second)
    assert first.min() >= -1 and first.max() <= 1
    assert abs(float(first.mean())) < 0.02 and float(first.std()) == pytest.approx(3**-0.5, abs=0.01)


def test_normals_reach_the_image_but_not_the_first_stage():
    renderer = small_renderer().eval()
    features = torch.rand(2, 8, 32, 24)
    flat, tilted = torch.zeros(2, 3, 32, 24), torch.rand(2, 3, 32, 24)
    before, after = renderer(features, flat), renderer(features, tilted)
    assert torch.equal(before.rough, after.rough)
    assert not torch.allclose(before.image, after.image)


def test_rough_image_is_the_first_three_channels_of_the_first_stage():
    renderer = small_renderer().eval()
    features = torch.rand(1, 8, 32, 24)
    torch.testing.assert_close(renderer(features, torch.zeros(1, 3, 32, 24)).rough, renderer.first(features)[:, :3])


def test_a_warm_texture_is_its_own_first_rough_image_up_to_the_untrained_rest():
    renderer = small_renderer().eval()
    with torch.no_grad():
        renderer.first.up[0][0].weight.zero_()
        renderer.first.up[0][0].bias.zero_()
    features = torch.rand(1, 8, 32, 24)
    torch.testing.assert_close(renderer(features, torch.zeros(1, 3, 32, 24)).rough, features[:, :3])


def test_sizes_that_do_not_halve_evenly_are_padded_and_cut_back():
    rendering = small_renderer()(torch.rand(2, 8, 37, 21), torch.rand(2, 3, 37, 21))
    assert rendering.image.shape == (2, 3, 37, 21) and rendering.mask.shape == (2, 1, 37, 21)


def test_folding_the_norms_paints_the_same_picture():
    renderer = small_renderer()
    for _ in range(3):  # give the running statistics something to differ by
        renderer(torch.randn(4, 8, 32, 24) * 2 + 1, torch.randn(4, 3, 32, 24))
    renderer.eval()
    features, normals = torch.rand(2, 8, 32, 24), torch.rand(2, 3, 32, 24)
    folded = fold_norms(renderer)
    torch.testing.assert_close(folded(features, normals).image, renderer(features, normals).image, atol=1e-5, rtol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())


@pytest.mark.parametrize("text", ["", "16,", "16,a", "0,16", "-4", "16;32"])
def test_widths_that_are_no_widths_are_refused(text):
    with pytest.raises(UserError, match="widths"):
        parse_widths(text)


def test_a_texture_without_room_for_colour_is_refused():
    with pytest.raises(UserError, match="texture_channels"):
        NeuralRenderer(2, 16, (8,))
