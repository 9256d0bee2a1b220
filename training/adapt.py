"""A trained avatar and one more recording: a new identity under the same renderer, or the renderer tuned to one of it.

    adapt       a texture for somebody new; the renderer is frozen, its file keeps its bytes
    finetune    renderer and texture of one identity together, a few steps from where they are (paper, section 4.3)

Enters: the avatar's folder and a subject's folder.  Leaves: the whole avatar again, in another folder.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from capture.errors import UserError
from rendering.avatar import OURS, Avatar
from rendering.close_up import FOLDER as CLOSE_UP
from rendering.networks import NeuralTexture, on_device
from rendering.painter import pick_device
from rendering.rasters import Rasters
from training.cast import HEAD, PERSON, Actor, check_size, crop_wh
from training.close_up import OF_CLOSE_UP, shows_head, with_light_of
from training.config import NONE, AdaptConfig, FinetuneConfig, TrainConfig
from training.detail import add_detail, without_detail
from training.features import load_features
from training.outline import fitted_outline
from training.pretrained import DISCRIMINATOR
from training.ranks import everywhere, is_lead
from training.state import TrainState, precision
from training.train import (
    has_weights,
    is_pretrained,
    new_discriminator,
    num_shards,
    optimise,
    pick_dtype,
    reproducible,
    start_texture,
)

log = logging.getLogger(__name__)

FIXED = ("widths", "norm", "latent_channels", "texture_px", "texture_channels", "pretrained")


@dataclass(frozen=True)
class Change:
    """What is to be done to an avatar, or to its close-up."""

    steps: int
    rate: float  # of the rates that it was trained with
    chosen: Mapping[str, Any]  # settings of TrainConfig that the user changed
    out_dir: Path
    avatar_dir: Path
    name: str
    folder: Path  # of the subject
    is_new: bool  # a texture for somebody new, the networks frozen
    person_dir: Path | None = None  # of a close-up: the changed avatar that it belongs to


def adapt(
    config: AdaptConfig, chosen: Mapping[str, Any], out_dir: Path, avatar_dir: Path, name: str, folder: Path
) -> None:
    """Give the avatar a texture for ``name``; everything else in it stays as it is.

    chosen: settings of TrainConfig that the user changed.  Raises UserError when avatar or subject cannot be used.
    """
    _change_all(Change(config.steps, config.rate, chosen, out_dir, avatar_dir, name, folder, is_new=True))


def finetune(
    config: FinetuneConfig, chosen: Mapping[str, Any], out_dir: Path, avatar_dir: Path, name: str, folder: Path
) -> None:
    """Train the renderer and the texture of ``name`` on, from where they are.  Raises UserError as ``adapt`` does."""
    _change_all(Change(config.steps, config.rate, chosen, out_dir, avatar_dir, name, folder, is_new=False))


def _change_all(change: Change) -> None:
    """The person, the close-up where both the avatar and the subject have one, and the detail."""
    base, head = Avatar.load(change.avatar_dir, "cpu"), change.folder / HEAD
    config, close_up = as_trained(base, change.chosen), base.close_up
    if close_up is not None:
        is_asked = change.is_new or change.name in close_up.subjects
        close_up = close_up if is_asked and shows_head(change.name, change.folder) else None
    if close_up is not None:  # said before anything is trained
        check_size(Rasters.load(head).image_wh, change.name, close_up.image_wh, "the avatar", HEAD)
    everywhere(_change, change)
    if close_up is not None:
        closer = replace(
            change,
            chosen={key: value for key, value in change.chosen.items() if key not in OF_CLOSE_UP},
            out_dir=change.out_dir / CLOSE_UP,
            avatar_dir=change.avatar_dir / CLOSE_UP,
            person_dir=change.out_dir,
        )
        everywhere(_change, closer)
    if config.detail:
        add_detail(change.out_dir, {change.name: change.folder}, config.device)


def _change(change: Change) -> None:
    base = Avatar.load(change.avatar_dir, "cpu")
    config = as_trained(base, change.chosen)
    config = replace(
        config,
        steps=change.steps,
        split=False,
        adversarial=is_judged(config, change.is_new),
        renderer_lr=config.renderer_lr * change.rate,
        texture_lr=config.texture_lr * change.rate,
        discriminator_lr=config.discriminator_lr * change.rate,
    )
    if change.chosen.get("adversarial") and not config.adversarial:
        log.warning("train.adversarial is left out: there is no discriminator that could judge this change")
    device = pick_device(config.device)
    crops = PERSON if change.person_dir is None else HEAD
    actor = Actor.load(change.name, change.folder, device, config.early_stop, crops=crops)
    check_size(crop_wh(actor), change.name, base.image_wh, "the avatar", crops)
    if change.person_dir is not None:
        actor = with_light_of(Avatar.load(change.person_dir, "cpu"), actor)
    with reproducible(device):
        state = _start(config, base, actor, device, change.is_new)
        features, note = load_features(config.feature_width, config.feature_blocks, config.seed, config.feature_kind)
        what = "a texture under a frozen renderer" if change.is_new else "texture and renderer together"
        log.info("%s: %s", change.name, what)
        optimise(config, change.out_dir, [actor], state, on_device(features, device))
    if is_lead():
        made = {"subject": change.name, "features": note, "train": asdict(config)}
        _merged(base, state, actor, made, change.is_new).save(change.out_dir)


def is_judged(config: TrainConfig, is_new: bool) -> bool:
    """Whether a discriminator judges what is changed: one that has seen nothing yet would only disturb so short a
    training, and frozen networks paint as they have learned to."""
    return config.adversarial and not is_new and has_weights(config, DISCRIMINATOR)


def as_trained(base: Avatar, chosen: Mapping[str, Any]) -> TrainConfig:
    """The settings that the avatar was trained with, and on top what the user chose.

    Raises UserError for a choice that the avatar's networks do not allow.
    """
    known = {field.name for field in fields(TrainConfig)}
    made = {key: value for key, value in base.settings["train"].items() if key in known}
    made = {"light": False, "pretrained": NONE, "detail": False, **made}  # avatars from before there were any
    for key in FIXED:
        if key in chosen and chosen[key] != made[key]:
            raise UserError(
                f"train.{key} = {chosen[key]}: this avatar was trained with {made[key]}, which cannot change"
            )
    if chosen.get("split") and not made.get("split"):
        raise UserError("train.split: adapt trains a texture alone, and finetune texture and networks together")
    machine = {"device": "auto", "precision": "auto"}  # this one, not the one it was trained on
    return TrainConfig(**{**made, **machine, **chosen})


def _start(config: TrainConfig, base: Avatar, actor: Actor, device: torch.device, is_new: bool) -> TrainState:
    """The avatar's networks, and the texture that everybody starts from, or the one that is there."""
    name, dtype = actor.frames.name, pick_dtype(config, device)
    if is_new:
        initial = NeuralTexture.shared_initial(config.texture_px, config.texture_channels, config.seed)
        texture = start_texture(config, initial, actor).to(device)
        if config.warm_start and config.mask:  # of a texture that is noise an outline would say nothing
            renderer, context = on_device(base.renderer, device), precision(device, dtype)
            texture.outline = fitted_outline(renderer, texture, actor.frames, actor.train_positions, context)
            log.info("%s: mask logits %+.2f, for an outline as wide as the mattes", name, float(texture.outline))
    else:
        texture = without_detail(base.textures[name]).requires_grad_(True)
    return TrainState(
        base.renderer.requires_grad_(True),
        [texture],
        [nn.Parameter(torch.zeros(len(actor.frames), 3))],
        new_discriminator(config),
        weight_decay=config.weight_decay,
        seed=config.seed,
        device=device,
        dtype=dtype,
        num_shards=num_shards(config, device),
        is_frozen=is_new,
        keeps_statistics=is_pretrained(config, OURS),
    )


def _merged(base: Avatar, state: TrainState, actor: Actor, change: dict[str, Any], is_new: bool) -> Avatar:
    name = actor.frames.name
    (texture,) = state.average_textures
    settings = dict(base.settings)
    settings["subjects"] = list(dict.fromkeys([*settings["subjects"], name]))
    frames = {"train": len(actor.train_positions), "keyframes": len(actor.keyframe_positions)}
    settings["frames"] = {**settings["frames"], name: frames}
    settings["px_per_m"] = {**settings.get("px_per_m", {}), name: actor.px_per_m}
    settings["margins"] = {**settings.get("margins", {}), name: actor.margins}
    close_up = base.close_up
    if close_up is not None and is_new and name in close_up.subjects:  # of how he was; a new one is made after this
        kept = [subject for subject in close_up.subjects if subject != name]
        close_up = replace(close_up.without(name), settings={**close_up.settings, "subjects": kept}) if kept else None
    change = {"command": "adapt" if is_new else "finetune", **change, "steps": state.step}
    settings["changes"] = [*settings.get("changes", []), change]
    return Avatar(
        renderer=state.average_renderer,
        textures={**base.textures, name: texture},
        bodies={**base.bodies, name: actor.shape},
        settings=settings,
        close_up=close_up,
    )
