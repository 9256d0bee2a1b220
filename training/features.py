"""The feature term of the loss: VGG19 where its weights are cached, an embedded alternative elsewhere.

B pictures, H x W pixels, colours in [-1, 1].  The published weights (torchvision's vgg19-dcbb9e9d.pth) are read from a
local cache and never fetched here: a run must not depend on a network.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capture.errors import UserError
from training.losses import feature_loss, laplacian_loss, ssim_loss

log = logging.getLogger(__name__)

VGG19_FILE = "vgg19-dcbb9e9d.pth"
VGG19_WIDTH = 64
# torchvision's vgg19.features: convolutions per block, each block but the first after a 2 x 2 max pool.
VGG19_BLOCKS = (2, 2, 4, 4, 4)
# relu1_1 ... relu5_1 with pix2pixHD's weights: deeper layers change less, and count more.
LAYER_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
VGG19_WEIGHT = 10.0  # pix2pixHD
RANDOM_WEIGHT = 30.0  # random filters answer faintly
LAPLACIAN_WEIGHT = 5.0
SSIM_WEIGHT = 2.0
KINDS = ("auto", "vgg", "random", "laplacian", "ssim")


class FeatureTerm(nn.Module):
    """How far a picture is from the true one, apart from its pixels."""

    usual_weight: float  # in the total loss; the kinds answer on different scales

    def distance(self, image: Tensor, truth: Tensor) -> Tensor:
        """A scalar for pictures (B, 3, H, W); no gradient flows into ``truth``."""
        raise NotImplementedError


class VggFeatures(FeatureTerm):
    """relu1_1, relu2_1, ... of a VGG19-shaped network whose first block has ``width`` channels."""

    def __init__(self, width: int, num_blocks: int, usual_weight: float) -> None:
        super().__init__()
        self.usual_weight = usual_weight
        self.blocks: list[list[nn.Conv2d]] = []
        before = 3
        for block in range(num_blocks):
            after = width * min(2**block, 8)
            # The last block is only read at its first layer.
            depth = VGG19_BLOCKS[block] if block < num_blocks - 1 else 1
            convolutions = [nn.Conv2d(before if i == 0 else after, after, 3, padding=1) for i in range(depth)]
            self.blocks.append(convolutions)
            before = after
        self.convolutions = nn.ModuleList(layer for block in self.blocks for layer in block)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to one map per block.  Fed as is, without ImageNet's mean and deviation (pix2pixHD)."""
        maps, hidden = [], image
        for index, block in enumerate(self.blocks):
            if index:
                hidden = F.max_pool2d(hidden, 2)
            for depth, convolution in enumerate(block):
                hidden = F.relu(convolution(hidden))
                if depth == 0:
                    maps.append(hidden)
        return maps

    def distance(self, image: Tensor, truth: Tensor) -> Tensor:
        with torch.no_grad():
            real = self(truth)
        return feature_loss(self(image), real, LAYER_WEIGHTS[: len(real)])


class Pyramid(FeatureTerm):
    """Edges at several scales."""

    usual_weight = LAPLACIAN_WEIGHT

    def __init__(self, num_scales: int) -> None:
        super().__init__()
        self.num_scales = num_scales

    def distance(self, image: Tensor, truth: Tensor) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):
            return laplacian_loss(image.float(), truth.float(), self.num_scales)


class Structure(FeatureTerm):
    """SSIM at several scales."""

    usual_weight = SSIM_WEIGHT

    def __init__(self, num_scales: int) -> None:
        super().__init__()
        self.num_scales = num_scales

    def distance(self, image: Tensor, truth: Tensor) -> Tensor:
        # Variances are small differences of large numbers: bfloat16 has no digits left for them.
        with torch.autocast(image.device.type, enabled=False):
            return ssim_loss(image.float(), truth.float(), self.num_scales)


def weights_dir() -> Path:
    """Where published weight files are looked for: $ANR_WEIGHTS, else ~/.cache/anr."""
    return Path(os.environ.get("ANR_WEIGHTS") or Path.home() / ".cache" / "anr")


def load_features(width: int, num_blocks: int, seed: int, kind: str = "auto") -> tuple[FeatureTerm, str]:
    """The frozen feature term, and one sentence that says which one it is (for the log and the report).

    A cached VGG19 has 64 channels in its first block, so ``width`` only sizes the random one; ``num_blocks`` is
    also the number of scales of "laplacian" and "ssim".  Raises UserError for a kind that does not exist, when the
    cached file is not the published one, and when "vgg" is asked for and there is no file.
    """
    if kind not in KINDS:
        raise UserError(f'train.feature_kind "{kind}": expected one of {", ".join(KINDS)}')
    path = weights_dir() / VGG19_FILE
    if kind == "vgg" and not path.is_file():
        raise UserError(f"train.feature_kind=vgg: there is no {path}; put torchvision's file there, or use auto")
    features: FeatureTerm
    if kind == "vgg" or (kind == "auto" and path.is_file()):
        features, description = load_vgg19(path, num_blocks), f"VGG19 ({path.name})"
    elif kind == "laplacian":
        features, description = Pyramid(num_blocks), f"Laplacian pyramid of {num_blocks} scales"
    elif kind == "random":
        features, description = random_features(width, num_blocks, seed), f"random VGG filters of width {width}"
    else:
        features, description = Structure(num_blocks), f"SSIM at {num_blocks} scales"
    if kind == "auto" and not path.is_file():
        description += f", because torchvision's {VGG19_FILE} is neither in $ANR_WEIGHTS nor in ~/.cache/anr"
    log.info("feature loss: %s", description)
    return features.requires_grad_(False).eval(), description


def load_vgg19(path: Path, num_blocks: int) -> VggFeatures:
    """VGG19 from torchvision's weight file, checked against the hash in its name.

    Raises UserError when the file is damaged or not of that format.  Nothing in it is executed (weights_only).
    """
    expected = path.stem.rpartition("-")[2]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(expected):
        raise UserError(f"{path}: SHA-256 begins {found[:8]}, expected {expected}; delete it or download it again")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        features = VggFeatures(VGG19_WIDTH, num_blocks, VGG19_WEIGHT)
        with torch.no_grad():
            for index, convolution in zip(_torchvision_indices(), _convolutions(features), strict=False):
                convolution.weight.copy_(state[f"features.{index}.weight"])
                convolution.bias.copy_(state[f"features.{index}.bias"])  # type: ignore[union-attr]
    except (pickle.UnpicklingError, KeyError, RuntimeError, TypeError, OSError, ValueError, EOFError) as error:
        problem = type(error).__name__
        raise UserError(f"{path}: not torchvision's VGG19 ({problem}); delete it or download it again") from None
    return features


def random_features(width: int, num_blocks: int, seed: int) -> VggFeatures:
    """Fixed random filters, scaled so that the activations keep their size from layer to layer (He et al. 2015)."""
    generator = torch.Generator().manual_seed(seed)
    features = VggFeatures(width, num_blocks, RANDOM_WEIGHT)
    with torch.no_grad():
        for convolution in _convolutions(features):
            fan_in = convolution.weight[0].numel()
            convolution.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return features


def _convolutions(features: VggFeatures) -> list[nn.Conv2d]:
    return [layer for block in features.blocks for layer in block]


def _torchvision_indices() -> list[int]:
    """Positions of the convolutions in torchvision's flat list of convolution, ReLU and max-pool layers."""
    indices, position = [], 0
    for depth in VGG19_BLOCKS:
        indices += [position + 2 * i for i in range(depth)]
        position += 2 * depth + 1
    return indices
