"""pykinect2 as PyPI has it: every known breakage is mended, each correction is needed, and nothing is written."""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from fake_kinect import pretend_windows

from capture.errors import UserError
from capture.kinect import released
from capture.kinect.released import CORRECTIONS, PACKAGE, Finder, corrected, load

# One line of each kind, as they stand in the release and in its repository.
BROKEN = """
import ctypes, comtypes, time, numpy
from ctypes import *
INT_PTR = c_int
comtypes.hresult.E_PENDING = 0x8000000A
class tagSTATSTG(Structure):
    _fields_ = [('a', c_void_p), ('b', c_uint32 * 16), ('c', c_void_p)]
assert sizeof(tagSTATSTG) == 72, sizeof(tagSTATSTG)
from comtypes import _check_version; _check_version('')
started = time.clock()
held = numpy.ndarray((2), dtype=numpy.object)
kept = numpy.float32(1), numpy.int_(2)
WinDLL('Kinect20')
"""


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder on Python's path; whatever is imported of pykinect2 is forgotten afterwards."""
    pretend_windows(monkeypatch, tmp_path)
    forget()
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if not isinstance(finder, Finder)])
    yield tmp_path
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def package(folder: Path, text: str) -> None:
    (folder / PACKAGE).mkdir()
    (folder / PACKAGE / "__init__.py").write_text("")
    (folder / PACKAGE / "PyKinectV2.py").write_text("# -*- coding: mbcs -*-\n" + text)


def without(k: int) -> tuple[released.Correction, ...]:
    return CORRECTIONS[:k] + CORRECTIONS[k + 1 :]


def test_a_broken_text_loads_and_stays_as_it_is_on_the_disk(windows: Path) -> None:
    package(windows, BROKEN)
    before = {path: path.read_bytes() for path in (windows / PACKAGE).iterdir()}
    api = load()
    assert ctypes.sizeof(api.INT_PTR) == ctypes.sizeof(ctypes.c_void_p) and ctypes.sizeof(api.tagSTATSTG) == 80
    assert api.held.dtype == object and api.kept == (1.0, 2) and api.started > 0
    left = {path: path.read_bytes() for path in (windows / PACKAGE).glob("[!_]*")}
    assert left == {path: data for path, data in before.items() if not path.name.startswith("_")}
    assert not list((windows / PACKAGE).rglob("PyKinectV2*.pyc"))
    assert load() is api


@pytest.mark.parametrize("k", range(6), ids=lambda k: CORRECTIONS[k].why)
def test_each_correction_is_needed(k: int) -> None:
    mended, left = corrected(BROKEN), corrected(BROKEN, without(k))
    assert mended != left and ast.parse(mended)
    assert corrected(mended) == mended, "what is mended is left alone"


def test_the_unreleased_version_and_a_users_fork_load_too() -> None:
    text = "import numpy.distutils.system_info as sysinfo\nrequired_size = 64 + sysinfo.platform_bits / 4\n"
    found: dict[str, object] = {}
    exec(corrected("from ctypes import *\n" + text), found)
    assert found["required_size"] == 64 + 2 * ctypes.sizeof(ctypes.c_void_p)
    fork = "import time\nstarted = time.perf_counter()\nINT_PTR = c_ssize_t\n"
    assert corrected(fork) == fork


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import no_such_package_anywhere", "pykinect2 needs no_such_package_anywhere; run"),
        ("raise FileNotFoundError('Could not find module Kinect20')", "install Microsoft's Kinect for Windows SDK"),
        ("assert False, 'another structure'", "does not load (another structure)"),
        ("from ctypes import never_heard_of", "does not load"),
    ],
)
def test_what_is_missing_is_one_line_with_its_remedy(windows: Path, text: str, complaint: str) -> None:
    package(windows, text)
    with pytest.raises(UserError) as told:
        load()
    assert complaint in str(told.value) and "\n" not in str(told.value)


def test_without_the_package_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install pykinect2==0\.1\.0"):
        load()


# The release itself, where it is installed: requirements-dev.txt has it on every system.


@pytest.fixture
def release() -> dict[str, str]:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("pykinect2 is not installed: pip install --no-deps pykinect2==0.1.0")
    folder = Path(next(iter(spec.submodule_search_locations)))
    return {name: (folder / f"{name}.py").read_text("latin-1") for name in ("PyKinectV2", "PyKinectRuntime")}


def names_of(text: str) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}


def test_the_release_loads(release: dict[str, str], windows: Path) -> None:
    api = load()
    assert ctypes.sizeof(api.tagSTATSTG) == 80 and ctypes.sizeof(api.INT_PTR) == 8
    assert ctypes.sizeof(api._CameraIntrinsics) == 28
    for interface, name in (("IColorFrame", "_get_RelativeTime"), ("IDepthFrame", "_get_RelativeTime")):
        assert any(name.removeprefix("_get_") in spec for spec in getattr(api, interface)._methods_)
    runtime = importlib.import_module(f"{PACKAGE}.PyKinectRuntime")
    assert isinstance(runtime, ModuleType) and runtime.PyKinectV2 is api
    for text in release.values():
        assert not {"time.clock", "numpy.object"} & names_of(corrected(text))


@pytest.mark.parametrize("k", range(3), ids=lambda k: CORRECTIONS[k].why)
def test_the_release_does_not_load_without_each_correction(
    release: dict[str, str], windows: Path, monkeypatch: pytest.MonkeyPatch, k: int
) -> None:
    monkeypatch.setattr(released, "corrected", lambda text: corrected(text, without(k)))
    with pytest.raises(UserError, match="does not load"):
        load()


def test_the_other_corrections_find_their_lines_in_the_release(release: dict[str, str]) -> None:
    together = "".join(release.values())
    for correction in CORRECTIONS[:6]:
        only = replace(correction)
        assert corrected(together, [only]) != together, correction.why
