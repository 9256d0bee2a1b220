"""The frames that training sees: person crops, resident as bytes, and the random batches cut from them.

F frames of one subject, B pictures in a batch, H x W pixels of the raster crop, K covered pixels.
Only the frames that are asked for are read: held-out pictures never enter memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from capture.errors import UserError
from capture.matting import Masks
from capture.progress import progress
from capture.recording import Recording
from capture.workers import in_threads
from rendering.networks import Surface
from rendering.rasters import CompactRaster, Rasters
from rendering.texels import push_pull
from training.figures import Figures
from training.step import Batch

# Planes of one resident frame, uint8.
COLOR, BACKGROUND, ALPHA, VALID = slice(0, 3), slice(3, 6), slice(6, 7), slice(7, 8)
NUM_PLANES = 8
AROUND_DOUBT = 0.025  # of the crop's height, 5 cm: clothes stand off, and nearly right limbs lie beside themselves
ROOM_APART = 8.0  # grey levels, median: beyond, the camera stood elsewhere when the room was empty
UV_SCALE, UV_ZERO = 65535.0, 32768  # uv as int16, shifted: torch knows few operations on uint16
NORMAL_SCALE = 127.0


@dataclass(frozen=True)
class Augment:
    """How a batch departs from the recorded crops."""

    rescale_min: float = 1.0
    rescale_max: float = 1.0
    shift: float = 0.0  # fraction of the crop
    grid_noise: float = 0.0  # on the [-1, 1] grid


@dataclass(frozen=True)
class SubjectFrames:
    """Every frame of one subject that training may see."""

    name: str
    frame_indices: np.ndarray  # (F,) in the recording
    planes: Tensor  # (F, NUM_PLANES, H, W) uint8
    starts: np.ndarray  # (F + 1,) first covered pixel of each frame
    pixel: Tensor  # (sum K,) int32, flat index into H * W
    uv_i16: Tensor  # (sum K, 2) int16
    normal_i8: Tensor  # (sum K, 3) int8
    # (F, 3, 3) as ``Surface.body_from_pixel``, of the whole crop; only where something depends on the view
    body_from_pixel: Tensor | None = None
    figures: Figures | None = None  # only for methods that paint from them

    @staticmethod
    def load(
        name: str,
        frame_indices: np.ndarray,
        recording: Recording,
        masks: Masks,
        rasters: Rasters,
        room: np.ndarray | None = None,
    ) -> SubjectFrames:
        """Cut the crops of frames (F,) of the recording; ``room`` is its picture (H0, W0, 3) without anybody, if any.

        Raises UserError when the body was lost in all of them; where it was lost in some, those are left out.
        """
        width, height = rasters.image_wh
        found = np.array([i for i in frame_indices if len(rasters[int(i)].pixel)], np.int64)
        if not len(found):
            count = len(frame_indices)
            raise UserError(f"{name}: the body was found in none of {count} frames; see 03_fit/overlay.mp4")
        planes = np.zeros((len(found), NUM_PLANES, height, width), np.uint8)
        compact = [rasters[int(i)] for i in found]

        def cut(position: int) -> None:
            i = int(found[position])
            planes[position] = crop_planes(recording.color(i), masks[i], rasters.boxes_px[i], (width, height), room)

        deque(progress(in_threads(cut, range(len(found))), f"crop {name}", len(found)), maxlen=0)
        for plane, raster, i in zip(planes, compact, found, strict=True):
            plane[VALID] *= ~in_doubt(raster, np.flatnonzero(rasters.part_doubted[i]), plane[ALPHA][0] > 0)
        counts = [len(raster.pixel) for raster in compact]
        return SubjectFrames(
            name=name,
            frame_indices=found,
            planes=torch.from_numpy(planes),
            starts=np.concatenate([[0], np.cumsum(counts)]),
            pixel=_joined([raster.pixel.astype(np.int32) for raster in compact]),
            uv_i16=_joined([(raster.uv_u16.astype(np.int32) - UV_ZERO).astype(np.int16) for raster in compact]),
            normal_i8=_joined([np.rint(raster.normal * NORMAL_SCALE).astype(np.int8) for raster in compact]),
        )

    def __len__(self) -> int:
        return len(self.frame_indices)

    def to(self, device: torch.device) -> SubjectFrames:
        return replace(
            self,
            planes=self.planes.to(device),
            pixel=self.pixel.to(device),
            uv_i16=self.uv_i16.to(device),
            normal_i8=self.normal_i8.to(device),
            body_from_pixel=None if self.body_from_pixel is None else self.body_from_pixel.to(device),
        )

    def covered(self, position: int) -> slice:
        """Which of the covered pixels belong to the frame at ``position``."""
        return slice(int(self.starts[position]), int(self.starts[position + 1]))

    def uv(self, index: Tensor | slice) -> Tensor:
        """(K, 2) float32 in [0, 1] of the covered pixels at ``index``."""
        return (self.uv_i16[index].float() + UV_ZERO) / UV_SCALE

    def normal(self, index: Tensor | slice) -> Tensor:
        """(K, 3) float32 of the covered pixels at ``index``."""
        return self.normal_i8[index].float() / NORMAL_SCALE

    def positions_of(self, frame_indices: np.ndarray) -> np.ndarray:
        """Where recording frames are kept here; frames that were left out are skipped."""
        kept = {int(index): position for position, index in enumerate(self.frame_indices)}
        return np.array([kept[int(i)] for i in frame_indices if int(i) in kept], np.int64)

    def batch(self, positions: Tensor, augment: Augment, rng: torch.Generator, noise_rng: torch.Generator) -> Batch:
        """Cut, rescale and shift the frames at ``positions`` (B,), with fresh random numbers from the generators.

        ``rng`` lives on the CPU, ``noise_rng`` where the frames live.
        """
        batch = len(positions)
        height, width = self.planes.shape[2:]
        scale = torch.empty(batch).uniform_(augment.rescale_min, augment.rescale_max, generator=rng)
        place = torch.rand(batch, 2, generator=rng)
        jitter = (torch.rand(batch, 2, generator=rng) * 2 - 1) * augment.shift
        size = torch.tensor([width, height], dtype=torch.float32)
        # Source position of target pixel (x, y): origin + (x + 0.5) / scale.  Any crop that fits is as likely.
        origin = (place * (1 - 1 / scale[:, None]) + jitter) * size  # (B, 2)
        device = self.planes.device
        source_x = origin[:, :1] + (torch.arange(width) + 0.5) / scale[:, None]  # (B, W)
        source_y = origin[:, 1:] + (torch.arange(height) + 0.5) / scale[:, None]  # (B, H)
        planes = self._resampled(positions, source_x.to(device), source_y.to(device))
        surface = self._surface(positions, source_x, source_y)
        if augment.grid_noise:
            noise = torch.rand(surface.uv.shape, generator=noise_rng, device=device) * 2 - 1
            grid = (surface.uv * 2 - 1 + noise * augment.grid_noise).clamp(-1, 1)  # paper, section 3.4
            surface = replace(surface, uv=(grid + 1) / 2)
        if self.body_from_pixel is not None:
            crop_from_pixel = torch.zeros(batch, 3, 3)
            crop_from_pixel[:, 0, 0] = crop_from_pixel[:, 1, 1] = 1 / scale
            crop_from_pixel[:, :2, 2], crop_from_pixel[:, 2, 2] = origin, 1
            rays = self.body_from_pixel[positions.to(device)] @ crop_from_pixel.to(device)
            surface = replace(surface, body_from_pixel=rays)
        if self.figures is not None:
            drawn = self.figures.planes(positions, origin, scale, (width, height), rng)
            surface = replace(surface, figures=drawn.to(device))
        return Batch(
            surface=surface,
            target=planes[:, COLOR] * 2 - 1,
            background=planes[:, BACKGROUND] * 2 - 1,
            mask=planes[:, ALPHA],
            valid=planes[:, VALID].round(),
            positions=positions,
        )

    def _resampled(self, positions: Tensor, source_x: Tensor, source_y: Tensor) -> Tensor:
        """The planes in [0, 1] at the source positions, bilinear: (B, NUM_PLANES, H, W)."""
        height, width = self.planes.shape[2:]
        grid_x = (source_x / width * 2 - 1)[:, None, :].expand(-1, height, -1)
        grid_y = (source_y / height * 2 - 1)[:, :, None].expand(-1, -1, width)
        grid = torch.stack([grid_x, grid_y], dim=-1)
        planes = self.planes[positions.to(self.planes.device)].float() / 255
        planes = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)
        # Beyond the crop there is nobody, only more background.
        inside = ((grid.abs() <= 1).all(dim=-1))[:, None]
        planes[:, COLOR] = torch.where(inside, planes[:, COLOR], planes[:, BACKGROUND])
        planes[:, ALPHA] *= inside
        return planes

    def _surface(self, positions: Tensor, source_x: Tensor, source_y: Tensor) -> Surface:
        """The raster at the nearest source pixels: uv must not be blended across the charts of the atlas."""
        height, width = self.planes.shape[2:]
        device = self.pixel.device
        columns, rows = source_x.floor().long(), source_y.floor().long()
        in_x, in_y = (columns >= 0) & (columns < width), (rows >= 0) & (rows < height)
        columns, rows = columns.clamp(0, width - 1).to(device), rows.clamp(0, height - 1).to(device)
        inside = (in_y[:, :, None] & in_x[:, None, :]).to(device)  # (B, H, W)
        pixels, chosen = [], []
        for item, position in enumerate(positions.tolist()):
            own = self.covered(position)
            lookup = torch.full((height * width,), -1, dtype=torch.int64, device=device)
            lookup[self.pixel[own].long()] = torch.arange(own.start, own.stop, device=device)
            found = lookup.view(height, width)[rows[item]][:, columns[item]]
            covered = ((found >= 0) & inside[item]).view(-1).nonzero()[:, 0]
            pixels.append(covered + item * height * width)
            chosen.append(found.view(-1)[covered])
        index = torch.cat(chosen)
        return Surface(torch.cat(pixels), self.uv(index), self.normal(index), (len(positions), height, width))


def room_of(recording: Recording) -> np.ndarray | None:
    """The recording's picture (H0, W0, 3) uint8 of the empty room; None where there is none of the frames' size."""
    plate, (width, height) = recording.plate(), recording.rig.color.image_wh
    return plate[0] if plate is not None and plate[0].shape[:2] == (height, width) else None


def crop_planes(
    color: np.ndarray,
    alpha: np.ndarray,
    box_px: Sequence[float],
    image_wh: tuple[int, int],
    room: np.ndarray | None = None,
) -> np.ndarray:
    """One frame (H0, W0, 3) uint8 with its matte (H0, W0) to the (NUM_PLANES, H, W) uint8 planes of its crop."""
    crop = crop_image(color, box_px, image_wh, cv2.BORDER_REPLICATE)
    matte = crop_image(alpha, box_px, image_wh, cv2.BORDER_CONSTANT)
    seen = crop_image(np.full(color.shape[:2], 255, np.uint8), box_px, image_wh, cv2.BORDER_CONSTANT)
    planes = np.empty((NUM_PLANES, image_wh[1], image_wh[0]), np.uint8)
    planes[COLOR] = crop.transpose(2, 0, 1)
    behind = None if room is None else crop_image(room, box_px, image_wh, cv2.BORDER_REPLICATE)
    planes[BACKGROUND] = fill_background(crop, matte, behind).transpose(2, 0, 1)
    planes[ALPHA] = np.rint(matte * 255)
    planes[VALID] = np.where(seen >= 128, 255, 0)
    return planes


def in_doubt(raster: CompactRaster, doubted_parts: np.ndarray, is_person: np.ndarray) -> np.ndarray:
    """(H, W) bool: where a frame must not teach, because it shows a part of the body whose pose is in doubt.

    Where such a part is drawn, with its surroundings; and where the matte (H, W) shows a person whom the rest of the
    body does not explain, as that is where the part may be in truth.
    """
    height, width = is_person.shape
    if not len(doubted_parts):
        return np.zeros((height, width), bool)
    part = np.zeros(height * width, np.uint8)
    part[raster.pixel] = raster.part
    doubted = np.isin(part, doubted_parts).reshape(height, width)
    others = (part > 0).reshape(height, width) & ~doubted
    radius = max(2, round(AROUND_DOUBT * height))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    around, explained = (cv2.dilate(mask.astype(np.uint8), disk) > 0 for mask in (doubted, others))
    return around | (is_person & ~explained)


def crop_image(image: np.ndarray, box_px: Sequence[float], image_wh: tuple[int, int], border: int) -> np.ndarray:
    """``box_px`` = (left, top, right, bottom) of an image resampled to ``image_wh``, as ``Camera.crop`` sees it.

    Each output pixel is the mean over its footprint, so that a shrunken picture does not alias.
    """
    left, top, right, bottom = (float(edge) for edge in box_px)
    width, height = image_wh
    repeat = max(1, int(np.ceil((bottom - top) / height - 0.01)))  # samples per output pixel, each way
    step_x, step_y = (right - left) / (width * repeat), (bottom - top) / (height * repeat)
    source_from_fine = np.array([[step_x, 0, left + step_x / 2 - 0.5], [0, step_y, top + step_y / 2 - 0.5]])
    fine = cv2.warpAffine(
        image,
        source_from_fine,
        (width * repeat, height * repeat),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=border,
    )
    return cv2.resize(fine, image_wh, interpolation=cv2.INTER_AREA) if repeat > 1 else fine


def fill_background(color: np.ndarray, alpha: np.ndarray, room: np.ndarray | None = None) -> np.ndarray:
    """The true picture outside the matte, the person painted over with what surrounds him: (H, W, 3) uint8.

    Push-pull (Gortler et al. 1996): average what is known into ever smaller pictures, fill holes on the way back.
    The matte is widened first, because the true edge is softer than any matte.  With ``room`` (H, W, 3) uint8, the same
    view without the person, only its difference from the picture is filled in: exposure and shadows go on behind him.
    """
    height, width = alpha.shape
    radius = max(2, round(0.015 * max(height, width)))
    person = cv2.dilate((alpha > 0.02).astype(np.uint8), np.ones((2 * radius + 1, 2 * radius + 1), np.uint8))
    known = 1 - person.astype(np.float32)
    if not known.any():
        return np.full_like(color, 128)
    base = room if room is not None and _is_of(room, color, known > 0) else np.zeros_like(color)
    filled = base + push_pull(color.astype(np.float32) - base, known)
    return np.where(known[..., None] > 0, color, np.rint(filled).clip(0, 255).astype(np.uint8))


def _is_of(room: np.ndarray, color: np.ndarray, known: np.ndarray) -> bool:
    """Whether a picture was taken of this room, from here: but for the exposure, most of what both show is the same."""
    apart = color[known].astype(np.float32) - room[known]
    return float(np.median(np.abs(apart - np.median(apart, axis=0)))) < ROOM_APART


def _joined(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))
