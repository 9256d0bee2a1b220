"""The ``view`` command: a page in the browser where an avatar is looked at, moved, dressed and compared, live.

Networks paint on this machine; the page shows their pictures behind what can be taken hold of.  Every browser has its
own controls and its own person; one thread paints for all of them in turn.  World: z up, floor at 0, metres.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from capture.errors import UserError
from capture.interrupt import interruptible
from rendering.avatar import Avatar
from rendering.browser import pose_of
from rendering.origins import own_pages_only
from rendering.outfits import Outfits
from rendering.panel import Panel
from rendering.repertoire import Repertoire, standing
from rendering.viewpoints import orbit
from rendering.visitor import PAGE_WH, Visitor

if TYPE_CHECKING:
    import viser

LOOK_S = 0.2  # between looks at Ctrl-C
SHORTEST_WAIT_S = 0.002
log = logging.getLogger(__name__)


def view(
    avatar_dir: Path, workspace: Path, subject: str | None, motions: Sequence[Path], host: str, port: int
) -> Iterator[str]:
    """Serve until Ctrl-C; yields lines for people, the address first.

    ``workspace`` has the recordings, where they are to be compared with.  Raises UserError for an avatar, subject,
    motion file or port that cannot be used.
    """
    check_port(host, port)
    avatar = Avatar.load(avatar_dir)
    if subject is not None:
        avatar.check_subject(subject)
    repertoire = Repertoire(avatar, workspace, motions)
    with interruptible() as is_stopped, Viewer(avatar, repertoire, subject or avatar.subjects[0], host, port) as viewer:
        yield f"{viewer.url}  (Ctrl-C ends it)"
        while not is_stopped():
            time.sleep(LOOK_S)


class Viewer:
    """The server and its painting thread.  A context manager."""

    def __init__(self, avatar: Avatar, repertoire: Repertoire, subject: str, host: str, port: int) -> None:
        self._avatar, self._repertoire, self._subject = avatar, repertoire, subject
        self._host, self._port = host, port
        self._outfits = Outfits(avatar)
        self._visitors: dict[int, Visitor] = {}
        self._condition = threading.Condition()
        self._is_over = False

    def __enter__(self) -> Viewer:
        import viser

        check_port(self._host, self._port)
        # Whoever closes the page does so while a picture is on its way.
        warnings.filterwarnings("ignore", "Queued a .* on a closed connection")
        quiet = contextlib.redirect_stdout(io.StringIO())  # viser prints a box with the address, quiet or not
        with quiet, own_pages_only(self._host):
            server = self._server = viser.ViserServer(self._host, self._port, label="avatar", verbose=False)
        if self._port and server.get_port() != self._port:  # somebody was faster; viser then takes the next one
            self._stop()
            raise _taken(self._host, self._port)
        self._set_up()
        self._painter = threading.Thread(target=self._paint, name="painter", daemon=True)
        self._painter.start()
        server.on_client_connect(self._welcome)
        server.on_client_disconnect(self._dismiss)
        return self

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._is_over = True
            self._condition.notify()
        self._painter.join(timeout=10)
        self._stop()

    def _stop(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._server.stop()

    @property
    def url(self) -> str:
        """Where the page is."""
        host = "localhost" if self._host in ("0.0.0.0", "::", "") else self._host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.get_port()}"

    @property
    def visitors(self) -> tuple[Visitor, ...]:
        """Who looks at it at this moment."""
        with self._condition:
            return tuple(self._visitors.values())

    def _set_up(self) -> None:
        """What is the same for all browsers."""
        server = self._server
        server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="medium")
        server.gui.main_panel.dock_right()
        server.scene.world_axes.visible = False
        shape = self._avatar.bodies[self._subject]
        motion = standing(shape)
        vertices_m = shape.vertices_camera_m(motion.pose[0], motion.world_from_body[0])
        middle_m = np.asarray((vertices_m.min(0) + vertices_m.max(0)) / 2, float)
        height_m = float(np.ptp(vertices_m[:, 2]))
        view = orbit(middle_m[None], np.zeros(1), height_m, -motion.world_from_body[0, :3, 1], PAGE_WH)[0]
        _, position_m, fov_rad = pose_of(view)
        server.initial_camera.position = position_m
        server.initial_camera.look_at = middle_m
        server.initial_camera.fov = fov_rad

    def _welcome(self, client: viser.ClientHandle) -> None:
        visitor = Visitor(client, self._avatar, self._repertoire, self._outfits, self._subject, self._wake)
        title = self._avatar.settings.get("name") or ", ".join(self._avatar.subjects)
        panel = Panel(visitor, str(title))
        with self._condition:
            self._visitors[client.client_id] = visitor
            self._condition.notify()
        first = self._repertoire.first
        if first is not None:
            panel.perform(first)

    async def _dismiss(self, client: viser.ClientHandle) -> None:
        with self._condition:
            self._visitors.pop(client.client_id, None)

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify()

    # The painting thread

    def _paint(self) -> None:
        while (found := self._next()) is not None:
            visitor, companions = found
            try:
                visitor.draw(companions)
            except Exception:  # one visitor's trouble must not end the pictures of the others
                if visitor.client.client_id in self._visitors:
                    log.exception("a picture failed")
                    time.sleep(LOOK_S)

    def _next(self) -> tuple[Visitor, int] | None:
        """Who has waited longest for a picture, and how many are at it; None when it is over."""
        with self._condition:
            while not self._is_over:
                now_s = time.monotonic()
                due = {visitor: visitor.due_in_s(now_s) for visitor in self._visitors.values()}
                ready = [visitor for visitor, wait_s in due.items() if wait_s <= 0]
                if ready:
                    companions = sum(visitor.is_moving(now_s) for visitor in due)
                    return min(ready, key=lambda visitor: visitor.drawn_s), companions
                wait_s = min(due.values(), default=float("inf"))
                self._condition.wait(None if wait_s == float("inf") else max(wait_s, SHORTEST_WAIT_S))
        return None


def check_port(host: str, port: int) -> None:
    """Raises UserError when nothing can be served there: viser would take another port, or wait for ever."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise _no_address(host) from None
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise _no_address(host) from None
                if error.errno in (errno.EACCES, errno.EPERM):
                    raise UserError(f"--port {port}: this user may not serve there; choose one above 1023") from None
                raise _taken(host, port) from None


def _no_address(host: str) -> UserError:
    return UserError(f"--host {host}: no address of this machine; 127.0.0.1 serves you alone, 0.0.0.0 the network")


def _taken(host: str, port: int) -> UserError:
    other = port + 1 if port < 65535 else port - 1
    return UserError(f"--port {port}: in use on {host} already; choose another, for instance --port {other}")
