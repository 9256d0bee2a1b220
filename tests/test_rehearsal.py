"""What a first run compiles beside itself."""

import multiprocessing
import os
from pathlib import Path

import pytest

import rehearsal
from rendering.avatar import Avatar


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A checkout with one file to compile and one without, and an empty cache."""
    for name, text in (("fitting/kernel.py", "@njit(cache=True)"), ("fitting/plain.py", "import numpy")):
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(rehearsal, "HOME", tmp_path / "home")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv(rehearsal.SWITCH, "1")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    return tmp_path / "home"


def test_it_is_needed_until_it_was_done_and_when_something_compiled_has_changed(home: Path) -> None:
    assert rehearsal.is_needed()
    rehearsal._mark().write_text(rehearsal._stamp())
    assert not rehearsal.is_needed()
    (home / "fitting" / "plain.py").write_text("import numpy as np")
    assert not rehearsal.is_needed()
    (home / "fitting" / "kernel.py").write_text("@njit(cache=True, nogil=True)")
    assert rehearsal.is_needed()


def test_it_is_not_needed_without_an_idle_core_or_when_nobody_wants_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert not rehearsal.is_needed()
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setenv(rehearsal.SWITCH, "0")
    assert not rehearsal.is_needed()
    with rehearsal.rehearsed():
        assert not multiprocessing.active_children()


def test_it_goes_through_everything_up_to_close_up_and_detail(tmp_path: Path) -> None:
    rehearsal.rehearse(tmp_path)
    avatar = Avatar.load(tmp_path / "06_avatar", "cpu")
    assert avatar.close_up is not None
    assert avatar.textures["nobody"].detail is not None


def test_the_process_and_its_folder_go_with_the_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal.tempfile, "tempdir", str(home))
    with pytest.raises(ZeroDivisionError), rehearsal.rehearsed():
        (process,) = multiprocessing.active_children()
        (folder,) = home.glob("rehearsal-*")
        raise ZeroDivisionError
    assert not process.is_alive() and not folder.exists()
    assert rehearsal.is_needed()  # what was not finished is done the next time
