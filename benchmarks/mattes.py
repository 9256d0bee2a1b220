"""How good are the masks?  Prints one table: network, edge and depth, against the truth.

    python benchmarks/mattes.py [--data ../shared/data] [--every 12]

IoU at alpha 0.5 (median and 5th percentile over frames), mean absolute difference of alpha in thousandths, CPU
milliseconds a frame on one core.  casual has rendered truth.  The masks that come with turntable are thresholded
depth, cut off above the lower edge and without the hair: a sanity check, not a truth.  Selfie is MediaPipe's other
segmentation network.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture.importers import ImportConfig, record
from capture.matting import MatteConfig, refined
from capture.recording import Recording, read_gray
from capture.segment import Segmenter, main_part

Method = Callable[[Recording, int, np.ndarray], np.ndarray]  # (recording, index, colour) -> alpha (H, W)


def truth_path(data: Path, name: str, frame: int) -> Path:
    """The mask that belongs to source frame ``frame``."""
    if name == "casual":
        return data / "casual_rgbd" / "ground_truth" / "mask" / f"{frame:06d}.png"
    return data / "turntable_rgbd" / f"{frame:010d}_mask.jpg"


def methods() -> dict[str, Method]:
    """The rows of the table."""
    import mediapipe as mp

    selfie = mp.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)
    segmenter = Segmenter()
    config = MatteConfig()

    def network(recording: Recording, index: int, color: np.ndarray) -> np.ndarray:
        probability = segmenter.segment(color).probability
        return cv2.resize(probability, (color.shape[1], color.shape[0]), interpolation=cv2.INTER_LINEAR)

    def edged(recording: Recording, index: int, color: np.ndarray) -> np.ndarray:
        return refined(config, recording, color, main_part(segmenter.segment(color).probability), None)

    def deep(recording: Recording, index: int, color: np.ndarray) -> np.ndarray:
        probability = main_part(segmenter.segment(color).probability)
        return refined(config, recording, color, probability, recording.depth_mm(index))

    return {
        "Selfie segmentation alone": lambda recording, index, color: selfie.process(color).segmentation_mask.copy(),
        "Pose segmentation alone": network,
        "+ closed-form edge": edged,
        "+ closed-form edge + depth": deep,
    }


def measure(recording: Recording, truths: list[np.ndarray], method: Method) -> tuple[float, float, float, float]:
    """(median IoU, 5th percentile, mean absolute difference x 1000, CPU milliseconds a frame)."""
    overlaps, differences, cpu_s = [], [], 0.0
    for index, truth in enumerate(truths):
        color = recording.color(index)
        started_s = time.process_time()
        alpha = method(recording, index, color)
        cpu_s += time.process_time() - started_s
        is_person, is_true = alpha > 0.5, truth > 0.5
        overlaps.append((is_person & is_true).sum() / max(1, (is_person | is_true).sum()))
        differences.append(1000 * np.abs(alpha - truth).mean())
    low = float(np.percentile(overlaps, 5))
    return float(np.median(overlaps)), low, float(np.median(differences)), 1000 * cpu_s / len(truths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--every", type=int, default=12, help="take each n-th frame")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{'recording':10} {'method':28} {'IoU':>6} {'p5':>6} {'MAD':>6} {'ms':>5}")
    for name in ("casual", "turntable"):
        with tempfile.TemporaryDirectory() as folder:
            record(ImportConfig(every=arguments.every), Path(folder), arguments.data / f"{name}_rgbd")
            recording = Recording.load(Path(folder))
            frames = range(0, arguments.every * len(recording), arguments.every)
            truths = [read_gray(truth_path(arguments.data, name, frame)) / np.float32(255) for frame in frames]
            for label, method in methods().items():
                method(recording, 0, recording.color(0))  # loading and compiling are not counted
                overlap, low, difference, cpu_ms = measure(recording, truths, method)
                print(f"{name:10} {label:28} {overlap:6.3f} {low:6.3f} {difference:6.2f} {cpu_ms:5.0f}", flush=True)


if __name__ == "__main__":
    main()
