"""The cast of an avatar: whose frames are there, which of them teach what, and whose turn it is.

N identities; F frames of one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from capture.errors import UserError
from capture.matting import Masks
from capture.recording import Recording
from fitting.fit import BodyFit
from fitting.keyframes import Keyframes
from rendering.avatar import Shape, body_from_pixel
from rendering.close_up import FOLDER as CLOSE_UP
from rendering.framing import px_per_m_of, visible_depth
from rendering.rasters import BODY_MARGINS, Margins, Rasters
from training.dataset import SubjectFrames, room_of
from training.figures import Figures

# Of the training frames, kept back to judge when to stop; the last ones, as held-out frames are the last of the clip.
HELDBACK_FRACTION = 0.1
PERSON, HEAD = "05_rasters", f"05_rasters/{CLOSE_UP}"  # whose crops are seen: the person's or the head's


@dataclass(frozen=True)
class Actor:
    """One subject of the cast: what is seen of it, and when."""

    frames: SubjectFrames
    train_positions: np.ndarray  # frames that train R
    keyframe_positions: np.ndarray  # frames that train T
    shape: Shape
    heldback_positions: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # judge when to stop
    px_per_m: tuple[float, float] | None = None  # that a metre of the person has in these crops, least and most
    margins: Margins = BODY_MARGINS  # around the person in these crops
    light: torch.Tensor | None = None  # (LIGHT_TERMS, 3) that he stood in, None for none; to be found unless known
    is_light_known: bool = False

    @staticmethod
    def load(
        name: str,
        folder: Path,
        device: torch.device,
        holds_back: bool = False,
        with_view: bool = False,
        num_figures: int = 0,
        crops: str = PERSON,
    ) -> Actor:
        """Open a subject; ``with_view`` and ``num_figures`` for methods that need them; ``crops`` is where its rasters
        are.  Raises UserError when nothing in it can be learned from."""
        keyframes = Keyframes.load(folder / "04_keyframes")
        fit = BodyFit.load(folder / "03_fit")
        rasters = Rasters.load(folder / crops)
        wanted = np.union1d(keyframes.train_indices, keyframes.keyframe_indices)
        wanted = np.setdiff1d(wanted, keyframes.heldout_indices)
        recording, masks = Recording.load(folder / "01_recording"), Masks.load(folder / "02_masks")
        frames = SubjectFrames.load(name, wanted, recording, masks, rasters, room_of(recording))
        if with_view:
            rays = [body_from_pixel(rasters.cameras[i], fit.camera_from_body[i]) for i in frames.frame_indices]
            frames = replace(frames, body_from_pixel=torch.stack(rays))
        if num_figures:
            frames = replace(frames, figures=Figures.of(fit, rasters, frames.frame_indices, num_figures))
        train_positions = frames.positions_of(keyframes.train_indices)
        keyframe_positions = frames.positions_of(keyframes.keyframe_indices)
        if not len(train_positions):
            raise UserError(f"{name}: the body was found in no training frame; see 03_fit/overlay.mp4")
        actor = Actor(
            frames=frames.to(device),
            train_positions=train_positions,
            keyframe_positions=keyframe_positions if len(keyframe_positions) else train_positions,
            shape=Shape(fit.body, fit.shape, fit.vertex_offsets_m),
            px_per_m=_px_per_m(fit, rasters, frames.frame_indices),
            margins=rasters.margins,
        )
        return hold_back(actor) if holds_back else actor


def hold_back(actor: Actor) -> Actor:
    """The actor with the last of its training frames kept from training.  Raises UserError where there are too few."""
    count = max(1, round(HELDBACK_FRACTION * len(actor.train_positions)))
    if count >= len(actor.train_positions):
        raise UserError(f"train.early_stop: {actor.frames.name} has only one training frame; leave early_stop off")
    train, heldback = np.sort(actor.train_positions)[:-count], np.sort(actor.train_positions)[-count:]
    keyframes = np.setdiff1d(actor.keyframe_positions, heldback)
    keyframes = keyframes if len(keyframes) else train
    return replace(actor, train_positions=train, keyframe_positions=keyframes, heldback_positions=heldback)


def _px_per_m(fit: BodyFit, rasters: Rasters, frame_indices: np.ndarray) -> tuple[float, float]:
    distances_m = [visible_depth(fit.vertices_color_m(int(i)), rasters.cameras[int(i)]) for i in frame_indices]
    return px_per_m_of(np.array([rasters.cameras[int(i)].fy_px for i in frame_indices]), np.array(distances_m))


def load_cast(
    subjects: Mapping[str, Path],
    device: torch.device,
    holds_back: bool,
    with_view: bool = False,
    num_figures: int = 0,
    crops: str = PERSON,
) -> list[Actor]:
    """Open every subject.  Raises UserError for one that cannot be used, and when their crops differ in size."""
    cast = [
        Actor.load(name, folder, device, holds_back, with_view, num_figures, crops) for name, folder in subjects.items()
    ]
    for actor in cast[1:]:
        check_size(crop_wh(actor), actor.frames.name, crop_wh(cast[0]), cast[0].frames.name, crops)
    return cast


def crop_wh(actor: Actor) -> tuple[int, int]:
    """Width and height of the actor's crops."""
    height, width = actor.frames.planes.shape[2:]
    return width, height


def check_size(own_wh: tuple[int, int], name: str, image_wh: tuple[int, int], other: str, crops: str = PERSON) -> None:
    """Raises UserError when the crops of ``name`` are not as large as those of ``other``: they share one renderer."""
    if own_wh == image_wh:
        return
    width, height = image_wh
    lines = f"close_up_px = {height}" if crops == HEAD else f"width_px = {width} and height_px = {height}"
    raise UserError(
        f"{name}: its rasters{' of the head' if crops == HEAD else ''} are {own_wh[0]} x {own_wh[1]}, those of {other} "
        f"{width} x {height}; run both with the same --preset, or put {lines} under [raster] into {name}'s subject.toml"
    )


def whose_turn(step: int, num_subjects: int, split: bool, seed: int) -> tuple[int, bool]:
    """Which identity trains in a step, and whether (with ``split``) it is its texture that does.

    In N turns everybody has one, in random order: however long their recordings are, every identity trains the renderer
    as often as any other, and its texture too.  A function of the step alone, so it cannot be disturbed by a restart.
    """
    turn, trains_texture = (step // 2, step % 2 == 1) if split else (step, False)
    number, place = divmod(turn, num_subjects)
    order = np.random.default_rng((seed, number, int(trains_texture))).permutation(num_subjects)
    return int(order[place]), trains_texture
