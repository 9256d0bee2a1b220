"""From the network's rough person to alpha: one picture's crop, its room, its depth, its edge.

H x W pixels of the picture, h x w of the network's map.  ``likelihood`` decides person or room, ``alpha`` draws the
edge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from capture.alpha import FAR_REACH, cleaned, enlarged, evidence, gated, matted
from capture.camera import Rig
from capture.glance import glance
from capture.likelihood import Room, posterior, rim_alpha, room_behind
from capture.matte_config import MatteConfig
from capture.parting import Whereabouts, somebody_else
from capture.plate import SAMPLES, SIDE_PX, Plate, Sample, fitted_wh, learned, reduced_to
from capture.recording import Recording
from capture.registration import depth_in_color, is_registered
from capture.segment import main_part

BODY_MARGIN = 0.11  # of the person's longer side, around the crop the edge is drawn in; more than likelihood.REACH
NETWORK_MARGIN, OWN_MARGIN = 0.015, 0.004  # of the picture: how far a mask may miss the person, when learning the room
SURE = 0.9  # probability by the colour of the person and the room that depth's gate does not overrule
TRUST_READ = 10.0  # times more than the network, where alpha was read off known colours


def refined(
    config: MatteConfig,
    recording: Recording,
    color: np.ndarray,
    probability: np.ndarray,
    depth_mm: np.ndarray | None,
    plate: Plate | None = None,
    place: Whereabouts | None = None,
) -> np.ndarray:
    """Alpha (H, W) float32 of a picture (H, W, 3) from its probability (h, w), its depth image and the empty room, if
    there are any; ``place``: where the person is."""
    crop = cut(config, recording.rig, color, probability, depth_mm)
    if crop is None:
        return np.zeros(color.shape[:2], np.float32)
    prior, firm = crop.prior, np.zeros_like(crop.prior)
    is_read = is_sure = np.zeros(prior.shape, bool)
    room = None if plate is None else room_of(plate, crop, color, probability)
    if room is not None:
        prior = posterior(prior, crop.color, room, crop.depth_m)
        is_known = np.isfinite(room.sigma)
        firm, is_sure = is_known.astype(np.float32), is_known & (prior > SURE)
    if crop.depth_m is not None:
        # Where somebody else is about, small surfaces and what lies at arm's length are what is left of him.
        is_alone = place is None or place.is_alone
        if place is not None and np.isfinite(place.distance_m):
            is_else = somebody_else(prior, crop.depth_m, place, config.gate_m, is_sure)
            prior, is_sure = np.where(is_else, np.float32(0), prior), is_sure & ~is_else
        reach_m = config.gate_m * (FAR_REACH if is_alone else 1)
        prior, separation = gated(prior, crop.depth_m, reach_m, crop.footprint_px, is_sure)
        firm = np.maximum(firm, separation)
    if room is not None:
        prior, is_read = rim_alpha(prior, crop.color, room)
    known = evidence(prior, firm, max(2.0, config.band * max(prior.shape)), is_read)
    trust = np.where(is_read, TRUST_READ * config.trust, config.trust)
    solved = cleaned(matted(crop.color, known, trust, config.smoothness), prior)
    left, top, right, bottom = crop.box_px
    alpha = np.zeros(color.shape[:2], np.float32)
    alpha[top:bottom, left:right] = enlarged(solved, crop.color, np.ascontiguousarray(color[top:bottom, left:right]))
    return alpha


@dataclass(frozen=True)
class Crop:
    """The surroundings of the person in one picture, at the size the edge is drawn at."""

    box_px: tuple[int, int, int, int]  # left, top, right, bottom in the picture
    color: np.ndarray  # (H, W, 3) uint8
    prior: np.ndarray  # (H, W) float32
    depth_m: np.ndarray | None  # (H, W) in the colour view, NaN = unknown
    footprint_px: float  # how far depth's edges may be off


def cut(
    config: MatteConfig, rig: Rig, color: np.ndarray, probability: np.ndarray, depth_mm: np.ndarray | None
) -> Crop | None:
    """The crop around the person in a picture (H, W, 3) of the rig's colour camera, of any size; None when there is
    nobody."""
    height, width = color.shape[:2]
    box_px = _crop_px(probability, (width, height))
    if box_px is None:
        return None
    left, top, right, bottom = box_px
    scale = min(1.0, config.edge_side_px / max(right - left, bottom - top))
    work_wh = (max(8, round((right - left) * scale)), max(8, round((bottom - top) * scale)))
    work = cv2.resize(color[top:bottom, left:right], work_wh, interpolation=cv2.INTER_AREA)
    prior = _sampled(probability, (width, height), box_px, work_wh)
    if depth_mm is None:
        return Crop(box_px, work, prior, None, 0.0)
    assert rig.depth is not None
    camera = rig.color.resize((width, height)).crop(box_px, work_wh)
    # Half a depth pixel, half a pixel of ours, and what two separate sensors disagree about.
    footprint_px = 0.5 * camera.fx_px / rig.depth.fx_px + (0.5 if is_registered(rig) else 1.0)
    return Crop(box_px, work, prior, depth_in_color(rig, depth_mm, camera), footprint_px)


def room_of(plate: Plate, crop: Crop, color: np.ndarray, probability: np.ndarray) -> Room | None:
    """The empty room behind a crop; None where this picture's camera could not be found."""
    frame_from_plate = plate.frame_from_plate(color, probability)
    if frame_from_plate is None:
        return None
    work_wh = (crop.prior.shape[1], crop.prior.shape[0])
    seen = plate.seen(frame_from_plate, crop.box_px, (color.shape[1], color.shape[0]), work_wh)
    return room_behind(seen, crop.color, crop.prior, plate.person_log)


def learn_plate(
    config: MatteConfig, recording: Recording, probability_of: Callable[[int], np.ndarray], found: Sequence[int]
) -> Plate | None:
    """The empty room of a clip, learned from frames ``found`` with the network's masks, then again with its own."""
    chosen = sorted({found[round(k * (len(found) - 1) / max(1, SAMPLES - 1))] for k in range(SAMPLES)})
    has_depth = config.use_depth and recording.rig.depth is not None and bool(recording.has_depth[chosen].all())
    probabilities = [probability_of(i) for i in chosen]
    # cv2 and numba let go of the interpreter, so two threads use two cores; each has a file of its own to read from.
    with ThreadPoolExecutor(config.workers) as threads:
        parts = [chosen[k :: config.workers] for k in range(config.workers)]
        read = [
            sample for part in threads.map(lambda i: _samples(recording.folder, i, has_depth), parts) for sample in part
        ]
        samples = [sample for _, sample in sorted(read, key=lambda entry: entry[0])]
        rough = learned([sample.halved() for sample in samples], probabilities, NETWORK_MARGIN)
        if rough is None:
            return None

        def better(sample: Sample, probability: np.ndarray) -> np.ndarray:
            return _outlined(config, recording.rig, rough, sample, main_part(probability))

        masks = list(threads.map(better, samples, probabilities))
    return learned(samples, masks, OWN_MARGIN)


def _samples(folder: Path, indices: Sequence[int], has_depth: bool) -> list[tuple[int, Sample]]:
    """Frames as the room is learned from them, with their numbers."""
    recording = Recording.load(folder)
    wh = fitted_wh(recording.rig.color.image_wh, SIDE_PX)
    result = []
    for i in indices:
        depth_mm = recording.depth_mm(i) if has_depth else None
        if depth_mm is not None:
            depth_m = depth_in_color(recording.rig, depth_mm, recording.rig.color.resize(wh))
            depth_mm = np.rint(1000 * np.nan_to_num(depth_m)).astype(np.uint16)
        result.append((i, Sample(reduced_to(glance(recording, i, max(wh)), wh), depth_mm)))
    return result


def _outlined(config: MatteConfig, rig: Rig, plate: Plate, sample: Sample, probability: np.ndarray) -> np.ndarray:
    """The person in a sample (h, w) as the network's probability and the rough room have it."""
    crop = cut(config, rig, sample.color, probability, None)
    room = None if crop is None else room_of(plate, crop, sample.color, probability)
    if crop is None or room is None:
        return probability
    left, top, right, bottom = crop.box_px
    depth_m = None
    if sample.depth_mm is not None:
        size = crop.prior.shape[::-1]
        seen_mm = cv2.resize(sample.depth_mm[top:bottom, left:right], size, interpolation=cv2.INTER_NEAREST)
        depth_m = np.where(seen_mm > 0, seen_mm * np.float32(1e-3), np.float32(np.nan))
    whole = np.zeros(sample.color.shape[:2], np.float32)
    found = posterior(crop.prior, crop.color, room, depth_m)
    whole[top:bottom, left:right] = cv2.resize(found, (right - left, bottom - top))
    return whole


def _crop_px(probability: np.ndarray, image_wh: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) of the person with a margin, in pixels of the picture; None when there is nobody."""
    rows, columns = np.nonzero(probability > 0.1)
    if not len(rows):
        return None
    scale_x, scale_y = image_wh[0] / probability.shape[1], image_wh[1] / probability.shape[0]
    left, right = columns.min() * scale_x, (columns.max() + 1) * scale_x
    top, bottom = rows.min() * scale_y, (rows.max() + 1) * scale_y
    margin = BODY_MARGIN * max(right - left, bottom - top) + 2
    return (
        max(0, int(left - margin)),
        max(0, int(top - margin)),
        min(image_wh[0], int(right + margin) + 1),
        min(image_wh[1], int(bottom + margin) + 1),
    )


def _sampled(
    probability: np.ndarray, image_wh: tuple[int, int], box_px: tuple[int, int, int, int], work_wh: tuple[int, int]
) -> np.ndarray:
    """The part ``box_px`` of a probability map (h, w) of the whole picture, resampled to ``work_wh``."""
    left, top, right, bottom = box_px
    x = (left + (np.arange(work_wh[0]) + 0.5) * (right - left) / work_wh[0]) * probability.shape[1] / image_wh[0] - 0.5
    y = (top + (np.arange(work_wh[1]) + 0.5) * (bottom - top) / work_wh[1]) * probability.shape[0] / image_wh[1] - 0.5
    map_x, map_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return cv2.remap(probability, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
