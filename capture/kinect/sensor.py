"""``--source kinect``: a Kinect V2 through Windows' driver or libfreenect2, as the recorder reads any sensor.

One thread takes pictures from the driver, pairs them and leaves them in a mailbox; H x W colour pixels.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from capture.errors import UserError
from capture.kinect.calibration import Calibration
from capture.kinect.driver import COLOR, DEPTH, Driver
from capture.kinect.pairing import Pair, Pairing
from capture.recording import Frame
from capture.sensor import DeliveringSensor, Silence

log = logging.getLogger(__name__)

WAIT_S = 0.1  # how soon a stop is noticed
SETTLE_S = 20.0  # for a first picture of both cameras, and the calibration: the device starts in 2 to 5 s


def windows_driver() -> Driver:
    """Through pykinect2.  Raises UserError elsewhere than on Windows."""
    if sys.platform != "win32":
        raise UserError("--source kinect:windows: works on Windows only; use --source kinect:libfreenect2 here")
    from capture.kinect.windows import WindowsDriver

    return WindowsDriver()


def libfreenect2_driver() -> Driver:
    """Through whichever binding of libfreenect2 is installed.  Raises UserError where there is none."""
    from capture.kinect.libfreenect2 import libfreenect2_driver as found

    return found()


DRIVERS: dict[str, Callable[[], Driver]] = {"windows": windows_driver, "libfreenect2": libfreenect2_driver}


def driver_of(argument: str) -> Callable[[], Driver]:
    """Who makes the driver that ``kinect:ARGUMENT`` means; without one that of this system.  Raises UserError."""
    name = argument or ("windows" if sys.platform == "win32" else "libfreenect2")
    if name not in DRIVERS:
        raise UserError(f"--source kinect:{argument}: no such driver; there are kinect:{', kinect:'.join(DRIVERS)}")
    return DRIVERS[name]


class KinectSensor(DeliveringSensor):
    """Colour 1920 x 1080 and depth 512 x 424, upright, from one moment where ``Frame.depth_mm`` is not None."""

    calibration: Calibration  # from ``open`` on

    def __init__(
        self,
        argument: str,
        workspace: Path,
        make_driver: Callable[[], Driver] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_driver, self._clock = make_driver or driver_of(argument), clock
        self._driver: Driver | None = None

    def read(self, timeout_s: float) -> Frame:
        try:
            return self._mailbox.get(timeout_s)
        except Silence:
            assert self._driver is not None
            silent_s = self._clock() - self._heard_s
            raise Silence(f"kinect: no picture for {silent_s:.1f} s; {self._driver.trouble()}") from None

    def remark(self) -> str:
        """Says so when colour comes at half the rate, and when depth alone has stopped."""
        if self._pairing.is_depth_silent:
            return "depth has stopped: plug the Kinect in again, into another USB 3 port"
        if self._pairing.is_half_rate:
            return "15 pictures a second, as a Kinect films in dim light: more light gives twice as many"
        return ""

    def _start(self) -> None:
        self._pairing = Pairing(self._clock)
        self._heard_s = self._clock()
        self._seen: set[str] = set()
        self._driver = self._make_driver()
        self._driver.start()
        log.info("kinect (%s): waiting for its first pictures", self._driver.name)
        if not self._launch("kinect", SETTLE_S):
            silent = [stream for stream in (COLOR, DEPTH) if stream not in self._seen]
            what = f"no {' and no '.join(silent)}" if silent else "no calibration"
            raise UserError(f"kinect: {what} within {SETTLE_S:.0f} s; {self._driver.trouble()}")

    def _stop(self) -> None:
        self._halt()
        if self._driver is not None:
            self._driver.stop()
            self._driver = None

    def _deliver(self) -> None:
        driver = self._driver
        assert driver is not None
        while not self._is_over.is_set():
            shots = driver.wait(WAIT_S)
            self._seen.update(shot.stream for shot in shots)
            if not self._has_begun.is_set():
                self._calibrate(driver)
                continue  # these were taken before
            pairs = [pair for shot in shots for pair in self._pairing.add(shot)] or self._pairing.late()
            for pair in pairs:
                self._give(pair)

    def _calibrate(self, driver: Driver) -> None:
        """Ask for the cameras once both deliver; the device does not tell before."""
        found = driver.calibration() if {COLOR, DEPTH} <= self._seen else None
        if found is None:
            return
        self.calibration, self.rig, self.factory = found, found.rig, found.factory
        (log.info if found.is_good else log.warning)("kinect (%s): %s", driver.name, found.words)
        self._heard_s = self._clock()
        self._has_begun.set()

    def _give(self, pair: Pair) -> None:
        self._heard_s = self._clock()
        self._mailbox.put(Frame(pair.index, pair.time_s, pair.color, pair.depth_mm))
