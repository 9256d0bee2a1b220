"""Avatars that nobody trained: their networks pass the texture's colours through, which is all that a viewer needs."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch

from fitting.body.model import BodyModel
from rendering.avatar import Avatar, Shape, neural_renderer
from rendering.networks import NeuralTexture
from training.train import TrainConfig

COLORS = {"alice": (0.9, -0.6, -0.6), "bob": (-0.6, -0.4, 0.9)}  # in [-1, 1]: one red all over, one blue


def cast(body: BodyModel, *names: str) -> Avatar:
    """An avatar of ``names``, all of one body, each of one colour."""
    config = TrainConfig(widths="8,16", texture_px=64)
    torch.manual_seed(0)
    renderer = neural_renderer(asdict(config)).eval().requires_grad_(False)
    textures = {}
    for name in names:
        texels = torch.zeros(config.texture_px, config.texture_px, config.texture_channels)
        texels[..., :3] = torch.tensor(COLORS[name])
        textures[name] = NeuralTexture(texels).requires_grad_(False)
    shape = Shape(body, np.zeros(1, np.float32), None)
    settings = {"subjects": list(names), "train": asdict(config), "image_wh": [80, 128]}
    return Avatar(renderer, textures, dict.fromkeys(names, shape), settings)
