"""Video files in and out, through PyAV.  H x W pixels, RGB uint8.

It sits in the lowest layer because every stage that has something to show writes an mp4.  A video is for looking at:
x264 does not give the same bytes in every run, so no stage's identity rests on one.
"""

from __future__ import annotations

import glob
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np

LEFT_S = 3600.0


def partial_of(path: Path) -> Path:
    """Where this process writes a file until it is whole: two at once do not write into each other's.

    What a process left there that was killed is removed, an hour after it last wrote.
    """
    for left in path.parent.glob(f"{glob.escape(path.stem)}.*.partial{glob.escape(path.suffix)}"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT_S:
                left.unlink() if left.is_file() else shutil.rmtree(left)
    return path.with_name(f"{path.stem}.{os.getpid()}.partial{path.suffix}")


class VideoWriter:
    """An H.264 mp4 that plays in every browser.  Use as a context manager; odd sizes are padded by one pixel."""

    def __init__(self, path: Path, frames_per_second: float, crf: int = 18) -> None:
        self._path = path
        self._partial = partial_of(path)
        self._rate = Fraction(frames_per_second).limit_denominator(1001)
        self._crf = crf
        self._container = av.open(str(self._partial), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: av.VideoStream | None = None

    def add(self, image: np.ndarray, index: int | None = None) -> None:
        """Append an (H, W, 3) uint8 RGB picture; all pictures of a video have one size.

        ``index`` says when it is shown, in pictures at the video's rate; it rises, and where it leaves out some,
        the picture before stays.  Either all pictures have one or none.
        """
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            stream = self._container.add_stream("libx264", rate=self._rate)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height = image.shape[1], image.shape[0]
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": str(self._crf), "preset": "veryfast", "x264-params": "colormatrix=bt470bg"}
            self._stream = stream
        planes = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2YUV_I420).astype(np.uint8, copy=False)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        if index is not None:
            frame.pts, frame.time_base = index, 1 / self._rate
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._stream is not None:
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container.close()
        if kind is None and self._stream is not None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)


def write_video(path: Path, images: Iterable[np.ndarray], frames_per_second: float) -> None:
    """Write (H, W, 3) uint8 RGB pictures to an mp4 file."""
    with VideoWriter(path, frames_per_second) as video:
        for image in images:
            video.add(image)
