"""Networks that have painted other people: where training of R1 and R2 begins, instead of at noise.

``pretrained_weights/person.safetensors`` and ``head.safetensors`` hold the weights of renderers that were trained on
crops of synthetic performers in many colours, and of their heads (``python -m demo.pretrain``, which says how); and of
the discriminators that have judged them: one that has seen nothing would take longer to learn than a person takes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

NOISE_TAKES = 3  # times the steps of what begins with weights (docs/results.md)
RENDERER, DISCRIMINATOR = "renderer", "discriminator"
ARCHITECTURE = {  # settings that decide which weights there are
    RENDERER: ("widths", "norm", "latent_channels", "texture_channels"),
    DISCRIMINATOR: ("discriminator_width", "discriminator_scales"),
}


def fits(path: Path, made: Mapping[str, Any], part: str) -> bool:
    """Whether there are weights of that part, of the architecture that the settings ``made`` ask for."""
    found = _read(path)[0].get(part)
    return found is not None and all(_plain(made[name]) == _plain(value) for name, value in found.items())


def _plain(value: Any) -> Any:
    """A setting without the spaces that a list may be written with."""
    return value.replace(" ", "") if isinstance(value, str) else value


@cache
def digest(path: Path) -> str:
    """Of the file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def begin(path: Path, network: nn.Module, part: str) -> None:
    """Give a network of that architecture the weights of that part."""
    network.load_state_dict({name: v for (owner, name), v in _read(path)[1].items() if owner == part})


def save(path: Path, networks: Mapping[str, Mapping[str, Tensor]], made: Mapping[str, Any]) -> None:
    """Write the state_dicts of parts in half precision: what is lost is a hundredth of what a training step moves.
    Statistics, which none moves, are kept as they are."""
    tensors = {}
    for part, network in networks.items():
        for name, value in network.items():
            is_weight = value.is_floating_point() and "running_" not in name
            tensors[f"{part}/{name}"] = (value.half() if is_weight else value).contiguous()
            assert tensors[f"{part}/{name}"].isfinite().all(), name
    architecture = {part: json.dumps({name: made[name] for name in ARCHITECTURE[part]}) for part in networks}
    path.write_bytes(save_tensors(tensors, architecture))


@cache
def _read(path: Path) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, str], Tensor]]:
    """Of every part its architecture; and of every part and name the tensor."""
    with safe_open(path, framework="pt") as file:
        architecture = {part: json.loads(words) for part, words in file.metadata().items()}
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    weights = {}
    for name, value in found.items():
        part, _, own = name.partition("/")
        weights[part, own] = value.float() if value.dtype == torch.float16 else value
    return architecture, weights
