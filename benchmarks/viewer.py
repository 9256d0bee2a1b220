"""Claim: the live view answers a hand within 150 ms on two cores: from a camera or slider change to the new picture.

Starts ``pipeline.py view`` and speaks to it as the page does, over its websocket from another process: everything is
counted but the browser's own drawing.  Needs a trained avatar: --workspace and --avatar.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import cv2
import msgspec.msgpack
import numpy as np
import zstandard
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from rendering.browser import pose_of
from rendering.viewpoints import orbit

ROOT = Path(__file__).parents[1]
HEIGHT_M, MIDDLE_M = 1.75, np.array([0.0, 0.0, 0.88])
QUIET_S = 0.8  # without a picture: the viewer rests
PLAY_S = 5.0


class Browser:
    """A page's end of viser's protocol."""

    def __init__(self, url: str, page_wh: tuple[int, int]) -> None:
        import viser

        protocol = Subprotocol(f"viser-v{viser.__version__}")
        self._socket = connect(url.replace("http", "ws", 1), subprotocols=[protocol], max_size=None, compression=None)
        self._page_wh = page_wh
        self.controls: dict[str, str] = {}  # label -> uuid
        self.values: dict[str, Any] = {}  # uuid -> value
        self.labels: dict[str, str] = {}  # uuid -> label now

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def look(self, azimuth: float, distance: float = 1.0) -> None:
        """Move the camera around the person."""
        view = orbit(MIDDLE_M[None], np.array([azimuth]), HEIGHT_M * distance, np.array([0.0, -1, 0]), self._page_wh)[0]
        wxyz, position_m, fov_rad = pose_of(view)
        self._send(
            type="ViewerCameraMessage", wxyz=wxyz.tolist(), position=position_m.tolist(), fov=fov_rad, near=0.01,
            far=1000.0, image_width=self._page_wh[0], image_height=self._page_wh[1], look_at=MIDDLE_M.tolist(),
            up_direction=[0.0, 0.0, 1.0],
        )  # fmt: skip

    def change(self, label: str, value: Any) -> None:
        """Move a control."""
        self._send(type="GuiUpdateMessage", uuid=self.controls[label], updates={"value": value})

    def _send(self, **message: Any) -> None:
        self._socket.send(msgspec.msgpack.encode(message))

    def picture(self, timeout_s: float) -> bytes | None:
        """The next picture, a JPEG; None when none comes in time."""
        end_s = time.perf_counter() + timeout_s
        while (left_s := end_s - time.perf_counter()) > 0:
            try:
                raw = self._socket.recv(timeout=left_s)
            except TimeoutError:
                return None
            assert isinstance(raw, bytes)
            compressed = raw[16 : 16 + int.from_bytes(raw[8:16], "little")]
            found = None
            for message in msgspec.msgpack.decode(zstandard.decompress(compressed))["messages"]:
                found = self._take(message) or found
            if found is not None:
                return found
        return None

    def _take(self, message: dict) -> bytes | None:
        kind, props = message["type"], message.get("props") or {}
        if kind == "BackgroundImageMessage":
            return message["rgb_data"]
        if kind.startswith("Gui") and "label" in props:
            self.controls[props["label"]] = message["uuid"]
            self.values[message["uuid"]] = message.get("value")
        elif kind == "GuiUpdateMessage":
            updates = message["updates"]
            self.values[message["uuid"]] = updates.get("value", self.values.get(message["uuid"]))
            self.labels[message["uuid"]] = updates.get("label", self.labels.get(message["uuid"], ""))
        return None

    def rest(self) -> None:
        """Wait until no picture comes any more."""
        end_s = time.perf_counter() + 30
        while self.picture(QUIET_S) is not None:
            assert time.perf_counter() < end_s, "it never rests"


def start(command: list[str]) -> tuple[subprocess.Popen, str]:
    """The viewer's process and its address."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("http"), line
    return process, line.split()[0]


def size(jpeg: bytes) -> str:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return f"{image.shape[1]} x {image.shape[0]}"


def answer_ms(browser: Browser, act: Any) -> tuple[float, bytes]:
    """Do something and wait for the picture."""
    started = time.perf_counter()
    act()
    jpeg = browser.picture(30.0)
    assert jpeg is not None, "no picture came"
    return 1e3 * (time.perf_counter() - started), jpeg


def row(what: str, times_ms: list[float], jpegs: list[bytes]) -> None:
    sizes = [size(jpeg) for jpeg in jpegs[-15:]]
    usual = max(set(sizes), key=sizes.count)
    median, late, worst = np.median(times_ms), np.percentile(times_ms, 95), max(times_ms)
    print(f"{what:44}{len(times_ms):6}{median:9.0f}{late:9.0f}{worst:9.0f}   {usual}")


def cpu_s(pid: int) -> float:
    """Processor time of a process so far; NaN where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(browser: Browser, pid: int, count: int) -> None:
    """Print the table's rows."""
    browser.look(0.0)
    assert browser.picture(60.0) is not None
    browser.rest()
    fresh = []
    for k in range(count // 4):
        fresh.append(answer_ms(browser, lambda k=k: browser.look(0.2 * k)))  # type: ignore[misc]
        browser.rest()
    row("camera moved after a rest", *map(list, zip(*fresh, strict=True)))
    before_s = cpu_s(pid)
    moving = [answer_ms(browser, lambda k=k: browser.look(0.05 * k)) for k in range(count)]  # type: ignore[misc]
    used_s = cpu_s(pid) - before_s
    row("camera while it moves", *map(list, zip(*moving, strict=True)))
    print(f"{'  processor time of one, ms':50}{1e3 * used_s / count:9.0f}")
    browser.rest()
    if browser.values.get(browser.controls["Motion"]) == "standing":  # nothing to move along
        return
    slid = [answer_ms(browser, lambda k=k: browser.change("Frame", k % 20)) for k in range(count)]  # type: ignore[misc]
    row("frame slider while it moves", *map(list, zip(*slid, strict=True)))
    browser.rest()
    browser.change("Play", True)
    end_s, pictures = time.perf_counter() + PLAY_S, []
    while time.perf_counter() < end_s:
        if (jpeg := browser.picture(1.0)) is not None:
            pictures.append(jpeg)
    print(f"motion playing: {len(pictures) / PLAY_S:.1f} pictures a second, {size(pictures[-1])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--avatar", default="demo")
    parser.add_argument("--motion", type=Path, help="A .bvh, for the slider and for playing.")
    parser.add_argument("--count", type=int, default=80)
    options = parser.parse_args()
    command = [sys.executable, "pipeline.py", "view", "--avatar", options.avatar, "--port", "0"]
    command += ["--workspace", str(options.workspace)]
    if options.motion is not None:
        command += ["--motion", str(options.motion.resolve())]
    print(f"avatar {options.avatar}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    for page_wh in ((960, 800), (1600, 900)):
        process, url = start(command)
        try:
            browser = Browser(url, page_wh)
            print(
                f"\n{'page ' + ' x '.join(map(str, page_wh)):44}{'n':>6}{'median':>9}{'p95':>9}{'worst':>9}   picture"
            )
            browser.look(0.0)
            if options.motion is not None:  # until it is on the body
                end_s = time.monotonic() + 120
                while browser.labels.get(browser.controls.get("Play", "")) != "Pause":
                    browser.picture(0.1)
                    assert time.monotonic() < end_s, "the motion never began"
                browser.change("Play", True)  # it plays by itself
            measure(browser, process.pid, options.count)
            browser.close()
        finally:
            process.send_signal(signal.SIGINT)
            print(f"Ctrl-C: exit code {process.wait(30)}")


if __name__ == "__main__":
    main()
