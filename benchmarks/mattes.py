"""How good are the masks?  Prints one table: MediaPipe alone before, the stage after, against the truth.

    python benchmarks/mattes.py [--data ../shared/data] [--every 3] [--only casual] [--keep FOLDER]

IoU at alpha 0.5 (median and 5th percentile over frames); mean absolute difference of alpha in thousandths (median);
boundary F-measure at 2 px (median); flicker: pixels at 640 by which the outline changes beyond what the optical flow
explains (mean), its excess over that of the truth (flow is not exact, and turning shows new outlines), and how many
times less that is than before (without truth: the flicker itself); CPU milliseconds a frame, all processes and the
learning of the room included, and frames a second on two cores if nothing else ran (2000 / CPU ms; MediaPipe's own
threads included).

casual and the performer have rendered truth.  The masks that come with turntable are thresholded depth, cut off above
the lower edge, without the hair and beside the contour: a sanity check, not a truth.  taichi and tennis have none.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture.importers import ImportConfig, record
from capture.matting import Masks, MatteConfig, matte
from capture.recording import Recording, holds_recording, read_gray
from capture.segment import Segmenter
from capture.steady import unexplained
from demo.performer import DemoConfig, film

TOLERANCE_PX = 2


@dataclass(frozen=True)
class Clip:
    """One row of the table, before and after."""

    name: str
    source: str  # in the data folder; empty = the performer
    no_depth: bool = False
    is_exact: bool = True  # its truth, where it has one, is rendered: then it also says what flicker is the flow's own


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


def measure(recording: Recording, alphas: list[np.ndarray], truths: list[Path] | None, is_exact: bool) -> list[float]:
    """[IoU, 5th percentile, MAD x 1000, boundary F, flicker, its excess]; NaN where there is no truth."""
    rows = []
    for alpha, path in zip(alphas, truths or [], strict=truths is not None):
        truth = read_gray(path) / np.float32(255)
        is_person, is_true = alpha > 127, truth > 0.5
        overlap = (is_person & is_true).sum() / max(1, (is_person | is_true).sum())
        difference = 1000 * np.abs(alpha / np.float32(255) - truth).mean()
        rows.append((overlap, difference, boundary_f(is_person, is_true)))
    table = np.array(rows) if rows else np.full((1, 3), np.nan)
    own = flicker(recording, alphas)
    floor = flicker(recording, [read_gray(path) for path in truths]) if truths and is_exact else 0.0
    overlaps = table[:, 0]
    return [
        float(np.median(overlaps)),
        float(np.percentile(overlaps, 5)),
        *map(float, np.median(table[:, 1:], axis=0)),
        own,
        own - floor,
    ]


def flicker(recording: Recording, alphas: list[np.ndarray]) -> float:
    """Mean change of the outline between neighbours that motion does not explain, in pixels."""
    changes = [
        unexplained(alphas[i] / 255, alphas[i + 1] / 255, recording.color(i), recording.color(i + 1))
        for i in range(len(alphas) - 1)
    ]
    return float(np.nanmean(changes))


def network_alone(recording: Recording) -> list[np.ndarray]:
    """MediaPipe's own masks (H, W) uint8."""
    segmenter, wh = Segmenter(), recording.rig.color.image_wh
    return [
        np.rint(255 * cv2.resize(segmenter.segment(recording.color(i)).probability, wh)).astype(np.uint8)
        for i in range(len(recording))
    ]


def cpu_s() -> float:
    """CPU seconds of this process and of its workers that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def compare(clip: Clip, data: Path, every: int, folder: Path) -> None:
    """Print the two rows of a clip."""
    recording, truths = recorded(clip, data, every, folder)
    started_s = cpu_s()
    before = network_alone(recording)
    before_ms = 1000 * (cpu_s() - started_s) / len(recording)
    out_dir = folder / "masks"
    out_dir.mkdir()
    started_s = cpu_s()
    matte(MatteConfig(), out_dir, recording.folder)
    after_ms = 1000 * (cpu_s() - started_s) / len(recording)
    masks = Masks.load(out_dir)
    after = [np.rint(255 * masks[i]).astype(np.uint8) for i in range(len(masks))]
    figures = [measure(recording, alphas, truths, clip.is_exact) for alphas in (before, after)]
    for label, row, cpu_ms in zip(("MediaPipe", "stage"), figures, (before_ms, after_ms), strict=True):
        overlap, low, difference, boundary, change, excess = row
        less = figures[0][-1] / max(excess, 1e-3)
        print(
            f"{clip.name:18} {label:10} {overlap:6.3f} {low:6.3f} {difference:6.2f} {boundary:6.3f} {change:7.3f} "
            f"{excess:6.3f} {less:5.1f} {cpu_ms:6.0f} {2000 / cpu_ms:6.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--every", type=int, default=3, help="take each n-th frame")
    parser.add_argument("--only", default="", help="clips whose name begins so")
    parser.add_argument("--keep", type=Path, help="leave recordings and masks here, to look at")
    arguments = parser.parse_args()
    print(f"{'recording':18} {'':10} {'IoU':>6} {'p5':>6} {'MAD':>6} {'F 2px':>6} ", end="")
    print(f"{'flicker':>7} {'excess':>6} {'less':>5} {'CPU ms':>6} {'fps':>6}")
    with tempfile.TemporaryDirectory() as temporary:
        home = arguments.keep or Path(temporary)
        for clip in CLIPS:
            if clip.name.startswith(arguments.only) and (not clip.source or (arguments.data / clip.source).exists()):
                folder = home / clip.name.replace(", ", "_")
                folder.mkdir(parents=True)
                compare(clip, arguments.data, arguments.every, folder)


if __name__ == "__main__":
    main()
