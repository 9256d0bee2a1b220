"""The ``render`` command: the avatar in a motion, seen by a camera, as a video.

motion   "heldout" (the frames that training never saw), "recording" (all frames), a .bvh or an AMASS .npz
camera   "capture" (where the recording was made from), "orbit" (around the person), or a file of cameras
N pictures, H x W pixels.  World: z up, floor at 0; for recordings it is found from the fit, because a camera on a
tripod does not know where down is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from capture.camera import Camera, invert, transform
from capture.errors import UserError
from capture.progress import progress
from capture.recording import Recording
from capture.video import VideoWriter
from rendering.avatar import Avatar, Shape
from rendering.motion import load_motion
from rendering.retarget import Motion, retarget
from rendering.studio import Room, composite, studio
from rendering.viewpoints import View, load_views, orbit, repeat_last

ORBIT_WH = (600, 800)
CAPTURE_LONG_SIDE_PX = 960  # of a video over the true background
ORBIT_PERIOD_S = 10.0  # one turn around a moving person
FOLLOW_S = 0.5  # the orbit's target follows the person no faster
FLOOR_FRAMES = 30
REPLAYS = ("heldout", "recording")  # motions that are the subject's own


@dataclass(frozen=True)
class Captured:
    """What a subject's recording says about the world: where down is and where he stood."""

    recording: Recording
    masks: Any
    fit: Any
    heldout_indices: np.ndarray
    world_from_color: np.ndarray  # (4, 4)

    @staticmethod
    def load(subject_dir: Path) -> Captured:
        """Open stages 01 to 04 of a subject.  Raises UserError when one of them is missing."""
        from capture.matting import Masks
        from fitting.fit import BodyFit
        from fitting.keyframes import Keyframes

        fit = BodyFit.load(subject_dir / "03_fit")
        heldout = np.asarray(Keyframes.load(subject_dir / "04_keyframes").heldout_indices, np.int64)
        return Captured(
            recording=Recording.load(subject_dir / "01_recording"),
            masks=Masks.load(subject_dir / "02_masks"),
            fit=fit,
            heldout_indices=np.array([i for i in heldout if fit.tracked[i]], np.int64),
            world_from_color=world_from_color(fit),
        )

    def frame_indices(self, replay: str) -> np.ndarray:
        """The tracked frames of one of REPLAYS."""
        return self.heldout_indices if replay == "heldout" else np.flatnonzero(self.fit.tracked)

    def motion(self, frame_indices: np.ndarray) -> Motion:
        """The fitted poses of some frames as a motion in the world."""
        placed = self.world_from_color @ self.fit.camera_from_body[frame_indices]
        return Motion("capture", self.fit.pose[frame_indices], placed, self.recording.frames_per_second)


def render(
    avatar_dir: Path,
    subject_dir: Path | None,
    subject: str | None,
    motion: str,
    camera: str | None,
    out: Path,
    max_frames: int = 0,
    device: str = "auto",
) -> tuple[str, ...]:
    """Open an avatar and ``film`` it.  ``subject`` defaults to its only one.

    Raises UserError as ``film`` does, and for an unknown subject.
    """
    avatar = Avatar.load(avatar_dir, device)
    subject = subject or only_subject(avatar)
    if subject not in avatar.bodies:
        raise UserError(f"subject {subject!r} is not in this avatar; it has {', '.join(avatar.bodies)}")
    return film(avatar, subject, subject_dir, motion, camera, out, max_frames)


def film(
    avatar: Avatar,
    subject: str,
    subject_dir: Path | None,
    motion: str,
    camera: str | None,
    out: Path,
    max_frames: int = 0,
) -> tuple[str, ...]:
    """Write the video and return what there is to say about it.

    ``subject_dir`` (its workspace folder) is needed where the recording is shown or replayed; ``camera`` defaults to
    "capture" for the recording's own motion and to "orbit" for files; max_frames 0 = all.
    Raises UserError for an unreadable motion or camera, or a missing recording.
    """
    if out.suffix.lower() != ".mp4":
        raise UserError(f"--out {out}: videos are written as .mp4; name it {out.with_suffix('.mp4').name}")
    is_replay = motion in REPLAYS
    camera = camera or ("capture" if is_replay else "orbit")
    captured = None
    if is_replay or camera == "capture":
        if subject_dir is None or not (subject_dir / "03_fit").is_dir():
            wanted = f"--motion {motion}" if is_replay else "--camera capture"
            raise UserError(f"{wanted} needs the recording of {subject!r}, which is not in this workspace; use a .bvh")
        captured = Captured.load(subject_dir)
    indices = None
    if is_replay:
        assert captured is not None
        indices = captured.frame_indices(motion)[: max_frames or None]
        if not len(indices):
            raise UserError(f"{subject}: no {motion} frame was tracked; render a .bvh instead")
        moved = captured.motion(indices)
    else:
        shape = avatar.bodies[subject]
        vertices_m, joints_m = shape.body.shaped(shape.shape, shape.vertex_offsets_m)
        moved = retarget(load_motion(Path(motion)), shape.body, vertices_m, joints_m)
        moved = first_frames(moved, max_frames) if max_frames > 0 else moved
    out.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(out, moved.frames_per_second) as video:
        pictures = _pictures(avatar, subject, moved, camera, captured, indices)
        for picture in progress(pictures, f"render {out.name}", len(moved)):
            video.add(picture)
    return moved.notes


def _pictures(
    avatar: Avatar, subject: str, moved: Motion, camera: str, captured: Captured | None, indices: np.ndarray | None
) -> Iterator[np.ndarray]:
    if camera == "capture":
        assert captured is not None
        if indices is not None:
            return replay_pictures(avatar, subject, captured, indices)
        small = shrunk(captured.fit.camera, CAPTURE_LONG_SIDE_PX)
        view = View(small, invert(captured.world_from_color))
        room = Room.of(captured.recording, captured.masks, small.image_wh)
        return studio_pictures(avatar, subject, moved, [view] * len(moved), room)
    if camera == "orbit":
        return studio_pictures(avatar, subject, moved, orbit_views(avatar, subject, moved))
    return studio_pictures(avatar, subject, moved, repeat_last(load_views(Path(camera)), len(moved)))


def replay_pictures(avatar: Avatar, subject: str, captured: Captured, indices: np.ndarray) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 of recorded frames over their true background, the recorded person painted out."""
    camera = shrunk(captured.fit.camera, CAPTURE_LONG_SIDE_PX)
    room = Room.of(captured.recording, captured.masks, camera.image_wh)
    for index in indices:
        rgba = avatar.render(subject, captured.fit.pose[index], captured.fit.camera_from_body[index], camera)
        yield composite(rgba, room.behind(captured.recording.color(int(index)), captured.masks[int(index)]))


def studio_pictures(
    avatar: Avatar, subject: str, moved: Motion, views: list[View], room: Room | None = None
) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 of a motion in the studio, or in the empty ``room`` it is seen by the capturing camera."""
    shape = avatar.bodies[subject]
    for pose, world_from_body, view in zip(moved.pose, moved.world_from_body, views, strict=True):
        camera_from_body = view.camera_from_world @ world_from_body
        if room is None:
            background = studio(view, shape.vertices_camera_m(pose, world_from_body))
        else:
            background = room.plate / 255
        yield composite(avatar.render(subject, pose, camera_from_body, view.camera), background)


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
    return studio_pictures(avatar, subject, still, orbit_views(avatar, subject, still, 1.0, image_wh))


def world_from_color(fit: Any) -> np.ndarray:
    """(4, 4) from the colour camera's frame to the world: up is where the body's z axis points on average, the floor is
    where the soles are.  People bend to all sides, so their mean is upright to a degree or two."""
    tracked = np.flatnonzero(fit.tracked)
    up = fit.camera_from_body[tracked, :3, 2].mean(0)
    up /= np.linalg.norm(up)
    right = np.cross([0.0, 0.0, 1.0], up) if abs(up[2]) < 0.99 else np.array([1.0, 0.0, 0.0])
    right = right / np.linalg.norm(right)
    back = np.cross(up, right)
    placed = np.eye(4)
    placed[:3, :3] = np.stack([right, back, up])
    chosen = tracked[np.linspace(0, len(tracked) - 1, min(FLOOR_FRAMES, len(tracked))).round().astype(int)]
    soles = [transform(placed, fit.vertices_color_m(int(i)).astype(float))[:, 2].min() for i in chosen]
    hips = transform(placed, np.asarray(fit.joints_color_m[tracked, 0], float))
    placed[:3, 3] = -np.array([*np.median(hips[:, :2], axis=0), np.percentile(soles, 20)])
    return placed


def shrunk(camera: Camera, long_side_px: int) -> Camera:
    """The same view with at most ``long_side_px`` pixels on its longer side, even numbers for video."""
    width, height = camera.image_wh
    scale = min(1.0, long_side_px / max(width, height))
    return camera.resize((max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)))


def only_subject(avatar: Avatar) -> str:
    """The avatar's subject.  Raises UserError when there are several to choose from."""
    if len(avatar.subjects) != 1:
        raise UserError(f"this avatar has {len(avatar.subjects)} subjects; name one: --subject {avatar.subjects[0]}")
    return avatar.subjects[0]


def first_frames(moved: Motion, count: int) -> Motion:
    return Motion(moved.name, moved.pose[:count], moved.world_from_body[:count], moved.frames_per_second, moved.notes)
