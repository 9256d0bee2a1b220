"""Levenberg-Marquardt against Adam through autograd, on the same frames and the same residuals.

    python benchmarks/body_fit_adam.py [--clips demo,casual] [--frames 32] [--workspace DIR] [--data ../shared/data]

Both start from the same pose: that of the frame before, or the same with every joint angle off by 0.10 rad and the
place by 30 mm (standard deviations).  Both see the rows that ``fitting.solve.build_rows`` makes, the same prior and
joint limits, the same fixed shape, clothes and landmark offsets; no pull to a neighbouring frame.  The energies of both
are compared at every start before anything is timed.  LM makes its rows anew at each iteration and takes two steps on
them, Adam makes them at every fifth.  "The tracker's step" is what the pipeline does with a frame: landmarks first, a
fresh start beside the old pose, then everything, the better one judged by the whole picture, limbs exchanged between
them, with the pull to the frame before.

Adam is given its best chance: joints are posed level by level and not one by one, a batch is one graph over 16 frames,
and for each clip, start and number of iterations the learning rate, whether it decays along a cosine to a tenth, and
then the landmarks' kernel at the start (without one, as the solver, or a narrow one) are those with the least energy on
every eighth of these very frames.  Its energy is a sum over frames and each parameter has its own step, so a batch does
to every frame what it does to one frame alone: rows without a batch share its accuracy, and their times are those of
the first four frames.

"The lowest" is, for each frame, the state of least energy that anybody found: the finished fit and the ends of the
longest LM, of the tracker's step and of the longest Adam from both starts, each led on by LM until nothing moves.  Two
of them are compared by the sum of their energies on the rows of both, so that neither wins by the rows it leaves out.

Columns: time per frame, median, one thread for everything; what of it makes rows; the energy above the lowest; the 12
joints against the truth, offsets removed; the distance of the vertices from the lowest, mean over vertices, and the
frames where it is more than 20 mm: another pose.  Last, the paired difference of the joints, with its standard error
over the frames.  The finished fits come from the pipeline's own stages, as in ``benchmarks/tracking.py``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tracking  # first: it decides how threads wait

# isort: split
import numpy as np
import torch
import tracking_figures as figures
from body_fit_torch import Clock, Settings, Skinning, Stage, Task, adam, energies_apart
from threadpoolctl import threadpool_limits

from capture.matting import Masks
from fitting.chain import Chain
from fitting.clip import ALONE, default_prior, follow
from fitting.clip import Clip as Evidence
from fitting.clothes import Clothes
from fitting.offsets import solve_landmark_offsets
from fitting.shape import chain_of
from fitting.solve import Schedule, State, build_rows, solve_pose, total_energy

STARTS = {"the frame before": (0.0, 0.0), "the frame before, disturbed": (0.10, 0.03)}
NARROW = replace(ALONE, landmark_scale=(6.0, 3.0))
LM_SCHEDULES = {
    **{f"LM, {n} iterations": replace(ALONE, iterations=n) for n in (3, 5, 10, 20)},
    "LM, 20 iterations of one step, landmark kernel narrow from the start": replace(NARROW, iterations=20, steps=1),
}
LONGEST_LM, STEP = "LM, 20 iterations", "the tracker's step"
ADAM_ITERATIONS = (50, 200)
BATCH = 16
RATES = (0.005, 0.01, 0.02, 0.04)  # at 0.08 it diverges
SINGLES = 4  # frames that are timed one by one
TUNED = 8  # settings are tried on every so manieth frame
LEAD_ON = Schedule(  # the end of ``ALONE``, kept
    20,
    landmark_scale=2 * (ALONE.landmark_scale[1],),
    gate_m=2 * (ALONE.gate_m[1],),
    gate_outline=2 * (ALONE.gate_outline[1],),
    world_sigma_m=2 * (ALONE.world_sigma_m[1],),
    landmark_depth_m=2 * (ALONE.landmark_depth_m[1],),
    landmark_depth_sigma_m=2 * (ALONE.landmark_depth_sigma_m[1],),
    steps=ALONE.steps,
)
ELSEWHERE_MM = 20.0


@dataclass(frozen=True)
class Frames:
    """The frames of a clip and what they are judged by."""

    stage: Stage
    offsets_m: np.ndarray  # (12, 3) of the joints against the truth, from the finished fit
    finished: list[State]
    by_start: dict[str, list[Task]]


@dataclass(frozen=True)
class Run:
    """What a method did with the tasks of one start."""

    label: str
    spent: str  # three cells of the table
    states: list[State]


def prepare(tracked: tracking.Tracked, count: int) -> Frames:
    """Evidence, starts and truth."""
    fitted, truth_m = tracked.fit, tracked.true_joints_m
    assert truth_m is not None
    body = fitted.body.tracked
    masks = Masks.load(tracked.folder / "02_masks")
    evidence = Evidence(tracked.recording, masks, tracked.keypoints, fitted.camera)
    is_tracked = fitted.tracked
    good = {int(i): State(fitted.pose[i], fitted.camera_from_body[i]) for i in np.flatnonzero(is_tracked)}
    # What the fit knew of clothes and landmarks is not stored: it is solved again from its poses.
    chain = chain_of(body, fitted.shape, fitted.vertex_offsets_m)
    offsets_m = fitted.vertex_offsets_m
    looseness_m = replace(Clothes.none(body, fitted.shape), offsets_m=offsets_m).measured(evidence, good).looseness_m
    landmarks_m = solve_landmark_offsets(chain, evidence, good, np.zeros((len(body.landmark_weights), 3)))
    chain = chain_of(body, fitted.shape, offsets_m, looseness_m, landmarks_m)
    candidates = [i for i in good if i - 1 in good]
    frames = [candidates[k] for k in np.linspace(0, len(candidates) - 1, count).round().astype(int)]
    rng = np.random.default_rng(0)
    tasks: dict[str, list[Task]] = {name: [] for name in STARTS}
    for i in frames:
        observation = evidence[i]
        assert observation is not None
        for name, (angle_rad, place_m) in STARTS.items():
            start = _disturbed(chain, good[i - 1], angle_rad, place_m, rng)
            tasks[name].append(Task(observation, start, truth_m[i]))
    return Frames(
        Stage(body, chain, default_prior(body, chain)),
        figures.joint_offsets_m(tracked.joints_m[is_tracked], truth_m[is_tracked]),
        [good[i] for i in frames],
        tasks,
    )


def _disturbed(chain: Chain, state: State, angle_rad: float, place_m: float, rng: np.random.Generator) -> State:
    dofs = chain.dofs(state.pose)
    placed = state.camera_from_body.copy()
    placed[:3, 3] += rng.normal(0, 1, 3) * place_m
    return State(chain.with_dofs(state.pose, dofs + rng.normal(0, 1, len(dofs)) * angle_rad), placed)


# The methods --------------------------------------------------------------------------------------------------------


def solved(stage: Stage, task: Task, start: State, schedule: Schedule) -> State:
    """Where LM ends."""
    return solve_pose(stage.chain, stage.body.faces, task.observation, start, stage.prior, schedule)[0]


def runs(stage: Stage, tasks: list[Task]) -> Iterable[Run]:
    """All methods on the tasks of one start."""
    yield Run("start", "- | - | -", [t.start for t in tasks])
    for label, schedule in LM_SCHEDULES.items():

        def solve(part: list[Task], _: Clock, schedule=schedule) -> list[State]:
            return [solved(stage, t, t.start, schedule) for t in part]

        states, spent = timed(tasks, 1, solve)
        yield Run(label, spent, states)
    states, spent = timed(
        tasks, 1, lambda part, _: [follow(stage.body, stage.chain, t.observation, stage.prior, t.start) for t in part]
    )
    yield Run(STEP, spent, states)
    skinning = Skinning(stage.chain)
    for iterations in ADAM_ITERATIONS:
        settings = tuned(stage, skinning, tasks[::TUNED], iterations)

        def descend(part: list[Task], clock: Clock, settings=settings) -> list[State]:
            return adam(stage, skinning, part, settings, clock)

        states, spent = timed(tasks, BATCH, descend)
        _, spent_alone = timed(tasks[:SINGLES], 1, descend)
        yield Run(f"Adam, {iterations} iterations ({settings})", spent_alone, states)
        yield Run(f"Adam, {iterations} iterations, {BATCH} frames at once", spent, states)


def tuned(stage: Stage, skinning: Skinning, tasks: list[Task], iterations: int) -> Settings:
    """First the learning rate and whether it decays, then the landmarks' kernel, of least mean energy."""
    tried: dict[Settings, float] = {}

    def best(grid: list[Settings]) -> Settings:
        for settings in grid:
            if settings not in tried:
                states = adam(stage, skinning, tasks, settings, Clock())
                tried[settings] = float(np.mean([_own_energy(stage, t, s) for t, s in zip(tasks, states, strict=True)]))
        return min(tried, key=lambda settings: tried[settings])

    rates = best([Settings(iterations, rate, decays, ALONE) for rate in RATES for decays in (True, False)])
    return best([rates, replace(rates, schedule=NARROW)])


def _own_energy(stage: Stage, task: Task, state: State) -> float:
    rows = build_rows(stage.chain, stage.body.faces, task.observation, state, ALONE, 1.0)
    return total_energy(stage.chain, task.observation, state, stage.prior, rows)


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


# The judgement ------------------------------------------------------------------------------------------------------


def lowest(frames: Frames, by_start: dict[str, list[Run]]) -> list[State]:
    """Per frame, the state of least energy that anybody found."""
    longest_adam = f"Adam, {ADAM_ITERATIONS[-1]} iterations, "
    ends = [frames.finished]
    for done in by_start.values():
        ends += [run.states for run in done if run.label in (LONGEST_LM, STEP) or run.label.startswith(longest_adam)]
    found = []
    for task, candidates in zip(next(iter(frames.by_start.values())), zip(*ends, strict=True), strict=True):
        led_on = [solved(frames.stage, task, state, LEAD_ON) for state in candidates]
        best = led_on[0]
        for state in led_on[1:]:
            if above(frames.stage, task, state, best) < 0:
                best = state
        found.append(best)
    return found


def above(stage: Stage, task: Task, state: State, other: State) -> float:
    """By how much a state's energy is greater than another's, mean over the rows of the one and of the other."""
    rows = [build_rows(stage.chain, stage.body.faces, task.observation, s, ALONE, 1.0) for s in (state, other)]
    own, others = (
        np.array([total_energy(stage.chain, task.observation, s, stage.prior, r) for r in rows]) for s in (state, other)
    )
    return float((own - others).mean())


def joint_errors_mm(frames: Frames, tasks: list[Task], states: list[State]) -> np.ndarray:
    """(N, 12) against the truth, offsets removed."""
    joints_m = np.stack([frames.stage.chain.transforms(s.pose, s.camera_from_body)[2] for s in states])
    joints12_m = figures.of_anny(joints_m, frames.stage.body.joint_names)
    true_m = np.stack([t.true_joints_m for t in tasks])
    return 1e3 * figures.offset_removed_m(joints12_m, true_m, frames.offsets_m)


def apart_mm(chain: Chain, state: State, other: State) -> float:
    """Mean distance of the vertices."""
    a, b = (chain.posed(s.pose, s.camera_from_body)[: chain.num_vertices] for s in (state, other))
    return float(1e3 * np.linalg.norm(a - b, axis=1).mean())


def table(name: str, frames: Frames, start: str, done: list[Run], best: list[State]) -> None:
    """Print what was done from one start."""
    tasks, stage = frames.by_start[start], frames.stage
    print(f"\n### {name}, {len(tasks)} frames, started from {start}\n")
    print(
        "| method | CPU ms a frame | wall ms | making rows, CPU ms | energy above the lowest, median / mean "
        "| 12 joints, mm, mean / median | from the lowest, mm, mean / median | frames elsewhere |"
    )
    print("|---|---|---|---|---|---|---|---|")
    errors_mm = {}
    for run in [*done, Run("the lowest", "- | - | -", best)]:
        errors_mm[run.label] = joint_errors_mm(frames, tasks, run.states)
        of_lowest = list(zip(tasks, run.states, best, strict=True))
        excess = [above(stage, task, state, other) for task, state, other in of_lowest]
        away_mm = np.array([apart_mm(stage.chain, state, other) for _, state, other in of_lowest])
        print(
            f"| {run.label} | {run.spent} | {np.median(excess):.1f} / {np.mean(excess):.1f} "
            f"| {errors_mm[run.label].mean():.1f} / {np.median(errors_mm[run.label]):.1f} "
            f"| {away_mm.mean():.1f} / {np.median(away_mm):.1f} | {(away_mm > ELSEWHERE_MM).sum()} |",
            flush=True,
        )
    their_mm = errors_mm[done[-1].label].mean(1)
    print(f"\nJoints, mm more than those of the last Adam, mean over the frames and its standard error ({start}):")
    for label, own_mm in errors_mm.items():
        more_mm = own_mm.mean(1) - their_mm
        print(f"  {label}: {more_mm.mean():+.1f} +- {more_mm.std(ddof=1) / np.sqrt(len(more_mm)):.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="demo,casual")
    parser.add_argument("--frames", type=int, default=2 * BATCH, help=f"of each clip, best a multiple of {BATCH}")
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
                compared(clip.name, prepare(tracked, options.frames))


def compared(name: str, frames: Frames) -> None:
    """Print the tables of one clip."""
    skinning = Skinning(frames.stage.chain)
    all_tasks = [task for tasks in frames.by_start.values() for task in tasks]
    apart = max(energies_apart(frames.stage, skinning, task, s) for task in all_tasks for s in (ALONE, NARROW))
    assert apart < 1e-4, f"the two energies differ by {apart:.1e}"
    print(f"\n{name}: the two energies agree to {apart:.0e} at all {len(all_tasks)} starts")
    by_start = {start: list(runs(frames.stage, tasks)) for start, tasks in frames.by_start.items()}
    best = lowest(frames, by_start)
    for start, done in by_start.items():
        table(name, frames, start, done, best)


if __name__ == "__main__":
    main()
