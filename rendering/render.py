"""The ``render`` command: the avatar in a motion, seen by a camera, before a background, as a film.

motion      the frames that training never saw, somebody's fit, motion capture (``motions``)
camera      "capture" (where the recording was made from), "orbit" (around the person), or a file of cameras
background  "studio", "room", "transparent", a colour or a picture (``backgrounds``)
N pictures, H x W pixels.  World: z up, floor at 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d

from capture.camera import invert
from capture.errors import UserError
from capture.films import check_film, open_film, with_spread_colours
from capture.progress import progress
from rendering.avatar import Avatar, Shape
from rendering.backgrounds import (
    ROOM,
    STUDIO,
    TRANSPARENT,
    Background,
    Moment,
    check_background,
    covering,
    covering_camera,
    in_studio,
    plain,
)
from rendering.captured import Captured, shrunk
from rendering.motions import HELDOUT, RECORDING, Chosen, choose, fit_folder
from rendering.retarget import Motion
from rendering.studio import Room, shaded
from rendering.viewpoints import View, in_front, lit_as_from, load_views, orbit, repeat_last

CAPTURE, ORBIT = "capture", "orbit"
ORBIT_WH = (600, 800)
CAPTURE_LONG_SIDE_PX = 960  # of a video over the true background
ORBIT_PERIOD_S = 10.0  # one turn around a moving person
FOLLOW_S = 0.5  # the orbit's target follows the person no faster


@dataclass(frozen=True)
class Wish:
    """What is to be seen, and how."""

    motion: str = HELDOUT
    camera: str | None = None  # None: capture for what was filmed, orbit for everything else
    background: str | None = None  # None: the room for the capturing camera, the studio for others
    image_wh: tuple[int, int] | None = None  # None: the camera's own, at most CAPTURE_LONG_SIDE_PX of a recording's
    frames_per_second: float | None = None  # None: the motion's own
    is_side_by_side: bool = False  # the true picture beside the avatar
    max_frames: int = 0  # 0 = all

    def check(self, out: Path) -> None:
        """Raises UserError for what cannot be, before anything heavy is loaded."""
        check_film(out, self.background == TRANSPARENT)
        if self.background is not None:
            check_background(self.background)
        if self.image_wh is not None and not all(16 <= side <= 8192 for side in self.image_wh):
            raise UserError(f"--size {self.image_wh[0]}x{self.image_wh[1]}: each side must be between 16 and 8192")
        if self.frames_per_second is not None and not 1 <= self.frames_per_second <= 240:
            raise UserError(f"--fps {self.frames_per_second:g}: must be between 1 and 240")


def render(
    avatar_dir: Path, workspace: Path | None, subject: str | None, wish: Wish, out: Path, device: str = "auto"
) -> tuple[str, ...]:
    """Write the film and return what there is to say about it.

    ``subject`` defaults to the avatar's only one; its folder in ``workspace`` is needed where the recording is shown or
    replayed.  Raises UserError for an unknown subject, an unreadable motion or camera, or a missing recording.
    """
    wish.check(out)
    avatar = Avatar.load(avatar_dir, device)
    return film(avatar, subject or only_subject(avatar), workspace, wish, out)


def film(avatar: Avatar, subject: str, workspace: Path | None, wish: Wish, out: Path) -> tuple[str, ...]:
    """``render`` with an avatar that is open, such as one in other clothes."""
    wish.check(out)
    avatar.check_subject(subject)
    captured = _captured(wish, workspace, subject)
    chosen = choose(wish.motion, avatar.bodies[subject], workspace, subject, captured)
    if wish.frames_per_second is not None:
        chosen = chosen.at_rate(wish.frames_per_second)
    chosen = chosen.first(wish.max_frames)
    scene = _scene(wish, avatar, subject, chosen, captured)
    with open_film(out, chosen.motion.frames_per_second, scene.background is None) as opened:
        for picture in progress(scene.pictures(avatar, subject), f"render {out.name}", len(chosen.motion)):
            opened.add(picture)
    return chosen.motion.notes


def _captured(wish: Wish, workspace: Path | None, subject: str) -> Captured | None:
    """The subject's recording where the wish needs it.  Raises UserError where it is not there."""
    own_fit = workspace / subject / "03_fit" if workspace is not None else None
    is_own = wish.motion in (HELDOUT, RECORDING)
    is_own = is_own or (own_fit is not None and fit_folder(wish.motion, workspace) == own_fit)
    needs = [f"--motion {wish.motion}"] * is_own + [f"--camera {CAPTURE}"] * (wish.camera == CAPTURE)
    if not needs:
        return None
    if own_fit is None or not own_fit.is_dir():
        raise UserError(f"{needs[0]} needs the recording of {subject!r}, which is not in this workspace; use a .bvh")
    return Captured.load(own_fit.parent)


@dataclass(frozen=True)
class Scene:
    """All that a film is made of."""

    motion: Motion
    views: list[View]
    background: Background | None  # None: transparent
    truth: Background | None = None  # what stands beside the avatar, (H, W, 3) or (H, W, 4)

    def pictures(self, avatar: Avatar, subject: str) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8, or (H, W, 4) where there is no background."""
        shape, motion = avatar.bodies[subject], self.motion
        for position, view in enumerate(self.views):
            pose, placed = motion.pose[position], motion.world_from_body[position]
            camera_from_body = view.camera_from_world @ placed
            layer = avatar.layer(subject, pose, camera_from_body, view.camera, lit_from_camera=view.lit_from_camera)
            moment = Moment(position, view, (shape.vertices_camera_m(pose, placed),))
            if self.background is None:
                shown = layer.picture(view.camera.image_wh)
            else:
                shown = layer.over(self.background(moment))
            if self.truth is not None:
                shown = np.concatenate([self.truth(moment), shown], axis=1)
            picture = np.rint(shown * 255).clip(0, 255).astype(np.uint8)
            yield with_spread_colours(picture) if self.background is None else picture


def _scene(wish: Wish, avatar: Avatar, subject: str, chosen: Chosen, captured: Captured | None) -> Scene:
    is_filmed = chosen.frame_indices is not None
    camera = wish.camera or (CAPTURE if is_filmed else ORBIT)
    count = len(chosen.motion)
    if camera == CAPTURE:
        assert captured is not None
        filmed = shrunk(captured.fit.camera, CAPTURE_LONG_SIDE_PX)
        lens = filmed if wish.image_wh is None else covering_camera(captured.fit.camera, wish.image_wh)
        views = [View(lens, invert(captured.world_from_color))] * count
    elif camera == ORBIT:
        views = orbit_views(avatar, subject, chosen.motion, image_wh=wish.image_wh or ORBIT_WH)
    else:
        views = repeat_last(load_views(Path(camera)), count)
        if wish.image_wh is not None:
            views = [replace(view, camera=covering_camera(view.camera, wish.image_wh)) for view in views]
    if is_filmed and captured is not None:  # in the room's own light
        views = lit_as_from(views, invert(captured.world_from_color)[:3, :3])
    elif camera not in (CAPTURE, ORBIT):
        views = lit_as_from(views, in_front(facing(chosen.motion)))
    image_wh = views[0].camera.image_wh
    word = wish.background or (ROOM if camera == CAPTURE else STUDIO)
    footage = Footage(captured, image_wh) if camera == CAPTURE and captured is not None else None
    if word == ROOM and footage is None:
        raise UserError("--background room: the room was seen by the capturing camera only; add --camera capture")
    background: Background | None = in_studio
    if word == ROOM:
        assert footage is not None
        background = footage.room(chosen.frame_indices)
    elif word == TRANSPARENT:
        background = None
    elif word != STUDIO:
        background = plain(word, image_wh)
    truth = None
    if wish.is_side_by_side:
        if footage is None or chosen.frame_indices is None:
            raise UserError("--side-by-side: only for frames that were filmed, by the camera that filmed them")
        truth = footage.truth(chosen.frame_indices, background, word == ROOM)
    return Scene(chosen.motion, views, background, truth)


@dataclass(frozen=True)
class Footage:
    """A recording and its masks as pictures of one size, cut in the middle."""

    captured: Captured
    image_wh: tuple[int, int]

    def __len__(self) -> int:
        return len(self.captured.recording)

    def color(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        return covering(self.captured.recording.color(index), self.image_wh)

    def __getitem__(self, index: int) -> np.ndarray:
        """(H, W) float32 alpha of a frame's person."""
        return covering(np.ascontiguousarray(self.captured.masks[index], np.float32), self.image_wh)

    def room(self, frame_indices: np.ndarray | None) -> Background:
        """The empty room; with ``frame_indices`` each frame's own picture, the person painted out."""
        room = Room.of(self, self, self.image_wh)
        if frame_indices is None:
            return lambda moment: shaded(room.plate / 255, moment.view, moment.people_m[0])

        def behind(moment: Moment) -> np.ndarray:
            index = int(frame_indices[moment.position])
            return room.behind(self.color(index), self[index])

        return behind

    def truth(self, frame_indices: np.ndarray, background: Background | None, is_room: bool) -> Background:
        """What was filmed, before the same background as the avatar."""

        def filmed(moment: Moment) -> np.ndarray:
            index = int(frame_indices[moment.position])
            color = self.color(index).astype(np.float32) / 255
            if is_room:
                return color
            alpha = self[index].clip(0, 1)[..., None]
            if background is None:
                return np.concatenate([color, alpha], axis=2)
            return color * alpha + background(moment) * (1 - alpha)

        return filmed


def orbit_views(
    avatar: Avatar, subject: str, moved: Motion, turns: float | None = None, image_wh: tuple[int, int] = ORBIT_WH
) -> list[View]:
    """A camera around the person, ``turns`` revolutions over the motion; it starts in front and follows calmly."""
    targets_m, height_m = follow(avatar.bodies[subject], moved)
    if turns is None:
        turns = len(moved) / moved.frames_per_second / ORBIT_PERIOD_S
    azimuths = np.linspace(0, 2 * np.pi * turns, len(moved), endpoint=False)
    return orbit(targets_m, azimuths, height_m, facing(moved), image_wh)


def follow(shape: Shape, moved: Motion) -> tuple[np.ndarray, float]:
    """(N, 3) world points, metres, that a camera shall look at so that it follows calmly, and the person's height."""
    rest_m, joints_m = shape.body.shaped(shape.shape, shape.vertex_offsets_m)
    height_m = float(np.ptp(rest_m[:, 2]))
    hips_m = np.einsum("nij,j->ni", moved.world_from_body[:, :3, :3], joints_m[0]) + moved.world_from_body[:, :3, 3]
    sigma = FOLLOW_S * moved.frames_per_second
    targets_m = gaussian_filter1d(hips_m, sigma, axis=0, mode="nearest")
    targets_m[:, 2] = 0.5 * height_m + np.maximum(0, targets_m[:, 2] - hips_m[:, 2].mean()) * 0.5
    return targets_m, height_m


def facing(moved: Motion) -> np.ndarray:
    """(3,) where the person looks in the first frame: the body's -y in the world."""
    return -moved.world_from_body[0, :3, 1]


def turntable(avatar: Avatar, subject: str, captured: Captured, index: int, count: int, image_wh: tuple[int, int]):
    """``count`` pictures (H, W, 3) uint8 around the person in the pose of frame ``index``."""
    still = captured.motion(np.full(count, index))
    views = orbit_views(avatar, subject, still, 1.0, image_wh)
    views = lit_as_from(views, invert(captured.world_from_color)[:3, :3])
    return Scene(still, views, in_studio).pictures(avatar, subject)


def only_subject(avatar: Avatar) -> str:
    """The avatar's subject.  Raises UserError when there are several to choose from."""
    if len(avatar.subjects) != 1:
        raise UserError(f"this avatar has {len(avatar.subjects)} subjects; name one: --subject {avatar.subjects[0]}")
    return avatar.subjects[0]
