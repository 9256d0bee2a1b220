"""Claim: the raster store feeds training with a thirtieth of the bytes of float32 planes.

One body turning in a 1920 x 1080 camera, person crops of --side pixels; the baseline is part + uv + normal planes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from rasterizer import poses_color_m

from capture.camera import Camera
from fitting.body.model import BodyModel
from rendering.rasters import RasterConfig, Rasters, rasterize_frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--frames", type=int, default=24)
    options = parser.parse_args()
    body, camera = BodyModel.default(), Camera((1920, 1080), 1050.0, 1050.0, 960.0, 540.0)
    frames = poses_color_m(body, options.frames)
    doubted = np.zeros((len(frames), len(body.part_names)), bool)
    config = RasterConfig(height_px=options.side, width_px=options.side)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rasterize_frames(config, folder, body, camera, np.ones(1, bool), frames.__getitem__, 30.0, doubted)  # compiles
        started = time.perf_counter()
        rasterize_frames(config, folder, body, camera, np.ones(len(frames), bool), frames.__getitem__, 30.0, doubted)
        wrote_s = (time.perf_counter() - started) / len(frames)
        stored = sum(path.stat().st_size for path in folder.glob("*.npy")) / len(frames)
        rasters = Rasters.load(folder)
        rasters.gather([0])
        started = time.process_time()
        for i in range(len(frames)):
            rasters.gather([i])
        gather_s = (time.process_time() - started) / len(frames)
        covered = len(rasters.part) / len(frames)
    planes = 4 * 6 * options.side**2
    print(
        f"{options.side} x {options.side}, {100 * covered / options.side**2:.1f} % covered, {os.cpu_count()} CPU cores"
    )
    print(f"{'float32 planes':32}{planes / 1e6:9.3f} MB a frame")
    print(f"{'stored (' + format(stored / covered, '.2f') + ' bytes a pixel)':32}{stored / 1e6:9.3f} MB a frame,"
          f" {planes / stored:.0f} times fewer")  # fmt: skip
    print(f"{'rasterise, quantise, write':32}{1e3 * wrote_s:9.2f} ms a frame")
    print(f"{'read as floats (gather)':32}{1e3 * gather_s:9.2f} ms a frame")


if __name__ == "__main__":
    main()
