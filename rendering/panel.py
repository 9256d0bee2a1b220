"""The controls of one browser, beside its picture."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from capture.errors import UserError
from rendering.clothes_menu import ClothesMenu, put
from rendering.gizmos import Gizmos
from rendering.layers import ALL, LAYERS
from rendering.live_picture import ALONE, BESIDE, WIPE
from rendering.motion import load_motion
from rendering.repertoire import STANDING, check_fits
from rendering.visitor import Visitor, status

if TYPE_CHECKING:
    import viser

SIDES = {"Front": 0.0, "Left": np.pi / 2, "Back": np.pi, "Right": -np.pi / 2}
SAY_S = 0.4  # between two states of the frame rate
NOTICE_S = 8.0
log = logging.getLogger(__name__)


class Panel:
    """Everything that a visitor can press.  ``follow`` brings it up to date after each picture."""

    def __init__(self, visitor: Visitor, title: str) -> None:
        from viser import Icon

        self._visitor, self._gui, self._icons = visitor, visitor.client.gui, Icon
        self._gizmos = Gizmos(visitor)
        self._said_s = 0.0
        self._gui.add_markdown(f"### {title}")
        self._status = self._gui.add_markdown(status(visitor, time.monotonic()))
        self._look()
        self._motion()
        self._pose()
        self._recording()
        self._clothes = ClothesMenu(visitor)
        self._clothes.show()
        self._agree()
        visitor.on_shown = self.follow

    # What is shown

    def _look(self) -> None:
        visitor, gui = self._visitor, self._gui
        with gui.add_folder("View"):
            if len(visitor.avatar.subjects) > 1:
                who: Any = gui.add_dropdown("Person", visitor.avatar.subjects, initial_value=visitor.subject)
                self._on(who, lambda: self._become(who.value))
            layer = gui.add_dropdown("Layer", (*LAYERS, ALL), initial_value=visitor.layer)
            self._on(layer, lambda: self._set("layer", layer.value))
            sides = gui.add_button_group("From", tuple(SIDES))

            @sides.on_click
            async def _(_: object) -> None:
                visitor.look_from(SIDES[sides.value])

    def _become(self, subject: str) -> None:
        self._visitor.dress(subject)
        self._names()
        self._recording_state()
        self._clothes.show()
        self._agree()

    # What the person does

    def _motion(self) -> None:
        visitor, gui = self._visitor, self._gui
        with gui.add_folder("Motion"):
            self._act: Any = gui.add_dropdown(
                "Motion", visitor.repertoire.names(visitor.subject, visitor.own), initial_value=STANDING
            )
            self._play = gui.add_button("Play", icon=self._icons.PLAYER_PLAY)
            self._frame: Any = gui.add_slider("Frame", 0, 1, 1, 0)
            self._stays = gui.add_checkbox(
                "On the spot", False, hint="The person stays in the middle, however far the motion goes."
            )
            upload = gui.add_upload_button("Open a .bvh or AMASS .npz", icon=self._icons.UPLOAD, mime_type=".bvh,.npz")

        @self._act.on_update
        async def _(event: viser.GuiEvent) -> None:
            if event.client is not None:
                await asyncio.to_thread(self.perform, self._act.value)  # a motion file takes seconds

        @self._play.on_click
        async def _(_: object) -> None:
            now_s = time.monotonic()
            with visitor.lock:
                if visitor.playback.is_playing:
                    visitor.playback.pause(now_s)
                else:
                    visitor.playback.play(now_s)
            visitor.touch()
            self._settle()

        def seek() -> None:
            with visitor.lock:
                visitor.playback.seek(int(self._frame.value), time.monotonic())
            visitor.touch()

        self._on(self._frame, seek)
        self._on(self._stays, lambda: self._set("stays", self._stays.value))

        @upload.on_upload
        def _(_: object) -> None:
            self._bring(upload.value.name, upload.value.content)

    def perform(self, name: str) -> None:
        """Start a motion and say so while it is being put on the body."""
        visitor = self._visitor
        put(self._act, "value", name)
        with self._trouble(), _Notice(visitor.client, f"Putting {name} on the body", "a minute for a long one"):
            visitor.perform(name)
        self._agree()

    def _bring(self, name: str, content: bytes) -> None:
        """A motion file from the browser's side."""
        visitor = self._visitor
        with tempfile.TemporaryDirectory() as folder, self._trouble(f"{folder}/"):
            path = Path(folder) / Path(name).name
            path.write_bytes(content)
            clip = load_motion(path)
            check_fits(clip, visitor.avatar.bodies[visitor.subject])
            visitor.own = {**visitor.own, clip.name: clip}
            self._names()
            self.perform(clip.name)

    def _names(self) -> None:
        self._act.options = self._visitor.repertoire.names(self._visitor.subject, self._visitor.own)

    # The pose under the visitor's hands

    def _pose(self) -> None:
        visitor, gui = self._visitor, self._gui
        with gui.add_folder("Pose"):
            hint = "Pull a blue ball, or click it and turn its rings; joints go as far as a person's do."
            joints = gui.add_checkbox("Joints to drag", False, hint=hint)
            self._undo = gui.add_button("Undo the changes", icon=self._icons.ARROW_BACK_UP, disabled=True)

        def switch() -> None:
            self._gizmos.is_on = joints.value
            if joints.value and not visitor.puppet.handles:
                visitor.client.add_notification("Joints", "The joints of this body have names that are not known here.")
            visitor.touch()

        self._on(joints, switch)

        @self._undo.on_click
        async def _(_: object) -> None:
            with visitor.lock:
                visitor.playback.undo()
            visitor.touch()

    # The recording beside it

    def _recording(self) -> None:
        gui = self._gui
        with gui.add_folder("Recording"):
            self._compare = gui.add_dropdown("Compare", (ALONE, BESIDE, WIPE), initial_value=ALONE)
            self._wipe = gui.add_slider("Wipe", 0, 100, 1, 50, disabled=True)
            self._note = gui.add_markdown("")

        @self._compare.on_update
        async def _(event: viser.GuiEvent) -> None:
            if event.client is not None:
                await asyncio.to_thread(self._compare_with, self._compare.value)

        self._on(self._wipe, lambda: self._set("wipe", self._wipe.value / 100))
        self._recording_state()

    def _compare_with(self, how: str) -> None:
        with self._trouble():
            self._visitor.compare_with(how)
        self._agree()

    def _recording_state(self) -> None:
        has = self._visitor.repertoire.filmed(self._visitor.subject) is not None
        self._compare.disabled = not has
        seen = "Both are seen from the recording's camera." if has else "Not in this workspace."
        self._note.content = f"<sub>{seen}</sub>"

    # Afterwards

    def follow(self) -> None:
        """After a picture: joints, slider and figures as they are now."""
        visitor, now_s = self._visitor, time.monotonic()
        self._gizmos.follow()
        if now_s - self._said_s < SAY_S and visitor.is_moving(now_s):
            return
        self._said_s = now_s
        self._status.content = status(visitor, now_s)
        self._settle()

    def _settle(self) -> None:
        """Play, frame and undo as they are at this moment."""
        visitor = self._visitor
        with visitor.lock:
            playback = visitor.playback
            count, is_playing, is_changed = len(playback.act.motion), playback.is_playing, playback.is_changed
            frame = playback.frame(time.monotonic())
        put(self._play, "label", "Pause" if is_playing else "Play")
        put(self._play, "icon", self._icons.PLAYER_PAUSE if is_playing else self._icons.PLAYER_PLAY)
        put(self._play, "disabled", count < 2)
        put(self._frame, "max", max(1, count - 1))
        put(self._frame, "disabled", count < 2)
        put(self._frame, "value", frame)
        put(self._undo, "disabled", not is_changed)

    def _agree(self) -> None:
        """Show choices that were made elsewhere: comparing starts the recording, another motion ends it.

        Only then, never with every picture: what a hand has just chosen must not be put back.
        """
        visitor = self._visitor
        with visitor.lock:
            name, compare, stays = visitor.act_name, visitor.compare, visitor.stays
        put(self._act, "value", name)
        put(self._compare, "value", compare)
        put(self._wipe, "disabled", compare != WIPE)
        put(self._stays, "value", stays)
        self._settle()

    def _set(self, name: str, value: Any) -> None:
        with self._visitor.lock:
            setattr(self._visitor, name, value)
        self._visitor.touch()

    def _on(self, control: Any, react: Callable[[], None]) -> None:
        """Call ``react`` in order, on viser's loop, when the visitor (not this program) changes a control."""

        @control.on_update
        async def _(event: viser.GuiEvent) -> None:
            if event.client is not None:
                react()

    def _trouble(self, hidden: str = "") -> _Trouble:
        return _Trouble(self._visitor.client, hidden)


class _Notice:
    """A notice in the page for as long as something takes."""

    def __init__(self, client: viser.ClientHandle, title: str, body: str) -> None:
        self._client, self._title, self._body = client, title, body

    def __enter__(self) -> None:
        self._shown = self._client.add_notification(self._title, self._body, loading=True, with_close_button=False)

    def __exit__(self, *_: object) -> None:
        self._shown.remove()


class _Trouble:
    """What the visitor can mend is told in the page, in one line without ``hidden``."""

    def __init__(self, client: viser.ClientHandle, hidden: str) -> None:
        self._client, self._hidden = client, hidden

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> bool:
        if not isinstance(error, UserError):
            return False
        words = str(error).replace(self._hidden, "") if self._hidden else str(error)
        log.warning("%s", words)
        self._client.add_notification("That did not work", words, color="red", auto_close_seconds=NOTICE_S)
        return True
