"""OpenPose's JSON files of a source become those of the recording: ``openpose/000000.json``, by recording frame.

OpenPose names the file of a frame ``NAME_000000000012_keypoints.json`` after a video (counted from 0) and
``STEM_keypoints.json`` after a picture (its output format: github.com/CMU-Perceptual-Computing-Lab/openpose,
doc/02_output.md).  So a file belongs to the picture of its stem; otherwise the last number in its name counts source
frames from 0, or from 1 where there is no number 0 and the last number is the number of frames.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from capture.beside import OPENPOSE_SUFFIX, openpose_files
from capture.errors import UserError
from capture.recording import RecordingWriter

log = logging.getLogger(__name__)

MAX_BYTES = 20_000_000  # a frame with a hundred people, face and hands, is 1 MB
MAX_BEYOND = 0.02  # of the frames: decoders disagree by a frame or two about where a video ends
MIN_SHARE = 0.5  # of the frames: OpenPose writes a file for every frame, with people or without


def carry(
    writer: RecordingWriter, folder: Path | None, frames: Sequence[int], num_frames: int, stems: Sequence[str] = ()
) -> None:
    """Give the recording the OpenPose files of ``folder``; nothing happens where that is None.

    ``frames`` are the source frames that became the recording's frames 0, 1, ...; ``num_frames`` is how many the source
    has, 0 = unknown; ``stems`` are the names of all its pictures, where it has pictures.  Raises UserError for files
    that are unreadable, and for files of another film.
    """
    if folder is None:
        return
    by_frame = files_by_frame(folder, num_frames, stems)
    missing = 0
    for index, frame in enumerate(frames):
        if frame in by_frame:
            writer.add_openpose(index, read_checked(by_frame[frame]))
        else:
            missing += 1
    if missing > (1 - MIN_SHARE) * len(frames):
        raise UserError(
            f"{folder}: OpenPose files for only {len(frames) - missing} of {len(frames)} frames; run OpenPose on every "
            "frame, or move the folder away"
        )
    note = f"landmarks by OpenPose taken along from {folder.name}/"
    note += f"; {missing} of {len(frames)} frames have no file" if missing else ""
    writer.note(note)
    log.info("%s", note)


def numbered(
    folder: Path, by_stem: Mapping[str, Path], num_frames: int, stems: Sequence[str], usual: str
) -> tuple[dict[int, Path], bool]:
    """(source frame -> file, whether by the names of pictures): files belong to the pictures ``stems`` that they are
    named after, else to the last number in their names, from 0, or from 1 where none has number 0.

    ``usual`` tells users how such files are named.  Raises UserError for a name without a number, and for a number used
    twice.
    """
    matched = {i: by_stem[stem] for i, stem in enumerate(stems) if stem in by_stem}
    if matched:
        return matched, True
    by_number: dict[int, Path] = {}
    for stem, path in by_stem.items():
        digits = re.findall(r"\d+", stem)
        if not digits:
            raise UserError(f"{path}: no frame number in its name; {usual}")
        other = by_number.setdefault(int(digits[-1]), path)
        if other != path:
            raise UserError(f"{folder}: {other.name} and {path.name} have one frame number; keep those of one film")
    if num_frames and by_number and 0 not in by_number and max(by_number) == num_frames:
        by_number = {number - 1: path for number, path in by_number.items()}
    return by_number, False


def files_by_frame(folder: Path, num_frames: int, stems: Sequence[str] = ()) -> dict[int, Path]:
    """Source frame -> OpenPose file.  Raises UserError for files without a number, for a number used twice, and for
    numbers beyond the ``num_frames`` of the source (0 = unknown)."""
    files = openpose_files(folder)
    if not files:
        raise UserError(f"{folder}: holds no OpenPose files (NAME_000000000000{OPENPOSE_SUFFIX}); give their folder")
    by_stem = {path.name.removesuffix(OPENPOSE_SUFFIX): path for path in files}
    by_number, is_named = numbered(
        folder, by_stem, num_frames, stems, f"OpenPose writes NAME_000000000012{OPENPOSE_SUFFIX}"
    )
    if is_named:
        return by_number
    beyond = sum(number >= num_frames for number in by_number) if num_frames else 0
    if beyond > max(2, MAX_BEYOND * num_frames):
        raise UserError(
            f"{folder}: OpenPose numbers up to {max(by_number)}, the film has {num_frames} frames; run OpenPose on it, "
            "or move the folder away"
        )
    return by_number


def read_checked(path: Path) -> bytes:
    """The bytes of an OpenPose file.  Raises UserError when it is not one."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES // 10**6} MB")
        data = path.read_bytes()
        fields = json.loads(data)
        if not isinstance(fields, dict) or not isinstance(fields.get("people"), list):
            raise ValueError("no list of people")
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: not a file of OpenPose ({reason}); copy it again, or run OpenPose again") from None
    return data
