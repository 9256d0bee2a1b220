"""From a rasterised body to a picture: the neural texture and the two-stage renderer (paper, section 3.2, Eq. 2).

Enters: the covered pixels of a batch (``Surface``).  Leaves: image, mask and the first stage's rough image.
B pictures in a batch, C texture channels, T texels per side, H x W pixels, K covered pixels of the whole batch,
L latent channels between the two stages.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from capture.errors import UserError
from rendering.light import lit
from rendering.texels import add_texels, halved, read_texels

M = TypeVar("M", bound=nn.Module)
AnyRenderer = TypeVar("AnyRenderer", bound="Renderer")
AnyTexture = TypeVar("AnyTexture", bound="NeuralTexture")
RGB = 3
LEAK = 0.2  # pix2pix


@dataclass(frozen=True)
class Surface:
    """Where the body is seen in a batch of B pictures, covered pixels only: a tenth of the bytes of dense planes."""

    pixel: Tensor  # (K,) int64, flat index into B * H * W
    uv: Tensor  # (K, 2) float32 in [0, 1], v down
    normal: Tensor  # (K, 3) float32, camera frame
    batch_hw: tuple[int, int, int]
    # (B, 3, 3) from a position in the picture (x, y, 1), pixels, to the direction of its ray in the body's own frame;
    # only for methods whose texture depends on the view
    body_from_pixel: Tensor | None = None
    # (B, 3, 3) from this camera's axes to those of the one that the light was learned by; none: it is that one
    lit_from_camera: Tensor | None = None
    # Only for methods that paint from stick figures (``rendering.stick_figure``): (B, N, H, W, S) uint8, those of the
    # picture and of the frames before it, the oldest first, empty where there is none; and (B, M, 4, H, W) what was
    # painted of the last M of those frames: colours in [-1, 1] times the mask, and the mask
    figures: Tensor | None = None
    history: Tensor | None = None
    # (K,) bool: covered pixels that teach their texels something; none: all of them.  Only in training
    teaches: Tensor | None = None

    def to(self, device: torch.device | str) -> Surface:
        others = (self.body_from_pixel, self.lit_from_camera, self.figures, self.history, self.teaches)
        moved = (None if values is None else values.to(device) for values in others)
        return Surface(self.pixel.to(device), self.uv.to(device), self.normal.to(device), self.batch_hw, *moved)

    def lit_normal(self) -> Tensor:
        """(K, 3) the normals by the axes of the camera that the light was learned by.  What faces away from that camera
        is as bright as its harmonics go on to: of what was tried, that was nearest to the truth (docs/results.md)."""
        if self.lit_from_camera is None:
            return self.normal
        _, height, width = self.batch_hw
        rotations = self.lit_from_camera[self.pixel // (height * width)]  # (K, 3, 3)
        return (rotations @ self.normal[..., None])[..., 0]

    def view_body(self) -> Tensor:
        """(K, 3) unit directions in which the camera looks at the covered pixels, in the body's own frame."""
        assert self.body_from_pixel is not None, "this surface was made without its rays"
        _, height, width = self.batch_hw
        within = self.pixel % (height * width)
        x, y = within % width + 0.5, within // width + 0.5
        position = torch.stack([x, y, torch.ones_like(x)], dim=1)
        rays = self.body_from_pixel[self.pixel // (height * width)]  # (K, 3, 3)
        return F.normalize((rays @ position[..., None])[..., 0], dim=1)

    def plane(self, values: Tensor) -> Tensor:
        """(K, C) values at the covered pixels to dense (B, C, H, W), zero elsewhere, channels last in memory."""
        batch, height, width = self.batch_hw
        dense = values.new_zeros(batch * height * width, values.shape[1]).index_copy(0, self.pixel, values)
        return dense.view(batch, height, width, -1).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Rendering:
    """What the two stages paint.  Colours are in [-1, 1] but not clamped here: a clamp would stop the gradient."""

    image: Tensor  # (B, 3, H, W), the paper's I-hat
    mask_logit: Tensor  # (B, 1, H, W)
    rough: Tensor  # (B, 3, H, W), the paper's J-hat: the first three channels of R1

    @property
    def mask(self) -> Tensor:
        """(B, 1, H, W) soft mask in [0, 1], the paper's M-hat."""
        return torch.sigmoid(self.mask_logit)


class _SampleTexels(torch.autograd.Function):
    """Weighted sum of four texels per covered pixel; its backward pass adds only to the texels that were read."""

    @staticmethod
    def forward(ctx, texels: Tensor, uv: Tensor) -> Tensor:
        ctx.save_for_backward(uv)
        ctx.shape = texels.shape
        if texels.device.type == "cpu":
            return torch.from_numpy(read_texels(texels.detach().numpy(), uv.numpy()))
        corners, weights = _corners(uv, texels.shape[0])
        return F.embedding_bag(corners, texels.flatten(0, 1), mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        (uv,) = ctx.saved_tensors
        texels = gradient.new_zeros(ctx.shape)
        if gradient.device.type == "cpu":
            add_texels(texels.numpy(), uv.numpy(), gradient.contiguous().numpy())
            return texels, None
        corners, weights = _corners(uv, ctx.shape[0])
        shares = gradient[:, None] * weights[..., None]  # (K, 4, C)
        texels.flatten(0, 1).index_add_(0, corners.reshape(-1), shares.flatten(0, 1))
        return texels, None


def _corners(uv: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The four texels around each uv (K, 2), as flat indices (K, 4), and their bilinear weights (K, 4)."""
    xy = (uv * size - 0.5).clamp(0, size - 1)
    low = xy.floor().clamp(max=size - 2)
    right, down = (xy - low).unbind(1)
    left, up = 1 - right, 1 - down
    first = (low[:, 1] * size + low[:, 0]).long()
    corners = torch.stack([first, first + 1, first + size, first + size + 1], dim=1)
    return corners, torch.stack([left * up, right * up, left * down, right * down], dim=1)


class NeuralTexture(nn.Module):
    """One identity: T x T texels of C channels."""

    needs_view = False  # whether ``features`` asks a surface for its view directions
    num_figures = 0  # frames whose stick figures training shows its renderer; one that needs none paints the raster
    takes_light = True  # whether it is made with one

    def __init__(self, initial: Tensor, light: Tensor | None = None) -> None:
        """``initial`` (T, T, C); ``light`` (LIGHT_TERMS, 3) of ``rendering.light``, which its first three channels are
        shown in, and which training leaves as it is."""
        super().__init__()
        self.texels = nn.Parameter(initial.clone())  # (T, T, C)
        self.light: Tensor | None
        self.register_buffer("light", None if light is None else light.clone())
        self.detail: Tensor | None  # (D, D, 3) int8 of ``rendering.detail``; none before training is over
        self.register_buffer("detail", None)
        self._detail_levels: list[np.ndarray] = []  # it, and half of it, and so on, made when asked for
        # (1,) what is added to the logit of every mask painted with this texture; none: nothing.  Of somebody new to
        # networks that do not change: they outline him as wide as they have learned others to be (``training.outline``)
        self.outline: Tensor | None
        self.register_buffer("outline", None)

    @staticmethod
    def shared_initial(texture_px: int, channels: int, seed: int) -> Tensor:
        """(T, T, C) uniform in [-1, 1].  Every identity starts from this one sample, so that the renderer cannot tell
        people apart by the noise they started from (paper, section 3.4, Regularization)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(texture_px, texture_px, channels, generator=generator) * 2 - 1

    @classmethod
    def of(cls: type[AnyTexture], tensors: Mapping[str, Tensor]) -> AnyTexture:
        """The texture whose state_dict was saved."""
        texture = cls(torch.zeros_like(tensors["texels"]))
        texture.light = tensors.get("light")  # a texture without one is shown as it is
        texture.detail = tensors.get("detail")
        texture.outline = tensors.get("outline")
        texture.load_state_dict(dict(tensors))
        return texture

    @property
    def channels(self) -> int:
        return self.texels.shape[2]

    def detail_level(self, level: int) -> np.ndarray:
        """(D / 2^level, ., 3) int8 as ``detail``: it halved ``level`` times, but never below 64 texels."""
        assert self.detail is not None
        if not self._detail_levels:
            levels = [self.detail.cpu().numpy()]
            while levels[-1].shape[0] >= 128:
                levels.append(halved(levels[-1]))
            self._detail_levels = levels  # at once: several threads may ask
        return self._detail_levels[min(level, len(self._detail_levels) - 1)]

    def decays(self) -> list[tuple[nn.Parameter, float]]:
        """Every parameter with the weight decay that it is trained with."""
        return [(self.texels, 0.0)]

    def sample(self, uv: Tensor) -> Tensor:
        """(K, 2) uv to (K, C) features, bilinear: grid_sample(padding_mode="border", align_corners=False)."""
        return _SampleTexels.apply(self.texels, uv)

    def features(self, surface: Surface) -> Tensor:
        """(K, C) what the covered pixels show of this texture."""
        sampled = self.sample(surface.uv)
        if surface.teaches is not None:
            sampled = torch.where(surface.teaches[:, None], sampled, sampled.detach())
        if self.light is None:
            return sampled
        return torch.cat([lit(sampled[:, :RGB], surface.lit_normal(), self.light), sampled[:, RGB:]], dim=1)

    def forward(self, surface: Surface) -> Tensor:
        """The paper's I_uv painted with this texture: (B, C, H, W), zero outside the body."""
        return surface.plane(self.features(surface))


class UNet(nn.Module):
    """A pix2pix U-Net: level i halves the picture with a 4 x 4 stride-2 convolution to ``widths[i]`` channels, the way
    back doubles it with transposed ones, and equal sizes are joined.

    Batch rather than instance normalisation: it folds into the convolutions for rendering, and makes the picture of a
    person independent of the box it is rendered in.  One addition: a 3 x 3 convolution from input to output at
    full resolution, without which a narrow first level cannot carry the texture's detail.
    """

    def __init__(
        self, in_channels: int, out_channels: int, widths: tuple[int, ...], norm: bool = True, direct_px: int = 3
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        last = len(widths) - 1
        for level, width in enumerate(widths):
            before = widths[level - 1] if level else in_channels
            # No norm at the bottom: one pixel of one picture has no variance (pix2pix).
            self.down.append(_layer(nn.Conv2d, before, width, norm and 0 < level < last))
            joined = width if level == last else 2 * width
            after = widths[level - 1] if level else out_channels
            self.up.append(_layer(nn.ConvTranspose2d, joined, after, norm and level > 0))
        self.direct = nn.Conv2d(in_channels, out_channels, direct_px, padding=direct_px // 2, bias=False)
        nn.init.zeros_(self.direct.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H, W); H and W are multiples of 2 ** levels."""
        levels, hidden = [], x
        for down in self.down:
            hidden = F.leaky_relu(down(hidden), LEAK, inplace=True)
            levels.append(hidden)
        for level in range(len(self.up) - 1, 0, -1):
            hidden = F.relu(self.up[level](hidden), inplace=True)
            hidden = torch.cat([hidden, levels[level - 1]], dim=1)
        return self.up[0](hidden) + self.direct(x)


def _layer(
    convolution: type[nn.Conv2d] | type[nn.ConvTranspose2d], before: int, after: int, norm: bool
) -> nn.Sequential:
    layer = nn.Sequential(convolution(before, after, 4, stride=2, padding=1, bias=not norm))
    if norm:
        layer.append(nn.BatchNorm2d(after))
    return layer


class Renderer(nn.Module):
    """What turns a sampled texture into a picture; how many networks it takes is the method's business."""

    multiple: int  # that the networks need height and width to be of

    def forward(self, features: Tensor, normals: Tensor) -> Rendering:
        """Sampled texture (B, C, H, W) and normals (B, 3, H, W), both zero outside the body, to a Rendering."""
        height, width = features.shape[2:]
        features, normals = padded(features, self.multiple), padded(normals, self.multiple)
        rough, painted = self.paint(features, normals.to(features.dtype))
        rough, painted = cropped(rough, height, width).float(), cropped(painted, height, width).float()
        return Rendering(image=painted[:, :RGB], mask_logit=painted[:, RGB:], rough=rough)

    def picture(self, texture: NeuralTexture, surface: Surface) -> Rendering:
        """The surface painted with a texture, as it is learned."""
        return outlined(self(texture(surface), surface.plane(surface.normal)), texture.outline)

    def own_loss(self, rendering: Rendering, surface: Surface, done: float) -> Tensor | None:
        """A method's own term, weighted, when ``done`` (0 to 1) of the run is over; most have none."""
        return None

    def paint(self, features: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Padded planes to the rough image (B, 3, H, W), and image and mask logit (B, 4, H, W)."""
        raise NotImplementedError


def outlined(rendering: Rendering, outline: Tensor | None) -> Rendering:
    """The rendering in a texture's ``outline``."""
    return rendering if outline is None else replace(rendering, mask_logit=rendering.mask_logit + outline)


def padded(planes: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) with zeros to the right and below, up to the next ``multiple``."""
    height, width = planes.shape[2:]
    pad = (0, -width % multiple, 0, -height % multiple)
    return F.pad(planes, pad) if any(pad) else planes


def cropped(planes: Tensor, height: int, width: int) -> Tensor:
    """What ``padded`` was given."""
    return planes if planes.shape[2:] == (height, width) else planes[:, :, :height, :width]


class NeuralRenderer(Renderer):
    """R of the paper: R1 refines the sampled texture, the normals join, R2 paints image and mask (Eq. 2).

    Without ``with_normals`` R2 sees what R1 made and nothing else.
    """

    def __init__(
        self,
        texture_channels: int,
        latent_channels: int,
        widths: tuple[int, ...],
        norm: bool = True,
        with_normals: bool = True,
    ) -> None:
        super().__init__()
        if texture_channels < RGB or latent_channels < RGB:
            raise UserError(
                f"texture_channels {texture_channels}, latent_channels {latent_channels}: both need the three of RGB"
            )
        self.multiple, self.with_normals = 2 ** len(widths), with_normals
        self.first = UNet(texture_channels, latent_channels, widths, norm, direct_px=1)
        self.second = UNet(latent_channels + RGB * with_normals, RGB + 1, widths, norm, direct_px=3)
        for stage in (self.first, self.second):
            pass_colour(stage)

    def paint(self, features: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        latent = self.first(features)
        joined = torch.cat([latent, normals.to(latent.dtype)], dim=1) if self.with_normals else latent
        return latent[:, :RGB], self.second(joined)


class SingleRenderer(Renderer):
    """One U-Net from the sampled texture, with or without the normals, to image and mask: DNR, and the ablations."""

    def __init__(self, texture_channels: int, widths: tuple[int, ...], norm: bool, with_normals: bool) -> None:
        super().__init__()
        if texture_channels < RGB:
            raise UserError(f"texture_channels {texture_channels}: needs the three of RGB")
        self.multiple, self.with_normals = 2 ** len(widths), with_normals
        self.network = UNet(texture_channels + RGB * with_normals, RGB + 1, widths, norm, direct_px=3)
        pass_colour(self.network)

    def paint(self, features: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """The rough image is the sampled texture itself, whose first three channels are colours (Thies et al.)."""
        joined = torch.cat([features, normals], dim=1) if self.with_normals else features
        return features[:, :RGB], self.network(joined)


def pass_colour(network: UNet) -> None:
    """Let colour pass straight through at the start: with a warm texture the first picture is already the person."""
    middle = network.direct.kernel_size[0] // 2
    for channel in range(RGB):
        nn.init.constant_(network.direct.weight[channel, channel, middle, middle], 1.0)


def fold_norms(renderer: AnyRenderer) -> AnyRenderer:
    """A copy for rendering only: every batch norm folded into its convolution.  Same pictures, fewer passes."""
    folded = copy.deepcopy(renderer).eval()
    for stage in (module for module in folded.modules() if isinstance(module, UNet)):
        for layers in (stage.down, stage.up):
            for index, layer in enumerate(layers):
                assert isinstance(layer, nn.Sequential)
                if len(layer) == 2 and isinstance(layer[1], nn.BatchNorm2d):
                    fused: Any = fuse_conv_bn_eval
                    layers[index] = nn.Sequential(fused(*layer, transpose=isinstance(layer[0], nn.ConvTranspose2d)))
    return folded.requires_grad_(False)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def on_device(module: M, device: torch.device) -> M:
    """The module on its device, in the memory order that convolutions are fastest in."""
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the machine multiplies it in hardware, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16
    supports = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if supports else torch.float32
