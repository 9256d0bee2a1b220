"""One browser that looks at an avatar: what it has chosen, from where it looks, and its next picture.

Callbacks of the page change it on viser's threads, the painting thread reads it; ``lock`` keeps them apart.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from capture.camera import invert, transform
from capture.errors import UserError
from rendering.avatar import Avatar
from rendering.browser import pose_of
from rendering.layers import LAYERS
from rendering.live_picture import ALONE, Eye, Wanted, picture
from rendering.motion import MotionClip
from rendering.outfits import Outfits
from rendering.pacing import REST_S, Pace, Rate
from rendering.playback import Playback
from rendering.puppet import Handle, Pose, Puppet
from rendering.repertoire import FILMED, HELDOUT, STANDING, Repertoire
from rendering.viewpoints import View, in_front, orbit

if TYPE_CHECKING:
    import viser

JPEG_QUALITY = 90
WANDERS_M = 1.0  # a person who goes further leaves the picture
PAGE_WH = (1000, 800)  # of a browser that has not said how large its page is
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """A picture that was handed over."""

    wanted: Wanted
    scale: float
    image_wh: tuple[int, int]
    seconds: float  # from the wish to the last byte handed over
    is_moving: bool  # painted while a hand or a motion was at work


class Visitor:
    """State of one browser.  ``wake`` tells the painting thread that there is something to do."""

    def __init__(
        self,
        client: viser.ClientHandle,
        avatar: Avatar,
        repertoire: Repertoire,
        outfits: Outfits,
        subject: str,
        wake: Callable[[], None],
    ) -> None:
        self.client, self.avatar, self.repertoire, self.outfits = client, avatar, repertoire, outfits
        self.lock = threading.RLock()
        self.pace, self.rate = Pace(), Rate()
        self.own: dict[str, MotionClip] = {}  # motion files that this visitor brought
        self.layer, self.compare, self.wipe, self.stays = next(iter(LAYERS)), ALONE, 0.5, False
        self.shown: Shown | None = None
        self.drawn_s = 0.0
        self.on_shown: Callable[[], None] = lambda: None
        self._wake = wake
        self._touched_s, self._is_touched = time.monotonic(), True
        self.eye = _eye(client.camera)
        client.camera.on_update(self._moved)
        self.dress(subject)

    async def _moved(self, camera: viser.CameraHandle) -> None:
        eye = _eye(camera)
        if eye is not None:  # a page that is being folded away has no size
            self.eye = eye
            self.touch()

    # What the page may ask for

    def dress(self, subject: str) -> None:
        """Show ``subject`` in his own clothes, standing."""
        with self.lock:
            self.subject, self.clothes = subject, dict[str, str]()
            self.outfit = self.outfits.outfit(subject, {})
            self.puppet = Puppet(self.avatar.bodies[subject])
            self.act_name = STANDING
            self.playback = Playback(self.repertoire.act(subject, STANDING, self.own))
            self.stays, self.compare = False, ALONE
            self.touch()

    def choose(self, clothes: Mapping[str, str]) -> None:
        """Say whose clothes are to be worn in some regions, {region: cast member}; ``change`` puts them on."""
        with self.lock:
            self.clothes = {**self.clothes, **clothes}

    def change(self) -> None:
        """Put on what was chosen last.  Takes a moment for what nobody has worn yet; pictures go on meanwhile."""
        with self.lock:
            subject, clothes = self.subject, self.clothes
        outfit = self.outfits.outfit(subject, clothes)
        with self.lock:
            if (subject, clothes) == (self.subject, self.clothes):  # nothing else was chosen meanwhile
                self.outfit = outfit
                self.touch()

    def perform(self, name: str) -> None:
        """Start an act.  Takes a while for a motion file.  Raises UserError for one that does not fit this body."""
        subject = self.subject
        act = self.repertoire.act(subject, name, self.own)
        with self.lock:
            if subject != self.subject:  # somebody else was chosen meanwhile
                return
            self.act_name = name
            self.playback.start(act)
            hips_m = act.motion.world_from_body[:, :2, 3]
            self.stays = bool(np.ptp(hips_m, axis=0).max() > WANDERS_M)
            if act.frame_indices is None:
                self.compare = ALONE
            else:
                self.playback.pause(time.monotonic())
            self.playback.play(time.monotonic())
            self.touch()

    def compare_with(self, how: str) -> None:
        """Show the recording as well; starts it when another motion is shown.  Raises UserError without one."""
        with self.lock:
            if how != ALONE and self.repertoire.filmed(self.subject) is None:
                raise UserError(f"the recording of {self.subject!r} is not in this workspace")
            self.compare = ALONE
            if how != ALONE and self.playback.act.frame_indices is None:
                names = self.repertoire.names(self.subject, self.own)
                self.perform(HELDOUT if HELDOUT in names else FILMED)
            self.compare = how
            self.touch()

    def pull(self, handle: Handle, target_m: np.ndarray) -> None:
        """Move a joint to a place in the world."""
        with self.lock:
            self._hold(self.puppet.pulled(self.pose(), handle, target_m))

    def turn(self, handle: Handle, world_from_joint: np.ndarray) -> None:
        """Turn a joint."""
        with self.lock:
            self._hold(self.puppet.turned(self.pose(), handle, world_from_joint))

    def _hold(self, pose: Pose) -> None:
        self.playback.change(pose, time.monotonic())
        self.stays = False  # the pose that hands have is the one that is shown
        self.touch()

    def touch(self) -> None:
        """Something has changed."""
        self._touched_s, self._is_touched = time.monotonic(), True
        self._wake()

    # What is to be seen

    def pose(self) -> Pose:
        """The present pose as it is shown: in the middle of the world when the person is to stay there."""
        with self.lock:
            pose = self.playback.pose(time.monotonic())
            if not self.stays or self.compare != ALONE or self.playback.is_changed:
                return pose
            world_from_body = np.array(pose.world_from_body)
            body = self.avatar.bodies[self.subject].body
            world_from_body[:2, 3] -= transform(world_from_body, body.joints_template_m[0])[:2]
            return Pose(pose.joints, world_from_body)

    def wanted(self) -> Wanted | None:
        """The picture of this moment."""
        eye = self.eye
        if eye is None:
            return None
        with self.lock:
            frame_index, filmed = self.playback.frame_index(time.monotonic()), self.repertoire.filmed(self.subject)
            if frame_index is not None and filmed is not None:
                lit_from_world = invert(filmed.captured.world_from_color)[:3, :3]
            else:
                lit_from_world = in_front(-self.playback.act.motion.world_from_body[0, :3, 1])
            return Wanted(
                shape=self.outfit.shape,
                margins=self.avatar.margins(self.subject),
                texture=self.outfit.texture,
                close_texture=self.outfit.close_texture,
                pose=self.pose(),
                layer=self.layer,
                eye=eye,
                compare=self.compare,
                wipe=self.wipe,
                filmed=filmed,
                frame_index=frame_index,
                lit_from_world=lit_from_world,
            )

    def look_from(self, azimuth: float) -> None:
        """Move the browser's camera around the person: 0 looks him in the face, rad."""
        view = self.view_from(azimuth)
        _, position_m, fov_rad = pose_of(view)
        forward = view.camera_from_world[2, :3]
        camera = self.client.camera
        with self.client.atomic():
            camera.up_direction = (0.0, 0.0, 1.0)
            camera.position = position_m
            camera.look_at = position_m + forward * float(np.linalg.norm(position_m - self._middle_m()))
            camera.fov = fov_rad
        self.touch()

    def view_from(self, azimuth: float) -> View:
        """The view of the whole person from one side."""
        pose, eye = self.pose(), self.eye
        page_wh = PAGE_WH if eye is None else eye.page_wh
        height_m = float(np.ptp(self.avatar.bodies[self.subject].body.template_m[:, 2]))
        facing = -pose.world_from_body[:3, 1]
        return orbit(self._middle_m()[None], np.array([azimuth]), height_m, facing, page_wh)[0]

    def _middle_m(self) -> np.ndarray:
        pose = self.pose()
        vertices_m = self.outfit.shape.vertices_camera_m(pose.joints, pose.world_from_body)
        return np.asarray((vertices_m.min(0) + vertices_m.max(0)) / 2, float)

    # Pictures

    def due_in_s(self, now_s: float) -> float:
        """Seconds until this visitor needs a picture: 0 now, infinite when nothing changes."""
        if self._is_touched:
            return 0.0 if self.eye is not None else float("inf")
        if self.playback.is_playing:
            period_s = 1 / self.playback.act.motion.frames_per_second
            return max(0.0, self.drawn_s + period_s - now_s)
        if self.shown is not None and self.shown.is_moving:
            return max(0.0, self._touched_s + REST_S - now_s)
        return float("inf")

    def is_moving(self, now_s: float) -> bool:
        """Whether a hand or a motion is at work."""
        return self.playback.is_playing or now_s - self._touched_s < REST_S

    def draw(self, companions: int) -> None:
        """Paint and send the picture of this moment; ``companions`` visitors share the machine, this one included."""
        started_s = time.monotonic()
        is_moving = self.is_moving(started_s)
        if self.shown is not None and self.shown.scale == 1 and not (self._is_touched or is_moving):
            self.shown = replace(self.shown, is_moving=False)  # it cannot get any better
            self.on_shown()
            return
        self._is_touched = False  # what changes from here on is for the next picture
        wanted = self.wanted()
        if wanted is None:
            self._is_touched = True
            return
        self.pace.target_s = Pace().target_s / max(companions, 1)
        scale = self.pace.moving() if is_moving else 1.0
        image = picture(self.avatar, wanted, scale)
        self.client.scene.set_background_image(image, format="jpeg", jpeg_quality=JPEG_QUALITY)
        self.client.flush()
        now_s = time.monotonic()
        self.drawn_s = started_s
        self.pace.took(scale, now_s - started_s)
        if is_moving:
            self.rate.tick(now_s)
        self.shown = Shown(wanted, scale, (image.shape[1], image.shape[0]), now_s - started_s, is_moving)
        self.on_shown()


def _eye(camera: viser.CameraHandle) -> Eye | None:
    """Where the browser looks from; None for a page without a size or a camera without a place."""
    page_wh = (camera.image_width, camera.image_height)
    if min(page_wh) < 1 or not np.isfinite([*camera.wxyz, *camera.position, camera.fov]).all():
        return None
    return Eye(np.array(camera.wxyz), np.array(camera.position), float(camera.fov), page_wh)


def status(visitor: Visitor, now_s: float) -> str:
    """A line about the last picture."""
    shown = visitor.shown
    if shown is None:
        return "painting the first picture"
    size, took = f"{shown.image_wh[0]} × {shown.image_wh[1]}", f"{1e3 * shown.seconds:.0f} ms"
    if shown.is_moving:
        return f"**{visitor.rate.per_second(now_s):.0f} pictures/s** · {size} · {took} each"
    return f"**at rest** · {size}, full resolution · {took}"
