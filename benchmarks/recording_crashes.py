"""What is left of a recording after a kill, and on a full disk?

    python benchmarks/recording_crashes.py [--kills 200] [--commands 10] [--only kills,commands,disk] [--workspace DIR]

kills      ``kill -9`` at random moments of a recording: the recorder's own threads, a sensor of 120 frames a second
commands   the same with ``pipeline.py record``, and what the next ``run`` makes of it
disk       ``pipeline.py record`` of the simulated Kinect V2 onto a file system of its own, of 48 MB: ext4 on a loop
           device, or tmpfs, mounted here by root; where that is not permitted a limit of the file's size.  How much
           was free is in the table

Linux only.  Prints one table; exits with 1 when anything that was acknowledged is lost.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from capture.camera import Camera, Rig  # noqa: E402
from capture.container import FILE_NAME, Container  # noqa: E402
from capture.recorder import CaptureConfig, Recorder  # noqa: E402
from capture.recording import Frame, Recording, RecordingWriter  # noqa: E402
from capture.sensor import Sensor  # noqa: E402

Row = tuple[str, str]
WH = (320, 240)
CAMERA = Camera(WH, 300.0, 300.0, 160.0, 120.0)
RIG = Rig(CAMERA, CAMERA, np.eye(4))
RATE_HZ = 120.0
DISK_MB = 48
failures: list[str] = []


def depth_of(index: int) -> np.ndarray:
    """(h, w) uint16 that says which picture it belongs to."""
    return np.random.default_rng([1, index]).integers(1000, 3000, (WH[1], WH[0]), dtype=np.uint16)


def frame_of(index: int) -> Frame:
    """A picture that says which one it is, in both streams."""
    color = np.random.default_rng([0, index]).integers(60, 200, (WH[1], WH[0], 3), dtype=np.uint8)
    return Frame(index, index / RATE_HZ, color, depth_of(index))


def shows(recording: Recording, index: int, moment: int) -> bool:
    """Whether a frame is that of the moment, by its depth."""
    depth_mm = recording.depth_mm(index)
    return depth_mm is not None and np.array_equal(depth_mm, depth_of(moment))


class Numbered(Sensor):
    """Frames that say which one they are."""

    def read(self, timeout_s: float) -> Frame:
        time.sleep(1 / RATE_HZ)
        self._index += 1
        return frame_of(self._index)

    def _start(self) -> None:
        self.rig, self._index = RIG, -1

    def _stop(self) -> None:
        pass


class Telling(RecordingWriter):
    """Says after each frame how many were written, and how many of them are on the disk."""

    def add_encoded(self, time_s: float, color: bytes, depth: bytes = b"") -> None:
        super().add_encoded(time_s, color, depth)
        os.write(1, f"{len(self)} {self.num_synced}\n".encode())


def film_for_ever(folder: Path) -> None:
    """The child that is killed."""
    with Numbered() as sensor, Recorder(sensor, CaptureConfig()) as recorder:
        recorder.begin(Telling(folder, RIG, "killed"))
        recorder.start()
        time.sleep(600)


def kills(count: int) -> Iterator[Row]:
    """kill -9 at random moments of a recording; what the reader then finds."""
    rng = random.Random(1)
    opened, said, lost, unsynced_lost, beyond, torn, wrong = 0, 0, 0, 0, [], [], 0
    for _ in range(count):
        with tempfile.TemporaryDirectory() as name:
            line = [sys.executable, __file__, "--child", name]
            child = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            lines = [child.stdout.readline()]
            time.sleep(rng.uniform(0.0, 1.5))
            child.send_signal(signal.SIGKILL)
            lines += child.stdout.read().splitlines()
            child.wait()
            written, synced = map(int, next(line for line in reversed(lines) if len(line.split()) == 2).split())
            container = Container.open(Path(name) / FILE_NAME)
            recording = Recording.open(Path(name) / FILE_NAME)
            opened += 1
            said += "breaks off" in recording.notes[-1]
            intact = len(recording)
            for i in (*range(min(3, intact)), *range(max(intact - 3, 3), intact)):
                wrong += not shows(recording, i, i)
                wrong += recording.color(i).shape != (WH[1], WH[0], 3)
            lost += max(synced - intact, 0)
            unsynced_lost += max(written - intact, 0)
            beyond.append(intact - written)
            torn.append(container.torn_bytes)
            largest = int((container.index["color_bytes"] + container.index["depth_bytes"]).max()) + 44
            wrong += container.torn_bytes > 1.1 * largest  # pictures of noise are all about as large
    if opened < count or said < count or lost or unsynced_lost or wrong:
        failures.append("kills")
    yield f"{count} x kill -9 while recording", f"{opened} open, {said} say that they break off"
    yield "  acknowledged frames lost", f"{lost}; written, not yet acknowledged, lost: {unsynced_lost}"
    yield "  frames of another moment or size", f"{wrong}"
    yield "  frames beyond the last one told", f"{max(beyond)} at most"
    yield "  torn tails, reported and left out", f"{sum(t > 0 for t in torn)}, of {max(torn)} bytes at most"


def command(workspace: Path, *arguments: object, limit_bytes: int = 0) -> subprocess.Popen:
    line = [sys.executable, ROOT / "pipeline.py", *arguments, "--workspace", workspace]
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes,) * 2)) if limit_bytes else None
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, line)), preexec_fn=limit, **pipes)  # type: ignore[call-overload]


def killed_commands(count: int) -> Iterator[Row]:
    """The whole command killed, and the next run."""
    rng = random.Random(2)
    kept, lost, wrong, said = 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        source = RecordingWriter(Path(name) / "source", RIG, "numbered")
        for i in range(300):
            frame = frame_of(i)
            source.add(i / 30, frame.color, frame.depth_mm)
        source.finish()
        for k in range(count):
            workspace = Path(name) / f"w{k}"
            child = command(workspace, "record", "--subject", "a", "--source", f"replay:{name}/source", "--no-window")
            path = workspace / "a" / ".01_recording.capture" / FILE_NAME
            while child.poll() is None and not (path.exists() and path.stat().st_size > 200_000):
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 3.0))
            before = len(Container.open(path))  # while it is being written
            child.kill()
            child.communicate()
            after = command(workspace, "run", "--subject", "a", "--until", "01_recording")
            words = after.communicate()[1]
            recording = Recording.load(workspace / "a" / "01_recording")
            kept += after.returncode == 0
            said += f"its {len(recording)} whole frames are used" in words
            lost += max(before - len(recording), 0)
            for i in (0, len(recording) - 1):
                moment = round((float(recording.times_s[i]) + begun_s(recording)) * 30)
                wrong += not shows(recording, i, moment)
    if kept < count or said < count or lost or wrong:
        failures.append("commands")
    yield f"{count} x kill -9 of the command", f"{kept} recordings used by the next run, {said} say how many frames"
    yield "  frames lost, frames of another moment", f"{lost}, {wrong}"


def begun_s(recording: Recording) -> float:
    """When the first frame of a replay was taken: it is known by its depth."""
    return next(i / 30 for i in range(300) if shows(recording, 0, i))


@contextmanager
def small_disk(parent: Path) -> Iterator[tuple[Path, str]]:
    """(a folder on a file system of DISK_MB, which kind); the kind is empty where nothing may be mounted."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        point, image = Path(name) / "disk", Path(name) / "image"
        point.mkdir()
        with open(image, "wb") as file:
            file.truncate(DISK_MB * 2**20)
        for kind, lines in (
            ("ext4", (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, point])),
            ("tmpfs", (["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", point],)),
        ):
            if all(shutil.which(str(line[0])) and not _status(list(map(str, line))) for line in lines):
                try:
                    yield point, kind
                finally:
                    subprocess.run(["umount", str(point)], check=True)
                return
        yield point, ""


def _status(line: list[str]) -> int:
    return subprocess.run(line, capture_output=True).returncode


def full_disk(workspace: Path) -> Iterator[Row]:
    from demo.live import FILM, FOLDER, prepared

    prepared(workspace / FOLDER, FILM)
    with ExitStack() as stack:
        disk, kind = stack.enter_context(small_disk(workspace))
        (disk / FOLDER).symlink_to((workspace / FOLDER).resolve())
        free_mb = shutil.disk_usage(disk).free / 2**20
        arguments = ("record", "--subject", "a", "--source", "demo", "--no-window", "--seconds", 30)
        child = command(disk, *arguments, limit_bytes=0 if kind else 24_000_000)
        complaints = child.communicate()[1]
        lines = [line for line in complaints.splitlines() if line.startswith("error: ")]
        where = f"a file system of {free_mb:.0f} MB ({kind})" if kind else "a limit of the file's size"
        folder = next(disk / "a" / n for n in ("01_recording", ".01_recording.capture") if (disk / "a" / n).exists())
        recording = Recording.load(folder)
        readable = sum(frame.color.shape == (1080, 1920, 3) and frame.depth_mm is not None for frame in recording)
        told = re.search(r"its (\d+) frames", complaints)
        is_good = child.returncode == 2 and len(lines) == 1 and told and int(told[1]) == readable == len(recording)
        if not is_good or "Traceback" in complaints:
            failures.append("disk")
        yield "disk full in the middle", f"{where}: exit code {child.returncode}, {len(lines)} line"
        yield "  it says", " ".join(lines).replace(str(disk), "DISK")
        yield "  frames", f"{told[1] if told else '?'} said to be written, {readable} of {len(recording)} read"
        (disk / FOLDER).unlink()
        if folder.name != "01_recording":
            yield from _next_run(disk, workspace, readable)


def _next_run(disk: Path, workspace: Path, count: int) -> Iterator[Row]:
    """Where not even the last words found room: moved to where there is some, the next run takes the frames."""
    with tempfile.TemporaryDirectory(dir=workspace) as name:
        shutil.copytree(disk / "a", Path(name) / "a")
        child = command(Path(name), "run", "--subject", "a", "--until", "01_recording")
        child.communicate()
        found = len(Recording.load(Path(name) / "a" / "01_recording"))
        if child.returncode or found != count:
            failures.append("the run after the full disk")
        yield "  the next run, where there is room", f"exit code {child.returncode}, {found} frames"


def main() -> int:
    parser = argparse.ArgumentParser(description="What kills and a full disk leave of a recording.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--commands", type=int, default=10)
    parser.add_argument("--only", default="kills,commands,disk", help="parts, with commas between them")
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        film_for_ever(chosen.child)
    logging.disable(logging.INFO)
    chosen.workspace.mkdir(parents=True, exist_ok=True)
    parts = {
        "kills": lambda: kills(chosen.kills),
        "commands": lambda: killed_commands(chosen.commands),
        "disk": lambda: full_disk(chosen.workspace),
    }
    wanted = chosen.only.split(",")
    if not set(wanted) <= set(parts):
        parser.error(f"--only {chosen.only}: there are {', '.join(parts)}")
    for part in wanted:
        for name, words in parts[part]():
            print(f"{name:44}{words}", flush=True)
    if failures:
        print(f"not as promised: {', '.join(failures)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
