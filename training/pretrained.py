"""Networks that have painted other people: where training of R1 and R2 begins, instead of at noise.

``pretrained_weights/person.safetensors`` and ``head.safetensors`` hold the weights of renderers that were trained on
crops of synthetic performers in many colours, and of their heads (``python -m demo.pretrain``, which says how).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from capture.errors import UserError
from rendering.networks import Renderer

FOLDER = Path(__file__).with_name("pretrained_weights")
PERSON, HEAD, NONE = "person", "head", "none"  # what the weights paint
ARCHITECTURE = ("widths", "norm", "latent_channels", "texture_channels")  # settings that decide which weights there are


def path_of(name: str) -> Path:
    """Where the weights of PERSON or HEAD are.  Raises UserError for another name."""
    if name not in (PERSON, HEAD):
        raise UserError(f'train.pretrained "{name}": expected {PERSON}, {HEAD} or {NONE}')
    return FOLDER / f"{name}.safetensors"


def fits(path: Path, made: Mapping[str, Any]) -> bool:
    """Whether weights are of the architecture that the settings ``made`` ask for."""
    return all(made[name] == value for name, value in _read(path)[0].items())


def begin(path: Path, renderer: Renderer) -> None:
    """Give a renderer of that architecture the weights."""
    renderer.load_state_dict(_read(path)[1])


def save(path: Path, renderer: Renderer, made: Mapping[str, Any]) -> None:
    """Write a renderer's weights in half precision: what is lost is a hundredth of what one step of training moves."""
    half = {name: v.half() if v.is_floating_point() else v for name, v in renderer.state_dict().items()}
    architecture = json.dumps({name: made[name] for name in ARCHITECTURE})
    contents = save_tensors({name: value.contiguous() for name, value in half.items()}, {"architecture": architecture})
    path.write_bytes(contents)


@cache
def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        architecture = json.loads(file.metadata()["architecture"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return architecture, {name: v.float() if v.dtype == torch.float16 else v for name, v in weights.items()}
