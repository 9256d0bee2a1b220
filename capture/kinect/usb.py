"""Is a Kinect V2 plugged in, at a port that is fast enough, and may we use it?  Linux only: from /sys.

libfreenect2 opens nothing in all three cases, and one of its bindings then takes the whole process down.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SYSFS, DEVFS = Path("/sys/bus/usb/devices"), Path("/dev/bus/usb")
VENDOR, PRODUCTS = "045e", ("02c4", "02d8")  # libfreenect2.cpp: the sensor, and that of the preview
SUPER_SPEED_MBIT = 5000


@dataclass(frozen=True)
class Finding:
    """What the bus says."""

    is_usable: bool
    words: str


def look(sysfs: Path | None = None, devfs: Path | None = None) -> Finding | None:
    """What is plugged in; None where this system does not tell."""
    sysfs, devfs = sysfs or SYSFS, devfs or DEVFS
    if not sysfs.is_dir():
        return None
    found = [folder for folder in sorted(sysfs.iterdir()) if _is_kinect(folder)]
    if not found:
        return Finding(False, "no Kinect V2 on USB: check its power supply, and plug it into a USB 3 port")
    folder = found[0]
    speed = _read(folder / "speed")
    if speed.isdigit() and int(speed) < SUPER_SPEED_MBIT:
        return Finding(False, f"the Kinect V2 is at a port of {speed} Mbit/s: plug it into a USB 3 port (blue, or SS)")
    bus, device = _read(folder / "busnum"), _read(folder / "devnum")
    node = devfs / bus.zfill(3) / device.zfill(3)
    if node.exists() and not os.access(node, os.R_OK | os.W_OK):
        rules = "sudo cp libfreenect2/platform/linux/udev/90-kinect2.rules /etc/udev/rules.d/"
        return Finding(False, f"{node} may not be used: run {rules}, and plug the Kinect in again")
    return Finding(True, f"a Kinect V2 at {speed or 'unknown'} Mbit/s")


def _is_kinect(folder: Path) -> bool:
    return _read(folder / "idVendor") == VENDOR and _read(folder / "idProduct") in PRODUCTS


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
