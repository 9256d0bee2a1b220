"""Drive an avatar by moving: the live tracker's pose on the avatar's body, frame by frame.

A ``LiveFit`` enters, a picture leaves: what the camera sees and the avatar beside it, or the avatar alone.  Causal, so
feet are put on the floor but not held still, as ``standing`` does it who knows the future.
J joints, V vertices, h x w pixels of a picture.  World: z up, floor at 0, below the camera.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from capture.camera import Camera, invert, transform
from capture.errors import UserError
from fitting.body.model import BodyModel
from fitting.live import LiveFit, LiveTracker
from fitting.overlay import draw_overlay
from fitting.play import LONG_SIDE_PX, Tally, with_status
from fitting.solve import State
from rendering.avatar import Avatar
from rendering.backgrounds import ROOM, STUDIO, TRANSPARENT, Background, Moment, check_background, in_studio, plain
from rendering.captured import shrunk
from rendering.standing import low_vertices
from rendering.viewpoints import View

BESIDE, INSTEAD = "beside", "instead"
LAYOUTS = (BESIDE, INSTEAD)
CALM = 0.6  # of a pose is the new frame's, the rest the one before: a live fit trembles by a degree
UP_FRAMES, FLOOR_FRAMES = 60.0, 30.0  # over which the directions of up and the floor's height are averaged
SEARCH_M = 0.3  # a floor that seems lower by more is not one: a leg was taken for longer than it is


def check_layout(layout: str, background: str) -> None:
    """Raises UserError for words that say nothing, or nothing that can be had live."""
    if layout not in LAYOUTS:
        raise UserError(f"--show {layout}: choose one of {', '.join(LAYOUTS)}")
    if background in (ROOM, TRANSPARENT):
        raise UserError(f"--background {background}: not while driving; studio, a colour like #20a040, or a picture")
    check_background(background)


@dataclass
class Ground:
    """Where down is, and how far, as the soles of the last second say."""

    up: np.ndarray | None = None  # (3,) unit, camera's frame
    floor_m: float = 0.0  # height of the floor along it, negative: below the camera

    def see(self, camera_from_body: np.ndarray, soles_m: np.ndarray) -> None:
        """Take note of a body (4, 4) and its soles (P, 3), camera's frame."""
        ahead = camera_from_body[:3, 2]
        first = self.up is None
        up = ahead if self.up is None else self.up + (ahead - self.up) / UP_FRAMES
        self.up = up / np.linalg.norm(up)
        lowest_m = float((soles_m @ self.up).min())
        # Feet that leave the floor say nothing about it: it is followed down at once, up slowly.
        rate = 1.0 if first else (0.5 if lowest_m < self.floor_m else 1.0 / FLOOR_FRAMES)
        step_m = np.clip(lowest_m - self.floor_m, -SEARCH_M, SEARCH_M) if not first else lowest_m - self.floor_m
        self.floor_m += rate * float(step_m)

    def camera_from_world(self) -> np.ndarray:
        """(4, 4); the world's y points away from the camera."""
        assert self.up is not None
        right = np.cross([0.0, 0.0, 1.0], self.up)
        right /= np.linalg.norm(right)
        camera_from_world = np.eye(4)
        camera_from_world[:3, :3] = np.stack([right, np.cross(self.up, right), self.up], axis=1)
        camera_from_world[:3, 3] = self.up * self.floor_m
        return camera_from_world


@dataclass
class Puppet:
    """The avatar that follows; called with every tracked frame, as ``fitting.play`` does."""

    avatar: Avatar
    subject: str
    layout: str = BESIDE
    background: str = STUDIO
    _state: State | None = None
    _ground: Ground = field(default_factory=Ground)
    _backdrop: Background | None = None

    def __call__(self, tracker: LiveTracker, fitted: LiveFit, tally: Tally) -> np.ndarray:
        """(h, w, 3) uint8.  While the person is lost, the avatar stays as it was."""
        if fitted.state is not None:
            self._follow(tracker, fitted.state)
        camera = shrunk(fitted.camera, LONG_SIDE_PX)
        shown = self._picture(camera)
        if self.layout == BESIDE:
            seen = draw_overlay(fitted.frame.color, fitted.camera, tracker.body, None, None, "", LONG_SIDE_PX)
            seen = cv2.resize(seen, camera.image_wh) if seen.shape != shown.shape else seen
            shown = np.concatenate([seen, shown], axis=1)
        return with_status(np.ascontiguousarray(shown), fitted, tally)

    def _follow(self, tracker: LiveTracker, state: State) -> None:
        shape = self.avatar.bodies[self.subject]
        check_same_skeleton(tracker.body, shape.body)
        theirs = tracker.body.shaped(tracker.shape)
        soles_m = skin(tracker.body, theirs, state)[low_vertices(theirs[0])]
        self._ground.see(state.camera_from_body, soles_m)
        assert self._ground.up is not None
        ours = shape.body.shaped(shape.shape, shape.vertex_offsets_m)
        placed = on_same_floor(shape.body, ours, state, soles_m, self._ground.up)
        self._state = placed if self._state is None else calmed(self._state, placed)

    def _picture(self, camera: Camera) -> np.ndarray:
        if self._state is None:
            return np.full((camera.image_wh[1], camera.image_wh[0], 3), 225, np.uint8)  # nobody yet
        view = View(camera, self._ground.camera_from_world())
        layer = self.avatar.layer(self.subject, self._state.pose, self._state.camera_from_body, camera)
        skin_m = self.avatar.bodies[self.subject].vertices_camera_m(self._state.pose, self._state.camera_from_body)
        if self._backdrop is None:
            self._backdrop = in_studio if self.background == STUDIO else plain(self.background, camera.image_wh)
        moment = Moment(0, view, (transform(invert(view.camera_from_world), skin_m),))
        return np.rint(layer.over(self._backdrop(moment)) * 255).clip(0, 255).astype(np.uint8)


def check_same_skeleton(tracked: BodyModel, shown: BodyModel) -> None:
    """Raises UserError where poses mean something else."""
    if tracked.bare.joint_names != shown.bare.joint_names:
        raise UserError(
            "the avatar was made with another body than the tracker's; track with its own: --set fit.body=FILE"
        )


def skin(body: BodyModel, rest: tuple[np.ndarray, np.ndarray], state: State) -> np.ndarray:
    """(V, 3) vertices in the camera's frame."""
    return body.pose_vertices(*rest, state.pose, state.camera_from_body)[0]


def on_same_floor(
    body: BodyModel, rest: tuple[np.ndarray, np.ndarray], state: State, soles_m: np.ndarray, up: np.ndarray
) -> State:
    """``state``, somebody else's, on our body: hips above the same spot, soles as low along ``up`` (3,) as theirs,
    ``soles_m`` (P, 3)."""
    ours_m = skin(body, rest, state)[low_vertices(rest[0])]
    placed = state.camera_from_body.copy()
    placed[:3, 3] += up * float((soles_m @ up).min() - (ours_m @ up).min())
    return State(state.pose, placed)


def calmed(before: State, now: State) -> State:
    """Most of the way from the last shown pose to the new one, along the shortest turns."""
    was, step = Rotation.from_rotvec(before.pose), Rotation.from_rotvec(now.pose)
    pose = (was * Rotation.from_rotvec(CALM * (was.inv() * step).as_rotvec())).as_rotvec()
    placed = before.camera_from_body.copy()
    turned = Rotation.from_matrix(before.camera_from_body[:3, :3])
    towards = Rotation.from_matrix(now.camera_from_body[:3, :3])
    placed[:3, :3] = (turned * Rotation.from_rotvec(CALM * (turned.inv() * towards).as_rotvec())).as_matrix()
    placed[:3, 3] += CALM * (now.camera_from_body[:3, 3] - before.camera_from_body[:3, 3])
    return State(pose, placed)
