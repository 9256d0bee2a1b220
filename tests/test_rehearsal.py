"""What a first run compiles beside itself."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import attempt
import rehearsal
from rendering.avatar import Avatar

RUN = """
import time
import rehearsal
rehearsal.LEAST_CORES = 1
with rehearsal.rehearsed():
    time.sleep(60)
"""


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where numba would keep what it compiles: an empty folder, which also has the temporary files."""
    for name in ("NUMBA_CACHE_DIR", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv(rehearsal.SWITCH, "1")
    monkeypatch.setattr(rehearsal, "LEAST_CORES", 1)
    return tmp_path


@pytest.fixture
def home(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one file to compile and one without, and an empty cache."""
    for name, text in (("fitting/kernel.py", "@njit(cache=True)"), ("fitting/plain.py", "import numpy")):
        path = cache / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(rehearsal, "HOME", cache / "home")
    return cache / "home"


def test_it_is_needed_until_it_was_done_and_when_something_compiled_has_changed(home: Path) -> None:
    assert rehearsal.is_needed()
    rehearsal._mark().write_text(rehearsal._stamp())
    assert not rehearsal.is_needed()
    (home / "fitting" / "plain.py").write_text("import numpy as np")
    (home / "fitting" / "kernel.py").touch()
    (home / "fitting" / "lock.py").symlink_to("nowhere")
    assert not rehearsal.is_needed()
    (home / "fitting" / "kernel.py").write_text("@njit(cache=True, nogil=True)")
    assert rehearsal.is_needed()


def test_it_is_not_needed_without_an_idle_core_or_when_nobody_wants_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "LEAST_CORES", 1000)
    assert not rehearsal.is_needed()
    monkeypatch.setattr(rehearsal, "LEAST_CORES", 1)
    monkeypatch.setenv(rehearsal.SWITCH, "0")
    assert not rehearsal.is_needed()
    with rehearsal.rehearsed():
        assert not attempt.aside


def test_it_goes_through_everything_up_to_close_up_and_detail(tmp_path: Path) -> None:
    rehearsal.rehearse(tmp_path)
    avatar = Avatar.load(tmp_path / "06_avatar", "cpu")
    assert avatar.close_up is not None
    assert avatar.textures["nobody"].detail is not None


def test_a_rehearsal_that_comes_to_its_end_is_not_needed_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR")  # where the other tests have compiled
    rehearsal._mark().unlink(missing_ok=True)
    with rehearsal.rehearsed():
        wait_for(lambda: rehearsal._mark().is_file(), 300.0)
    assert not rehearsal.is_needed()
    assert not list(cache.glob("rehearsal-*"))


def test_the_process_ends_with_the_run_and_leaves_no_files(cache: Path) -> None:
    with pytest.raises(ZeroDivisionError), rehearsal.rehearsed():
        (pid,) = attempt.aside
        assert pid not in attempt._family(os.getpid())
        wait_for(lambda: list(cache.glob("rehearsal-*/01_recording")))
        raise ZeroDivisionError
    assert not attempt.aside
    with pytest.raises(OSError):
        os.kill(pid, 0)
    assert not list(cache.glob("rehearsal-*"))
    assert rehearsal.is_needed()  # what was not finished is done the next time


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_the_process_ends_with_a_run_that_is_killed(cache: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN], cwd=rehearsal.HOME)
    try:
        wait_for(lambda: list(cache.glob("rehearsal-*/01_recording")))
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    wait_for(lambda: not list(cache.glob("rehearsal-*")))


def test_a_system_without_a_process_to_spare_does_without(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr(rehearsal.subprocess, "Popen", refused)
    with rehearsal.rehearsed():
        assert not attempt.aside


def wait_for(is_so, most_s: float = 60.0) -> None:  # type: ignore[no-untyped-def]
    until_s = time.monotonic() + most_s
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.02)
