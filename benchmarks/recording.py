"""Does the recorder keep up, and where does its time go?

    python benchmarks/recording.py [--seconds 60] [--only codec,cost,speed] [--real FOLDER] [--workspace DIR]

``--only speed --seconds 600`` is the full length: 13 GB, on a machine that does nothing else.  The simulated Kinect V2
(1080p colour and depth, 30 frames a second) is filmed by ``pipeline.py record`` itself, with its guide; it replays
frames that were drawn before, uncompressed.  FOLDER holds (424, 512) uint16 .npy frames of a real Kinect V2, by default
``../shared/data/kinect_v2_depth`` beside the repository.  What a kill and a full disk do: ``recording_crashes.py``.
Prints one table.  CPU time is that of one core; Linux only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture.codec import decode_depth, encode_depth
from capture.container import FILE_NAME, ContainerWriter
from capture.files import encode_jpeg
from capture.manifest import Manifest
from capture.recorder import CaptureConfig, exposure_words
from capture.recording import Recording
from demo.live import FILM, FOLDER, RATE_HZ, RawFrames, prepared
from filming import LOOK_S
from fitting.guide import LOOK_EVERY_S, Sides, reduced_quickly
from fitting.stream import PoseStream
from fitting.viewfinder import drawn

ROOT = Path(__file__).parents[1]
REAL_FRAMES = ROOT.parent / "shared" / "data" / "kinect_v2_depth"
SUBJECT = "speed"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
WATCH_S = 0.5
Row = tuple[str, str]


def depth_codec(name: str, frames: list[np.ndarray]) -> Iterator[Row]:
    """Ratio and time of the depth codec; CPU time, because others may use the machine."""
    encode_ms, decode_ms, size = [], [], 0
    decode_depth(encode_depth(frames[0]))  # compiles
    for frame in frames:
        started_s = time.thread_time()
        data = encode_depth(frame)
        encoded_s = time.thread_time()
        decoded = decode_depth(data)
        decode_ms.append(1e3 * (time.thread_time() - encoded_s))
        encode_ms.append(1e3 * (encoded_s - started_s))
        size += len(data)
        assert np.array_equal(decoded, frame), "the codec lost a bit"
    ratio = sum(frame.nbytes for frame in frames) / size
    times = f"{np.median(encode_ms):.1f} ms to code (most {max(encode_ms):.1f}), {np.median(decode_ms):.1f} ms back"
    yield f"depth, {name}", f"{ratio:.2f} : 1, {times}, {len(frames)} of {len(frames)} frames bit-exact"


def cost(film: RawFrames, workspace: Path) -> Iterator[Row]:
    """CPU time of each part alone, with one thread, and what that makes per recorded frame."""
    cv2.setNumThreads(1)
    color, depth_mm = film[10]
    jpeg, depth, sides, stream = encode_jpeg(color), encode_depth(depth_mm), Sides(), PoseStream()
    small = [reduced_quickly(film[i][0]) for i in range(0, len(film), 4)]
    stream(small[0])
    with tempfile.TemporaryDirectory(dir=workspace) as folder:
        writer = ContainerWriter(Path(folder) / FILE_NAME, {}, clock=lambda: 0.0)  # never forced to the disk
        looks = 1 / (LOOK_S * RATE_HZ)
        parts: list[tuple[str, float, Callable[[int], object]]] = [
            ("sensor's own: read, YUV to RGB", 1.0, lambda i: film[i % len(film)]),
            ("JPEG, quality 95", 1.0, lambda _: encode_jpeg(color)),
            ("depth without loss", 1.0, lambda _: encode_depth(depth_mm)),
            ("checksums and file", 1.0, lambda i: writer.append(i / RATE_HZ, jpeg, depth)),
            ("is the light right?", looks, lambda _: exposure_words(color)),
            ("picture of the window, where there is one", looks, lambda _: drawn(color, "x", ["y"], sides)),
            ("picture for the guide", 1 / (LOOK_EVERY_S * RATE_HZ), lambda _: reduced_quickly(color)),
            ("guide's process: a look", 1 / (LOOK_EVERY_S * RATE_HZ), lambda i: stream(small[i % len(small)])),
        ]
        for name, share, part in parts:
            part(0)
            started_s = time.process_time()
            for i in range(60):
                part(i)
            took_ms = 1e3 * (time.process_time() - started_s) / 60
            yield f"  {name}", f"{took_ms:.2f} ms a time, {share * took_ms:.2f} ms a frame"
        writer.close()
    stream.close()


class Watch:
    """CPU time of a process, of what it started, and of everybody else, while a recording is made."""

    def __init__(self, process: subprocess.Popen, home: Path) -> None:
        self._process, self._folder = process, home / ".01_recording.capture"
        self.own_s = self.children_s = self.others_s = self.wall_s = 0.0

    def until_it_ends(self) -> None:
        path = self._folder / FILE_NAME
        while self._process.poll() is None and not (path.exists() and path.stat().st_size > 100_000):
            time.sleep(0.02)
        first = self._now()
        while self._process.poll() is None and path.exists():
            now = self._now()
            if now is not None and first is not None:
                wall_s, own_s, children_s, busy_s = np.subtract(now, first)
                self.wall_s, self.own_s, self.children_s = wall_s, own_s, children_s
                self.others_s = busy_s - own_s - children_s
            time.sleep(WATCH_S)

    def _now(self) -> tuple[float, float, float, float] | None:
        pid = self._process.pid
        try:
            busy = Path("/proc/stat").read_text().split("\n", 1)[0].split()
            busy_s = TICK_S * (sum(map(int, busy[1:4])) + sum(map(int, busy[6:9])))  # neither idle nor waiting
            children = [child for task in Path(f"/proc/{pid}/task").glob("*/children") for child in _pids(task)]
            return time.monotonic(), _cpu_s(pid), sum(map(_cpu_s, children)), busy_s
        except OSError:  # it has just ended
            return None


def _pids(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().split()]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return TICK_S * (int(fields[11]) + int(fields[12]))


def speed(workspace: Path, seconds: float) -> Iterator[Row]:
    """Film the demo with the command itself."""
    home, load = workspace / SUBJECT, os.getloadavg()[0]
    shutil.rmtree(home, ignore_errors=True)
    line = [sys.executable, ROOT / "pipeline.py", "record", "--subject", SUBJECT, "--source", "demo", "--no-window"]
    line += ["--seconds", f"{seconds:g}", "--workspace", workspace]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryFile("w+") as complaints:  # a pipe that nobody reads would fill
        process = subprocess.Popen([*map(str, line)], stdout=subprocess.PIPE, stderr=complaints, env=environment)
        watch = Watch(process, home)
        watch.until_it_ends()
        said = process.communicate()[0].decode()
        complaints.seek(0)
        lines = complaints.read().splitlines()
    if process.returncode:
        yield "recording", f"failed: {lines[-1] if lines else process.returncode}"
        return
    made, recording = Manifest.load(home / "01_recording"), Recording.load(home / "01_recording")
    assert made is not None
    frames, size_mb = len(recording), (home / "01_recording" / FILE_NAME).stat().st_size / 1e6
    steps_ms = 1e3 * np.diff(recording.times_s)
    yield f"recording, {seconds:g} s of 1080p at 30/s", said.splitlines()[0]
    yield "  most that may wait", f"{CaptureConfig().queue_frames} frames"
    yield "  memory, all processes", f"{made.peak_rss_mb:.0f} MB at most"
    yield "  time between frames", f"median {np.median(steps_ms):.1f} ms, most {steps_ms.max():.1f} ms"
    yield "  size", f"{size_mb:.0f} MB, {size_mb / seconds:.1f} MB/s"
    each_ms = 1e3 / max(frames, 1)
    yield (
        "  CPU time",
        f"{each_ms * watch.own_s:.1f} ms a frame, sensor included; guide {each_ms * watch.children_s:.1f} ms a frame",
    )
    others = watch.others_s / max(watch.wall_s, WATCH_S)
    words = f"{os.cpu_count()} cores, load {load:.1f} before"
    yield "  machine", f"{words}; others used {max(others, 0):.2f} cores meanwhile"
    yield from reading(home)


def reading(home: Path) -> Iterator[Row]:
    started_s = time.perf_counter()
    recording = Recording.load(home / "01_recording")
    opened_ms = 1e3 * (time.perf_counter() - started_s)
    started_s = time.perf_counter()
    for index in np.random.default_rng(0).integers(0, len(recording), 20):
        recording[int(index)]
    access_ms = 1e3 * (time.perf_counter() - started_s) / 20
    yield "  read again", f"opens in {opened_ms:.0f} ms; a random frame, decoded, {access_ms:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description="The recorder's speed.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", default="codec,cost,speed", help="parts, with commas between them")
    parser.add_argument("--real", type=Path, default=REAL_FRAMES)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    chosen = parser.parse_args()
    parts = chosen.only.split(",")
    if not set(parts) <= {"codec", "cost", "speed"}:
        parser.error(f"--only {chosen.only}: there are codec, cost, speed")
    prepared(chosen.workspace / FOLDER, FILM)
    film = RawFrames(chosen.workspace / FOLDER / "film.raw")
    rows: list[Row] = []
    if "codec" in parts:
        rows += depth_codec("simulated", [film[i][1] for i in range(0, len(film), 8)])
        real = [np.load(path) for path in sorted(chosen.real.glob("*.npy"))]
        rows += depth_codec("real Kinect V2", real) if real else [("depth, real Kinect V2", f"not in {chosen.real}")]
    if "speed" in parts:
        rows += speed(chosen.workspace, chosen.seconds)
    if "cost" in parts:
        rows += [("CPU time of each part, alone", ""), *cost(film, chosen.workspace)]
    for name, words in rows:
        print(f"{name:44}{words}")


if __name__ == "__main__":
    main()
