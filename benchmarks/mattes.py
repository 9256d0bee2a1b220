"""How good are the masks?  Prints one table: MediaPipe alone before, the stage after, against the truth.

    python benchmarks/mattes.py [--data ../shared/data] [--every 1] [--only casual] [--keep FOLDER]
    python benchmarks/mattes.py --speed 60 300 [--keep FOLDER]

IoU at alpha 0.5 (median and 5th percentile over frames); mean absolute difference of alpha in thousandths (median);
boundary F-measure at 2 px (median); flicker, as ``flicker`` defines it: raw, believed, true, and how many times less
the last is than before; CPU milliseconds a frame, all processes, the learning of the room and the start of processes
included, and frames a second on two cores if nothing else ran (2000 / CPU ms).  The truth's own flicker has a row.

casual and the performer have rendered truth.  The masks that come with turntable are exactly the pixels with a return
nearer than 2 m: they end where the depth sensor ends (above the lower edge, at dark hair, in the shadow of its
projector).  The second row of it compares only pixels that have a return.  taichi and tennis have no truth.

--speed films the performer at 1080p and prints, per length, wall and CPU seconds of the whole stage; what each frame
adds and what a film costs once follow from the line through them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from flicker import flickers

from capture.files import read_gray
from capture.importers import ImportConfig, record
from capture.matting import MatteConfig, matte
from capture.recording import Recording, holds_recording
from capture.segment import Segmenter
from demo.performer import DemoConfig, film

TOLERANCE_PX = 2


@dataclass(frozen=True)
class Clip:
    """One row of the table, before and after."""

    name: str
    source: str  # in the data folder; empty = the performer
    no_depth: bool = False
    is_exact: bool = True  # its truth, where it has one, is rendered


CLIPS = (
    Clip("casual", "casual_rgbd"),
    Clip("casual, colour", "casual_rgbd", no_depth=True),
    Clip("performer", ""),
    Clip("performer, colour", "", no_depth=True),
    Clip("turntable", "turntable_rgbd", is_exact=False),
    Clip("taichi", "taichi_rgb/taichi.mp4"),
    Clip("tennis", "tennis_rgb/tennis.mp4"),
)


def recorded(clip: Clip, data: Path, every: int, folder: Path) -> tuple[Recording, list[Path] | None]:
    """The recording of a clip, and the truth of each of its frames where there is one."""
    config = ImportConfig(no_depth=clip.no_depth, every=every)
    if clip.source:
        record(config, folder / "recording", data / clip.source)
        recording = Recording.load(folder / "recording")
        frames = [every * i for i in range(len(recording))]
        if clip.source.startswith("casual"):
            return recording, [data / "casual_rgbd" / "ground_truth" / "mask" / f"{i:06d}.png" for i in frames]
        if clip.source.startswith("turntable"):
            return recording, [data / "turntable_rgbd" / f"{i:010d}_mask.jpg" for i in frames]
        return recording, None
    whole = folder.parent / "filmed"
    if not holds_recording(whole):
        whole.mkdir(exist_ok=True)
        film(DemoConfig(), whole)
    record(config, folder / "recording", whole)
    recording = Recording.load(folder / "recording")
    return recording, [whole / "ground_truth" / "masks" / f"{every * i:06d}.png" for i in range(len(recording))]


def boundary_f(is_person: np.ndarray, is_true: np.ndarray) -> float:
    """Harmonic mean of the shares of either outline that lie within TOLERANCE_PX of the other."""
    outlines = [m & (cv2.erode(m.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0) for m in (is_person, is_true)]
    if not all(outline.any() for outline in outlines):
        return 0.0
    away_px = [cv2.distanceTransform((~outline).astype(np.uint8), cv2.DIST_L2, 5) for outline in outlines]
    precision = (away_px[1][outlines[0]] <= TOLERANCE_PX).mean()
    recall = (away_px[0][outlines[1]] <= TOLERANCE_PX).mean()
    return float(2 * precision * recall / max(1e-9, precision + recall))


def measure(alphas: list[np.ndarray], truths: list[Path], returns: list[np.ndarray] | None) -> list[float]:
    """[IoU, 5th percentile, MAD x 1000, boundary F]; only where there are ``returns`` (H, W), if given."""
    rows = []
    for i, (alpha, path) in enumerate(zip(alphas, truths, strict=True)):
        truth = read_gray(path) / np.float32(255)
        compared = np.ones(alpha.shape, bool) if returns is None else returns[i]
        is_person, is_true = (alpha > 127) & compared, (truth > 0.5) & compared
        overlap = (is_person & is_true).sum() / max(1, (is_person | is_true).sum())
        difference = 1000 * np.abs(alpha / np.float32(255) - truth)[compared].mean()
        rows.append((overlap, difference, boundary_f(is_person, is_true)))
    table = np.array(rows)
    overlaps = table[:, 0]
    return [float(np.median(overlaps)), float(np.percentile(overlaps, 5)), *map(float, np.median(table[:, 1:], axis=0))]


def flicker(recording: Recording, series: list[list[np.ndarray]], truths: list[Path] | None) -> np.ndarray:
    """(len(series) + 1, 3) raw, believed and true flicker of masks, the truth's own in the last row."""
    rows = []
    for i in range(len(recording) - 1):
        exact = None if truths is None else (read_gray(truths[i]), read_gray(truths[i + 1]))
        pairs = [(alphas[i], alphas[i + 1]) for alphas in series]
        found = flickers(recording.color(i), recording.color(i + 1), [*pairs, *([exact] if exact else [])], exact)
        rows.append(np.pad(found, ((0, len(series) + 1 - len(found)), (0, 0)), constant_values=np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no truth: the mean of nothing is NaN
        return np.nanmean(np.array(rows), axis=0)


def network_alone(recording: Recording) -> list[np.ndarray]:
    """MediaPipe's own masks (H, W) uint8."""
    segmenter, wh = Segmenter(), recording.rig.color.image_wh
    return [
        np.rint(255 * cv2.resize(segmenter.segment(recording.color(i)).probability, wh)).astype(np.uint8)
        for i in range(len(recording))
    ]


def cpu_s() -> float:
    """CPU seconds of this process and of its workers, which have nothing left to do: what runs is not counted."""
    for worker in multiprocessing.active_children():
        worker.join()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def compare(clip: Clip, data: Path, every: int, folder: Path) -> None:
    """Print the rows of a clip."""
    recording, truths = recorded(clip, data, every, folder)
    started_s = cpu_s()
    before = network_alone(recording)
    before_ms = 1000 * (cpu_s() - started_s) / len(recording)
    out_dir = folder / "masks"
    out_dir.mkdir()
    started_s = cpu_s()
    matte(MatteConfig(), out_dir, recording.folder)
    after_ms = 1000 * (cpu_s() - started_s) / len(recording)
    after = [read_gray(out_dir / "masks" / f"{i:06d}.png") for i in range(len(recording))]
    change = flicker(recording, [before, after], truths if clip.is_exact else None)
    nothing = [np.nan] * 4
    for alphas, row, label, cpu_ms in zip(
        (before, after), change, ("MediaPipe", "stage"), (before_ms, after_ms), strict=False
    ):
        accuracy = measure(alphas, truths, None) if truths else nothing
        print_row(clip.name, label, accuracy, [*row, change[0, 2] / row[2], cpu_ms, 2000 / cpu_ms])
        if truths and not clip.is_exact:
            depths = [recording.depth_mm(i) for i in range(len(recording))]
            returns = [depth_mm > 0 for depth_mm in depths if depth_mm is not None]
            print_row("  with a return", label, measure(alphas, truths, returns), [np.nan] * 6)
    if truths and clip.is_exact:
        print_row(clip.name, "truth", nothing, [*change[2], *[np.nan] * 3])


def print_row(name: str, label: str, accuracy: list[float], rest: list[float]) -> None:
    digits = (3, 3, 2, 3, 3, 3, 3, 1, 0, 1)
    cells = [f"{v:7.{d}f}" if np.isfinite(v) else f"{'-':>7}" for v, d in zip([*accuracy, *rest], digits, strict=True)]
    print(f"{name:18} {label:10} {' '.join(cells)}", flush=True)


def speed(lengths: list[int], home: Path) -> None:
    """Print wall and CPU seconds of the stage for the first frames of one 1080p film, and the line through them."""
    whole = home / f"filmed_{max(lengths)}"
    if not holds_recording(whole):
        whole.mkdir(exist_ok=True)
        film(DemoConfig(num_frames=max(lengths)), whole)
    taken = []
    for length in lengths:
        folder, out_dir = home / f"speed_{length}", home / f"speed_{length}_masks"
        for made in (folder, out_dir):
            made.mkdir()
        record(ImportConfig(max_frames=length), folder, whole)
        wall_s, used_s = time.monotonic(), cpu_s()
        matte(MatteConfig(), out_dir, folder)
        wall_s, used_s = time.monotonic() - wall_s, cpu_s() - used_s
        taken.append(used_s)
        print(
            f"{length:5d} frames  wall {wall_s:6.1f} s, {length / wall_s:4.1f} frames/s;  CPU {used_s:6.1f} s, "
            f"{2 * length / used_s:4.1f} frames/s on two cores of its own;  load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    if len(set(lengths)) > 1:
        per_frame_s, once_s = np.polyfit(lengths, taken, 1)
        print(
            f"each frame {1000 * per_frame_s:.0f} ms CPU ({2 / per_frame_s:.1f} frames/s), a film once {once_s:.1f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--every", type=int, default=1, help="take each n-th frame")
    parser.add_argument("--only", default="", help="clips whose name begins so")
    parser.add_argument("--keep", type=Path, help="leave recordings and masks here, to look at")
    parser.add_argument("--speed", type=int, nargs="+", metavar="FRAMES", help="time films of so many frames instead")
    arguments = parser.parse_args()
    if arguments.speed:
        with tempfile.TemporaryDirectory() as temporary:
            speed(arguments.speed, arguments.keep or Path(temporary))
        return
    names = ("IoU", "p5", "MAD", "F 2px", "raw", "believed", "true", "less", "CPU ms", "fps")
    print(f"{'recording':18} {'':10} {' '.join(f'{name[:7]:>7}' for name in names)}")
    with tempfile.TemporaryDirectory() as temporary:
        home = arguments.keep or Path(temporary)
        for clip in CLIPS:
            if clip.name.startswith(arguments.only) and (not clip.source or (arguments.data / clip.source).exists()):
                folder = home / clip.name.replace(", ", "_")
                folder.mkdir(parents=True)
                compare(clip, arguments.data, arguments.every, folder)


if __name__ == "__main__":
    main()
