"""Masks and a picture of the empty room that lie beside a source become those of the recording.

Masks are numbered pictures (``0001.png``, ``clip_000012.jpg``; white or their alpha channel = the person) or a film
(``clip_alpha.mov``), and belong to frames as OpenPose's files do: by the picture's name, else by the last number in
theirs, from 0, or from 1 where there is no number 0.  They are copied to ``masks/000000.png``, by recording frame.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from capture.beside import background_picture, mask_files, mask_source
from capture.errors import UserError
from capture.files import read_image
from capture.importers.openpose import numbered
from capture.recording import RecordingWriter

log = logging.getLogger(__name__)


def carry(
    writer: RecordingWriter, source: Path, frames: Sequence[int], num_frames: int, stems: Sequence[str] = ()
) -> None:
    """Give the recording the masks and the empty room that lie beside ``source``; nothing happens where there are none.

    The arguments are those of ``openpose.carry``.  Raises UserError for files that cannot be read, and for masks of
    another film.
    """
    home = mask_source(source)
    if home is not None:
        masks = film_masks(home) if home.is_file() else folder_masks(home, num_frames, stems)
        index_of = {frame: index for index, frame in enumerate(frames)}
        count = 0
        for frame, mask in masks:
            if frame in index_of:
                writer.add_mask(index_of[frame], mask)
                count += 1
        if count == 0:
            raise UserError(f"{home}: no mask belongs to a frame of this recording; number them as the frames are")
        note = f"{count} of {len(frames)} masks taken along from {home.name}"
        writer.note(note)
        log.info("%s", note)
    picture = background_picture(source)
    if picture is not None:
        writer.add_plate(read_image(picture), None)
        writer.note(f"picture of the empty room taken along: {picture.name}")


def files_by_frame(folder: Path, num_frames: int, stems: Sequence[str] = ()) -> dict[int, Path]:
    """Frame -> mask file of a folder.  Raises UserError for files without a number and numbers used
    twice."""
    files = mask_files(folder)
    by_stem = {path.stem: path for path in files}
    return numbered(folder, by_stem, num_frames, stems, "call masks 000000.png, 000001.png, ...")[0]


def folder_masks(folder: Path, num_frames: int, stems: Sequence[str] = ()) -> Iterator[tuple[int, np.ndarray]]:
    """(source frame, mask (H, W) uint8) of a folder."""
    for frame, path in sorted(files_by_frame(folder, num_frames, stems).items()):
        yield frame, read_mask(path)


def film_masks(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """(source frame, mask (H, W) uint8) of a film: its alpha channel where it has one, else its brightness."""
    try:
        with av.open(str(path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                alpha = alpha_of(frame)
                yield index, frame.reformat(format="gray").to_ndarray() if alpha is None else alpha
    except (av.FFmpegError, OSError, IndexError) as error:
        raise UserError(f"{path}: not a readable film of masks ({error}); copy it again") from None


def alpha_of(frame: av.VideoFrame) -> np.ndarray | None:
    """(H, W) uint8 alpha of a decoded picture, None where its format has none."""
    if not any(component.is_alpha for component in frame.format.components):
        return None
    return np.ascontiguousarray(frame.reformat(format="rgba").to_ndarray()[..., 3])


def read_mask(path: Path) -> np.ndarray:
    """(H, W) uint8 of a mask picture: alpha where it has a channel for it, else grey.  Raises UserError when it is
    broken."""
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error):
        image = None
    if image is None:
        raise UserError(f"{path}: not a readable mask; copy it again")
    if image.dtype == np.uint16:
        image = (image // 257).astype(np.uint8)
    if image.ndim == 3:
        image = image[..., 3] if image.shape[2] == 4 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return np.ascontiguousarray(image)
