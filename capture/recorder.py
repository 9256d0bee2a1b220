"""From a live sensor to a container: nothing waits for the disk but the disk's own thread.

    capture thread   sensor.read -> the newest frame for whoever looks, and a place in the queue, if there is one
    encoders         JPEG or PNG, and depth without loss
    writer thread    appends in order; the file's own rules say what is acknowledged

The queue is bounded: a frame that finds it full is dropped and counted, so memory is bounded, too.  H x W colour
pixels, h x w depth pixels.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

import cv2
import numpy as np

from capture.codec import decode_depth, encode_depth
from capture.errors import UserError
from capture.files import encode_jpeg, encode_png
from capture.recording import Frame, RecordingWriter
from capture.sensor import GONE_S, Ended, Sensor, Silence

log = logging.getLogger(__name__)

STALL_S = 1.0  # a silence that people are told of at once
DARK_GREY, BRIGHT_SHARE = 40.0, 0.05  # median of a picture that is too dark; share of pixels at the end of the scale
SATURATED = 250


@dataclass(frozen=True)
class CaptureConfig:
    """How a live recording is made; a file that is imported has ``recording`` settings instead."""

    countdown_s: float = field(default=3.0, metadata={"cosmetic": True})  # time to leave, and to come into, the picture
    plate_frames: int = 30  # of the empty room, before: one second; 0 = none
    lossless_color: bool = False  # PNG; many times the disk, and most machines are too slow for 1080p at 30 a second
    no_depth: bool = False  # leave the sensor's depth out
    queue_frames: int = field(default=60, metadata={"cosmetic": True})  # two seconds for a disk that pauses
    num_encoders: int = field(default=2, metadata={"cosmetic": True})

    def __post_init__(self) -> None:
        for name, value, least in (
            ("countdown_s", self.countdown_s, 0),
            ("plate_frames", self.plate_frames, 0),
            ("queue_frames", self.queue_frames, 1),
            ("num_encoders", self.num_encoders, 1),
        ):
            if value < least:
                raise UserError(f"capture.{name} = {value}: must be at least {least}")


@dataclass
class Tally:
    """What happened while recording."""

    written: int = 0
    dropped: int = 0  # found the queue full
    lost: int = 0  # were gone before they could be read: gaps in the sensor's count
    repeated: int = 0  # came twice, and were kept once
    most_waiting: int = 0  # frames between sensor and disk
    longest_gap_s: float = 0.0
    stalls: int = 0  # gaps of more than STALL_S
    without_depth: int = 0  # of a sensor that has depth: no depth picture of the same moment

    def summary(self, seconds: float) -> str:
        """One line for people."""
        rate = f" in {seconds:.1f} s, {self.written / seconds:.1f} frames/s" if seconds > 0 else ""
        words = f"{self.written} frames{rate}; {self.dropped} dropped, {self.lost} lost by the sensor"
        words += f", {self.repeated} came twice" if self.repeated else ""
        words += f"; {self.without_depth} without depth" if self.without_depth else ""
        words += f"; longest gap {self.longest_gap_s:.1f} s" if self.stalls else ""
        return f"{words}; at most {self.most_waiting} frames waited"


class Recorder:
    """Reads a sensor from ``start`` to the end of ``with``; between ``begin`` and ``end`` frames are written, too."""

    def __init__(self, sensor: Sensor, config: CaptureConfig) -> None:
        self._sensor, self._config = sensor, config
        self.tally = Tally()
        self.latest: Frame | None = None
        self.trouble = ""  # why no picture comes at present, empty where they do
        self._failure: BaseException | None = None
        self.is_enough = threading.Event()  # it was recorded for as long as was asked for
        self._is_over, self._has_ended = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._writer: RecordingWriter | None = None
        self._jobs: queue.Queue[tuple[float, Future[tuple[bytes, bytes]]] | None] = queue.Queue()
        self._waiting = 0
        self._last: Frame | None = None
        self._first_s = self.seconds = 0.0
        self._arrived_s: deque[float] = deque(maxlen=60)
        self._reader = threading.Thread(target=self._read, daemon=True)

    @property
    def frames_per_second(self) -> float:
        """At which frames arrive now; 0 before there are two."""
        arrived = list(self._arrived_s)
        return (len(arrived) - 1) / (arrived[-1] - arrived[0]) if len(arrived) > 1 and arrived[-1] > arrived[0] else 0.0

    @property
    def is_over(self) -> bool:
        """Whether the sensor has ended, or something failed."""
        return self._has_ended.is_set() or self._failure is not None

    @property
    def failure(self) -> BaseException | None:
        """What ended the recording against anybody's wish."""
        return self._failure

    def wait_for(self, index: int, is_stopped: Callable[[], bool]) -> Frame | None:
        """A frame after the sensor's number ``index``; None when the recording is over or ``is_stopped()``."""
        while not (self.is_over or is_stopped()):
            latest = self.latest
            if latest is not None and latest.index > index:
                return latest
            time.sleep(0.002)
        return None

    def begin(self, writer: RecordingWriter, seconds: float | None = None) -> None:
        """From the next frame on, write; for so long of the sensor's time, where that is given."""
        self._length_s = float("inf") if seconds is None else seconds
        self._encoders = ThreadPoolExecutor(self._config.num_encoders)
        self._scribe = threading.Thread(target=self._write, args=(writer,), daemon=True)
        self._scribe.start()
        with self._lock:
            self.tally, self._last, self._writer = Tally(), None, writer

    def end(self) -> Tally:
        """Stop writing; returns when what was taken is in the file, or could not be written: see ``failure``."""
        with self._lock:
            self._writer = None
        self._jobs.put(None)
        self._scribe.join()
        self._encoders.shutdown()
        return self.tally

    def start(self) -> None:
        """Look at what the sensor shows."""
        self._reader.start()

    def __enter__(self) -> Recorder:
        # Loading compiled code takes a second in which nothing else runs: not while frames come in.
        blank = Frame(0, 0.0, np.zeros((16, 16, 3), np.uint8), np.ones((16, 16), np.uint16))
        decode_depth(encoded(blank, self._config)[1] or encode_depth(np.ones((16, 16), np.uint16)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        if self._reader.ident is not None:
            self._reader.join(timeout=GONE_S + 1)

    def _read(self) -> None:
        try:
            while not self._is_over.is_set():
                frame = self._next()
                self._arrived_s.append(time.monotonic())
                self._take(frame)
                self.latest = frame
        except Ended:
            self._has_ended.set()
        except BaseException as error:  # told to whoever waits
            if not self._is_over.is_set():
                self._failure = self._failure or error

    def _next(self) -> Frame:
        """The sensor's next frame.  A silence is told once when it begins; after GONE_S it is the end."""
        silent_s = 0.0
        while True:
            try:
                frame = self._sensor.read(STALL_S)
            except Silence as error:
                silent_s += STALL_S
                if silent_s >= GONE_S or self._is_over.is_set():
                    raise
                if not self.trouble:
                    log.warning("%s", error)
                self.trouble = str(error)
            else:
                self.trouble = ""
                return frame

    def _take(self, frame: Frame) -> None:
        with self._lock:
            if self._writer is None:
                return
            last, tally = self._last, self.tally
            if last is None:
                self._first_s = frame.time_s
            elif frame.index <= last.index or frame.time_s <= last.time_s:
                tally.repeated += 1
                return
            else:
                tally.lost += frame.index - last.index - 1
                tally.longest_gap_s = max(tally.longest_gap_s, frame.time_s - last.time_s)
                tally.stalls += frame.time_s - last.time_s > STALL_S
            self._last = frame
            time_s = frame.time_s - self._first_s
            if time_s >= self._length_s:
                self._writer = None
                self.is_enough.set()
                return
            self.seconds = time_s
            if frame.depth_mm is None and not self._config.no_depth and self._sensor.rig.depth is not None:
                tally.without_depth += 1
            if self._waiting >= self._config.queue_frames:
                tally.dropped += 1
                return
            self._waiting += 1
            tally.most_waiting = max(tally.most_waiting, self._waiting)
            self._jobs.put((time_s, self._encoders.submit(encoded, frame, self._config)))

    def _write(self, writer: RecordingWriter) -> None:
        is_broken = False
        while (job := self._jobs.get()) is not None:
            try:
                color, depth = job[1].result()
                if not is_broken:
                    writer.add_encoded(job[0], color, depth)
                    self.tally.written += 1
            except BaseException as error:  # what follows is not written any more, and the reason is told
                is_broken = True
                self._failure = self._failure or error
            with self._lock:
                self._waiting -= 1


def encoded(frame: Frame, config: CaptureConfig) -> tuple[bytes, bytes]:
    """(picture file, coded depth or nothing) of a frame."""
    color = encode_png(frame.color) if config.lossless_color else encode_jpeg(frame.color)
    depth = b"" if frame.depth_mm is None or config.no_depth else encode_depth(frame.depth_mm)
    return color, depth


def exposure_words(color: np.ndarray) -> str:
    """What is wrong with the light in a picture (H, W, 3) uint8, empty where nothing is."""
    red, green, blue = cv2.split(color[::8, ::8].copy())  # numpy takes ten times as long over an axis of three
    if np.median(cv2.max(cv2.max(red, green), blue)) < DARK_GREY:  # a saturated colour is bright, not dark
        return "too dark: add light"
    if (cv2.min(cv2.min(red, green), blue) >= SATURATED).mean() > BRIGHT_SHARE:
        return "overexposed: less light, or no window in the picture"
    return ""


def plate_of(frames: list[Frame]) -> tuple[np.ndarray, np.ndarray | None]:
    """The empty room from a few frames: median colour (H, W, 3) uint8, median of the returns (h, w) uint16 or None.

    A depth pixel that returned in less than half of the frames stays without.
    """
    step = 128  # rows at once: thirty pictures in float would take a gigabyte
    height = frames[0].color.shape[0]
    rows = [np.median([f.color[i : i + step] for f in frames], axis=0) for i in range(0, height, step)]
    color = np.rint(np.concatenate(rows)).astype(np.uint8)
    depths = [frame.depth_mm for frame in frames if frame.depth_mm is not None]
    if not depths:
        return color, None
    stack = np.sort(np.stack(depths), axis=0)  # (K, h, w), missing first
    missing = (stack == 0).sum(axis=0)
    middle = np.minimum((missing + len(stack)) // 2, len(stack) - 1)
    depth_mm = np.take_along_axis(stack, middle[None], axis=0)[0]
    return color, np.where(2 * missing > len(stack), 0, depth_mm).astype(np.uint16)
