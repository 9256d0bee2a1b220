"""What every method says about a held-out frame, and how far it is from the truth.

Enters: a subject's stages and an avatar.  Leaves: figures per frame and method, and their means.
H x W pixels of the person crop, W0 x H0 of the whole picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from capture.camera import Camera
from capture.sampling import evenly, in_runs
from fitting.keyframes import Keyframes
from rendering.avatar import Avatar, body_from_pixel, surface_of
from rendering.captured import Captured, shrunk
from rendering.networks import RGB, NeuralTexture, Surface
from rendering.pasting import Box, paste
from rendering.rasters import Rasters
from rendering.stick_figure import FigureRenderer, StickFigure, remember
from rendering.studio import Room
from training import metrics
from training.cast import HEAD
from training.config import HELDOUT_FRAMES
from training.dataset import crop_image
from training.sanity import BareRasters, Crop, average_texture, nearest_frames, textured_mesh, true_crop

RUN_FRAMES = 30  # neighbours that are measured together
GREY = 0.5  # behind the person in the crop protocol
AVATAR, NEAREST, TEXTURE = "avatar", "nearest_training_frame", "back_projected_texture"
BARE_TEXTURE = "back_projected_texture_bare_body"
METHODS = (AVATAR, NEAREST, TEXTURE, BARE_TEXTURE)
FIGURES = ("psnr_db", "ssim", "flip", "lpips")
OWN_FIGURES = ("masked_psnr_db", "mask_iou", "sharpness")  # of no protocol: of the crop alone
REDUCED_FIGURES = ("masked_psnr_db", "ssim", "flip", "mask_iou")


@dataclass(frozen=True)
class Subject:
    """One subject's held-out frames and all that is needed to score them."""

    name: str
    captured: Captured
    keyframes: Keyframes
    rasters: Rasters
    close_up: Rasters | None  # of the head; None where it has none
    heldout: np.ndarray  # held-out frames that are measured: they have a tracked body
    num_tracked: int  # held-out frames with a tracked body
    nearest: np.ndarray  # the training frame for each of them
    texture: NeuralTexture  # (T, T, 3), on the avatar's own mesh
    bare: BareRasters
    bare_texture: NeuralTexture  # (T, T, 3), on the body without vertex offsets
    room: Room
    full_wh: tuple[int, int]

    @staticmethod
    def load(name: str, folder: Path, full_long_side_px: int, heldout_frames: int = HELDOUT_FRAMES) -> Subject:
        """Open a subject, to be measured on at most ``heldout_frames`` of its held-out frames; 0 = on all."""
        captured = Captured.load(folder)
        rasters, keyframes = Rasters.load(folder / "05_rasters"), Keyframes.load(folder / "04_keyframes")
        covered = np.diff(rasters.pixel_offsets) > 0
        seen = np.array([i for i in captured.heldout_indices if covered[i]], np.int64)
        heldout = in_runs(seen, heldout_frames or len(seen), RUN_FRAMES)
        train = np.array([i for i in keyframes.train_indices if covered[i] and captured.fit.tracked[i]], np.int64)
        full_wh = shrunk(captured.fit.camera, full_long_side_px).image_wh
        recording, masks = captured.recording, captured.masks
        close_up = Rasters.load(folder / HEAD) if (folder / HEAD).is_dir() else None
        bare = BareRasters(captured.fit, rasters)
        return Subject(
            name=name,
            captured=captured,
            keyframes=keyframes,
            rasters=rasters,
            close_up=close_up,
            heldout=heldout,
            num_tracked=len(seen),
            nearest=nearest_frames(captured.fit, train, heldout),
            texture=average_texture(name, train, recording, masks, rasters),
            bare=bare,
            bare_texture=average_texture(name, train, recording, masks, bare),
            room=Room.of(recording, masks, full_wh),
            full_wh=full_wh,
        )


@dataclass(frozen=True)
class Scene:
    """One held-out frame: the truth, and what stood behind the person."""

    crop: Crop
    is_filmed: np.ndarray  # (H, W) bool, False where the crop reaches beyond the picture: nobody knows the truth there
    crop_background: np.ndarray  # (H, W, 3) the same of ``full_background``
    full: np.ndarray  # (H0, W0, 3) the frame as recorded
    full_background: np.ndarray  # (H0, W0, 3) the person painted out
    box_px: tuple[float, float, float, float]  # of the crop in ``full``


def load_scene(subject: Subject, index: int) -> Scene:
    """Decode one frame and cut it in both protocols' ways."""
    recording, masks = subject.captured.recording, subject.captured.masks
    color, alpha = recording.color(index), masks[index]
    crop, is_filmed = true_crop(color, alpha, subject.rasters.boxes_px[index], subject.rasters.image_wh)
    full = cv2.resize(color, subject.full_wh, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    scale = np.divide(subject.full_wh, (color.shape[1], color.shape[0]))
    left, top, right, bottom = (float(v) for v in subject.rasters.boxes_px[index] * np.tile(scale, 2))
    box_px = (left, top, right, bottom)
    behind = subject.room.behind(color, alpha)
    cut = crop_image(behind, box_px, subject.rasters.image_wh, cv2.BORDER_REPLICATE)
    return Scene(crop, is_filmed, cut, full, behind, box_px)


def predict(avatar: Avatar, subject: Subject, position: int) -> dict[str, Crop]:
    """What each method says about one held-out frame."""
    index, nearest = int(subject.heldout[position]), int(subject.nearest[position])
    surface = surface_of(subject.rasters.gather([index]))
    recording, masks = subject.captured.recording, subject.captured.masks
    box = subject.rasters.boxes_px[nearest]
    reused, _ = true_crop(recording.color(nearest), masks[nearest], box, subject.rasters.image_wh)
    return {
        AVATAR: predict_avatar(avatar, subject, position),
        NEAREST: reused,
        TEXTURE: textured_mesh(subject.texture, surface),
        BARE_TEXTURE: textured_mesh(subject.bare_texture, surface_of(subject.bare.covered(index))),
    }


def predict_avatar(avatar: Avatar, subject: Subject, position: int) -> Crop:
    """What the avatar, of a method that takes frames one by one, says about one held-out frame."""
    return Showing(avatar, subject)(position)


class Showing:
    """The held-out frames as an avatar of whatever method paints them.

    Asked for them in order, a method that remembers what it painted goes on from there.  It begins with nothing at the
    first frame, where one is missing, and where it is asked for any other than the next: it never sees a true picture.
    """

    def __init__(self, avatar: Avatar, subject: Subject) -> None:
        self.avatar, self.subject = avatar, subject
        renderer = avatar.renderer
        self.figure = StickFigure.of(subject.captured.fit.body) if isinstance(renderer, FigureRenderer) else None
        self.remembers = renderer.remembers if isinstance(renderer, FigureRenderer) else 0
        self._before: list[tuple[int, np.ndarray]] = []  # index, (Q, 2) px of the last frames
        self._history: Tensor | None = None

    def __call__(self, position: int) -> Crop:
        avatar, subject, index = self.avatar, self.subject, int(self.subject.heldout[position])
        surface, camera = surface_of(subject.rasters.gather([index])), subject.rasters.cameras[index]
        if avatar.needs_view:
            rays = body_from_pixel(camera, subject.captured.fit.camera_from_body[index])
            surface = replace(surface, body_from_pixel=rays[None])
        if self.figure is not None:
            surface = self._drawn(surface, index, self.figure)
        image, mask, _ = avatar.render_raster(subject.name, surface)
        if self._history is not None:
            self._history = remember(self._history, image.cpu(), mask.cpu())
        painted = ((image[0].permute(1, 2, 0).float().cpu().numpy() + 1) / 2).clip(0, 1)
        return Crop(painted, mask[0, 0].float().cpu().numpy())

    def _drawn(self, surface: Surface, index: int, figure: StickFigure) -> Surface:
        """The surface with this frame's figure, and what is remembered of the frames before it."""
        _, height, width = surface.batch_hw
        if not self._before or self._before[-1][0] != index - 1:
            self._before = []
            self._history = torch.zeros(1, self.remembers, RGB + 1, height, width) if self.remembers else None
        points_px = figure.points_px(self.subject.captured.fit, index, self.subject.rasters.cameras[index])
        self._before = [*self._before, (index, points_px)][-self.remembers - 1 :]
        drawn = figure.draw(np.stack([points for _, points in self._before]), (width, height))
        return replace(surface, figures=torch.from_numpy(drawn)[None], history=self._history)


def comparison(scene: Scene, guess: Crop, pasted: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """The first six arguments of ``metrics.measure``: the guess and the truth in both protocols, and their alphas.

    ``pasted`` (H0, W0, 4) is the guess in the whole picture where it is more than the crop enlarged.  What a method
    paints beyond the picture's edge is cut off: it can be neither right nor wrong.
    """
    alpha = guess.alpha * scene.is_filmed
    if pasted is None:
        image_wh = scene.full.shape[1], scene.full.shape[0]
        pasted = paste(np.dstack([guess.color, guess.alpha]), scene.box_px, image_wh).picture(image_wh)
    return (
        metrics.composite(guess.color, alpha, GREY),
        metrics.composite(scene.crop.color, scene.crop.alpha, GREY),
        metrics.composite(pasted[..., :3], pasted[..., 3], scene.full_background),
        scene.full,
        alpha,
        scene.crop.alpha,
    )


def seen_by(avatar: Avatar, subject: Subject, index: int, camera: Camera, crop_box: Box) -> np.ndarray:
    """(H, W, 4) RGBA of a recorded frame's pose as every command paints it for ``camera``, the close-up included;
    ``crop_box``, in its pixels, is what the person's networks paint."""
    fit = subject.captured.fit
    return avatar.render(subject.name, fit.pose[index], fit.camera_from_body[index], camera, crop_box)


def means(rows: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """Mean over the held-out frames of each figure; None where none was measured."""

    def mean(figure: str) -> float | None:
        return mean_of([row[figure] for row in rows if row["method"] == method])

    wanted = {"full": FIGURES, "crop": FIGURES, "reduced": REDUCED_FIGURES}
    protocols = {p: {figure: mean(f"{p}_{figure}") for figure in figures} for p, figures in wanted.items()}
    return {**protocols, **{figure: mean(figure) for figure in OWN_FIGURES}}


def mean_of(values: Sequence[float | None]) -> float | None:
    """Of those that were measured; None where none was."""
    known = np.array(values, float)
    known = known[np.isfinite(known)]
    return round(float(known.mean()), 4) if len(known) else None


def percentiles(values: np.ndarray, **wanted: float) -> dict[str, float] | None:
    """Median and the percentiles asked for by name; None without a single finite value."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    wanted = {"median": 50, **wanted}
    return {name: round(float(np.percentile(values, percent)), 4) for name, percent in wanted.items()}


def spread(count: int, wanted: int) -> set[int]:
    """At most ``wanted`` positions evenly spread over ``count``."""
    return set(evenly(range(count), wanted).tolist())
