"""Other networks in the place of R1 and R2: one U-Net of the same capacity, as no comparison must be won by parameters.

Enters: the settings that R1 and R2 would be trained with.  Leaves: widths, and a renderer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from rendering.networks import NeuralRenderer, SingleRenderer, num_parameters
from rendering.widths import parse_widths

TOLERANCE = 0.02  # of the parameters of R1 and R2 together


def with_normals(made: Mapping[str, Any]) -> SingleRenderer:
    """The single network as ``made`` (settings as in avatar.json), which sees the normals as R2 does."""
    return SingleRenderer(made["texture_channels"], parse_widths(made["widths"]), made["norm"], True)


def without_normals(made: Mapping[str, Any]) -> SingleRenderer:
    """The single network as ``made``, which sees nothing but the sampled texture."""
    return SingleRenderer(made["texture_channels"], parse_widths(made["widths"]), made["norm"], False)


def two_without_normals(made: Mapping[str, Any]) -> NeuralRenderer:
    """R1 and R2 as ``made``, but R2 sees no normals."""
    return NeuralRenderer(
        made["texture_channels"], made["latent_channels"], parse_widths(made["widths"]), made["norm"], False
    )


@lru_cache
def equal_widths(
    widths: str, channels: int, latent_channels: int, norm: bool, own_channels: int, sees_normals: bool
) -> str:
    """Widths with which one U-Net has as many parameters as R1 and R2 of ``widths`` together.

    channels, latent_channels: of R1 and R2; own_channels: of the single network's texture.
    """
    return widths_like(
        widths,
        channels,
        latent_channels,
        norm,
        lambda levels: SingleRenderer(own_channels, levels, norm, sees_normals),
    )


def widths_like(
    widths: str,
    channels: int,
    latent_channels: int,
    norm: bool,
    network: Callable[[tuple[int, ...]], nn.Module],
    least: float = 1.0,
) -> str:
    """Widths with which ``network`` has as many parameters as R1 and R2 of ``widths`` together.

    All levels change by one factor from ``least`` on (for one U-Net near the root of two, as parameters go with the
    square); what rounding leaves is made up level by level.
    """
    levels = parse_widths(widths)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        wanted = num_parameters(NeuralRenderer(channels, latent_channels, levels, norm))

        def count(candidate: tuple[int, ...]) -> int:
            return num_parameters(network(candidate))

        def off(candidate: tuple[int, ...]) -> int:
            return abs(count(candidate) - wanted)

        factors = [percent / 100 for percent in range(round(100 * least), 201)]
        grown = sorted({tuple(max(1, round(width * factor)) for width in levels) for factor in factors})
        enough = bisect_left(grown, wanted, key=count)
        best = min(grown[max(enough - 1, 0) : enough + 1], key=off)
        while True:
            # A finer level has fewer parameters per channel: it is the finer adjustment.
            near = [
                tuple(width + change * (i == level) for i, width in enumerate(best))
                for level in range(len(best))
                for change in (-1, 1)
                if best[level] + change >= 1
            ]
            closer = min(near, key=off)
            if off(closer) >= off(best):
                break
            best = closer
    assert off(best) <= TOLERANCE * wanted, f"{best}: {off(best)} of {wanted} parameters off"
    return ",".join(map(str, best))
