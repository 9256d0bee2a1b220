"""Several avatars in one picture: a scene file to a film (``render --scene``; the format is in docs/formats.md).

Everybody is rendered by himself, with the depth of his body, and at every pixel the nearest is before the others.
N pictures, P people, H x W pixels.  World: z up, floor at 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from dataclasses import fields as members
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from capture.camera import Camera
from capture.errors import UserError
from capture.films import open_film, with_spread_colours
from capture.progress import progress
from rendering.avatar import Avatar
from rendering.backgrounds import ROOM, STUDIO, TRANSPARENT, Background, Moment, covering_camera, in_studio, plain
from rendering.captured import Captured
from rendering.motions import HELDOUT, RECORDING, choose, fit_folder
from rendering.pasting import Layer, merged
from rendering.render import CAPTURE, ORBIT, ORBIT_PERIOD_S, Wish, only_subject
from rendering.retarget import Motion
from rendering.viewpoints import (
    FILL,
    VERTICAL_FOV,
    View,
    in_front,
    lit_as_from,
    load_views,
    look_at,
    repeat_last,
    views_of,
)

FRONT = "front"
SCENE_WH = (1280, 720)
FRAMES_PER_SECOND = 30.0
ELEVATION = np.radians(7)
TOWARDS_CAMERA = np.array([0.0, -1.0, 0.0])  # where who was not turned looks
SCENE_KEYS = {"people", "camera", "camera_from_world", "background", "frames_per_second", "seconds"}


@dataclass(frozen=True)
class Person:
    """Somebody in a scene: whose avatar, what he does, and where."""

    avatar: str  # of the workspace
    motion: str
    subject: str | None = None  # whom of the avatar's cast; None: its only one
    x_m: float = 0.0
    y_m: float = 0.0
    turn_deg: float = 0.0  # counter-clockwise seen from above
    start_s: float = 0.0  # of the film; before, he stands as he begins

    def placed(self, motion: Motion) -> np.ndarray:
        """(N, 4, 4) world_from_body where he is in the scene."""
        scene_from_motion = np.eye(4)
        scene_from_motion[:3, :3] = Rotation.from_euler("z", self.turn_deg, degrees=True).as_matrix()
        scene_from_motion[:2, 3] = self.x_m, self.y_m
        return scene_from_motion @ motion.world_from_body


@dataclass(frozen=True)
class Actor:
    """A person ready to be seen: one pose per picture."""

    avatar: Avatar
    subject: str
    pose: np.ndarray  # (N, J, 3)
    world_from_body: np.ndarray  # (N, 4, 4)

    def layer(self, position: int, view: View) -> Layer:
        """What he covers of a picture."""
        placed = view.camera_from_world @ self.world_from_body[position]
        return self.avatar.layer(
            self.subject, self.pose[position], placed, view.camera, None, view.lit_from_camera, True
        )

    def vertices_m(self, position: int) -> np.ndarray:
        """(V, 3) in the world."""
        return self.avatar.bodies[self.subject].vertices_camera_m(self.pose[position], self.world_from_body[position])


def render_scene(path: Path, workspace: Path, wish: Wish, out: Path, device: str = "auto") -> tuple[str, ...]:
    """Write the film of a scene file; the wish's camera, background, size and rate come before the file's.

    Raises UserError for a file that is no scene, and for people and movements that are not there.
    """
    fields = load_scene(path)
    wish = replace(wish, background=wish.background or fields.get("background"))
    wish.check(out)
    if wish.background == ROOM or wish.camera == CAPTURE:
        raise UserError("--scene: a scene has no room and no capturing camera; studio, a colour or a picture; orbit")
    rate = wish.frames_per_second or float(fields.get("frames_per_second", FRAMES_PER_SECOND))
    actors, notes = _actors(fields, path, workspace, rate, device)
    actors = [first(actor, wish.max_frames) for actor in actors]
    views = scene_views(fields, path, wish, actors, rate)
    background: Background | None = in_studio
    if wish.background == TRANSPARENT:
        background = None
    elif wish.background not in (None, STUDIO):
        background = plain(str(wish.background), views[0].camera.image_wh)
    with open_film(out, rate, background is None) as film:
        for picture in progress(pictures(actors, views, background), f"render {out.name}", len(views)):
            film.add(picture)
    return notes


def load_scene(path: Path) -> dict[str, Any]:
    """The file's fields, each of ``people`` a ``Person``.  Raises UserError when it is no scene."""
    try:
        fields = json.loads(path.read_text())
        known = [field.name for field in members(Person)]
        for key in (key for person in fields["people"] for key in person if key not in known):
            raise ValueError(f"a person has no {key!r}, but {', '.join(known)}")
        people = [Person(**person) for person in fields["people"]]
        unknown = set(fields) - SCENE_KEYS
        words = [("background", fields.get("background", ""))]
        words += [(name, getattr(person, name)) for person in people for name in ("avatar", "motion")]
        words += [("subject", person.subject) for person in people if person.subject is not None]
        for name, word in words:
            if not isinstance(word, str):
                raise ValueError(f"{name} must be text")
        numbers = [value for person in people for value in (person.x_m, person.y_m, person.turn_deg, person.start_s)]
        numbers += [float(fields[key]) for key in ("frames_per_second", "seconds") if key in fields]
        if not people or unknown or not np.isfinite(np.array(numbers, float)).all():
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}" if unknown else "nobody in it, or not a number")
        if not 1 <= float(fields.get("frames_per_second", FRAMES_PER_SECOND)) <= 240:
            raise ValueError("frames_per_second must be between 1 and 240")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        expected = '{"people": [{"avatar": "alice", "motion": "walk.bvh", "x_m": 0, "y_m": 0, "turn_deg": 90}, ...]}'
        raise UserError(f"{path}: not a scene ({type(error).__name__}: {error}); expected {expected}") from None
    return {**fields, "people": people}


def _actors(
    fields: dict[str, Any], path: Path, workspace: Path, rate: float, device: str
) -> tuple[list[Actor], tuple[str, ...]]:
    """Everybody on one clock; who has done what he does stays as he ends."""
    opened: dict[str, Avatar] = {}
    moved: list[tuple[Person, Avatar, str, Motion]] = []
    for person in fields["people"]:
        folder = workspace / person.avatar / "06_avatar"
        if not folder.is_dir():
            raise UserError(f"{path}: {folder} is not there; run pipeline.py train --avatar {person.avatar}")
        avatar = opened.setdefault(person.avatar, Avatar.load(folder, device))
        subject = person.subject or only_subject(avatar)
        if subject not in avatar.bodies:
            raise UserError(f"{path}: {subject!r} is not in avatar {person.avatar}; it has {', '.join(avatar.bodies)}")
        beside = path.parent / person.motion  # files are named as seen from the scene
        word = str(beside) if beside.exists() else person.motion
        is_own = word in (HELDOUT, RECORDING) or fit_folder(word, workspace) == workspace / subject / "03_fit"
        captured = Captured.load(workspace / subject) if is_own else None
        chosen = choose(word, avatar.bodies[subject], workspace, subject, captured).at_rate(rate)
        moved.append((person, avatar, subject, chosen.motion))
    lasts = max(round(person.start_s * rate) + len(motion) for person, *_, motion in moved)
    count = round(float(fields["seconds"]) * rate) if "seconds" in fields else lasts
    actors = []
    for person, avatar, subject, motion in moved:
        positions = np.clip(np.arange(max(count, 1)) - round(person.start_s * rate), 0, len(motion) - 1)
        actors.append(Actor(avatar, subject, motion.pose[positions], person.placed(motion)[positions]))
    return actors, tuple(dict.fromkeys(note for *_, motion in moved for note in motion.notes))


def first(actor: Actor, count: int) -> Actor:
    """At most ``count`` pictures of an actor; 0 for all."""
    return replace(actor, pose=actor.pose[: count or None], world_from_body=actor.world_from_body[: count or None])


def scene_views(fields: dict[str, Any], path: Path, wish: Wish, actors: list[Actor], rate: float) -> list[View]:
    """One camera for everybody: ``front`` or ``orbit`` around all, a file, or what the scene itself holds."""
    count, wanted = len(actors[0].pose), wish.camera or fields.get("camera", FRONT)
    if isinstance(wanted, str) and wanted in (FRONT, ORBIT):
        azimuths = np.zeros(count) if wanted == FRONT else 2 * np.pi * np.arange(count) / rate / ORBIT_PERIOD_S
        return lit_as_from(around(actors, azimuths, wish.image_wh or SCENE_WH), in_front(TOWARDS_CAMERA))
    if isinstance(wanted, str):
        beside = path.parent / wanted
        views = load_views(beside if beside.exists() and wish.camera is None else Path(wanted))
    else:
        views = views_of(fields, path)
    if wish.image_wh is not None:
        views = [replace(view, camera=covering_camera(view.camera, wish.image_wh)) for view in views]
    return lit_as_from(repeat_last(views, count), in_front(TOWARDS_CAMERA))


def around(actors: list[Actor], azimuths: np.ndarray, image_wh: tuple[int, int]) -> list[View]:
    """A still target in the middle of where everybody goes, so far away that all of it fits; azimuth 0 looks along +y,
    into the faces of those who were not turned."""
    steps = np.unique(np.linspace(0, len(azimuths) - 1, 24).round().astype(int))
    everything_m = np.concatenate([actor.vertices_m(int(i)) for actor in actors for i in steps])
    low, high = everything_m.min(0), everything_m.max(0)
    target_m = np.array([*(low[:2] + high[:2]) / 2, (max(low[2], 0) + high[2]) / 2])
    width, height = image_wh
    reach = FILL * np.tan(VERTICAL_FOV / 2) * np.array([width / height, 1.0])  # a metre before the camera, each way
    away = np.array([_away(azimuth) for azimuth in azimuths])  # (N, 3)
    distance_m = max(_enough_m(everything_m - target_m, direction, reach) for direction in np.unique(away[::8], axis=0))
    focal_px = height / 2 / np.tan(VERTICAL_FOV / 2)
    camera = Camera(image_wh, focal_px, focal_px, width / 2, height / 2)
    return [View(camera, look_at(target_m + distance_m * direction, target_m)) for direction in away]


def _away(azimuth: float) -> np.ndarray:
    """(3,) unit vector from the target to the camera."""
    flat = np.array([np.sin(azimuth), -np.cos(azimuth)]) * np.cos(ELEVATION)
    return np.array([*flat, np.sin(ELEVATION)])


def _enough_m(offsets_m: np.ndarray, away: np.ndarray, reach: np.ndarray) -> float:
    """How far a camera in direction ``away`` (3,) must be for points (N, 3) around its target to be in the picture."""
    right = np.cross([0.0, 0.0, 1.0], away)
    right /= np.linalg.norm(right)
    across = np.abs(np.stack([offsets_m @ right, offsets_m @ np.cross(away, right)], axis=1))  # (N, 2)
    return float((offsets_m @ away + (across / reach).max(1)).max())


def pictures(actors: list[Actor], views: list[View], background: Background | None) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8, or (H, W, 4) where there is no background."""
    for position, view in enumerate(views):
        rgba = merged([actor.layer(position, view) for actor in actors], view.camera.image_wh)
        if background is None:
            yield with_spread_colours(np.rint(rgba * 255).astype(np.uint8))
            continue
        behind = background(Moment(position, view, tuple(actor.vertices_m(position) for actor in actors)))
        shown = rgba[..., :3] * rgba[..., 3:] + behind * (1 - rgba[..., 3:])
        yield np.rint(shown * 255).clip(0, 255).astype(np.uint8)
