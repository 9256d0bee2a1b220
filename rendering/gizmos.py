"""Joints to take hold of in the page: a ball to pull on each main joint, and rings to turn the one last touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from rendering.live_picture import ALONE
from rendering.puppet import Handle
from rendering.visitor import Visitor

if TYPE_CHECKING:
    import viser

BALL_M, RINGS_M = 0.022, 0.2
BALL_COLOR, CHOSEN_COLOR = (34, 139, 230), (253, 126, 20)
ROOM_M = 0.0005  # a place that moved less is not sent again


class Gizmos:
    """The balls and rings of one visitor."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._balls: list[viser.IcosphereHandle] = []
        self._rings: viser.TransformControlsHandle | None = None
        self._chosen: Handle | None = None
        self._is_turning = False
        self._shown_for: object = None  # the puppet whose balls these are
        self.is_on = False

    def follow(self) -> None:
        """Bring everything to where the shown pose has it; hidden where the page does not show the avatar itself."""
        visitor = self._visitor
        is_visible = self.is_on and visitor.compare == ALONE and visitor.layer in ("Avatar", "Mesh", "IUV raster")
        if not is_visible:
            self._remove()
            return
        if self._shown_for is not visitor.puppet:
            self._remove()
            self._make()
        pose = visitor.pose()
        places_m = visitor.puppet.places(pose)
        with visitor.client.atomic():
            for ball, place_m in zip(self._balls, places_m, strict=True):
                if np.abs(np.asarray(ball.position) - place_m).max() > ROOM_M:
                    ball.position = place_m
            if self._rings is not None and self._chosen is not None:
                self._rings.position = places_m[visitor.puppet.handles.index(self._chosen)]
                if not self._is_turning:
                    turn = Rotation.from_matrix(visitor.puppet.turn(pose, self._chosen))
                    self._rings.wxyz = turn.as_quat(scalar_first=True)

    def _make(self) -> None:
        scene, visitor = self._visitor.client.scene, self._visitor
        places_m = visitor.puppet.places(visitor.pose())
        for handle, place_m in zip(visitor.puppet.handles, places_m, strict=True):
            name = f"/joints/{handle.name}"
            ball = scene.add_icosphere(
                name, BALL_M, BALL_COLOR, subdivisions=2, opacity=0.85, cast_shadow=False, receive_shadow=False,
                position=place_m,
            )  # fmt: skip
            self._bind(ball, handle)
            self._balls.append(ball)
        self._shown_for = visitor.puppet

    def _bind(self, ball: viser.IcosphereHandle, handle: Handle) -> None:
        grip_m = np.zeros(3)  # from the pointer to the joint when it was taken

        @ball.on_click
        async def _(_: object) -> None:
            self._choose(handle)

        @ball.on_drag("left")
        async def _(event: viser.SceneNodeDragEvent) -> None:
            nonlocal grip_m
            pointer_m = np.asarray(event.end_position, float)
            if event.phase == "start":
                self._choose(handle)
                grip_m = np.asarray(ball.position, float) - pointer_m
            self._visitor.pull(handle, pointer_m + grip_m)

    def _choose(self, handle: Handle) -> None:
        """Put the rings on a joint."""
        self._chosen = handle
        for ball, other in zip(self._balls, self._visitor.puppet.handles, strict=True):
            ball.color = CHOSEN_COLOR if other is handle else BALL_COLOR
        if self._rings is None:
            self._rings = self._visitor.client.scene.add_transform_controls(
                "/rings", RINGS_M, disable_axes=True, disable_sliders=True, depth_test=False
            )

            @self._rings.on_update
            async def _(event: viser.TransformControlsEvent) -> None:
                self._is_turning = event.phase != "end"
                if self._chosen is not None and event.phase == "update":
                    turn = Rotation.from_quat(np.asarray(event.target.wxyz), scalar_first=True)
                    self._visitor.turn(self._chosen, turn.as_matrix())
                self._visitor.touch()

        self._visitor.touch()

    def _remove(self) -> None:
        for node in (*self._balls, self._rings):
            if node is not None:
                node.remove()
        self._balls, self._rings, self._chosen, self._shown_for = [], None, None, None
