"""Stage 06 with its close-up: after the whole person, the head alone, by an avatar in a folder of the first one.

Enters: subject folders.  Leaves: the avatar's files, their textures with detail, and in close_up/ those of the heads
(``rendering.close_up``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from capture.errors import UserError
from fitting.keyframes import Keyframes
from rendering.avatar import OURS, Avatar
from rendering.close_up import FOLDER as CLOSE_UP
from rendering.painter import pick_device
from rendering.rasters import Rasters
from training.cast import HEAD, Actor, check_size, load_cast
from training.config import HEAD as OF_HEADS
from training.config import PERSON, TrainConfig
from training.detail import add_detail
from training.ranks import everywhere
from training.train import fit_cast, is_pretrained, reproducible, train

log = logging.getLogger(__name__)

OF_CLOSE_UP = ("steps", "rescale_min", "rescale_max", "shift", "pretrained")  # what ``as_close_up`` decides


def train_avatar(config: TrainConfig, out_dir: Path, subjects: Mapping[str, Path]) -> None:
    """Stage 06: ``train``, then the close-up of everybody whose head has rasters of its own, then everybody's detail.

    Raises UserError, before anything is trained, when these differ in size.
    """
    if config.pretrained == OF_HEADS:
        raise UserError(f"train.pretrained = {OF_HEADS}: for the close-up, which has it by itself; leave it out")
    filmed = {name: folder for name, folder in subjects.items() if shows_head(name, folder)}
    sizes = {name: Rasters.load(folder / HEAD).image_wh for name, folder in filmed.items()}
    for name, image_wh in sizes.items():
        first = next(iter(sizes))
        check_size(image_wh, name, sizes[first], first, HEAD)
    train(config, out_dir, subjects)
    if filmed:
        everywhere(_train_close_up, config, out_dir, filmed)
    if config.detail:
        add_detail(out_dir, subjects, config.device)


def shows_head(name: str, folder: Path) -> bool:
    """Whether a subject has rasters of its head, and training frames that they show it in."""
    if not (folder / HEAD).is_dir():
        return False
    rasters = Rasters.load(folder / HEAD)
    if any(len(rasters[int(i)].pixel) for i in Keyframes.load(folder / "04_keyframes").train_indices):
        return True
    log.warning("no close-up of %s: no frame that trains shows the head", name)
    return False


def _train_close_up(config: TrainConfig, out_dir: Path, subjects: Mapping[str, Path]) -> None:
    device = pick_device(config.device)
    cast = load_cast(subjects, device, config.early_stop, crops=HEAD)
    cast = [with_light_of(Avatar.load(out_dir, "cpu"), actor) for actor in cast]
    log.info("close-up of the head: %s", ", ".join(subjects))
    with reproducible(device):
        fit_cast(as_close_up(config), out_dir / CLOSE_UP, cast, device)


def as_close_up(config: TrainConfig) -> TrainConfig:
    """The settings that heads are learned with.

    A head fills its crop in every frame: it is learned by heart unless its crops differ.  Eyes and mouths take more
    steps than clothes do, and a step costs a third; from noise clothes take longer.
    """
    return replace(
        config,
        steps=max(1, config.steps * (4 if is_pretrained(config, OURS) else 2) // 3),
        rescale_min=min(config.rescale_min, 0.7),
        rescale_max=max(config.rescale_max, 1.3),
        shift=max(config.shift, 0.08),
        pretrained=OF_HEADS if config.pretrained == PERSON else config.pretrained,
    )


def with_light_of(avatar: Avatar, actor: Actor) -> Actor:
    """The actor in the light that the avatar found on the whole person: a head alone shows too few sides of it."""
    return replace(actor, light=avatar.textures[actor.frames.name].light, is_light_known=True)
