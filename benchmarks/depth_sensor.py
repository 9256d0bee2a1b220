"""Does the simulated depth sensor err like the real one?

    python benchmarks/depth_sensor.py RECORDING [REAL_FRAMES]

RECORDING: a demo recording.  REAL_FRAMES: a folder of (424, 512) uint16 .npy frames of a Kinect V2; by default
``../shared/data/kinect_v2_depth`` beside the repository.  Prints one table: real against simulated.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture.recording import Recording
from demo.depth_statistics import describe

REAL_FRAMES = Path(__file__).parents[2] / "shared" / "data" / "kinect_v2_depth"


def main(folder: Path, real_folder: Path) -> None:
    recording = Recording.load(folder)
    step = max(len(recording) // 10, 1)
    depths = (recording.depth_mm(i) for i in range(0, len(recording), step))
    simulated = describe(d for d in depths if d is not None)
    real = describe(np.load(path) for path in sorted(real_folder.glob("*.npy")))
    print(f"{'':24}{'real':>10}{'simulated':>12}")
    for name, value in real.items():
        print(f"{name:24}{value:10.3f}{simulated[name]:12.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else REAL_FRAMES)
