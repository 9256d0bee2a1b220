"""The renderer as an ONNX file: read by another runtime, it paints what ours paints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rendering.networks import NeuralRenderer
from rendering.onnx_graph import onnx_model
from rendering.painter import Painter


def lively_renderer(norm: bool) -> NeuralRenderer:
    """Random weights everywhere, and norms that have seen something: nothing in it is zero, or one, by chance."""
    torch.manual_seed(3)
    renderer = NeuralRenderer(8, 16, (8, 16, 16, 24), norm)
    for module in renderer.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    nn.init.normal_(renderer.first.direct.weight, std=0.2)
    nn.init.normal_(renderer.second.direct.weight, std=0.2)
    return renderer.eval().requires_grad_(False)


def test_a_graph_for_somebody_with_an_outline_paints_it():
    import onnxruntime

    renderer, outline = lively_renderer(norm=True), torch.tensor([-0.7])
    features, normals = torch.randn(1, 8, 32, 32), torch.randn(1, 3, 32, 32)
    file = onnx_model(renderer, outline).SerializeToString()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    _, mask = session.run(["rgb", "mask"], {"features": features.numpy(), "normals": normals.numpy()})
    painter = Painter(renderer, torch.device("cpu"), dtype=torch.float32)
    np.testing.assert_allclose(mask, painter.paint_planes(features, normals, outline)[1], atol=2e-5)
    assert not np.allclose(mask, painter.paint_planes(features, normals)[1], atol=1e-2)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("size", [(1, 48, 32), (2, 37, 21)])  # (2, 37, 21): a batch whose sides are no multiples
def test_another_runtime_paints_the_same(norm: bool, size: tuple[int, int, int]) -> None:
    import onnxruntime

    renderer = lively_renderer(norm)
    session = onnxruntime.InferenceSession(onnx_model(renderer).SerializeToString(), providers=["CPUExecutionProvider"])
    batch, height, width = size
    features, normals = torch.randn(batch, 8, height, width), torch.randn(batch, 3, height, width)
    rgb, mask = session.run(["rgb", "mask"], {"features": features.numpy(), "normals": normals.numpy()})
    painter = Painter(renderer, torch.device("cpu"), dtype=torch.float32)
    image, opaque, _ = painter.paint_planes(features, normals)
    assert rgb.shape == (batch, 3, height, width) and mask.shape == (batch, 1, height, width)
    np.testing.assert_allclose(rgb, (image + 1) / 2, atol=2e-5)
    np.testing.assert_allclose(mask, opaque, atol=2e-5)
    for plane in (rgb, mask):
        assert plane.min() == 0 and plane.max() == 1  # both ends of the clamp are reached
