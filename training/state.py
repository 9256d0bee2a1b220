"""Everything that training changes, as one object that can be saved and put back bit for bit.

N identities, F frames of one of them, T texels per side.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rendering.networks import NeuralTexture, Renderer, on_device
from training.discriminator import MultiScaleDiscriminator
from training.shards import Shards
from training.texel_adam import TexelAdam

BETAS = (0.9, 0.99)  # runs are hundreds of steps on a CPU: a longer memory than 100 steps would never warm up
ADVERSARIAL_BETAS = (0.5, 0.999)  # pix2pix


@dataclass
class Progress:
    """How training fares on the frames that were held back (``heldback``)."""

    best_db: float | None = None
    best_step: int = 0
    worse: int = 0  # measurements since then
    is_over: bool = False


class TrainState:
    """Networks, textures, exposures, their averages, their optimisers, the random generators, and the step."""

    def __init__(
        self,
        renderer: Renderer,
        textures: Sequence[NeuralTexture],
        exposures: Sequence[nn.Parameter],
        discriminator: MultiScaleDiscriminator | None,
        weight_decay: float,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        num_shards: int,
        is_frozen: bool = False,
        keeps_statistics: bool = False,
    ) -> None:
        """With ``is_frozen`` the renderer is used as it is and never changes, its running statistics included; with
        ``keeps_statistics`` these alone stay, and normalise in training as they will afterwards: of two pictures they
        would be learned worse than of the thousands that it began with."""
        self.step = 0
        self.progress = Progress()
        self.device, self.dtype = device, dtype
        self.is_frozen = is_frozen
        self.renderer = on_device(renderer, device).train(not is_frozen)
        if keeps_statistics:
            for module in self.renderer.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        self.textures = nn.ModuleList(textures).to(device)
        self.exposures = nn.ParameterList(exposures).to(device)  # (F, 3) log gain of every training frame
        if discriminator is not None:
            discriminator = on_device(discriminator, device)
        self.discriminator = discriminator
        self.shards = Shards(self.renderer, num_shards)
        # The averages are what is kept: they forget the last batches, which a small set of frames makes noisy.
        self.average = copy.deepcopy(nn.ModuleList([self.renderer, self.textures])).requires_grad_(False).eval()
        self.renderer_optimizer = torch.optim.AdamW(
            self.renderer.parameters(), betas=BETAS, weight_decay=weight_decay, fused=True
        )
        self.texture_optimizer = TexelAdam(_by_decay(textures), BETAS)
        self.exposure_optimizer = torch.optim.Adam(self.exposures.parameters(), betas=BETAS, fused=True)
        self.discriminator_optimizer = None
        if self.discriminator is not None:
            self.discriminator_optimizer = torch.optim.Adam(
                self.discriminator.parameters(), betas=ADVERSARIAL_BETAS, fused=True
            )
        self.rng = torch.Generator().manual_seed(seed)
        self.noise_rng = torch.Generator(device).manual_seed(seed + 1)

    def precision(self) -> torch.autocast:
        """Context in which networks multiply in the chosen precision."""
        return precision(self.device, self.dtype)

    def learn(self, renderer: bool, texture: bool) -> None:
        """Choose what the next step may change; what is frozen costs no gradient."""
        self.renderer.requires_grad_(renderer and not self.is_frozen)
        self.exposures.requires_grad_(renderer)
        self.textures.requires_grad_(texture)

    @property
    def learned(self) -> list[nn.Parameter]:
        """What the next step may change."""
        modules = (self.renderer, self.textures, self.exposures)
        return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]

    def apply_gradients(self, renderer_lr: float, texture_lr: float, exposure_lr: float) -> None:
        """One Adam step for everything that received a gradient."""
        rates = (
            (self.renderer_optimizer, renderer_lr),
            (self.texture_optimizer, texture_lr),
            (self.exposure_optimizer, exposure_lr),
        )
        for optimizer, rate in rates:
            set_rate(optimizer, rate)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """Move the averages towards the current weights; quickly at first, when there is little to average."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        current = nn.ModuleList([self.renderer, self.textures])
        pairs: list[tuple[Tensor, Tensor]] = list(zip(self.average.parameters(), current.parameters(), strict=True))
        pairs += [
            (mean, value)
            for mean, value in zip(self.average.buffers(), current.buffers(), strict=True)
            if mean.is_floating_point()
        ]
        torch._foreach_lerp_([mean for mean, _ in pairs], [value for _, value in pairs], 1 - decay)

    @property
    def average_renderer(self) -> Renderer:
        renderer = self.average[0]
        assert isinstance(renderer, Renderer)
        return renderer

    @property
    def average_textures(self) -> Iterable[NeuralTexture]:
        return self.average[1]  # type: ignore[return-value]

    def gain(self, subject: int, positions: Tensor) -> Tensor:
        """(B, 3, 1, 1) exposure of the frames at ``positions`` relative to the subject's mean."""
        exposure = self.exposures[subject]
        return (exposure - exposure.mean(dim=0))[positions.to(exposure.device)].exp()[:, :, None, None]

    def _parts(self) -> dict[str, Any]:
        parts = {
            "renderer": self.renderer,
            "textures": self.textures,
            "exposures": self.exposures,
            "average": self.average,
            "renderer_optimizer": self.renderer_optimizer,
            "texture_optimizer": self.texture_optimizer,
            "exposure_optimizer": self.exposure_optimizer,
            "discriminator": self.discriminator,
            "discriminator_optimizer": self.discriminator_optimizer,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict[str, Any]:
        """Nested dict of tensors and plain values; ``load_state_dict`` of a new state continues bit for bit."""
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts().items()}
        state["progress"] = asdict(self.progress)
        return state | {"step": self.step, "rng": self.rng.get_state(), "noise_rng": self.noise_rng.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
            if isinstance(part, torch.optim.Optimizer):
                _match_layout(part)
        self.step = state["step"]
        self.progress = Progress(**state["progress"])
        self.rng.set_state(state["rng"])
        # Of another kind where a GPU began what a CPU goes on with; every piece of a batch seeds it anew in any case.
        if state["noise_rng"].numel() == self.noise_rng.get_state().numel():
            self.noise_rng.set_state(state["noise_rng"])


def precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Context in which networks multiply in ``dtype``."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def _by_decay(textures: Iterable[NeuralTexture]) -> list[dict[str, Any]]:
    """Parameter groups of the textures, one for each weight decay."""
    groups: dict[float, list[nn.Parameter]] = {}
    for texture in textures:
        for parameter, decay in texture.decays():
            groups.setdefault(decay, []).append(parameter)
    return [{"params": parameters, "weight_decay": decay} for decay, parameters in groups.items()]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give loaded moments the memory order of their parameters: the fused kernels walk both by address."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)
