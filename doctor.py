"""Is this machine ready, or this source?  Each check is one row: what, how it is, what to do about it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from capture.errors import UserError
from capture.workers import num_cores

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# Shared libraries that wheels expect of the system -> the Debian package that has them, and who needs it.
SYSTEM_LIBRARIES = {
    "libusb-1.0.so.0": ("libusb-1.0-0", "open3d"),
    "libGL.so.1": ("libgl1", "opencv and open3d"),
    "libEGL.so.1": ("libegl1", "open3d"),
    "libgthread-2.0.so.0": ("libglib2.0-0", "opencv"),
    "libgomp.so.1": ("libgomp1", "open3d"),
}
DOCTOR_LOOK_S, DOCTOR_WAIT_S = 2.0, 5.0  # how long a sensor is looked at, and waited for
WORKSPACE_GB, MEMORY_GB = 5, 4  # what the largest of the demo and a five-minute recording at the cpu preset needs


@dataclass(frozen=True)
class Check:
    """One finding."""

    what: str
    state: str  # "ok", "note" (works, could be better) or "missing" (something will fail)
    words: str


def examine(workspace: Path) -> Iterator[Check]:
    """All checks, cheap ones first."""
    version = platform.python_version()
    fits = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield Check("python", "ok" if fits else "missing", version if fits else f"{version}; 3.11 or 3.12 is needed")
    yield from packages()
    yield from system_libraries()
    yield from machine(workspace)
    yield from accelerator()
    yield from weights()


def examine_kinect(argument: str) -> Iterator[Check]:
    """Can a Kinect V2 be filmed with here?  What is there, what is missing, and whether it delivers."""
    from capture.kinect import usb
    from capture.kinect.sensor import driver_of

    try:
        make_driver = driver_of(argument)
        finding = usb.look()
        if finding is not None:
            yield Check("usb", "ok" if finding.is_usable else "missing", finding.words)
        driver = make_driver()
        driver.check()
        yield Check("package", "ok", driver.name)
        if finding is None or finding.is_usable:
            yield from _kinect_pictures(argument)
    except UserError as error:
        yield Check("kinect", "missing", str(error))


def _kinect_pictures(argument: str) -> Iterator[Check]:
    """Film for two seconds.  Raises UserError where that fails."""
    from capture.kinect.sensor import KinectSensor

    with KinectSensor(argument, Path()) as sensor:
        frames = [sensor.read(DOCTOR_WAIT_S)]
        while frames[-1].time_s - frames[0].time_s < DOCTOR_LOOK_S:
            frames.append(sensor.read(DOCTOR_WAIT_S))
            frames[-2] = replace(frames[-2], color=frames[-2].color[:0])  # pictures are large
        words, is_good, remark = sensor.calibration.words, sensor.calibration.is_good, sensor.remark()
    rate_hz = (len(frames) - 1) / (frames[-1].time_s - frames[0].time_s)
    lost = frames[-1].index - frames[0].index + 1 - len(frames)
    share = sum(frame.depth_mm is not None for frame in frames) / len(frames)
    yield Check("cameras", "ok" if is_good else "note", words)
    said = f"{rate_hz:.0f} a second, {lost} lost, {100 * share:.0f} % with depth"
    is_fine = lost <= len(frames) // 20 and share > 0.9 and not remark
    yield Check("pictures", "ok" if is_fine else "note", f"{said}; {remark}" if remark else said)


def examine_source(path: Path) -> Iterator[Check]:
    """What a film, a folder or a landmarker's file is, and what is missing beside it; nothing is imported."""
    try:
        if path.suffix == ".task" and path.is_file():
            from fitting.tasks import check_bundle

            check_bundle(path)
            yield Check("landmarks", "ok", f"a PoseLandmarker; use it with --set fit.keypoints={path}")
            return
        yield from _source(path)
    except UserError as error:
        yield Check("source", "missing", str(error))


def _source(path: Path) -> Iterator[Check]:
    from capture.beside import PROX_CALIBRATION, openpose_files, openpose_folder, prox_root
    from capture.importers import own, prox, recognise

    layout = recognise(path)
    words = layout.words if layout.describe is None else f"{layout.words}: {layout.describe(path)}"
    yield Check("source", "ok", words)
    yield from _shortcomings(path, layout.words, words)
    folder = openpose_folder(path)
    if prox.recognises(path):
        home = prox.the_recording(path)
        yield Check("recording", "ok", str(home))
        absent = [n for n in PROX_CALIBRATION if not (prox_root(home) / "calibration" / n).is_file()]
        where = prox_root(home) / "calibration"
        yield Check(
            "cameras", "missing" if absent else "ok", f"{where}" + (f": no {', '.join(absent)}" if absent else "")
        )
    count = own.count_openpose(path) if own.recognises(path) else len(openpose_files(folder)) if folder else 0
    if not count:
        yield Check("landmarks", "note", "no OpenPose files beside it; MediaPipe will look for them")
    else:
        yield Check("landmarks", "ok", f"{count} OpenPose files in {folder or path}")


def _shortcomings(path: Path, kind: str, words: str) -> Iterator[Check]:
    """What a recording lacks, by what its description says."""
    from capture.beside import calibration_beside
    from capture.importers import xef

    if "breaks off" in words:
        yield Check("length", "missing", "copy it again, or take what is there: --set recording.allow_truncated=true")
    if "damaged" in words:
        yield Check("damage", "note", "what is damaged is left out; copy it again if you can")
    if "unfinished" in words:
        yield Check("length", "note", "it was interrupted: what was recorded until then is used")
    has_depth = "depth pictures" in words if path.is_dir() else "depth" in words.lower()
    if kind != "a video file" and not has_depth:
        yield Check("depth", "note", "none in it: it is fitted from colour alone")
    if "no camera file" in words and has_depth:
        yield Check("cameras", "missing", "none: add calibration.json with width, height, fx, fy, cx, cy")
    elif "no camera file" in words or "no focal length" in words:
        yield Check("cameras", "note", "none: the focal length is guessed, and refined by the fit")
    elif "no calibration.json" in words:
        yield Check("cameras", "note", "none: TUM's own are assumed (focal 525 px, 5000 depth units per metre)")
    if path.is_file() and xef.recognises(path):
        folder = calibration_beside(path)
        said = f"{folder}" if folder else "none beside it: a typical Kinect V2's is used (PROX's calibration/ is read)"
        yield Check("cameras", "ok" if folder else "note", said)


def packages() -> Iterator[Check]:
    """What is installed against what requirements.txt pins."""
    wrong = []
    for name, wanted in pinned():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "nothing"
        if found.split("+")[0] != wanted:
            wrong.append(f"{name} {wanted} (found {found})")
    words = f"{', '.join(wrong)}; run: pip install -r {REQUIREMENTS.name}" if wrong else "as pinned in requirements.txt"
    yield Check("packages", "missing" if wrong else "ok", words)


def pinned() -> Iterator[tuple[str, str]]:
    """(package, version) of requirements.txt that apply to this platform."""
    for line in REQUIREMENTS.read_text().splitlines():
        match = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([^\s;#]+)\s*(;.*?)?(#.*)?$", line)
        if match and (match[3] is None or f'sys_platform == "{sys.platform}"' in match[3]):
            yield match[1], match[2]


def system_libraries() -> Iterator[Check]:
    """Libraries that no wheel brings along; only Linux lacks them."""
    if not sys.platform.startswith("linux"):
        return
    absent = {}
    for library, (package, needed_by) in SYSTEM_LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            absent[package] = needed_by
    words = f"{', '.join(f'{p} for {who}' for p, who in absent.items())}; run: sudo apt-get install {' '.join(absent)}"
    yield Check("libraries", "missing" if absent else "ok", words if absent else ", ".join(SYSTEM_LIBRARIES))


def machine(workspace: Path) -> Iterator[Check]:
    """Cores, memory, disk."""
    cores = num_cores()
    try:
        flags = set(re.findall(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)[0].split())
        fast = sorted(flags & {"avx512_bf16", "amx_bf16"})
        words = (
            f"{cores} cores, bf16 in hardware ({', '.join(fast)})"
            if fast
            else f"{cores} cores, no bf16: trains in fp32"
        )
        yield Check("cpu", "ok" if fast else "note", words)
    except (OSError, IndexError):
        yield Check("cpu", "ok", f"{cores} cores")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        yield Check(
            "memory", "ok" if memory_gb >= MEMORY_GB else "note", f"{memory_gb:.0f} GB ({MEMORY_GB} are needed)"
        )
    existing = next(path for path in (workspace.resolve(), *workspace.resolve().parents) if path.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    yield Check("disk", "ok" if free_gb >= WORKSPACE_GB else "note", f"{free_gb:.0f} GB free for {workspace}")
    writable = os.access(existing, os.W_OK)
    yield Check(
        "workspace", "ok" if writable else "missing", f"{workspace}: {'writable' if writable else 'not writable'}"
    )


def accelerator() -> Iterator[Check]:
    """The GPU that torch would use."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch", "missing", str(error))
        return
    if torch.cuda.is_available():
        memory_gb = torch.cuda.get_device_properties(0).total_memory / 1e9
        yield Check("gpu", "ok", f"{torch.cuda.get_device_name(0)}, {memory_gb:.0f} GB")
    else:
        yield Check("gpu", "note", "none that torch can use; the presets demo and cpu need none")


def weights() -> Iterator[Check]:
    """Optional files in the cache; weights are never downloaded behind anybody's back."""
    from rendering import ort_web
    from training.features import VGG19_FILE, weights_dir
    from training.lpips import ALEXNET_FILE

    for file, without in ((VGG19_FILE, "SSIM stands in"), (ALEXNET_FILE, "LPIPS is not measured")):
        found = (weights_dir() / file).exists()
        yield Check("weights", "ok" if found else "note", f"{file} {'found' if found else f'not there: {without}'}")
    found = (weights_dir() / ort_web.ARCHIVE).exists()
    words = "found" if found else "not there: export --format web fetches it, once"
    yield Check("web", "ok" if found else "note", f"{ort_web.ARCHIVE} {words}")
