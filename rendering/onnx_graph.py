"""The two-stage renderer as an ONNX graph: what ``rendering.painter`` does in float32, for other programs.

B pictures, C texture channels, H x W pixels of any size.  The graph is written node by node: it has twenty kinds of
numbers to get right and no tracer between them and the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from rendering.networks import LEAK, RGB, NeuralRenderer, UNet, fold_norms
from rendering.painter import HAZE

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8  # of 2022: everything that runs ONNX today reads them
ENDS = np.iinfo(np.int32).max


def onnx_model(renderer: NeuralRenderer, outline: Tensor | None = None) -> onnx.ModelProto:
    """Features (B, C, H, W) and normals (B, 3, H, W), zero outside the body, to rgb (B, 3, H, W) and mask (B, 1, H, W)
    in [0, 1]: clamped, and without the haze of a logistic mask, as ``Painter`` leaves them.  ``outline`` (1,) is of
    the texture that the graph is for."""
    from onnx import TensorProto, checker, helper

    folded = fold_norms(renderer).float().cpu()
    graph = _Graph()
    channels = folded.first.direct.in_channels
    size = graph.add("Slice", graph.add("Shape", "features"), graph.ints([2]), graph.ints([4]))
    pads = graph.padding(size, folded.multiple)
    features, normals = graph.add("Pad", "features", pads), graph.add("Pad", "normals", pads)
    latent = _unet(graph, folded.first, features)
    painted = _unet(graph, folded.second, graph.add("Concat", latent, normals, axis=1))
    painted = graph.add("Slice", painted, graph.ints([0, 0]), size, graph.ints([2, 3]))
    image = graph.add("Slice", painted, graph.ints([0]), graph.ints([RGB]), graph.ints([1]))
    logit = graph.add("Slice", painted, graph.ints([RGB]), graph.ints([ENDS]), graph.ints([1]))
    if outline is not None:
        logit = graph.add("Add", logit, *graph.weight(outline.cpu()))
    zero, one, half = graph.number(0), graph.number(1), graph.number(0.5)
    colour = graph.add("Add", graph.add("Mul", image, half), half)
    graph.add("Clip", colour, zero, one, output="rgb")
    opaque = graph.add("Sub", graph.add("Sigmoid", logit), graph.number(HAZE))
    graph.add("Clip", graph.add("Div", opaque, graph.number(1 - 2 * HAZE)), zero, one, output="mask")

    def plane(name: str, count: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["pictures", count, "height", "width"])

    inputs, outputs = [plane("features", channels), plane("normals", RGB)], [plane("rgb", RGB), plane("mask", 1)]
    made = helper.make_graph(graph.nodes, "renderer", inputs, outputs, graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="anr")
    model.ir_version = IR_VERSION
    checker.check_model(model)
    return model


class _Graph:
    """Nodes in the order of their making; every value gets a number as its name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, values: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def ints(self, values: list[int]) -> str:
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def weight(self, tensor: Tensor | None) -> list[str]:
        """A constant of the tensor; nothing for None."""
        return [] if tensor is None else [self.constant(tensor.detach().numpy().astype(np.float32))]

    def padding(self, size: str, multiple: int) -> str:
        """Pads, at the bottom and on the right, that make ``size`` (2,) a multiple."""
        whole = self.ints([multiple, multiple])
        beyond = self.add("Mod", self.add("Sub", whole, self.add("Mod", size, whole)), whole)
        return self.add("Concat", self.ints([0] * 6), beyond, axis=0)


def _unet(graph: _Graph, network: UNet, x: str) -> str:
    """``UNet.forward`` with its norms folded."""
    levels, hidden = [], x
    for down in network.down:
        hidden = graph.add("LeakyRelu", _convolution(graph, down, hidden), alpha=LEAK)
        levels.append(hidden)
    for level in range(len(network.up) - 1, 0, -1):
        hidden = graph.add("Relu", _convolution(graph, network.up[level], hidden))
        hidden = graph.add("Concat", hidden, levels[level - 1], axis=1)
    return graph.add("Add", _convolution(graph, network.up[0], hidden), _convolution(graph, network.direct, x))


def _convolution(graph: _Graph, layer: nn.Module, x: str) -> str:
    if isinstance(layer, nn.Sequential):
        (layer,) = layer
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    kind = "Conv" if isinstance(layer, nn.Conv2d) else "ConvTranspose"
    weights = [*graph.weight(layer.weight), *graph.weight(layer.bias)]
    pads = [int(side) for side in layer.padding] * 2  # top, left, bottom, right
    return graph.add(kind, x, *weights, kernel_shape=layer.kernel_size, strides=layer.stride, pads=pads)
