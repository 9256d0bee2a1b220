"""One file per recording: whatever happens to it, whole frames are read and nothing else is."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from capture import container as containers
from capture.camera import Camera, Rig
from capture.container import FILE_NAME, SYNC_S, Container, ContainerWriter, complete, is_container
from capture.errors import UserError
from capture.files import encode_png
from capture.recording import Recording, RecordingWriter, complete_recording

ROOT = Path(__file__).parents[1]
CAMERA = Camera((40, 30), 45.0, 45.0, 20.0, 15.0)
DEPTH = Camera((24, 20), 25.0, 25.0, 12.0, 10.0)


def picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def depth(index: int) -> np.ndarray | None:
    return None if index % 3 == 1 else np.random.default_rng(index).integers(0, 4000, (20, 24), dtype=np.uint16)


def write(folder: Path, count: int = 6, is_finished: bool = True) -> Path:
    writer = RecordingWriter(folder, Rig(CAMERA, DEPTH, np.eye(4)), "a test")
    writer.note("said while writing")
    for i in range(count):
        writer.add(i / 30, encode_png(picture(i)), depth(i))
    if is_finished:
        writer.finish()
    else:
        writer.close()
    return folder / FILE_NAME


def is_same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return b is None if a is None else b is not None and np.array_equal(a, b)


def check(recording: Recording, count: int) -> None:
    """The first ``count`` frames, bit by bit."""
    assert len(recording) == count
    for i, frame in enumerate(recording):
        assert frame.time_s == i / 30 and np.array_equal(frame.color, picture(i))
        true = depth(i)
        assert is_same(frame.depth_mm, true)


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a").read_bytes() == write(tmp_path / "b").read_bytes()
    assert is_container(tmp_path / "a" / FILE_NAME) and not is_container(tmp_path)


def test_cut_off_at_every_byte_it_opens_with_every_whole_frame(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole")
    data, index = whole.read_bytes(), Container.open(whole).index
    ends = (index["offset"] + containers.RECORD_BYTES + index["color_bytes"] + index["depth_bytes"]).tolist()
    check(Recording.load(tmp_path / "whole"), 6)
    cut = tmp_path / FILE_NAME
    cut.write_bytes(data[:-5])
    assert Container.open(cut).is_finished and Recording.load(tmp_path).notes == ("said while writing",)
    check(Recording.load(tmp_path), 6)
    for length in [*range(0, len(data) - 17, 7), *ends, *(end - 1 for end in ends)]:
        cut.write_bytes(data[:length])
        expected = sum(end <= length for end in ends)
        if length < index["offset"][0]:
            with pytest.raises(UserError):
                Container.open(cut)
            continue
        found = Container.open(cut)
        assert len(found) == expected and not found.is_finished
        if expected:
            assert found.torn_bytes == length - ends[expected - 1]
            recording = Recording.load(tmp_path)
            assert recording.notes[-1].startswith(f"the recording breaks off after {expected} frames")
    cut.write_bytes(data[: ends[3] + 11])
    check(Recording.load(tmp_path), 4)


def test_what_breaks_off_can_be_completed(tmp_path: Path) -> None:
    path = write(tmp_path, is_finished=False)
    with open(path, "ab") as file:
        file.write(b"ANRr half a frame")
    before = path.read_bytes()
    assert complete_recording(tmp_path, "cut off after {count} frames") == 6
    assert path.read_bytes().startswith(before[:-17])
    recording = Recording.load(tmp_path)
    assert recording.container is not None and recording.container.is_finished
    assert recording.notes == ("cut off after 6 frames",)
    check(recording, 6)
    after = path.read_bytes()
    assert complete(path, {"notes": ["again"]}) == 6 and path.read_bytes() == after


def test_a_flipped_bit_is_never_a_wrong_frame(tmp_path: Path) -> None:
    data = write(tmp_path / "whole").read_bytes()
    rng = random.Random(3)
    broken = tmp_path / FILE_NAME
    refused = 0
    for _ in range(300):
        place = rng.randrange(len(data))
        broken.write_bytes(data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :])
        try:
            recording = Recording.load(tmp_path)
        except UserError:
            refused += 1
            continue
        for i in range(len(recording)):
            try:
                assert np.array_equal(recording.color(i), picture(i))
                assert is_same(recording.depth_mm(i), depth(i))
            except UserError:
                refused += 1
    assert refused > 200, "most flips hit a picture"


def test_what_is_no_container_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "whole").read_bytes()
    path = tmp_path / FILE_NAME
    for content in (b"", b"ANRCAP1\n", b"something else", bytes(1000), data[:8] + bytes(500), data[8:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"frames\.cap"):
            Recording.load(tmp_path)
    with pytest.raises(UserError, match="single whole frame"):
        write(tmp_path, count=0, is_finished=False)
        Recording.load(tmp_path)


def test_a_recording_travels_to_other_processes(tmp_path: Path) -> None:
    import pickle

    write(tmp_path)
    check(pickle.loads(pickle.dumps(Recording.load(tmp_path))), 6)


# What is acknowledged, and what a failing disk leaves.


def test_frames_are_forced_to_the_disk_every_second_and_at_the_end(tmp_path: Path, monkeypatch) -> None:
    now_s, synced = [0.0], []
    monkeypatch.setattr(containers.os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    writer = ContainerWriter(tmp_path / FILE_NAME, {}, clock=lambda: now_s[0])
    for i in range(61):
        now_s[0] = i / 30
        writer.append(i / 30, b"picture")
        assert i + 1 - writer.num_synced <= 30 * SYNC_S
    assert len(synced) == 3 and writer.num_synced == 61  # the head, after one and after two seconds
    writer.append(2.1, b"picture")
    assert writer.num_synced == 61
    writer.finish({})
    assert writer.num_synced == 62 and synced[-1] == (tmp_path / FILE_NAME).stat().st_size


class Full:
    """A file on a disk that has ``room`` for so many bytes more, and then writes what fits before it refuses."""

    def __init__(self, file, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data) -> int:
        data = data[: self._room]
        if not data:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._room -= len(data)
        return self._file.write(data)

    def __getattr__(self, name: str):
        return getattr(self._file, name)


def test_a_disk_that_is_full_at_any_moment_leaves_whole_frames(tmp_path: Path) -> None:
    size = write(tmp_path / "whole").stat().st_size
    for room in range(1, size, 211):
        path = tmp_path / FILE_NAME
        writer = ContainerWriter(path, {"rig": Rig(CAMERA, DEPTH, np.eye(4)).to_json()})
        writer._file = Full(writer._file, room)  # type: ignore[assignment]
        written = 0
        with pytest.raises(OSError, match="No space"):
            for i in range(1000):
                writer.append(i / 30, encode_png(picture(i)))
                written += 1
        writer.close()
        found = Container.open(path)
        assert len(found) == written and found.torn_bytes == 0
    assert written > 3


CHILD = """
import sys
from pathlib import Path
import numpy as np
from capture.camera import Camera, Rig
from capture.recording import RecordingWriter
writer = RecordingWriter(Path(sys.argv[1]), Rig(Camera((40, 30), 45.0, 45.0, 20.0, 15.0)), "killed")
i = 0
while True:
    writer.add_encoded(i / 30, np.random.default_rng(i).bytes(20_000))
    i += 1
    sys.stdout.write(f"{i} {writer.num_synced}\\n")
    sys.stdout.flush()
"""


def test_kills_lose_nothing_that_was_written(tmp_path: Path) -> None:
    rng = random.Random(5)
    for kill in range(6):
        folder = tmp_path / str(kill)
        child = subprocess.Popen([sys.executable, "-c", CHILD, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(rng.randrange(1, 400))]
        child.send_signal(signal.SIGKILL)
        said += child.stdout.read().splitlines()
        child.wait()
        written, synced = map(int, next(line for line in reversed(said) if len(line.split()) == 2).split())
        found = Container.open(folder / FILE_NAME)
        assert not found.is_finished and synced <= written <= len(found) <= written + 1
        assert found.color(len(found) - 1) == np.random.default_rng(len(found) - 1).bytes(20_000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="limits of file sizes are a POSIX matter")
def test_a_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n" + CHILD
    done = subprocess.run([sys.executable, "-c", limited, tmp_path / "r"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "File too large" in done.stderr
    written = int(done.stdout.split("\n")[-2].split()[0])
    found = Container.open(tmp_path / "r" / FILE_NAME)
    assert len(found) == written == 24 and found.torn_bytes == 0


def test_a_copy_elsewhere_is_the_same_recording(tmp_path: Path) -> None:
    write(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    check(Recording.load(tmp_path / "there"), 6)
    check(Recording.open(tmp_path / "there" / FILE_NAME), 6)
