"""Levenberg-Marquardt against Adam through autograd, on the same frames and the same residuals.

    python benchmarks/body_fit_adam.py [--clips demo,casual] [--frames 16] [--workspace DIR] [--data ../shared/data]

Both start from the same pose: that of the frame before, or the same with every joint angle off by 0.10 rad and the
place by 30 mm (standard deviations).  Both see the rows that ``fitting.solve.build_rows`` makes, with the same
annealed kernels and gates, the same prior and joint limits, the same fixed shape, clothes and landmark offsets; no
pull to a neighbouring frame.  LM makes its rows anew at each iteration, Adam at every fifth.  "The tracker's step" is
what the pipeline does with a frame: landmarks first, a fresh start beside the old pose, then everything, the better one
judged by the whole picture, limbs exchanged between them, with the pull to the frame before.

Adam is given its best chance: joints are posed level by level and not one by one, a batch is one graph over 16 frames,
and for each clip and start the learning rate, and whether it decays along a cosine to a tenth, are those of a grid with
the least energy on every fourth of these very frames (for 100 iterations, the better of those for 50 and for 200).
Its energy is a sum over frames and each parameter has its own step, so a batch does to every frame what it does to one
frame alone: rows without a batch share its accuracy, and their times are those of the first four frames.

Columns: time per frame, median, one thread for everything; what of it makes rows; the energy on rows common to all
(those at the reference); the 12 joints against the truth, offsets removed, mean over frames and joints; the mean
distance of the vertices from the reference, which is LM with 40 iterations started from the finished fit of that
frame.  The finished fits come from the pipeline's own stages, as in ``benchmarks/tracking.py``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tracking  # first: it decides how threads wait

# isort: split
import numpy as np
import torch
import tracking_figures as figures
from threadpoolctl import threadpool_limits

from capture.matting import Masks
from fitting.body.model import BodyModel, rotations
from fitting.chain import Chain
from fitting.clip import EVERYTHING, default_prior, follow
from fitting.clip import Clip as Evidence
from fitting.observe import Observation
from fitting.offsets import solve_landmark_offsets, solve_offsets
from fitting.shape import chain_of
from fitting.solve import LIMIT_SIGMA_RAD, Prior, State, build_rows, solve_pose, total_energy
from fitting.terms import Rows

STARTS = {"the frame before": (0.0, 0.0), "the frame before, disturbed": (0.10, 0.03)}
LM_ITERATIONS = (3, 5, 8, 16)
ADAM_ITERATIONS = (50, 100, 200)
BATCH, ASSOCIATE_EVERY = 16, 5
RATES = (0.005, 0.01, 0.02, 0.04)  # at 0.08 it diverges
SINGLES = 4  # frames that are timed one by one
TUNED = 4  # rates are tried on every fourth frame
REFERENCE_ITERATIONS = 40


@dataclass(frozen=True)
class Task:
    """One frame: evidence, start, reference and truth."""

    observation: Observation
    start: State
    reference: State
    common: Rows  # at the reference
    true_joints_m: np.ndarray  # (12, 3)


@dataclass(frozen=True)
class Stage:
    """What is the same for all frames of a clip."""

    body: BodyModel
    chain: Chain
    prior: Prior
    offsets_m: np.ndarray  # (12, 3) of the joints against the truth, from the finished fit


@dataclass
class Clock:
    """CPU and wall seconds of its ``with`` blocks."""

    cpu_s: float = 0.0
    wall_s: float = 0.0

    def __enter__(self) -> Clock:
        self._started = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_s += time.process_time() - self._started[0]
        self.wall_s += time.perf_counter() - self._started[1]


# Adam ---------------------------------------------------------------------------------------------------------------


class Skinning:
    """The chain in torch: joint angles and placements of B frames to points (B, P, 3)."""

    def __init__(self, chain: Chain) -> None:
        num_points, num_joints = len(chain.start) - 1, len(chain.parents)
        point = np.repeat(np.arange(num_points), np.diff(chain.start))
        blend = np.zeros((num_points, num_joints, 4))
        blend[point, chain.joint, :3] = chain.weighted_m
        blend[point, chain.joint, 3] = chain.weight
        self._blend = tensor(blend.reshape(num_points, -1))  # one product of matrices skins everything
        depth = np.zeros(num_joints, int)
        for j in range(1, num_joints):
            depth[j] = depth[chain.parents[j]] + 1
        order = np.argsort(depth, kind="stable")
        place = np.argsort(order)
        self._levels = []  # joints of one depth, and where their parents are in the level above
        for level in range(1, depth.max() + 1):
            joints = np.flatnonzero(depth == level)
            above = np.flatnonzero(depth == level - 1)
            offset = chain.joints_m[joints] - chain.joints_m[chain.parents[joints]]
            parent = np.searchsorted(above, chain.parents[joints])
            self._levels.append((torch.as_tensor(joints), torch.as_tensor(parent), tensor(offset)))
        self._back = torch.as_tensor(place)
        self._joints_m = tensor(chain.joints_m)
        # pose_j = axes_j x_j, with the locked angles kept from the start
        self._axes = tensor(chain.axes)
        self._slot = torch.as_tensor(3 * chain.free_joint.astype(int) + chain.free_axis)

    def __call__(
        self, dofs: torch.Tensor, locked: torch.Tensor, root: torch.Tensor, place_m: torch.Tensor
    ) -> torch.Tensor:
        """(B, P, 3) from dofs (B, D), locked angles (B, J, 3), root rotations (B, 3, 3) and root places (B, 3)."""
        count, num_joints = locked.shape[:2]
        local = locked.reshape(count, -1).index_copy(1, self._slot, dofs).reshape(count, num_joints, 3)
        turned = exponential(torch.einsum("jik,bjk->bji", self._axes, local))
        rotation, where = (root @ turned[:, 0])[:, None], place_m[:, None]
        all_rotations, all_places = [rotation], [where]
        for joints, parent, offset in self._levels:
            above = rotation[:, parent]
            where = where[:, parent] + (above @ offset[..., None])[..., 0]
            rotation = above @ turned[:, joints]
            all_rotations.append(rotation)
            all_places.append(where)
        rotation = torch.cat(all_rotations, 1)[:, self._back]
        where = torch.cat(all_places, 1)[:, self._back]
        shift = where - (rotation @ self._joints_m[..., None])[..., 0]
        transforms = torch.cat([rotation, shift[..., None]], -1)  # (B, J, 3, 4)
        return self._blend @ transforms.transpose(2, 3).reshape(count, -1, 3)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(np.asarray(array), dtype=torch.float32)


def exponential(vector: torch.Tensor) -> torch.Tensor:
    """(..., 3) to (..., 3, 3) by Rodrigues' formula."""
    squared = (vector**2).sum(-1)[..., None, None] + 1e-12
    angle = squared.sqrt()
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vector.shape, 3)
    eye = torch.eye(3)
    return eye + torch.sin(angle) / angle * cross + (1 - torch.cos(angle)) / squared * (cross @ cross)


class RowBatch:
    """The rows of B frames as tensors, end to end."""

    def __init__(self, rows: list[Rows], tasks: list[Task], num_points: int) -> None:
        all_rows = Rows.concatenate(rows)
        frame = np.repeat(np.arange(len(rows)), [len(r.point) for r in rows])
        cameras = [t.observation.camera for t in tasks]
        self._point = torch.as_tensor(frame * num_points + all_rows.point)
        self._focal = tensor(np.array([(c.fx_px, c.fy_px) for c in cameras])[frame])
        self._centre = tensor(np.array([(c.cx_px, c.cy_px) for c in cameras])[frame])
        self._is_pixel = torch.as_tensor(all_rows.is_pixel)[:, None]
        self._direction, self._target = tensor(all_rows.direction), tensor(all_rows.target)
        self._weight, self._inverse_scale = tensor(all_rows.weight), tensor(1 / all_rows.scale)

    def energy(self, points_m: torch.Tensor) -> torch.Tensor:
        """Sum of Geman-McClure terms of points (B, P, 3)."""
        p = points_m.reshape(-1, 3)[self._point]
        pixel = p[:, :2] / p[:, 2:].clamp(min=0.05) * self._focal + self._centre
        value = torch.where(self._is_pixel, torch.nn.functional.pad(pixel, (0, 1)), p)
        r = self._weight * (self._direction * (value - self._target)).sum(1)
        return (r**2 / (1 + (r * self._inverse_scale) ** 2)).sum()


def adam(
    stage: Stage, skinning: Skinning, tasks: list[Task], iterations: int, rate: float, decays: bool, rows_clock: Clock
) -> list[State]:
    """Fit B frames in one graph.  E = data + |w (x - mean)|^2 + |beyond the limits|^2 / s^2, as in ``solve``."""
    chain, prior = stage.chain, stage.prior
    root_m = chain.joints_m[0]
    axes_pose = np.stack([np.einsum("jki,jk->ji", chain.axes, t.start.pose) for t in tasks])
    before = np.stack([t.start.camera_from_body for t in tasks])
    locked, first = tensor(axes_pose), tensor(before[:, :3, :3])
    dofs = tensor(np.stack([chain.dofs(t.start.pose) for t in tasks])).requires_grad_()
    turn = torch.zeros(len(tasks), 3, requires_grad=True)
    place_m = tensor(before[:, :3, :3] @ root_m + before[:, :3, 3]).requires_grad_()
    mean, weight = tensor(prior.mean), tensor(prior.weight)
    lower, upper = tensor(prior.lower), tensor(prior.upper)
    optimiser = torch.optim.Adam([dofs, turn, place_m], lr=rate)
    batch = None
    for iteration in range(iterations):
        if iteration % ASSOCIATE_EVERY == 0:
            with rows_clock:
                states = [_state(stage, t, dofs[b], turn[b], place_m[b]) for b, t in enumerate(tasks)]
                progress = iteration / max(iterations - 1, 1)
                rows = [
                    build_rows(chain, stage.body.faces, t.observation, state, EVERYTHING, progress)
                    for t, state in zip(tasks, states, strict=True)
                ]
            batch = RowBatch(rows, tasks, len(chain.start) - 1)
        assert batch is not None
        if decays:
            for group in optimiser.param_groups:
                group["lr"] = rate * (0.55 + 0.45 * np.cos(np.pi * iteration / iterations))
        data = batch.energy(skinning(dofs, locked, exponential(turn) @ first, place_m))
        beyond = (dofs - upper).clamp(min=0) + (lower - dofs).clamp(min=0)
        energy = data + ((weight * (dofs - mean)) ** 2).sum() + (beyond**2).sum() / LIMIT_SIGMA_RAD**2
        optimiser.zero_grad()
        energy.backward()
        optimiser.step()
    return [_state(stage, t, dofs[b], turn[b], place_m[b]) for b, t in enumerate(tasks)]


def _state(stage: Stage, task: Task, dofs: torch.Tensor, turn: torch.Tensor, place_m: torch.Tensor) -> State:
    x, w, c = (t.detach().double().numpy() for t in (dofs, turn, place_m))
    placed = np.eye(4)
    placed[:3, :3] = rotations(w[None])[0] @ task.start.camera_from_body[:3, :3]
    placed[:3, 3] = c - placed[:3, :3] @ stage.chain.joints_m[0]
    return State(stage.chain.with_dofs(task.start.pose, x), placed)


# The comparison -----------------------------------------------------------------------------------------------------


def prepare(tracked: tracking.Tracked, count: int) -> tuple[Stage, dict[str, list[Task]]]:
    """The frames of a clip, by kind of start."""
    fitted, truth_m = tracked.fit, tracked.true_joints_m
    assert truth_m is not None
    body = fitted.body
    masks = Masks.load(tracked.folder / "02_masks")
    evidence = Evidence(tracked.recording, masks, tracked.keypoints, fitted.camera)
    is_tracked = fitted.tracked
    good = {int(i): State(fitted.pose[i], fitted.camera_from_body[i]) for i in np.flatnonzero(is_tracked)}
    # What the fit knew of clothes and landmarks is not stored: it is solved again from its poses.
    chain = chain_of(body, fitted.shape, fitted.vertex_offsets_m)
    offsets_m, looseness_m = solve_offsets(body, chain, evidence, good, fitted.vertex_offsets_m)
    landmarks_m = solve_landmark_offsets(chain, evidence, good, np.zeros((len(body.landmark_weights), 3)))
    chain = chain_of(body, fitted.shape, offsets_m, looseness_m, landmarks_m)
    prior = default_prior(body, chain)
    stage = Stage(body, chain, prior, figures.joint_offsets_m(tracked.joints_m[is_tracked], truth_m[is_tracked]))
    candidates = [i for i in good if i - 1 in good]
    frames = [candidates[k] for k in np.linspace(0, len(candidates) - 1, count).round().astype(int)]
    rng = np.random.default_rng(0)
    tasks: dict[str, list[Task]] = {name: [] for name in STARTS}
    for i in frames:
        observation = evidence[i]
        assert observation is not None
        converged = replace(EVERYTHING, iterations=REFERENCE_ITERATIONS)
        reference, _ = solve_pose(chain, body.faces, observation, good[i], prior, converged)
        common = build_rows(chain, body.faces, observation, reference, EVERYTHING, 1.0)
        for name, (angle_rad, place_m) in STARTS.items():
            start = _disturbed(chain, good[i - 1], angle_rad, place_m, rng)
            tasks[name].append(Task(observation, start, reference, common, truth_m[i]))
    return stage, tasks


def _disturbed(chain: Chain, state: State, angle_rad: float, place_m: float, rng: np.random.Generator) -> State:
    dofs = chain.dofs(state.pose)
    placed = state.camera_from_body.copy()
    placed[:3, 3] += rng.normal(0, 1, 3) * place_m
    return State(chain.with_dofs(state.pose, dofs + rng.normal(0, 1, len(dofs)) * angle_rad), placed)


def judge(stage: Stage, tasks: list[Task], states: list[State]) -> tuple[float, float, float]:
    """(median energy on common rows, mean joint error mm, mean vertex distance from the reference mm)."""
    chain = stage.chain
    energies = [
        total_energy(chain, t.observation, s, stage.prior, t.common) for t, s in zip(tasks, states, strict=True)
    ]
    joints_m = np.stack([chain.transforms(s.pose, s.camera_from_body)[2] for s in states])
    joints12_m = figures.of_anny(joints_m, stage.body.joint_names)
    errors_m = figures.offset_removed_m(joints12_m, np.stack([t.true_joints_m for t in tasks]), stage.offsets_m)
    apart_m = [
        np.linalg.norm(
            chain.posed(s.pose, s.camera_from_body)[: chain.num_vertices]
            - chain.posed(t.reference.pose, t.reference.camera_from_body)[: chain.num_vertices],
            axis=1,
        ).mean()
        for t, s in zip(tasks, states, strict=True)
    ]
    return float(np.median(energies)), 1e3 * float(errors_m.mean()), 1e3 * float(np.mean(apart_m))


def tune(
    stage: Stage, skinning: Skinning, tasks: list[Task], iterations: int, grid: Iterable[tuple[float, bool]]
) -> tuple[float, bool]:
    """Of ``grid``, the learning rate, and whether it decays, with the least mean energy."""
    tried = {}
    for rate, decays in grid:
        states = adam(stage, skinning, tasks, iterations, rate, decays, Clock())
        tried[rate, decays] = np.mean(
            [total_energy(stage.chain, t.observation, s, stage.prior, t.common)
             for t, s in zip(tasks, states, strict=True)]
        )  # fmt: skip
    return min(tried, key=lambda key: tried[key])


def timed(tasks: list[Task], size: int, solve: Callable[[list[Task], Clock], list[State]]) -> tuple[list[State], str]:
    """The states of all tasks, solved ``size`` at a time; milliseconds per frame as three cells of the table."""
    states: list[State] = []
    spent = []
    for k in range(0, len(tasks), size):
        part, of_rows = tasks[k : k + size], Clock()
        with Clock() as whole:
            states += solve(part, of_rows)
        spent.append([1e3 * s / len(part) for s in (whole.cpu_s, whole.wall_s, of_rows.cpu_s)])
    cpu_ms, wall_ms, rows_ms = np.median(spent, axis=0)
    return states, f"{cpu_ms:.1f} | {wall_ms:.1f} | {f'{rows_ms:.1f}' if rows_ms else '-'}"


def compare(name: str, stage: Stage, start: str, tasks: list[Task]) -> None:
    """Print one table."""
    skinning = Skinning(stage.chain)
    print(f"\n### {name}, {len(tasks)} frames, started from {start}\n")
    print("| method | CPU ms a frame | wall ms | making rows, CPU ms | energy | 12 joints, mm | from reference, mm |")
    print("|---|---|---|---|---|---|---|")

    def row(label: str, spent: str, states: list[State]) -> None:
        energy, joints_mm, apart_mm = judge(stage, tasks, states)
        print(f"| {label} | {spent} | {energy:.0f} | {joints_mm:.1f} | {apart_mm:.1f} |", flush=True)

    row("start", "- | - | -", [t.start for t in tasks])
    for iterations in LM_ITERATIONS:
        schedule = replace(EVERYTHING, iterations=iterations)

        def solve(part: list[Task], _: Clock, schedule=schedule) -> list[State]:
            return [
                solve_pose(stage.chain, stage.body.faces, t.observation, t.start, stage.prior, schedule)[0]
                for t in part
            ]

        states, spent = timed(tasks, 1, solve)
        row(f"LM, {iterations} iterations", spent, states)

    def step(part: list[Task], _: Clock) -> list[State]:
        return [follow(stage.body, stage.chain, t.observation, stage.prior, t.start) for t in part]

    states, spent = timed(tasks, 1, step)
    row("the tracker's step", spent, states)
    grid = [(rate, decays) for rate in RATES for decays in (True, False)]
    few, middle, many = ADAM_ITERATIONS
    best = {n: tune(stage, skinning, tasks[::TUNED], n, grid) for n in (few, many)}
    best[middle] = tune(stage, skinning, tasks[::TUNED], middle, {best[few], best[many]})
    for iterations in ADAM_ITERATIONS:
        rate, decays = best[iterations]

        def descend(part: list[Task], clock: Clock, n=iterations, rate=rate, decays=decays) -> list[State]:
            return adam(stage, skinning, part, n, rate, decays, clock)

        states, spent = timed(tasks, BATCH, descend)
        _, spent_alone = timed(tasks[:SINGLES], 1, descend)
        words = f"Adam, {iterations} iterations", f"(rate {rate:g}{', decaying' if decays else ''})"
        row(" ".join(words), spent_alone, states)
        row(f"{words[0]}, {BATCH} frames at once {words[1]}", spent, states)
    row("reference", "- | - | -", [t.reference for t in tasks])


def check_same_energy(stage: Stage, task: Task) -> float:
    """How far both ways to compute the energy of one state and its rows are apart, relative."""
    rows = build_rows(stage.chain, stage.body.faces, task.observation, task.start, EVERYTHING, 1.0)
    ours = total_energy(stage.chain, task.observation, task.start, replace(stage.prior, weight=0 * stage.prior.weight,
                        lower=stage.prior.lower - 9, upper=stage.prior.upper + 9), rows)  # fmt: skip
    chain, start = stage.chain, task.start
    placed = start.camera_from_body
    points_m = Skinning(chain)(
        tensor(chain.dofs(start.pose)[None]),
        tensor(np.einsum("jki,jk->ji", chain.axes, start.pose)[None]),
        tensor(placed[None, :3, :3]),
        tensor((placed[:3, :3] @ chain.joints_m[0] + placed[:3, 3])[None]),
    )
    theirs = float(RowBatch([rows], [task], len(chain.start) - 1).energy(points_m))
    return abs(theirs - ours) / ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="demo,casual")
    parser.add_argument("--frames", type=int, default=BATCH, help=f"of each clip, best a multiple of {BATCH}")
    parser.add_argument("--workspace", type=Path, help="as of benchmarks/tracking.py")
    parser.add_argument("--data", type=Path, default=tracking.SHARED / "data")
    options = parser.parse_args()
    wanted = [name.strip() for name in options.clips.split(",")]
    torch.set_num_threads(1)
    print(f"{tracking.machine()}; torch {torch.__version__}, one thread; Adam's rates tried: {RATES}, decaying or not")
    with tempfile.TemporaryDirectory() as scratch:
        for clip in tracking.CLIPS:
            if clip.name not in wanted:
                continue
            if not clip.is_demo and not (options.data / clip.source).exists():
                print(f"skipped: {clip.name} ({options.data / clip.source} is not there)")
                continue
            tracked = tracking.stages(clip, options.workspace or Path(scratch), options.data, refit=False)
            if tracked.truth is None:
                print(f"skipped: {clip.name} (no truth)")
                continue
            with threadpool_limits(1, "blas"):
                stage, by_start = prepare(tracked, options.frames)
                first = next(iter(by_start.values()))[0]
                apart = check_same_energy(stage, first)
                assert apart < 1e-3, f"the two energies differ by {apart:.1e}"
                for start, tasks in by_start.items():
                    compare(clip.name, stage, start, tasks)


if __name__ == "__main__":
    main()
