"""Does MediaPipe see the demo performer as a person, with her left on her left?

    python benchmarks/demo_pose.py RECORDING [--every N]

RECORDING is a folder that ``demo.performer.film`` wrote (01_recording of the demo subject).  Prints one table: share of
frames with a pose, share with left and right the right way round, and the median and 95th percentile distance in colour
pixels between MediaPipe's landmarks and the true joints; once frame by frame, once with tracking.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture.camera import project
from capture.pose_network import PoseNetwork
from capture.recording import Recording

# MediaPipe's landmark numbers (left, right) and the ground truth's joint.
PAIRS = {
    "shoulder": (11, 12, "Arm"),
    "elbow": (13, 14, "ForeArm"),
    "wrist": (15, 16, "Hand"),
    "hip": (23, 24, "UpLeg"),
    "knee": (25, 26, "Leg"),
    "ankle": (27, 28, "Foot"),
}


def detect(recording: Recording, indices: list[int], static: bool) -> np.ndarray:
    """(M, 33, 2) landmarks in pixels, NaN where no pose was found."""
    width, height = recording.rig.color.image_wh
    found = np.full((len(indices), 33, 2), np.nan)
    with PoseNetwork(static_image_mode=static) as model:
        for row, index in enumerate(indices):
            result = model.process(recording.color(index))
            if result.pose_landmarks:
                found[row] = [(p.x * width, p.y * height) for p in result.pose_landmarks.landmark]
    return found


def compare(found: np.ndarray, truth_px: dict[str, np.ndarray]) -> dict[str, object]:
    """One table row: detection, sides, distances."""
    distances, crossed = {}, []
    for name, (left, right, _) in PAIRS.items():
        truth = np.stack([truth_px[f"{name}.left"], truth_px[f"{name}.right"]], axis=1)
        guess = found[:, [left, right]]
        distances[name] = np.linalg.norm(guess - truth, axis=2)
        crossed.append(np.linalg.norm(guess[:, ::-1] - truth, axis=2).sum(1) < distances[name].sum(1))
        # Sides are only told apart where they are apart in the picture.
        crossed[-1] = np.where(np.linalg.norm(truth[:, 0] - truth[:, 1], axis=1) > 25, crossed[-1], np.nan)
    is_found = np.isfinite(found[:, 0, 0])
    wrong = np.nanmean(np.array(crossed, float)[:, is_found])
    trunk = np.array([crossed[0], crossed[3]], float)[:, is_found]
    row: dict[str, object] = {
        "detected": f"{is_found.mean():.3f}",
        "sides right": f"{1 - wrong:.3f}",
        "trunk right": f"{1 - np.nanmean(trunk):.3f}",
    }
    for name, d in distances.items():
        row[name] = f"{np.nanmedian(d):.0f}/{np.nanpercentile(d, 95):.0f}"
    return row


def main(folder: Path, every: int) -> None:
    recording = Recording.load(folder)
    indices = list(range(0, len(recording), every))
    truth = np.load(folder / "ground_truth" / "joints.npz", allow_pickle=False)
    names = [str(n) for n in truth["names"]]
    truth_px = {
        f"{name}.{side.lower()}": project(
            recording.rig.color, truth["joints_cam_m"][indices, names.index(side + mixamo)]
        )
        for name, (_, _, mixamo) in PAIRS.items()
        for side in ("Left", "Right")
    }
    print("median/p95 px".ljust(14), *(k.rjust(12) for k in ("detected", "sides right", "trunk right", *PAIRS)))
    for label, static in (("each frame", True), ("tracking", False)):
        row = compare(detect(recording, indices, static), truth_px)
        print(label.ljust(14), *(str(v).rjust(12) for v in row.values()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
