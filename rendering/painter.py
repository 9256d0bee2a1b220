"""The trained networks made fast for showing: norms folded, low precision, channels last, on CUDA one recorded graph.

B pictures, H x W pixels.  Enters: texture and surface.  Leaves: image in [-1, 1] and mask in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from numba import njit
from torch import Tensor

from capture.errors import UserError
from rendering.networks import (
    NeuralTexture,
    Renderer,
    Rendering,
    Surface,
    compute_dtype,
    fold_norms,
    on_device,
    outlined,
)
from rendering.stick_figure import FigureRenderer

# Of the mask, at either end.  A logistic one never reaches 0 or 1, which would show as a veil over the whole crop; and
# where an outline moves as nothing foretells, it is half there far beyond it.
HAZE = 1 / 6
Painted = tuple[Tensor, Tensor, Tensor]  # image, mask, rough image


def pick_device(name: str) -> torch.device:
    """ "auto" is the GPU when there is one.  Raises UserError for a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f'device "{name}": torch {torch.__version__} finds no GPU here; use auto or cpu')
    return torch.device(name)


@contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread per operation.  Several wait for each other a hundred times a picture: a third faster on an idle
    machine, many times slower beside a busy neighbour."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Painter:
    """A renderer ready to paint; stateless on the CPU, one CUDA graph per picture size on the GPU."""

    def __init__(
        self, renderer: Renderer, device: torch.device, use_graph: bool = True, dtype: torch.dtype | None = None
    ) -> None:
        """``dtype`` is the one the networks compute in, by default the device's fastest."""
        self.device = device
        self.dtype = dtype or (torch.float32 if isinstance(renderer, FigureRenderer) else compute_dtype(device))
        self.renderer = on_device(fold_norms(renderer), device).to(self.dtype)
        self.use_graph = use_graph and device.type == "cuda"
        self._graphs: dict[tuple[int, ...], _Graph] = {}

    @torch.inference_mode()
    def paint(self, texture: NeuralTexture, surface: Surface) -> Painted:
        """float32 image (B, 3, H, W) in [-1, 1], mask (B, 1, H, W) in [0, 1], R1's rough image (B, 3, H, W)."""
        with one_thread() if self.device.type == "cpu" else nullcontext():
            if isinstance(self.renderer, FigureRenderer):
                return _finished(self.renderer.picture(texture, surface))
            features = surface.plane(texture.features(surface).to(self.dtype))
            normals = surface.plane(surface.normal.to(self.dtype))
            return self.paint_planes(features, normals, texture.outline)

    @torch.inference_mode()
    def rgba(self, texture: NeuralTexture, surface: Surface) -> np.ndarray:
        """(H, W, 4) float32 RGBA in [0, 1] of a single picture: ``paint`` without the rough image, in one pass over the
        pixels on a CPU."""
        if self.device.type != "cpu":
            image, mask, _ = self.paint(texture, surface)
            return torch.cat([(image + 1) / 2, mask], dim=1)[0].permute(1, 2, 0).cpu().numpy()
        with one_thread():
            features = surface.plane(texture.features(surface).to(self.dtype))
            normals = surface.plane(surface.normal.to(self.dtype))
            rendering = outlined(self.renderer(features, normals), texture.outline)
            painted = torch.cat([rendering.image, rendering.mask_logit], dim=1)[0].permute(1, 2, 0)
        return _rgba_of(painted.contiguous().numpy())

    @torch.inference_mode()
    def paint_planes(self, features: Tensor, normals: Tensor, outline: Tensor | None = None) -> Painted:
        """The same from dense planes (B, C, H, W) and (B, 3, H, W), in a texture's outline (1,)."""
        if outline is None:
            outline = features.new_zeros(1, dtype=torch.float32)
        if not self.use_graph:
            return self._forward(features, normals, outline)
        key = tuple(features.shape)
        if key not in self._graphs:
            self._graphs[key] = _Graph(self._forward, features, normals, outline)
        return self._graphs[key](features, normals, outline)

    def _forward(self, features: Tensor, normals: Tensor, outline: Tensor) -> Painted:
        return _finished(outlined(self.renderer(features, normals), outline))


def _finished(rendering: Rendering) -> Painted:
    mask = ((rendering.mask - HAZE) / (1 - 2 * HAZE)).clamp(0, 1)
    return rendering.image.clamp(-1, 1), mask, rendering.rough.clamp(-1, 1)


@njit(cache=True, nogil=True)
def _rgba_of(painted):
    """(H, W, 4) colours in about [-1, 1] and mask logit to RGBA in [0, 1]."""
    rgba = np.empty(painted.shape, np.float32)
    for row in range(painted.shape[0]):
        for column in range(painted.shape[1]):
            for c in range(3):
                rgba[row, column, c] = (min(max(painted[row, column, c], np.float32(-1)), np.float32(1)) + 1) * 0.5
            mask = 1 / (1 + np.exp(-painted[row, column, 3]))
            rgba[row, column, 3] = min(max((mask - HAZE) / (1 - 2 * HAZE), 0.0), 1.0)
    return rgba


class _Graph:
    """A recorded forward pass: a hundred small kernels cost one launch instead of a hundred."""

    def __init__(self, function, *inputs: Tensor) -> None:
        self.inputs = [values.clone() for values in inputs]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # let cuDNN choose its kernels before recording
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.painted = function(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Painted:
        for own, values in zip(self.inputs, inputs, strict=True):
            own.copy_(values)
        self.graph.replay()
        image, mask, rough = self.painted
        return image.clone(), mask.clone(), rough.clone()
