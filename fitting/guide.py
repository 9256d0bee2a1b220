"""What whoever is being filmed should do next: which sides are missing, is everything in the picture, how far away.

Frames enter a process of its own, so that looking at them never holds up recording them; sightings come back.
33 landmarks in MediaPipe's order, 8 sectors of 45 degrees around the person.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType

import cv2
import numpy as np

from capture.camera import Rig
from capture.errors import UserError
from capture.recording import Frame
from capture.registration import depth_in_color
from capture.segment import NETWORK_SIDE_PX
from capture.workers import start_worker
from fitting import verdict
from fitting.keypoints import LANDMARK_NAMES
from fitting.stream import Look, PoseStream, SideStream

log = logging.getLogger(__name__)

SECTORS = (  # counted by the angle from the chest to the camera, to the person's left
    "front", "left front", "left side", "left back", "back", "right back", "right side", "right front",
)  # fmt: skip
SECTOR_DEG = 360 / len(SECTORS)
ENOUGH_LOOKS = 3  # per sector: one is likely a glitch, two are a glitch that lasted
FAR_M, NEAR_M = 4.5, 0.8  # the Kinect's depth degrades beyond (Microsoft, DepthFrame); nobody is in the picture nearer
LOOK_EVERY_S = 0.12  # eight looks a second: who turns slowly is seen from every side often enough
GIVE_WAY = 5  # niceness of the guide: a late hint is no loss, a late frame is
DEPTH_WIDTH_PX = 160  # of the picture in which the person's distance is looked up
HEAD = tuple(range(11))
HANDS = tuple(LANDMARK_NAMES.index(f"{side}_{part}") for side in ("left", "right") for part in ("wrist", "index"))
FEET = tuple(LANDMARK_NAMES.index(f"{side}_{part}") for side in ("left", "right") for part in ("heel", "foot_index"))
TRUNK = tuple(LANDMARK_NAMES.index(f"{side}_{part}") for side in ("left", "right") for part in ("shoulder", "hip"))
CROWN_PER_HEAD = 0.6  # how far the crown is above the face's middle, in distances from there to the shoulders


@dataclass(frozen=True)
class Sighting:
    """What was seen in one frame."""

    time_s: float
    is_there: bool
    azimuth_deg: float = float("nan")  # from the chest to the camera, positive to the person's left
    outside: str = ""  # what is beyond the picture's edge, in words
    distance_m: float = float("nan")


class Sides:
    """Which sides of the person were seen, and what to do about the others."""

    def __init__(self) -> None:
        self._looks: Counter[int] = Counter()
        self._now_deg: float | None = None

    def add(self, azimuth_deg: float) -> None:
        """The camera sees the person from here."""
        self._now_deg = azimuth_deg
        self._looks[sector_of(azimuth_deg)] += 1

    @property
    def seen(self) -> tuple[str, ...]:
        """The sectors that were seen often enough, front first, then round by the left."""
        return tuple(name for k, name in enumerate(SECTORS) if self._looks[k] >= ENOUGH_LOOKS)

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(name for name in SECTORS if name not in self.seen)

    def advice(self) -> str:
        """One line: where to turn; empty when every side was seen."""
        if self._now_deg is None or not self.missing:
            return ""
        turns = {name: turn_deg(self._now_deg, SECTORS.index(name) * SECTOR_DEG) for name in self.missing}
        nearest = min(turns, key=lambda name: abs(turns[name]))
        where = "right" if turns[nearest] > 0 else "left"
        return f"not seen yet: {', '.join(self.missing)}; turn to your {where}, slowly"


def sector_of(azimuth_deg: float) -> int:
    """The sector in which an azimuth lies."""
    return round(azimuth_deg / SECTOR_DEG) % len(SECTORS)


def turn_deg(from_deg: float, to_deg: float) -> float:
    """The shorter way between two azimuths, in (-180, 180].  Who turns to her right raises the camera's azimuth."""
    return -((from_deg - to_deg + 180.0) % 360.0 - 180.0)


def azimuth_deg(world_m: np.ndarray) -> float:
    """Where the camera is around a person of landmarks (33, 3) in the camera's axes: 0 before the chest, positive to
    the person's left; NaN for a trunk that points at the camera with its head or its feet."""
    ahead = verdict.trunk_ahead(world_m)
    left = world_m[TRUNK[0]] - world_m[TRUNK[2]] + world_m[TRUNK[1]] - world_m[TRUNK[3]]
    toward_ahead, toward_left = -ahead[2], -left[2] / max(float(np.linalg.norm(left)), 1e-9)  # the camera is at -z
    if np.hypot(toward_ahead, toward_left) < 0.5:
        return float("nan")
    return float(np.degrees(np.arctan2(toward_left, toward_ahead)))


def outside_words(points_px: np.ndarray, image_wh: tuple[int, int]) -> str:
    """Which parts of a person (33, 2) lie beyond the edge of the picture, in words with the remedy; empty for none."""
    width, height = image_wh
    face_y, shoulders_y = points_px[list(HEAD), 1].mean(), points_px[list(TRUNK[::2]), 1].mean()
    parts = []
    if face_y - CROWN_PER_HEAD * max(shoulders_y - face_y, 0) < 0:
        parts.append("head")
    hands = points_px[list(HANDS)]
    if (hands[:, 0] < 0).any() or (hands[:, 0] >= width).any() or (hands[:, 1] < 0).any():
        parts.append("hands")
    if (points_px[list(FEET), 1] >= height).any():
        parts.append("feet")
    return f"{' and '.join(parts)} out of the picture: step back" if parts else ""


def sighting(rig: Rig, time_s: float, look: Look | None, depth_mm: np.ndarray | None) -> Sighting:
    """What a frame says; ``look`` is of the reduced picture, in its own pixels scaled to the rig's colour camera."""
    if look is None:
        return Sighting(time_s, False)
    outside = outside_words(look.points_px, rig.color.image_wh)
    return Sighting(time_s, True, azimuth_deg(look.world_m), outside, _distance_m(rig, look.points_px, depth_mm))


def _distance_m(rig: Rig, points_px: np.ndarray, depth_mm: np.ndarray | None) -> float:
    if depth_mm is None or rig.depth is None:
        return float("nan")
    scale = DEPTH_WIDTH_PX / rig.color.image_wh[0]
    camera = rig.color.resize((DEPTH_WIDTH_PX, round(rig.color.image_wh[1] * scale)))
    depth_m = depth_in_color(rig, depth_mm, camera)
    trunk = points_px[list(TRUNK)] * scale
    middle = (trunk.mean(axis=0) + 0.5 * (trunk - trunk.mean(axis=0))).astype(int)  # inside the chest, off its edge
    inside = (middle >= 0).all(axis=1) & (middle < camera.image_wh).all(axis=1)
    found = depth_m[middle[inside, 1], middle[inside, 0]]
    return float(np.median(found[np.isfinite(found)])) if np.isfinite(found).any() else float("nan")


def warnings(seen: Sighting) -> list[str]:
    """What is wrong with how the person stands, for people."""
    if not seen.is_there:
        return ["nobody in the picture"]
    words = [seen.outside] if seen.outside else []
    if seen.distance_m > FAR_M:
        words.append(f"{seen.distance_m:.1f} m away: come nearer than {FAR_M:g} m, depth is unreliable beyond")
    elif seen.distance_m < NEAR_M:
        words.append(f"{seen.distance_m:.1f} m away: step back")
    return words


class Guide:
    """Looks at frames in another process.  A context manager; nothing but ``wait`` waits for a look, and ``offer`` only
    until the picture is handed over."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.sides = Sides()
        self.latest: Sighting | None = None
        self._is_busy = True  # until it says that it is ready
        self._offered_s = -float("inf")
        self._is_counting = False

    def count_sides(self) -> None:
        """From now on, what is seen is recorded, too."""
        self._is_counting = True

    def offer(self, frame: Frame) -> bool:
        """Give it a frame to look at if it has nothing to do and the last one is LOOK_EVERY_S ago; whether it took
        it."""
        self.poll()
        if self._is_busy or not self._process.is_alive():
            return False
        if 0 <= frame.time_s - self._offered_s < LOOK_EVERY_S:
            return False
        try:
            self._ours.send((frame.index, frame.time_s, reduced_quickly(frame.color), frame.depth_mm))
        except OSError:  # it has just died; recording goes on
            return False
        self._is_busy, self._offered_s = True, frame.time_s
        return True

    def poll(self) -> Sighting | None:
        """What it saw last; None while it has seen nothing."""
        try:
            while self._ours.poll():
                found = self._ours.recv()
                self._is_busy = False
                if found is not None:
                    self.latest = found
                    if self._is_counting and found.is_there and np.isfinite(found.azimuth_deg):
                        self.sides.add(found.azimuth_deg)
        except (EOFError, OSError):
            if not self._is_busy:
                log.warning("the guide has ended; recording goes on without it")
            self._is_busy = True
        return self.latest

    def wait(self, timeout_s: float) -> bool:
        """Wait until it can look at a frame; whether it can."""
        if self._is_busy and self._ours.poll(timeout_s):
            self.poll()
        return not self._is_busy

    def __enter__(self) -> Guide:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_look, args=(theirs, self._rig), daemon=True)
        self._process.start()
        theirs.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ours.close()
        self._process.terminate()
        self._process.join(timeout=10)


def reduced_quickly(color: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) as large as the network reads it, in a tenth of the time that other ratios than halves
    take: this is done where frames are recorded."""
    while max(color.shape[:2]) >= 2 * NETWORK_SIDE_PX:
        color = cv2.resize(color, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    scale = NETWORK_SIDE_PX / max(color.shape[:2])
    return color if scale >= 1 else cv2.resize(color, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)


def _look(ours: Connection, rig: Rig) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the recording
    if hasattr(os, "nice"):
        os.nice(GIVE_WAY)
    start_worker()
    stream, sides = PoseStream(), SideStream()
    scale: float | None = None
    try:
        stream(np.zeros((64, 64, 3), np.uint8))  # its graph is built with the first picture
        ours.send(None)
        while True:
            index, time_s, color, depth_mm = ours.recv()
            scale = rig.color.image_wh[0] / color.shape[1] if scale is None else scale
            ours.send(seen(rig, stream(color), sides, index, time_s, depth_mm, scale))
    except (EOFError, OSError):  # nobody is interested any more
        return


def seen(
    rig: Rig, look: Look | None, sides: SideStream, index: int, time_s: float, depth_mm: np.ndarray | None, scale: float
) -> Sighting:
    """A sighting from what the network saw in a picture ``scale`` times smaller than the camera's."""
    if look is not None:
        if sides.is_swapped(index, look.world_m):
            look = look.with_sides_exchanged()
        look = Look(look.points_px * scale, look.visibility, look.world_m, look.probability)
    try:
        return sighting(rig, time_s, look, depth_mm)
    except UserError:  # a depth image of another size than the rig's: the recording says so, not the guide
        return sighting(rig, time_s, look, None)
