"""Trains the networks that every avatar begins with, on performers in many colours.

    python -m demo.pretrain [--folder DIR]

Six synthetic people move at random for some seconds each, past the script that the demo films, so that its held-out
frames are nobody's lesson.  Masks and poses are those of the pipeline's own stages, errors and all; then the same
motion is filmed in other colours.  One renderer learns to paint them all, and another one their heads, each against a
discriminator.  About an hour on two cores; needs the ``anny`` package.  Leaves the files of
``training/pretrained_weights``: with other ones, raise the version of the stages that train (``pipeline.STAGES``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import click
import numpy as np

from capture.matting import MatteConfig, matte
from capture.recording import RecordingWriter
from demo import makehuman, sensor
from demo.build import build
from demo.character import Character
from demo.choreography import SCRIPT_S
from demo.dye import dyed
from demo.performer import DemoConfig, Studio, act, build_set
from fitting.fit import FitConfig, fit
from fitting.keyframes import KeyframeConfig, keyframes
from rendering.avatar import Avatar
from rendering.painter import pick_device
from rendering.rasters import RasterConfig, rasterize
from training.cast import HEAD as HEAD_CROPS
from training.cast import Actor, load_cast
from training.checkpoint import load_checkpoint
from training.close_up import as_close_up, with_light_of
from training.config import HEAD, NONE, PERSON, TrainConfig, path_of
from training.pretrained import DISCRIMINATOR, RENDERER, save
from training.train import fit_cast, reproducible

log = logging.getLogger(__name__)

NUM_FRAMES, LOOKS = 140, 4  # of each person: filmed, and in how many colours
STEPS, HEAD_STEPS = 400, 266  # per look
CPU = pick_device("cpu")  # the same bytes every time


@dataclass(frozen=True)
class Person:
    """Who teaches."""

    outfit: str
    phenotype: makehuman.Phenotype
    seed: int  # of motion and colours


PEOPLE = {
    "demo": Person("demo", makehuman.DEMO, 11),
    "dana": Person("dana", makehuman.DANA, 12),
    "tall": Person("dana", makehuman.TALL, 13),
    "small": Person("dana", makehuman.SMALL, 14),
    "broad": Person("dana", makehuman.BROAD, 15),
    "slim": Person("demo", makehuman.SLIM, 16),
}


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("workspace/pretraining"), show_default=True)
def main(folder: Path) -> None:
    """Film, fit and train; what is finished is not done again."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    subjects = {name: path for who, person in PEOPLE.items() for name, path in subjects_of(folder, who, person)}
    # Textures that hardly leave their start, as everybody's are at first: what is to be corrected, the networks must.
    config = TrainConfig(steps=STEPS, texture_lr=TrainConfig.texture_lr / 5, pretrained=NONE)
    whole = _trained(config, folder / PERSON, load_cast(subjects, CPU, False), path_of(PERSON))
    heads = [with_light_of(whole, actor) for actor in load_cast(subjects, CPU, False, crops=HEAD_CROPS)]
    _trained(replace(as_close_up(config), steps=HEAD_STEPS), folder / HEAD, heads, path_of(HEAD))


def _trained(config: TrainConfig, avatar_dir: Path, cast: list[Actor], weights: Path) -> Avatar:
    """Train, and leave the ``weights`` of renderer and discriminator."""
    if not (avatar_dir / "avatar.json").exists():
        with reproducible(CPU):
            fit_cast(config, avatar_dir, cast, CPU)
    avatar, state = Avatar.load(avatar_dir, "cpu"), load_checkpoint(avatar_dir / "checkpoints" / "last.safetensors")
    assert state is not None
    networks = {RENDERER: avatar.renderer.state_dict(), DISCRIMINATOR: state["discriminator"]}
    save(weights, networks, asdict(config))
    return avatar


def subjects_of(folder: Path, name: str, person: Person) -> list[tuple[str, Path]]:
    """Names and folders of one person in all colours, each with the stages 01 to 05."""
    first = folder / f"{name}-0"
    config = DemoConfig(seed=person.seed)
    begin = round(SCRIPT_S * config.frames_per_second)
    config = replace(config, num_frames=begin + NUM_FRAMES)
    scratch = _made(folder / f"{name}.scratch", lambda path: _rehearse(config, person, path))
    character = Character.load(scratch / "character.npz")
    _made(first / "01_recording", lambda path: _shoot(config, scratch, character, begin, path))
    _made(first / "02_masks", lambda path: matte(MatteConfig(), path, first / "01_recording"))
    all_teach = FitConfig(train_fraction=0.99)
    _made(first / "03_fit", lambda path: fit(all_teach, path, first / "01_recording", first / "02_masks"))
    _made(first / "04_keyframes", lambda path: keyframes(KeyframeConfig(), path, first / "03_fit"))
    _made(first / "05_rasters", lambda path: rasterize(RasterConfig(), path, first / "01_recording", first / "03_fit"))
    found = [(first.name, first)]
    for look in range(1, LOOKS):
        home = folder / f"{name}-{look}"
        in_color = replace(config, with_depth=False)
        other = dyed(character, np.random.default_rng([person.seed, look]))
        _made(home / "01_recording", partial(_shoot, in_color, scratch, other, begin))
        for stage in ("02_masks", "03_fit", "04_keyframes", "05_rasters"):
            if not (home / stage).exists():
                os.symlink((first / stage).resolve(), home / stage)
        found.append((home.name, home))
    return found


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, made in a partial one beside it unless it is there."""
    if not folder.exists():
        log.info("%s", folder)
        unfinished = folder.with_name(folder.name + ".partial")
        unfinished.mkdir(parents=True, exist_ok=True)
        make(unfinished)
        unfinished.rename(folder)
    return folder


def _rehearse(config: DemoConfig, person: Person, scratch: Path) -> None:
    """Sew the person, play the motion, build the room."""
    build(scratch / "character.npz", person.outfit, person.phenotype)
    act(config, Character.load(scratch / "character.npz"), scratch)
    build_set(config, scratch)


def _shoot(config: DemoConfig, scratch: Path, character: Character, begin: int, out_dir: Path) -> None:
    """Film the frames from ``begin`` on."""
    studio = Studio(config, scratch, character)
    writer = RecordingWriter(out_dir, sensor.rig(), "a demo performer")
    for index in range(begin, config.num_frames):
        color, depth_mm, _ = studio.film(index)
        writer.add((index - begin) / config.frames_per_second, color, depth_mm)
    writer.finish()


if __name__ == "__main__":
    main()
