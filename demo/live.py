"""The demo performer as a live sensor: the empty room, then she, at 30 frames a second, for as long as anybody reads.

Drawing a frame takes longer than a 30th of a second, so eight seconds are filmed once and kept in the workspace; they
are played forwards and backwards in turn, which has no seam.  They are kept as a sensor delivers them, not compressed:
a second core that only decodes would be none that records.  H x W colour pixels, h x w depth pixels.

    film.json       which film it is
    empty.raw       EMPTY_FRAMES frames of the room, film.raw those with her, each
                    H * W * 3 / 2 bytes of YUV 4:2:0 planes, then h * w uint16 millimetres
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from capture.errors import UserError
from capture.files import write_atomically
from capture.recording import Frame, Recording
from capture.sensor import Ended, Mailbox, Pace, Sensor
from demo import sensor
from demo.performer import DemoConfig, build_set, film
from demo.room import Backdrop

log = logging.getLogger(__name__)

RATE_HZ = 30.0
FILM = DemoConfig(num_frames=240, frames_per_second=RATE_HZ)
EMPTY_FRAMES = 8  # of the empty room: enough that noise is not the same twice in a row
AHEAD = 30  # frames that are asked of the disk before they are due: a device would not have to wait for one
FOLDER = ".demo_sensor"


class DemoSensor(Sensor):
    """A Kinect V2 in front of the performer's room.  She comes in with ``enter``."""

    def __init__(self, argument: str, workspace: Path, config: DemoConfig = FILM) -> None:
        if argument:
            raise UserError(f"--source demo:{argument}: the demo takes no argument; use --source demo")
        self._folder, self._config = workspace / FOLDER, config
        self._stack = ExitStack()

    def read(self, timeout_s: float) -> Frame:
        return self._mailbox.get(timeout_s)

    def enter(self) -> None:
        """She comes in."""
        self._is_there.set()

    def _start(self) -> None:
        self.rig = sensor.rig()
        self._is_there, self._is_over = threading.Event(), threading.Event()
        prepared(self._folder, self._config)
        self._empty, self._film = RawFrames(self._folder / "empty.raw"), RawFrames(self._folder / "film.raw")
        for index in range(AHEAD):
            self._film.expect(bounce(index, len(self._film)))
        self._mailbox = Mailbox("demo")
        thread = threading.Thread(target=self._deliver, daemon=True)
        thread.start()
        self._stack.callback(thread.join, 10)
        self._stack.callback(self._is_over.set)

    def _stop(self) -> None:
        self._stack.close()

    def _deliver(self) -> None:
        pace = Pace(self._config.frames_per_second)
        tick, first = 0, 0
        try:
            while not self._is_over.is_set():
                if not self._is_there.is_set():
                    first = tick
                frame = self._frame(tick, tick - first)
                if (wait_s := pace.wait_s(tick)) > 0:
                    self._is_over.wait(wait_s)
                self._mailbox.put(frame)
                self._film.expect(bounce(tick - first + AHEAD, len(self._film)))
                tick = max(tick + 1, pace.due())  # who is late has missed frames
        except BaseException as error:  # handed to whoever reads
            self._mailbox.put(error, self._is_over.is_set)
        self._mailbox.put(Ended(), self._is_over.is_set)

    def _frame(self, tick: int, since: int) -> Frame:
        frames, shown = self._film, bounce(since, len(self._film))
        if not self._is_there.is_set():
            frames, shown = self._empty, tick % len(self._empty)
        return Frame(tick, tick / self._config.frames_per_second, *frames[shown])


class RawFrames:
    """Frames of the simulated sensor's size in a file, as they are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        (width, height), (self._depth_width, self._depth_height) = sensor.COLOR.image_wh, sensor.DEPTH.image_wh
        self._planes = height * 3 // 2, width
        self._color_bytes = width * height * 3 // 2
        self._bytes = self._color_bytes + 2 * self._depth_width * self._depth_height

    def __len__(self) -> int:
        return self._path.stat().st_size // self._bytes

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB and (h, w) uint16."""
        with open(self._path, "rb", buffering=0) as file:
            file.seek(index * self._bytes)
            data = file.read(self._bytes)
        planes = np.frombuffer(data, np.uint8, self._color_bytes).reshape(self._planes)
        depth_mm = np.frombuffer(data, "<u2", offset=self._color_bytes)
        return cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420), depth_mm.reshape(self._depth_height, self._depth_width)

    def expect(self, index: int) -> None:
        """A frame will be asked for soon: the system may fetch it from the disk meanwhile."""
        if hasattr(os, "posix_fadvise"):
            with open(self._path, "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), index * self._bytes, self._bytes, os.POSIX_FADV_WILLNEED)

    def append(self, color: np.ndarray, depth_mm: np.ndarray) -> None:
        """Add a frame at the end."""
        with open(self._path, "ab") as file:
            file.write(cv2.cvtColor(color, cv2.COLOR_RGB2YUV_I420).tobytes() + depth_mm.astype("<u2").tobytes())


def bounce(tick: int, count: int) -> int:
    """0, 1, ..., count - 1, count - 2, ..., 0, 1, ..."""
    period = max(2 * (count - 1), 1)
    place = tick % period
    return place if place < count else period - place


def prepared(folder: Path, config: DemoConfig) -> None:
    """See to it that ``folder`` holds the film of ``config``: it is made when there is none, or another one."""
    mark = folder / "film.json"
    wanted = json.dumps({"frames": config.num_frames, "rate_hz": config.frames_per_second, "seed": config.seed})
    if mark.is_file() and mark.read_text() == wanted:
        return
    log.info("the demo performer is filmed once (%d frames, minutes); kept in %s", config.num_frames, folder)
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name in ("set", "film"):
            (partial / name).mkdir(parents=True)
        build_set(config, partial / "set")
        _film_empty(config, partial / "set", RawFrames(partial / "empty.raw"))
        film(config, partial / "film")
        raw = RawFrames(partial / "film.raw")
        for frame in Recording.load(partial / "film"):
            assert frame.depth_mm is not None
            raw.append(frame.color, frame.depth_mm)
        for name in ("set", "film"):
            shutil.rmtree(partial / name)
        write_atomically(partial / mark.name, wanted.encode())
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _film_empty(config: DemoConfig, set_dir: Path, frames: RawFrames) -> None:
    """A few frames of the performer's room when she is not there, each with noise of its own."""
    backdrop = Backdrop.load(set_dir / "room.npz")
    (z_m, reflect), lamp = np.load(set_dir / "room_depth.npy"), sensor.vignette(sensor.DEPTH, sensor.DEPTH_SAMPLES)
    pool = sensor.noise_pool(config.seed)
    for index in range(EMPTY_FRAMES):
        rng = np.random.default_rng([config.seed, 5, index])
        color = sensor.develop(backdrop.ambient + backdrop.lamp, pool, rng)
        frames.append(color, sensor.sense_depth(z_m, reflect, lamp, rng))
