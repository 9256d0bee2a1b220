"""Networks that have painted other people: where training of R1 and R2 begins, instead of at noise.

``pretrained.safetensors`` holds the weights of a renderer that was trained on synthetic performers in many colours
(``python -m demo.pretrain``, which says how), none of whom anybody else's avatar contains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rendering.networks import Renderer

PATH = Path(__file__).with_name("pretrained.safetensors")
ARCHITECTURE = ("widths", "norm", "latent_channels", "texture_channels")  # settings that decide which weights there are


def fits(made: Mapping[str, Any], path: Path = PATH) -> bool:
    """Whether the shipped weights are of the architecture that the settings ``made`` ask for."""
    return all(made[name] == value for name, value in _read(path)[0].items())


def begin(renderer: Renderer, path: Path = PATH) -> None:
    """Give a renderer of that architecture the shipped weights."""
    renderer.load_state_dict(_read(path)[1])


def save(renderer: Renderer, made: Mapping[str, Any], path: Path = PATH) -> None:
    """Write a renderer's weights in half precision: what is lost is a hundredth of what one step of training moves."""
    half = {name: v.half() if v.is_floating_point() else v for name, v in renderer.state_dict().items()}
    architecture = json.dumps({name: made[name] for name in ARCHITECTURE})
    save_file({name: value.contiguous() for name, value in half.items()}, path, {"architecture": architecture})


@cache
def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        architecture = json.loads(file.metadata()["architecture"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return architecture, {name: v.float() if v.dtype == torch.float16 else v for name, v in weights.items()}
