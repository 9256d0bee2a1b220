"""Does the recorder keep what it promises?  Speed, memory, kills, a full disk, and what depth takes.

    python benchmarks/recording.py [--seconds 60] [--kills 200] [--real FOLDER] [--workspace DIR]

The simulated Kinect V2 (1080p colour and depth, 30 frames a second) is filmed by ``pipeline.py record`` itself, with
its guide; ``--seconds 600`` is the full length.  FOLDER holds (424, 512) uint16 .npy frames of a real Kinect V2, by
default ``../shared/data/kinect_v2_depth`` beside the repository.  Prints one table.
"""

from __future__ import annotations

import argparse
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
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture.codec import decode_depth, encode_depth
from capture.container import FILE_NAME, Container
from capture.manifest import Manifest
from capture.recording import Recording
from demo.live import FILM, FOLDER, RawFrames, prepared

ROOT = Path(__file__).parents[1]
REAL_FRAMES = ROOT.parent / "shared" / "data" / "kinect_v2_depth"
Row = tuple[str, str]
WRITER = """
import sys
from pathlib import Path
import numpy as np
from capture.camera import Camera, Rig
from capture.recording import RecordingWriter
writer = RecordingWriter(Path(sys.argv[1]), Rig(Camera((40, 30), 45.0, 45.0, 20.0, 15.0)), "killed")
data, i = np.random.default_rng(0).bytes(60_000), 0
while True:
    writer.add_encoded(i / 30, i.to_bytes(4, "little") + data)
    i += 1
    sys.stdout.write(f"{i} {writer.num_synced}\\n")
    sys.stdout.flush()
"""


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


def record(workspace: Path, seconds: float, limit_bytes: int | None = None) -> tuple[subprocess.CompletedProcess, Path]:
    """Film the demo with the command itself; (how it ended, the subject's folder)."""
    home = workspace / "speed"
    shutil.rmtree(home, ignore_errors=True)
    line = [sys.executable, ROOT / "pipeline.py", "record", "--subject", "speed", "--source", "demo", "--no-window"]
    line += ["--seconds", f"{seconds:g}", "--workspace", workspace]
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes,) * 2)) if limit_bytes else None
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, preexec_fn=limit, env=environment)
    return done, home


def speed(workspace: Path, seconds: float) -> Iterator[Row]:
    before = os.getloadavg()[0]
    done, home = record(workspace, seconds)
    if done.returncode:
        yield "recording", f"failed: {done.stderr.splitlines()[-1]}"
        return
    made = Manifest.load(home / "01_recording")
    assert made is not None
    started_s = time.perf_counter()
    recording = Recording.load(home / "01_recording")
    opened_ms = 1e3 * (time.perf_counter() - started_s)
    steps_ms = 1e3 * np.diff(recording.times_s)
    size_mb = (home / "01_recording" / FILE_NAME).stat().st_size / 1e6
    yield f"recording, {seconds:g} s of 1080p at 30/s", done.stdout.splitlines()[0]
    yield "  memory, all processes", f"{made.peak_rss_mb:.0f} MB at most"
    yield "  time between frames", f"median {np.median(steps_ms):.1f} ms, most {steps_ms.max():.1f} ms"
    yield "  size", f"{size_mb:.0f} MB, {size_mb / seconds:.1f} MB/s; opens in {opened_ms:.0f} ms"
    rng = np.random.default_rng(0)
    started_s = time.perf_counter()
    for index in rng.integers(0, len(recording), 20):
        recording[int(index)]
    yield "  random access", f"{1e3 * (time.perf_counter() - started_s) / 20:.0f} ms a frame, decoded"
    yield "  machine", f"{os.cpu_count()} cores, load {before:.1f} before it began"


def kills(count: int) -> Iterator[Row]:
    """kill -9 at random moments of writing; what the reader then finds."""
    rng = random.Random(1)
    opened = lost_synced = lost_written = 0
    beyond: list[int] = []
    torn: list[int] = []
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            child = subprocess.Popen(
                [sys.executable, "-c", WRITER, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
            assert child.stdout is not None
            said = [child.stdout.readline()]
            time.sleep(rng.uniform(0.0, 1.5))
            child.send_signal(signal.SIGKILL)
            said += child.stdout.read().splitlines()
            child.wait()
            written, synced = map(int, next(line for line in reversed(said) if len(line.split()) == 2).split())
            found = Container.open(Path(folder) / FILE_NAME)
            opened += 1
            intact = sum(int.from_bytes(found.color(i)[:4], "little") == i for i in range(len(found)))
            lost_synced += max(synced - intact, 0)
            lost_written += max(written - intact, 0)
            beyond.append(intact - written)
            torn.append(found.torn_bytes)
    yield f"{count} x kill -9 while writing", f"{opened} open; acknowledged frames lost: {lost_synced}"
    yield "  written, not yet acknowledged, lost", f"{lost_written}"
    yield "  torn tails, reported and left out", f"{sum(t > 0 for t in torn)}, at most one frame ({max(torn)} bytes)"


def full_disk(workspace: Path) -> Iterator[Row]:
    limit_bytes = 24_000_000
    done, home = record(workspace, 30.0, limit_bytes)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    yield "disk full in the middle", f"exit code {done.returncode}, {len(lines)} line: {' '.join(lines)[:150]}"
    folder = next(path for path in (home / "01_recording", home / ".01_recording.capture") if path.exists())
    recording = Recording.load(folder)
    readable = sum(frame.color.shape == (1080, 1920, 3) for frame in recording)
    told = re.search(r"its (\d+) frames", done.stderr)
    yield "  frames", f"{told[1] if told else '?'} said to be written, {readable} of {len(recording)} read"


def main() -> None:
    parser = argparse.ArgumentParser(description="The recorder's figures.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--real", type=Path, default=REAL_FRAMES)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    chosen = parser.parse_args()
    prepared(chosen.workspace / FOLDER, FILM)
    film = RawFrames(chosen.workspace / FOLDER / "film.raw")
    rows: list[Row] = list(depth_codec("simulated", [film[i][1] for i in range(0, len(film), 8)]))
    real = [np.load(path) for path in sorted(chosen.real.glob("*.npy"))]
    rows += depth_codec("real Kinect V2", real) if real else [("depth, real Kinect V2", f"not in {chosen.real}")]
    rows += speed(chosen.workspace, chosen.seconds)
    rows += full_disk(chosen.workspace)
    rows += kills(chosen.kills)
    for name, words in rows:
        print(f"{name:42}{words}")


if __name__ == "__main__":
    main()
