"""The solver's energy once more in torch, and Adam on it through autograd; for ``body_fit_adam.py``.

B frames, J joints, P points (vertices, then landmarks), D pose degrees of freedom.

The rows of all data terms, each with its own kernel width, come from ``fitting.solve.build_rows``: cloth that stands
off, landmarks beyond the picture's edge and whatever else the solver sees are in them.  Written anew here are what
computes a residual, the kernel, the pose prior and the joint limits; ``energies_apart`` says how exactly.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from fitting.body.model import BodyModel, rotations
from fitting.chain import Chain
from fitting.observe import Observation
from fitting.solve import LIMIT_SIGMA_RAD, Prior, Schedule, State, build_rows, total_energy
from fitting.terms import Rows

ASSOCIATE_EVERY = 5  # iterations


@dataclass(frozen=True)
class Stage:
    """What is the same for all frames of a clip."""

    body: BodyModel
    chain: Chain
    prior: Prior


@dataclass(frozen=True)
class Task:
    """One frame: evidence, start and truth."""

    observation: Observation
    start: State
    true_joints_m: np.ndarray  # (12, 3)


@dataclass(frozen=True)
class Settings:
    """How Adam is run."""

    iterations: int
    rate: float
    decays: bool  # along a cosine to a tenth
    schedule: Schedule  # gates and kernel widths; its own number of iterations does not matter

    def __str__(self) -> str:
        first, last = self.schedule.landmark_scale
        return f"rate {self.rate:g}{', decaying' if self.decays else ''}, landmark kernel {first:g} to {last:g}"


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


def regularisers(prior: Prior, dofs: torch.Tensor) -> torch.Tensor:
    """|w (x - mean)|^2 + |beyond the limits|^2 / s^2 of DoFs (B, D), summed."""
    beyond = (dofs - tensor(prior.upper)).clamp(min=0) + (tensor(prior.lower) - dofs).clamp(min=0)
    pull = tensor(prior.weight) * (dofs - tensor(prior.mean))
    return (pull**2).sum() + (beyond**2).sum() / LIMIT_SIGMA_RAD**2


@dataclass(frozen=True)
class Unknowns:
    """B states as tensors."""

    dofs: torch.Tensor  # (B, D)
    turn: torch.Tensor  # (B, 3) from the first root rotation
    place_m: torch.Tensor  # (B, 3) of the root joint
    locked: torch.Tensor  # (B, J, 3) angles of the start
    first: torch.Tensor  # (B, 3, 3) root rotation of the start

    @staticmethod
    def of(chain: Chain, starts: list[State]) -> Unknowns:
        placed = np.stack([s.camera_from_body for s in starts])
        return Unknowns(
            tensor(np.stack([chain.dofs(s.pose) for s in starts])).requires_grad_(),
            torch.zeros(len(starts), 3, requires_grad=True),
            tensor(placed[:, :3, :3] @ chain.joints_m[0] + placed[:, :3, 3]).requires_grad_(),
            tensor(np.stack([np.einsum("jki,jk->ji", chain.axes, s.pose) for s in starts])),
            tensor(placed[:, :3, :3]),
        )

    def energy(self, skinning: Skinning, batch: RowBatch, prior: Prior) -> torch.Tensor:
        """data + prior + limits, summed over the frames."""
        points_m = skinning(self.dofs, self.locked, exponential(self.turn) @ self.first, self.place_m)
        return batch.energy(points_m) + regularisers(prior, self.dofs)

    def states(self, chain: Chain, starts: list[State]) -> list[State]:
        """As the solver has them."""
        return [
            _state(chain, s, *(t[b].detach().double().numpy() for t in (self.dofs, self.turn, self.place_m)))
            for b, s in enumerate(starts)
        ]


def adam(stage: Stage, skinning: Skinning, tasks: list[Task], settings: Settings, rows_clock: Clock) -> list[State]:
    """Fit B frames in one graph."""
    chain, starts = stage.chain, [t.start for t in tasks]
    unknowns = Unknowns.of(chain, starts)
    optimiser = torch.optim.Adam([unknowns.dofs, unknowns.turn, unknowns.place_m], lr=settings.rate)
    batch = None
    for iteration in range(settings.iterations):
        if iteration % ASSOCIATE_EVERY == 0:
            with rows_clock:
                progress = iteration / max(settings.iterations - 1, 1)
                rows = [
                    build_rows(chain, stage.body.faces, t.observation, state, settings.schedule, progress)
                    for t, state in zip(tasks, unknowns.states(chain, starts), strict=True)
                ]
            batch = RowBatch(rows, tasks, len(chain.start) - 1)
        assert batch is not None
        if settings.decays:
            for group in optimiser.param_groups:
                group["lr"] = settings.rate * (0.55 + 0.45 * np.cos(np.pi * iteration / settings.iterations))
        energy = unknowns.energy(skinning, batch, stage.prior)
        optimiser.zero_grad()
        energy.backward()
        optimiser.step()
    return unknowns.states(chain, starts)


def _state(chain: Chain, start: State, dofs: np.ndarray, turn: np.ndarray, place_m: np.ndarray) -> State:
    placed = np.eye(4)
    placed[:3, :3] = rotations(turn[None])[0] @ start.camera_from_body[:3, :3]
    placed[:3, 3] = place_m - placed[:3, :3] @ chain.joints_m[0]
    return State(chain.with_dofs(start.pose, dofs), placed)


def energies_apart(stage: Stage, skinning: Skinning, task: Task, schedule: Schedule) -> float:
    """How far solver and twin are apart in the energy of a task's start, relative; the largest over the annealing."""
    chain = stage.chain
    apart = []
    for progress in (0.0, 0.5, 1.0):
        rows = build_rows(chain, stage.body.faces, task.observation, task.start, schedule, progress)
        ours = total_energy(chain, task.observation, task.start, stage.prior, rows)
        batch = RowBatch([rows], [task], len(chain.start) - 1)
        with torch.no_grad():
            theirs = float(Unknowns.of(chain, [task.start]).energy(skinning, batch, stage.prior))
        apart.append(abs(theirs - ours) / ours)
    return max(apart)
