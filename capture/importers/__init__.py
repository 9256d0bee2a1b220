"""Stage 01 for recordings that already exist: one module per foreign format, each ends in a ``Recording``.

A video file or a folder enters, ``01_recording`` leaves.  The format is recognised by what a source contains, not by
its name.  N frames, H x W colour pixels, h x w depth pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from capture.camera import Camera
from capture.errors import UserError

log = logging.getLogger(__name__)

LAYOUTS = (
    "a video file, a recording of Kinect Studio (.xef), Azure Kinect (.mkv), RealSense (.bag), Record3D (.r3d) or "
    "ScanNet (.sens), a TUM RGB-D folder (rgb.txt, depth.txt), a folder of numbered images (0001.jpg, 0001_depth.png, "
    "0001_camera.xml, or color/ and depth/ with a calibration.json), a PROX recording (Color/, Depth/, with "
    "../../calibration/), or a recording of ours (frames.cap)"
)
GUESSED_FOCAL_PER_SIDE = 1.2  # of the longer side: phones film at 1.0 to 1.4, and the fit refines it


@dataclass(frozen=True)
class ImportConfig:
    """What to take from a source.  The defaults take all of it."""

    no_depth: bool = False  # leave depth out: what would colour alone give?
    start: int = 0  # first source frame to take, counted from 0
    every: int = 1  # take each n-th frame: fewer frames of a slow motion
    max_frames: int = 0  # stop after so many frames, 0 = all
    allow_truncated: bool = False  # a file that breaks off is refused, as half a copy is rarely meant
    frames_per_second: float = 30.0  # for numbered images, which carry no times
    depth_units_per_m: float = 0.0  # overrides what the format says, 0 = believe it
    focal_px: float = 0.0  # overrides the colour focal length, 0 = from the source, or guessed
    turn_deg: int = 0  # clockwise, for a camera that lay on its side: 90, 180, 270
    mirrored: bool = False  # exchange left and right, for sources that store what a mirror shows

    def __post_init__(self) -> None:
        for name, value, least in (
            ("start", self.start, 0),
            ("every", self.every, 1),
            ("max_frames", self.max_frames, 0),
        ):
            if value < least:
                raise UserError(f"recording.{name} = {value}: must be at least {least}")
        if not self.frames_per_second > 0:
            raise UserError(f"recording.frames_per_second = {self.frames_per_second}: must be positive")
        if self.turn_deg not in (0, 90, 180, 270):
            raise UserError(f"recording.turn_deg = {self.turn_deg}: must be 0, 90, 180 or 270, clockwise")
        if self.depth_units_per_m < 0 or self.focal_px < 0:
            raise UserError(
                "recording.depth_units_per_m and recording.focal_px: must not be negative; 0 = from the source"
            )

    def takes(self, index: int) -> bool:
        """Whether source frame ``index`` is wanted, by start, every and max_frames."""
        steps, remainder = divmod(index - self.start, self.every)
        return index >= self.start and remainder == 0 and not (self.max_frames and steps >= self.max_frames)

    def ends_before(self, index: int) -> bool:
        """Whether no source frame from ``index`` on is wanted."""
        return self.max_frames > 0 and index > self.start + (self.max_frames - 1) * self.every

    def taken(self, num_frames: int) -> list[int]:
        """The wanted ones among ``num_frames`` source frames.  Raises UserError when there are none."""
        indices = [i for i in range(num_frames) if self.takes(i)]
        if num_frames and not indices:
            raise UserError(f"recording.start = {self.start}: the source has only {num_frames} frames; start earlier")
        return indices


def guessed_camera(image_wh: tuple[int, int]) -> Camera:
    """A camera for a picture of unknown origin: usual focal length, centre in the middle."""
    focal_px = GUESSED_FOCAL_PER_SIDE * max(image_wh)
    return Camera(image_wh, focal_px, focal_px, image_wh[0] / 2, image_wh[1] / 2)


def color_camera(config: ImportConfig, camera: Camera | None, image_wh: tuple[int, int]) -> tuple[Camera, bool, str]:
    """(camera, whether its focal length is known, what to tell the user) from what the source says, or None.

    Raises UserError when the source's camera is of another picture size than its pictures.
    """
    known, told = camera is not None, ""
    camera = camera or guessed_camera(image_wh)
    if camera.image_wh != image_wh:
        raise UserError(
            f"camera of {_by(camera.image_wh)} pixels, pictures of {_by(image_wh)}; correct the calibration file"
        )
    if config.focal_px:
        told = f"focal length set by recording.focal_px = {config.focal_px:g} px"
        return replace(camera, fx_px=config.focal_px, fy_px=config.focal_px), True, told
    if not known:
        told = f"the source names no focal length: {camera.fx_px:.0f} px guessed, the fit refines it"
    return camera, known, told


def record(config: ImportConfig, out_dir: Path, source: str | Path) -> None:
    """Import ``source`` into ``out_dir`` (files of ``capture.recording``).  Raises UserError when it cannot."""
    path = Path(source)
    recognise(path).importer(config, out_dir, path)


@dataclass(frozen=True)
class Layout:
    """What a source was recognised as."""

    words: str  # for people
    importer: Callable[[ImportConfig, Path, Path], None]
    describe: Callable[[Path], str] | None = None  # what a source holds, in words; raises UserError


def recognise(path: Path) -> Layout:
    """The layout of a source, by what it contains.  Raises UserError when it is none of ours, or cannot be read."""
    # Decoders are imported late: the command line must answer at once.
    from capture.importers import numbered, own, prox, tum

    try:
        names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else None
        if names is None and not path.is_file():
            raise UserError(f"{path}: no such file or folder; check the path")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if names is None:
        return _recognise_file(path)
    if not names:
        raise UserError(f"{path}: the folder is empty; give {LAYOUTS}")
    for words, module, importer in (
        ("a recording of ours", own, own.import_own),
        ("a TUM RGB-D folder", tum, tum.import_tum),
        ("a PROX recording", prox, prox.import_prox),
        ("a folder of numbered pictures", numbered, numbered.import_numbered),
    ):
        if module.recognises(path):
            return Layout(words, importer, module.describe)
    found = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise UserError(f"{path}: no recording recognised in this folder (found {found}); give {LAYOUTS}")


def _recognise_file(path: Path) -> Layout:
    """The layout of a file, by its first bytes; what nobody claims is a video, or refused as one."""
    from capture.container import is_container
    from capture.importers import azure, own, realsense, record3d, sens, video, xef

    if is_container(path):
        return Layout("a recording of ours", own.import_own, own.describe)
    for words, module, importer in (
        ("a recording of Kinect Studio", xef, xef.import_xef),
        ("an Azure Kinect recording", azure, azure.import_azure),
        ("a ROS 1 bag", realsense, realsense.import_realsense),
        ("a Record3D recording", record3d, record3d.import_record3d),
        ("a ScanNet recording", sens, sens.import_sens),
    ):
        if module.recognises(path):
            return Layout(words, importer, module.describe)
    return Layout("a video file", video.import_video, video.describe)


def _by(image_wh: tuple[int, int]) -> str:
    return f"{image_wh[0]}x{image_wh[1]}"
