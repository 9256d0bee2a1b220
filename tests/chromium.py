"""A headless Chromium for tests, driven through its DevTools protocol: real clicks and drags, real pictures."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import connect

WHERE = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio", "--no-first-run",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking", "--disable-sync",
)  # fmt: skip


class Page:
    """One page.  A context manager: leaving it ends the browser."""

    def __init__(
        self, url: str, profile: Path, size: tuple[int, int] = (1000, 700), flags: tuple[str, ...] = ()
    ) -> None:
        self._url, self._profile, self._size, self._flags = url, profile, size, flags
        self._count = 0

    def __enter__(self) -> Page:
        assert WHERE is not None
        size = f"--window-size={self._size[0]},{self._size[1]}"
        own = ("--remote-debugging-port=0", f"--user-data-dir={self._profile}")
        command = [WHERE, *FLAGS, *self._flags, size, *own, "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = self._wait_for_file(self._profile / "DevToolsActivePort").split()[0]
        with connect(f"ws://127.0.0.1:{port}{self._path()}", max_size=None) as browser:
            browser.send(json.dumps({"id": 0, "method": "Target.getTargets"}))
            targets = json.loads(browser.recv())["result"]["targetInfos"]
        target = next(target["targetId"] for target in targets if target["type"] == "page")
        self._socket = connect(f"ws://127.0.0.1:{port}/devtools/page/{target}", max_size=None)
        width, height = self._size
        self.call("Page.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=self._url)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(10)

    def _wait_for_file(self, path: Path) -> str:
        self._ports = ""
        for _ in range(400):
            if path.exists() and len(self._ports.splitlines()) < 2:
                self._ports = path.read_text()
            if len(self._ports.splitlines()) >= 2:
                return self._ports
            time.sleep(0.05)
        raise TimeoutError("Chromium did not start")

    def _path(self) -> str:
        return self._ports.splitlines()[1]

    def call(self, method: str, **parameters: Any) -> dict:
        """One DevTools command and its result."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=180))
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def value(self, script: str) -> Any:
        """What a JavaScript expression is."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str, timeout_s: float = 90.0) -> Any:
        """Wait until an expression is true, and return it."""
        for _ in range(round(timeout_s / 0.05)):  # looks, not the clock: a machine that stood still must not fail it
            if value := self.value(script):
                return value
            time.sleep(0.05)
        raise TimeoutError(f"never true: {script}\n{self.text()}")

    def wait_for_text(self, words: str, timeout_s: float = 90.0) -> None:
        """Wait until ``words`` stand in the page."""
        self.wait(f"document.body && document.body.innerText.includes({words!r})", timeout_s)

    def text(self) -> str:
        """What can be read in the page, and what stands in its fields."""
        fields = "[...document.querySelectorAll('input')].map(i => i.value)"
        return str(self.value(f"document.body ? document.body.innerText + {fields} : ''"))

    def place(self, script: str, timeout_s: float = 90.0) -> tuple[float, float]:
        """The middle of the element that an expression finds, once it stands still and nothing lies over it.

        A slow page still moves (fonts, lists that unfold) after an element is there; a click then meets something else.
        """
        where = (
            f"(async e => {{ if (!e) return null; e.scrollIntoView({{block: 'nearest'}});"
            " const middle = () => { const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2] };"
            " const [x, y] = middle(); for (let k = 0; k < 3; k++) await new Promise(requestAnimationFrame);"
            " const [u, v] = middle(), top = document.elementFromPoint(u, v);"
            " return u == x && v == y && top && (e.contains(top) || top.contains(e)) ? [u, v] : null"
            f" }})({script})"
        )
        x, y = self.wait(where, timeout_s)
        return float(x), float(y)

    def mouse(self, kind: str, x: float, y: float, buttons: int = 0) -> None:
        """One mouse event: Moved, Pressed or Released."""
        button = "left" if buttons or kind != "Moved" else "none"
        clicks = 0 if kind == "Moved" else 1
        self.call(
            "Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button=button, buttons=buttons, clickCount=clicks
        )

    def click(self, x: float, y: float) -> None:
        """A click as a hand makes it."""
        self.mouse("Moved", x, y)
        self.mouse("Pressed", x, y, 1)
        self.mouse("Released", x, y)

    def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int = 8, pause_s: float = 0.06) -> None:
        """Press, move in steps, release."""
        self.mouse("Moved", *start)
        time.sleep(pause_s)
        self.mouse("Pressed", *start, 1)
        for step in range(1, steps + 1):
            x, y = (a + (b - a) * step / steps for a, b in zip(start, end, strict=True))
            self.mouse("Moved", x, y, 1)
            time.sleep(pause_s)
        self.mouse("Released", *end)

    def click_text(self, words: str, inside: str = "button, label") -> None:
        """Click the visible element whose text is ``words``."""
        self.click(*self.place(visible(inside, words)))

    def choose(self, label: str, option: str) -> None:
        """Choose in a drop-down list by its label, as often as it takes until the list shows the choice."""
        for _ in range(8):
            try:
                if not self.value(visible("[role=option]", option)):
                    self.click(*self.place(field(label)))
                self.click(*self.place(visible("[role=option]", option), 5.0))
                self.wait(f"{field(label)}.value === {option!r}", 5.0)
                return
            except TimeoutError:
                continue
        raise TimeoutError(f"{label} never became {option}\n{self.text()}")

    def give(self, path: Path) -> None:
        """Choose a file for the page's first file field, as its dialog would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def picture(self) -> bytes:
        """A PNG of the page."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


def visible(inside: str, words: str) -> str:
    """An expression for the visible element of a selector whose text is ``words``."""
    return f"[...document.querySelectorAll('{inside}')].find(e => e.offsetParent && e.innerText.trim() === {words!r})"


def field(label: str) -> str:
    """An expression for the input that stands beside a label."""
    return (
        f"(l => {{ let e = l; while (e && !e.querySelector('input')) e = e.parentElement;"
        f" return e && e.querySelector('input') }})"
        f"([...document.querySelectorAll('label, div, span')].filter(e => e.children.length == 0)"
        f".find(e => e.innerText.trim() === {label!r}))"
    )
