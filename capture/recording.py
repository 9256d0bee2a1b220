"""A recording on disk: the only module that knows the files of ``01_recording``.

N frames, H x W colour pixels, h x w depth pixels.

    recording.json    rig, times, where it came from, what was said while importing
    color/000000.jpg  or .png; RGB
    depth/000000.png  uint16 millimetres, 0 = no return; absent for frames and recordings without depth
    openpose/000000.json   what OpenPose saw in this frame, where the source brought it along
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from capture.camera import Rig
from capture.errors import UserError

JPEG_QUALITY = 95  # about 15 MB/s at 1080p30, visually lossless


@dataclass(frozen=True)
class Frame:
    """One moment: colour, and depth where the sensor had one."""

    index: int
    time_s: float
    color: np.ndarray  # (H, W, 3) uint8 RGB
    depth_mm: np.ndarray | None  # (h, w) uint16, 0 = no return


@dataclass(frozen=True)
class Recording:
    """Lazy sequence of frames.  ``recording[i]`` decodes frame i."""

    folder: Path
    rig: Rig
    times_s: np.ndarray  # (N,)
    has_depth: np.ndarray  # (N,) bool
    color_names: tuple[str, ...]
    focal_is_known: bool  # False: the importer guessed the colour focal length, the fit may refine it
    source: str  # what was imported, for people
    notes: tuple[str, ...] = field(default=())  # what the importer had to say

    @staticmethod
    def load(folder: Path) -> Recording:
        """Open a recording.  Raises UserError when the folder holds none."""
        try:
            fields = json.loads((folder / "recording.json").read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder}: no readable recording.json ({error}); import or record the subject again"
            ) from None
        frames = fields["frames"]
        return Recording(
            folder=folder,
            rig=Rig.from_json(fields["rig"]),
            times_s=np.array([f["time_s"] for f in frames], float),
            has_depth=np.array([f["has_depth"] for f in frames], bool),
            color_names=tuple(f["color"] for f in frames),
            focal_is_known=fields["focal_is_known"],
            source=fields["source"],
            notes=tuple(fields["notes"]),
        )

    def __len__(self) -> int:
        return len(self.color_names)

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Frame:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Frame(index, float(self.times_s[index]), self.color(index), self.depth_mm(index))

    def color(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of one frame."""
        return read_image(self.folder / self.color_names[index])

    def depth_mm(self, index: int) -> np.ndarray | None:
        """(h, w) uint16 millimetres of one frame, or None."""
        if not self.has_depth[index]:
            return None
        return read_depth(self.folder / "depth" / f"{index:06d}.png")

    def openpose_path(self, index: int) -> Path | None:
        """OpenPose's file of one frame, where the source brought one along."""
        path = self.folder / "openpose" / f"{index:06d}.json"
        return path if path.is_file() else None

    def mask_path(self, index: int) -> Path | None:
        """The user's own mask of one frame, where the source brought one along."""
        path = self.folder / "masks" / f"{index:06d}.png"
        return path if path.is_file() else None

    @property
    def background_path(self) -> Path | None:
        """The picture of the empty room, where the source brought one along."""
        path = self.folder / "background.png"
        return path if path.is_file() else None

    @property
    def frames_per_second(self) -> float:
        """Median rate; 30 for a single frame."""
        steps_s = np.diff(self.times_s)
        return float(1 / np.median(steps_s)) if len(steps_s) and np.median(steps_s) > 0 else 30.0


# Who takes the frames of a RecordingWriter instead of its folder: whatever imports or films can be watched live, and
# reads its source exactly as it always does.
taker: ContextVar[Callable[[Rig, bool, float, np.ndarray | bytes, np.ndarray | None], None] | None] = ContextVar(
    "taker", default=None
)


class RecordingWriter:
    """Appends frames to a folder; ``finish`` writes recording.json last, so that an unfinished folder is never read.

    Where ``taker`` is set, frames go to it as (rig, focal_is_known, time_s, color, depth_mm) and nothing is written.
    """

    def __init__(self, folder: Path, rig: Rig, source: str, focal_is_known: bool = True) -> None:
        self._folder, self._rig, self._source, self._focal_is_known = folder, rig, source, focal_is_known
        self._frames: list[dict] = []
        self._notes: list[str] = []
        self._taker = taker.get()
        if self._taker is None:
            (folder / "color").mkdir(parents=True, exist_ok=True)

    def note(self, text: str) -> None:
        """Keep something the user should know about this recording; the report shows it."""
        self._notes.append(text)

    def add(self, time_s: float, color: np.ndarray | bytes, depth_mm: np.ndarray | None = None) -> None:
        """Append a frame: colour (H, W, 3) uint8 RGB, or the bytes of a JPEG or PNG file that are kept as they are;
        depth (h, w) uint16 millimetres or None.  Raises OSError when the disk refuses."""
        index = len(self._frames)
        if self._taker is not None:
            self._taker(self._rig, self._focal_is_known, float(time_s), color, depth_mm)
            self._frames.append({"time_s": float(time_s)})
            return
        if isinstance(color, bytes):
            suffix = "png" if color.startswith(b"\x89PNG") else "jpg"
            data = color
        else:
            suffix, data = "jpg", encode_jpeg(color)
        name = f"color/{index:06d}.{suffix}"
        (self._folder / name).write_bytes(data)
        if depth_mm is not None:
            (self._folder / "depth").mkdir(exist_ok=True)
            (self._folder / "depth" / f"{index:06d}.png").write_bytes(encode_png(depth_mm))
        self._frames.append({"time_s": float(time_s), "color": name, "has_depth": depth_mm is not None})

    def add_openpose(self, index: int, data: bytes) -> None:
        """Keep OpenPose's JSON file of frame ``index`` as it is.  Raises OSError when the disk refuses."""
        if self._taker is not None:
            return
        (self._folder / "openpose").mkdir(exist_ok=True)
        (self._folder / "openpose" / f"{index:06d}.json").write_bytes(data)

    def add_mask(self, index: int, mask: np.ndarray) -> None:
        """Keep the user's own mask (H, W) uint8 of frame ``index``.  Raises OSError when the disk refuses."""
        if self._taker is not None:
            return
        (self._folder / "masks").mkdir(exist_ok=True)
        (self._folder / "masks" / f"{index:06d}.png").write_bytes(encode_png(mask))

    def add_background(self, color: np.ndarray) -> None:
        """Keep a picture (H, W, 3) uint8 of the empty room.  Raises OSError when the disk refuses."""
        if self._taker is None:
            (self._folder / "background.png").write_bytes(encode_png(color))

    def __len__(self) -> int:
        return len(self._frames)

    def finish(self) -> None:
        """Write recording.json.  Raises UserError for a recording without frames."""
        if not self._frames:
            raise UserError(f"{self._source}: not a single frame could be read; is it the right file?")
        if self._taker is not None:
            return
        fields = {
            "rig": self._rig.to_json(),
            "focal_is_known": self._focal_is_known,
            "source": self._source,
            "notes": self._notes,
            "frames": self._frames,
        }
        write_atomically(self._folder / "recording.json", json.dumps(fields, indent=1).encode())


def encode_jpeg(color: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """(H, W, 3) uint8 RGB to the bytes of a JPEG file."""
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(color, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return data.tobytes()


def encode_png(image: np.ndarray) -> bytes:
    """(H, W) uint8 or uint16, or (H, W, 3) or (H, W, 4) uint8 RGB(A), to the bytes of a PNG file."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert ok
    return data.tobytes()


def decode_color(data: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB of the bytes of a JPEG or PNG file; None when they are none."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB.  Raises UserError when the file is missing or broken."""
    return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_gray(path: Path) -> np.ndarray:
    """(H, W) uint8.  Raises UserError when the file is missing or broken."""
    return _decode(path, cv2.IMREAD_GRAYSCALE)


def read_depth(path: Path) -> np.ndarray:
    """(h, w) uint16.  Raises UserError when the file is missing, broken or not a 16-bit image."""
    depth = _decode(path, cv2.IMREAD_UNCHANGED)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise UserError(f"{path}: {depth.dtype} with shape {depth.shape} is not a 16-bit depth image")
    return depth


def _decode(path: Path, flags: int) -> np.ndarray:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); is the recording complete?") from None
    image = (
        cv2.imdecode(
            np.frombuffer(data, np.uint8),
            flags if flags == cv2.IMREAD_UNCHANGED else flags | cv2.IMREAD_IGNORE_ORIENTATION,
        )
        if data
        else None
    )
    if image is None:
        raise UserError(f"{path}: not a readable image; copy it again")
    return image


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is never seen half-written: temporary name, fsync, rename."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
