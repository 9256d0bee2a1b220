"""A headless Chromium for tests of pages: opens one, asks it questions, takes its picture."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
# A container has no sandbox and a small /dev/shm; a display's graphics are imitated in software.
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--remote-debugging-port=0",
)  # fmt: skip
START_S, ANSWER_S = 30, 60


class Page:
    """One tab."""

    def __init__(self, socket: Connection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A DevTools command and its result; events that come in between are passed over."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=ANSWER_S))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def evaluate(self, expression: str) -> Any:
        """The value of JavaScript, waited for where it is a promise."""
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = ANSWER_S) -> None:
        """Until the expression is true."""
        end_s = time.monotonic() + timeout_s
        while not self.evaluate(f"Boolean({expression})"):
            if time.monotonic() > end_s:
                says = self.evaluate("document.body?.innerText")
                raise AssertionError(f"{expression}: not true after {timeout_s} s; the page says {says!r}")
            time.sleep(0.1)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def opened(address: str, home: Path, wh: tuple[int, int] = (1200, 800), flags: tuple[str, ...] = ()) -> Iterator[Page]:
    """The page at ``address``, in a Chromium of its own that keeps its files in ``home``."""
    assert CHROMIUM is not None
    size = f"--window-size={wh[0]},{wh[1]}"
    command = [CHROMIUM, *FLAGS, *flags, size, f"--user-data-dir={home}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end_s, announced = time.monotonic() + START_S, home / "DevToolsActivePort"
        while not (announced.exists() and announced.read_text().count("\n")):
            assert process.poll() is None and time.monotonic() < end_s, "Chromium does not start"
            time.sleep(0.05)
        port = announced.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            tab = next(tab for tab in json.load(answer) if tab["type"] == "page")
        with connect(tab["webSocketDebuggerUrl"], max_size=None) as socket:
            page = Page(socket)
            page.call(
                "Emulation.setDeviceMetricsOverride", width=wh[0], height=wh[1], deviceScaleFactor=1, mobile=False
            )
            page.call("Page.navigate", url=address)
            page.wait_for(f"location.href.startsWith({address.partition('#')[0]!r}) && document.body")
            yield page
    finally:
        process.terminate()
        process.wait(timeout=START_S)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder behind the plainest of web servers."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
