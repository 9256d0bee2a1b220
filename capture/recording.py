"""A recording on disk: the only module that knows the files of ``01_recording``.

N frames, H x W colour pixels, h x w depth pixels.

    frames.cap             all frames, their times and the rig (``capture.container``)
    openpose/000000.json   what OpenPose saw in this frame, where the source brought it along
    factory.npz            what the sensor itself says of its cameras, where it was filmed live and tells
    plate/color.png, depth.png   the empty room, where it was filmed before

or the plain layout, for other programs and for people (``pipeline.py convert --layout folder``), which is read alike:

    recording.json    rig, times, where it came from, what was said while importing
    color/000000.jpg  or .png; RGB
    depth/000000.png  uint16 millimetres, 0 = no return; absent for frames and recordings without depth
    openpose/, plate/
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from capture.camera import Rig
from capture.codec import decode_depth, encode_depth
from capture.container import FILE_NAME, Container, ContainerWriter, complete
from capture.errors import BROKEN_NPZ, UserError
from capture.files import decode_color, encode_jpeg, encode_png, read_bytes, read_depth, read_image, write_atomically

FIELDS_FILE = "recording.json"  # of the plain layout
FACTORY_FILE = "factory.npz"
LAYOUTS = ("container", "folder")
PNG_MAGIC = b"\x89PNG"


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
    container: Container | None = None  # None: the plain layout

    @staticmethod
    def load(folder: Path) -> Recording:
        """Open a recording, up to where it breaks off if it does.  Raises UserError when the folder holds none."""
        if (folder / FILE_NAME).is_file():
            return Recording.open(folder / FILE_NAME)
        try:
            fields = json.loads((folder / FIELDS_FILE).read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder}: no {FILE_NAME} and no readable {FIELDS_FILE} ({error}); import or record the subject again"
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

    @staticmethod
    def open(path: Path) -> Recording:
        """The recording in a container file.  Raises UserError when there is none, or not a single frame in it."""
        container = Container.open(path)
        fields, count = container.fields, len(container)
        if not count:
            raise UserError(f"{path}: not a single whole frame in it; import or record the subject again")
        notes = list(fields.get("notes", ()))
        if not container.is_finished:
            notes.append(
                f"the recording breaks off after {count} frames; {container.torn_bytes} bytes of an unfinished frame "
                "are left out"
            )
        try:
            return Recording(
                folder=path.parent,
                rig=Rig.from_json(fields["rig"]),
                times_s=container.index["time_s"].astype(float),
                has_depth=container.index["depth_bytes"] > 0,
                color_names=tuple(f"color/{i:06d}.{container.suffix(i)}" for i in range(count)),
                focal_is_known=bool(fields["focal_is_known"]),
                source=str(fields["source"]),
                notes=tuple(map(str, notes)),
                container=container,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: its description is incomplete ({error}); copy it again") from None

    def __len__(self) -> int:
        return len(self.color_names)

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Frame:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Frame(index, float(self.times_s[index]), self.color(index), self.depth_mm(index))

    def color(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB of one frame.  Raises UserError when it is damaged."""
        if self.container is None:
            return read_image(self.folder / self.color_names[index])
        image = decode_color(self.container.color(index))
        if image is None:
            raise UserError(f"{self.container.path}: frame {index} is not a readable picture; copy it again")
        return image

    def color_bytes(self, index: int) -> bytes:
        """The JPEG or PNG file of one frame, as it was recorded.  Raises UserError when it is damaged."""
        if self.container is None:
            return read_bytes(self.folder / self.color_names[index])
        return self.container.color(index)

    def depth_mm(self, index: int) -> np.ndarray | None:
        """(h, w) uint16 millimetres of one frame, or None."""
        if not self.has_depth[index]:
            return None
        if self.container is None:
            return read_depth(self.folder / "depth" / f"{index:06d}.png")
        try:
            return decode_depth(self.container.depth(index))
        except UserError as error:
            raise UserError(f"{self.container.path}, frame {index}: {error}") from None

    def openpose_path(self, index: int) -> Path | None:
        """OpenPose's file of one frame, where the source brought one along."""
        path = self.folder / "openpose" / f"{index:06d}.json"
        return path if path.is_file() else None

    def mask_path(self, index: int) -> Path | None:
        """The user's own mask of one frame, where the source brought one along."""
        path = self.folder / "masks" / f"{index:06d}.png"
        return path if path.is_file() else None

    @property
    def plate_path(self) -> Path | None:
        """The picture of the empty room, where it was filmed or the source brought one along."""
        path = self.folder / "plate" / "color.png"
        return path if path.is_file() else None

    def plate(self) -> tuple[np.ndarray, np.ndarray | None] | None:
        """The empty room: colour (H, W, 3) uint8 RGB, and depth (h, w) uint16 millimetres or None; None where it was
        not filmed.  Raises UserError when a picture is broken."""
        color, depth = self.folder / "plate" / "color.png", self.folder / "plate" / "depth.png"
        if not color.is_file():
            return None
        return read_image(color), read_depth(depth) if depth.is_file() else None

    def factory(self) -> dict[str, np.ndarray]:
        """What the sensor itself said of its cameras; empty where that is not known.  Raises UserError for a broken
        file."""
        path = self.folder / FACTORY_FILE
        if not path.is_file():
            return {}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        except BROKEN_NPZ as error:
            raise UserError(f"{path}: cannot be read ({error}); remove it, nothing but its numbers is lost") from None

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


# How the frames of a RecordingWriter are laid out: who converts says so without every importer knowing.
layout: ContextVar[str] = ContextVar("layout", default="container")


class RecordingWriter:
    """Appends frames to a folder, in a container unless ``layout`` says otherwise; ``finish`` ends the recording.

    In the plain layout recording.json is written last, so that an unfinished folder is never read; a container is read
    up to its last whole frame.  Where ``taker`` is set, frames go to it as (rig, focal_is_known, time_s, color,
    depth_mm) and nothing is written.
    """

    def __init__(self, folder: Path, rig: Rig, source: str, focal_is_known: bool = True) -> None:
        self._folder, self._rig, self._source, self._focal_is_known = folder, rig, source, focal_is_known
        self._count = 0
        self._notes: list[str] = []
        self._taker = taker.get()
        self._out: _Pictures | ContainerWriter | None = None
        if self._taker is not None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        fields = {"rig": rig.to_json(), "focal_is_known": focal_is_known, "source": source}
        if layout.get() == "folder":
            self._out = _Pictures(folder, fields)
        else:
            self._out = ContainerWriter(folder / FILE_NAME, fields)

    def note(self, text: str) -> None:
        """Keep something the user should know about this recording; the report shows it."""
        self._notes.append(text)

    def add(self, time_s: float, color: np.ndarray | bytes, depth_mm: np.ndarray | None = None) -> None:
        """Append a frame: colour (H, W, 3) uint8 RGB, or the bytes of a JPEG or PNG file that are kept as they are;
        depth (h, w) uint16 millimetres or None.  Raises OSError when the disk refuses."""
        if self._taker is not None:
            self._taker(self._rig, self._focal_is_known, float(time_s), color, depth_mm)
            self._count += 1
            return
        color = color if isinstance(color, bytes) else encode_jpeg(color)
        if isinstance(self._out, _Pictures):
            self._out.append(float(time_s), color, b"" if depth_mm is None else encode_png(depth_mm))
            self._count += 1
        else:
            self.add_encoded(time_s, color, b"" if depth_mm is None else encode_depth(depth_mm))

    def add_encoded(self, time_s: float, color: bytes, depth: bytes = b"") -> None:
        """Append a frame whose depth went through ``capture.codec`` already; empty for none."""
        assert isinstance(self._out, ContainerWriter)
        self._out.append(float(time_s), color, depth)
        self._count += 1

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

    def add_plate(self, color: np.ndarray, depth_mm: np.ndarray | None) -> None:
        """Keep the empty room: (H, W, 3) uint8 RGB, (h, w) uint16.  Raises OSError when the disk refuses."""
        if self._taker is not None:
            return
        (self._folder / "plate").mkdir(exist_ok=True)
        write_atomically(self._folder / "plate" / "color.png", encode_png(color))
        if depth_mm is not None:
            write_atomically(self._folder / "plate" / "depth.png", encode_png(depth_mm))

    def add_factory(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep what the sensor itself says of its cameras.  Raises OSError when the disk refuses."""
        if self._taker is not None or not arrays:
            return
        data, named = io.BytesIO(), dict[str, Any](arrays)
        np.savez(data, **named)
        write_atomically(self._folder / FACTORY_FILE, data.getvalue())

    def __len__(self) -> int:
        return self._count

    @property
    def num_synced(self) -> int:
        """How many frames are known to be on the disk: see ``capture.container``."""
        return self._out.num_synced if isinstance(self._out, ContainerWriter) else 0

    @property
    def num_bytes(self) -> int:
        """What the container holds so far."""
        return self._out.num_bytes if isinstance(self._out, ContainerWriter) else 0

    def finish(self) -> None:
        """End the recording.  Raises UserError for one without frames, OSError when the disk refuses."""
        if not self._count:
            self.close()
            raise UserError(f"{self._source}: not a single frame could be read; is it the right file?")
        if self._out is not None:
            self._out.finish({"notes": self._notes})

    def close(self) -> None:
        """Let go of the file without ending the recording."""
        if isinstance(self._out, ContainerWriter):
            self._out.close()


class _Pictures:
    """The plain layout: a file per picture."""

    def __init__(self, folder: Path, fields: dict) -> None:
        self._folder, self._fields = folder, fields
        self._frames: list[dict] = []
        (folder / "color").mkdir(exist_ok=True)

    def append(self, time_s: float, color: bytes, depth_png: bytes) -> None:
        index = len(self._frames)
        name = f"color/{index:06d}.{'png' if color.startswith(PNG_MAGIC) else 'jpg'}"
        (self._folder / name).write_bytes(color)
        if depth_png:
            (self._folder / "depth").mkdir(exist_ok=True)
            (self._folder / "depth" / f"{index:06d}.png").write_bytes(depth_png)
        self._frames.append({"time_s": time_s, "color": name, "has_depth": bool(depth_png)})

    def finish(self, fields: dict) -> None:
        described = json.dumps({**self._fields, **fields, "frames": self._frames}, indent=1)
        write_atomically(self._folder / FIELDS_FILE, described.encode())


def holds_recording(folder: Path) -> bool:
    """Whether a folder is a recording of ours, in either layout."""
    return any((folder / name).is_file() for name in (FILE_NAME, FIELDS_FILE))


def complete_recording(folder: Path, note: str) -> int:
    """Finish a recording that broke off, in its folder; returns its frames, 0 where there is not one to keep.

    Raises UserError when there is no container, OSError when the disk refuses.
    """
    container = Container.open(folder / FILE_NAME)
    if not len(container):
        return 0
    return complete(folder / FILE_NAME, {"notes": [note.format(count=len(container))]})
