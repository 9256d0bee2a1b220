"""LPIPS v0.1 with AlexNet (Zhang et al. 2018), where AlexNet's published weights are cached.

Enters: pictures (H, W, 3) in [0, 1].  Leaves: one float.  The five linear layers ship with torchmetrics; AlexNet itself
(torchvision's alexnet-owt-7be5be79.pth, 244 MB) does not, and is never fetched here: without it the metric is missing,
with the reason, and never replaced by something else of the same name.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capture.errors import UserError
from training.features import weights_dir

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
# The published v0.1 linear layers, as torchmetrics ships them: another version of it must not quietly change a figure.
HEADS_SHA256 = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
# torchvision's alexnet.features: index, in, out, kernel, stride, padding; whether a 3 x 3 max pool, stride 2, precedes.
LAYERS = (
    (0, 3, 64, 11, 4, 2, False),
    (3, 64, 192, 5, 1, 2, True),
    (6, 192, 384, 3, 1, 1, True),
    (8, 384, 256, 3, 1, 1, False),
    (10, 256, 256, 3, 1, 1, False),
)
SHIFT = (-0.030, -0.088, -0.188)  # the authors' input normalisation, for pictures in [-1, 1]
SCALE = (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """Call with two pictures (H, W, 3) float32 in [0, 1]; 0 for equal ones, larger for less alike."""

    def __init__(self, alexnet: dict[str, Tensor], linear: list[Tensor]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        for index, before, after, kernel, stride, padding, _ in LAYERS:
            layer = nn.Conv2d(before, after, kernel, stride, padding)
            layer.load_state_dict({name: alexnet[f"features.{index}.{name}"] for name in ("weight", "bias")})
            self.convolutions.append(layer)
        self.linear = linear  # (1, C, 1, 1) each
        self.requires_grad_(False)

    def _features(self, image: np.ndarray) -> list[Tensor]:
        hidden = torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1)[None] * 2 - 1
        hidden = (hidden - torch.tensor(SHIFT).view(1, 3, 1, 1)) / torch.tensor(SCALE).view(1, 3, 1, 1)
        maps = []
        for layer, (*_, pooled) in zip(self.convolutions, LAYERS, strict=True):
            if pooled:
                hidden = F.max_pool2d(hidden, 3, 2)
            hidden = F.relu(layer(hidden))
            maps.append(hidden / (hidden.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return maps

    @torch.no_grad()
    def forward(self, image: np.ndarray, truth: np.ndarray) -> float:
        pairs = zip(self._features(image), self._features(truth), self.linear, strict=True)
        return float(sum(F.conv2d((a - b).square(), weight).mean() for a, b, weight in pairs))


def load_lpips() -> tuple[Lpips | None, str | None]:
    """The metric, or None and the reason why there is none.  Raises UserError when the cached file is damaged."""
    path = weights_dir() / ALEXNET_FILE
    if not path.is_file():
        return None, f"torchvision's {ALEXNET_FILE} is neither in $ANR_WEIGHTS nor in ~/.cache/anr"
    return read_lpips(path), None


def read_lpips(path: Path) -> Lpips:
    """LPIPS from torchvision's AlexNet file, checked against the hash in its name; nothing in it is executed.

    Raises UserError when the file is damaged or of another format.
    """
    expected = path.stem.rpartition("-")[2]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(expected):
        raise UserError(f"{path}: SHA-256 begins {found[:8]}, expected {expected}; delete it or download it again")
    from torchmetrics.functional import image

    heads_path = Path(image.__file__).parent / "lpips_models" / "alex.pth"
    if hashlib.sha256(heads_path.read_bytes()).hexdigest() != HEADS_SHA256:
        raise UserError(f"{heads_path}: not LPIPS v0.1; install the torchmetrics that requirements.txt names")
    heads = torch.load(heads_path, map_location="cpu", weights_only=True)
    try:
        alexnet = torch.load(path, map_location="cpu", weights_only=True)
        return Lpips(alexnet, [heads[f"lin{i}.model.1.weight"] for i in range(len(LAYERS))])
    except (KeyError, RuntimeError, TypeError, AttributeError, ValueError, EOFError) as error:
        problem = f"{path}: not torchvision's AlexNet ({type(error).__name__}); delete it or download it again"
        raise UserError(problem) from None
