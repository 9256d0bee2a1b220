"""The rows of the two tables: methods side by side (the paper's Table 1), and the avatar without each of its ideas (2).

Enters: the settings and bodies that an avatar was trained with.  Leaves: what to train for every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from capture.errors import UserError
from fitting.body.model import BodyModel
from rendering.avatar import OURS, Parts
from rendering.networks import NeuralTexture
from training.baselines.dnr import DNR, as_dnr
from training.baselines.single import equal_widths, two_without_normals, with_normals
from training.baselines.tna import as_tna, tna
from training.baselines.vid2vid import as_vid2vid, vid2vid
from training.config import LOSSES, NONE, PERSON, TrainConfig
from training.pretrained import NOISE_TAKES
from training.train import is_pretrained

METHODS = ("anr", "anr-unlit", "anr-pretrained", "dnr", "tna", "vid2vid")
ONE_PERSON = ("tna", "vid2vid")  # published for one person a network
SINGLE, NO_NORMALS = Parts(with_normals, NeuralTexture), Parts(two_without_normals, NeuralTexture)


@dataclass(frozen=True)
class Row:
    """One thing to train, with several seeds."""

    key: str  # for the command line
    name: str  # for the table
    config: TrainConfig
    parts: Parts = OURS


def from_noise(config: TrainConfig, steps: int | None = None) -> TrainConfig:
    """How to train on equal terms, as only the avatar's own networks have weights to begin with: as ``config``, but
    from noise, which takes longer, unless ``steps`` says how long; and without a discriminator that has seen nobody,
    where the avatar had one that has judged others."""
    is_begun = is_pretrained(config, OURS)
    if steps is None:
        steps = config.steps * (NOISE_TAKES if is_begun else 1)
    return replace(config, pretrained=NONE, steps=steps, adversarial=config.adversarial and not is_begun)


def methods(config: TrainConfig, words: str, bodies: Sequence[BodyModel], steps: int | None = None) -> list[Row]:
    """The rows of "anr,dnr" for a cast with these bodies, trained ``from_noise``.  Raises UserError for a method that
    is not there, that cannot paint several people, or that has no weights to begin with."""
    chosen = _chosen("--methods", words, METHODS)
    for word in chosen:
        if word in ONE_PERSON and len(bodies) > 1:
            raise UserError(f"--methods {word}: made for one person, and this avatar has {len(bodies)}; leave it out")
    if "anr-pretrained" in chosen and not is_pretrained(replace(config, pretrained=PERSON), OURS):
        raise UserError(
            f"--methods anr-pretrained: there are no weights for train.widths {config.widths}; leave it out"
        )
    return [_method(from_noise(config, steps), word, bodies[0]) for word in chosen]


def _method(config: TrainConfig, word: str, body: BodyModel) -> Row:
    match word:
        case "anr":
            return Row(word, "ANR, two networks and normals", config)
        case "anr-unlit":
            return Row(word, "the same without the light", replace(config, light=False))
        case "anr-pretrained":
            return Row(word, "the same, begun with the shipped networks", replace(config, pretrained=PERSON))
        case "dnr":
            return Row(word, "DNR, one network of equal capacity", as_dnr(config), DNR)
        case "tna":
            return Row(word, "Textured Neural Avatars, from a stick figure", as_tna(config, body), tna(body))
        case "vid2vid":
            return Row(word, "vid2vid, from stick figures", as_vid2vid(config, body), vid2vid(body))
    raise AssertionError(word)


def ablations(config: TrainConfig, words: str | None = None, steps: int | None = None) -> list[Row]:
    """The avatar as it is, and rows in each of which one thing is different; ``words`` names those that are wanted.

    All are trained ``from_noise``; the shipped networks have a row of their own, the avatar as it was trained.  What it
    was trained without is switched on instead.  Raises UserError for a row that is not there.
    """
    noise = from_noise(config, steps)
    is_begun = is_pretrained(config, OURS)
    name = "as trained, but from noise" if is_begun else "as trained"
    rows = [Row("full", name, noise), *_losses(noise), *_model(noise)]
    if is_begun:
        rows.append(Row("pretrained", "as trained", config if steps is None else replace(config, steps=steps)))
    kept: list[Row] = []
    for row in rows:
        if not any((row.config, row.parts) == (other.config, other.parts) for other in kept):
            kept.append(row)
    if words is None:
        return kept
    named = {row.key: row for row in kept}
    return [named[key] for key in dict.fromkeys(["full", *_chosen("--rows", words, named)])]


def _losses(config: TrainConfig) -> list[Row]:
    rows = []
    for loss, name in LOSSES.items():
        switched: dict[str, Any] = {loss: not getattr(config, loss)}
        if switched[loss] or any(getattr(config, other) for other in LOSSES if other != loss):
            word = "with" if switched[loss] else "no"
            rows.append(Row(f"{word}-{loss}", f"{word} {name}", replace(config, **switched)))
    bare = replace(config, pixel=True, mask=True, feature=False, tv=False, adversarial=False)
    return [
        *rows,
        Row("pixel-mask", "pixel and mask loss only", bare),
        Row("pixel-mask-feature", "pixel, mask and feature loss only", replace(bare, feature=True)),
    ]


def _model(config: TrainConfig) -> list[Row]:
    widths = equal_widths(
        config.widths, config.texture_channels, config.latent_channels, config.norm, config.texture_channels, True
    )
    single, other = replace(config, widths=widths), "no split" if config.split else "split"
    warm = "no warm start" if config.warm_start else "warm start"
    rows = [
        Row("one-network", "one network of equal capacity", single, SINGLE),
        Row(f"one-network-{_key(other)}", f"one network, {other}", replace(single, split=not config.split), SINGLE),
        Row("no-normals", "no normals", config, NO_NORMALS),
        Row(_key(other), other, replace(config, split=not config.split)),
        Row(_key(warm), warm, replace(config, warm_start=not config.warm_start)),
    ]
    if config.warm_start:  # there is no light without
        word = "no light" if config.light else "light"
        rows.append(Row(_key(word), word, replace(config, light=not config.light)))
    if config.grid_noise:
        rows.append(Row("no-grid-noise", "no grid noise", replace(config, grid_noise=0.0)))
    return rows


def _key(name: str) -> str:
    return name.replace(" ", "-")


def _chosen(option: str, words: str, known: Sequence[str] | dict[str, Row]) -> list[str]:
    """The words of a list with commas.  Raises UserError for one that is not ``known``, and for none at all."""
    wanted = list(dict.fromkeys(word.strip().lower() for word in words.split(",") if word.strip()))
    for word in wanted:
        if word not in known:
            raise UserError(f"{option} {word}: unknown; there are {', '.join(known)}")
    if not wanted:
        raise UserError(f'{option} "{words}": names nothing; there are {", ".join(known)}')
    return wanted
