"""How fast is the body fitted?  Prints one table per clip: evidence, and fits of 3, 5 and 8 iterations.

    python benchmarks/body_fit_speed.py [--data ../shared/data] [--frames 30] [--rounds 3]

Clips: the demo performer, filmed for this (colour 1920 x 1080, depth 512 x 424), and when it is there casual_rgbd
(both 640 x 540).  Every fit starts from the pose of the frame before and is held to it.  The networks that find the
person and her landmarks run beforehand and are not counted; neither are shape, compiling and reading files.

Milliseconds are medians of one process's CPU time, so that a busy machine does not count; frames a second on one core
follow from them.  For two processes each half of the frames is fitted by one of them at the same time, by the clock.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture.camera import Camera, Rig
from capture.importers import ImportConfig, record
from capture.recording import Recording
from capture.segment import Segmenter, main_part
from capture.workers import Workers
from demo.performer import DemoConfig, film
from fitting.body.model import BodyModel
from fitting.chain import Chain
from fitting.clip import ALONE, EVERYTHING, default_prior, fit_from_scratch
from fitting.keypoints import detect
from fitting.observe import Observation, observe
from fitting.shape import chain_of
from fitting.solve import Prior, State, pose_cost, solve_pose

ITERATIONS = (3, 5, 8)
BOTH = "evidence + 5 iterations with depth"


@dataclass(frozen=True)
class Frame:
    """What one frame is fitted from."""

    alpha: np.ndarray  # (H, W) uint8
    depth_mm: np.ndarray | None
    landmarks: tuple[np.ndarray, np.ndarray, np.ndarray]  # pixels, visibility, metres
    before: State


@dataclass(frozen=True)
class Work:
    """Some frames and all that is needed to fit them, in any process."""

    body: BodyModel
    chain: Chain
    prior: Prior
    camera: Camera
    rig: Rig
    frames: list[Frame]


def prepared(recording: Recording) -> Work:
    """Masks, landmarks and start poses of a recording."""
    segmenter = Segmenter()
    colors = [recording.color(i) for i in range(len(recording))]
    size = recording.rig.color.image_wh
    keypoints = detect(iter(colors), len(colors))
    body = BodyModel.default()
    chain = chain_of(body, np.zeros(body.num_shape))
    work = Work(body, chain, default_prior(body, chain), recording.rig.color, recording.rig, [])
    before: State | None = None
    for i, color in enumerate(colors):
        if not keypoints.found[i]:
            before = None
            continue
        alpha = np.clip(cv2.resize(main_part(segmenter.segment(color).probability), size), 0, 1)
        landmarks = keypoints.points_px[i], keypoints.visibility[i], keypoints.world_m[i]
        start = before or State(np.zeros((body.num_joints, 3)), np.eye(4))
        frame = Frame((alpha * 255).astype(np.uint8), recording.depth_mm(i), landmarks, start)
        seen = evidence(work, frame, in_float(frame))
        if seen is None:
            before = None
            continue
        if before is None:
            start, _ = fit_from_scratch(body, chain, seen, work.prior)
            before, _ = solve_pose(chain, body.faces, seen, start, work.prior, EVERYTHING)
        else:
            work.frames.append(frame)
            before = fitted(work, frame, seen, 8)
    return work


def in_float(frame: Frame) -> np.ndarray:
    return frame.alpha.astype(np.float32) / np.float32(255)


def evidence(work: Work, frame: Frame, alpha: np.ndarray) -> Observation | None:
    return observe(work.camera, work.rig, alpha, frame.depth_mm, *frame.landmarks)


def fitted(work: Work, frame: Frame, seen: Observation, iterations: int) -> State:
    prior = replace(work.prior, neighbour=frame.before)
    schedule = replace(ALONE, iterations=iterations)
    return solve_pose(work.chain, work.body.faces, seen, frame.before, prior, schedule)[0]


def measured(work: Work, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of CPU and by the clock of every call, by the name of the method."""
    cv2.setNumThreads(1)
    took: dict[str, list[tuple[float, float]]] = {}

    def clock(name: str, call: Callable[[], object]) -> object:
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        result = call()
        took.setdefault(name, []).append((time.process_time() - cpu_s, time.perf_counter() - wall_s))
        return result

    with threadpool_limits(1, "blas"):
        for round_ in range(rounds + 1):  # the first round compiles
            if round_ == 1:
                took.clear()
            for frame in work.frames:
                alpha = in_float(frame)
                seen = clock("evidence", lambda f=frame, a=alpha: evidence(work, f, a))  # type: ignore[misc]
                assert isinstance(seen, Observation)
                flat = replace(seen, surface_m=None, surface_normals=None)
                for iterations in ITERATIONS:
                    for words, one in (("with depth", seen), ("without depth", flat)):
                        name = f"{iterations} iterations {words}"
                        clock(name, lambda f=frame, o=one, n=iterations: fitted(work, f, o, n))  # type: ignore[misc]
                cost = (work.chain, work.body.faces, seen, frame.before, work.prior)
                clock("cost of a pose", lambda c=cost: pose_cost(*c))  # type: ignore[misc]
                both = np.array(took["evidence"][-1]) + took["5 iterations with depth"][-1]
                took.setdefault(BOTH, []).append((float(both[0]), float(both[1])))
    return took


def table(work: Work, rounds: int) -> None:
    """One clip's rows."""
    alone = measured(work, rounds)
    middle = len(work.frames) // 2
    halves = [replace(work, frames=work.frames[:middle]), replace(work, frames=work.frames[middle:])]
    with Workers(2) as workers:
        together = list(workers.map(measured, [(half, rounds) for half in halves]))
    print(f"{'':36}{'ms':>8}{'frames/s, one core':>22}{'two processes':>16}")
    for name, times in alone.items():
        cpu_ms = 1e3 * float(np.median([cpu for cpu, _ in times]))
        rate = sum(1 / float(np.median([wall for _, wall in half[name]])) for half in together)
        print(f"{name:36}{cpu_ms:8.2f}{1e3 / cpu_ms:22.0f}{rate:16.0f}", flush=True)


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--frames", type=int, default=30, help="frames of each clip")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is fitted")
    arguments = parser.parse_args()
    print(
        f"{processor()}, {os.cpu_count()} cores, {platform.system()}, one thread a process, load "
        f"{os.getloadavg()[0]:.1f} at the start"
    )
    with tempfile.TemporaryDirectory() as folder:
        sources: dict[str, Callable[[Path], None]] = {
            "demo": lambda out: film(DemoConfig(num_frames=arguments.frames), out)
        }
        if (arguments.data / "casual_rgbd").is_dir():
            taken = ImportConfig(max_frames=arguments.frames)
            sources["casual"] = lambda out: record(taken, out, arguments.data / "casual_rgbd")
        for name, source in sources.items():
            out = Path(folder) / name
            out.mkdir()
            source(out)
            work = prepared(Recording.load(out))
            print(f"\n{name}, {len(work.frames)} frames, colour {work.camera.image_wh}")
            table(work, arguments.rounds)


if __name__ == "__main__":
    main()
