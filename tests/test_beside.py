"""What lies beside a source: OpenPose's files come along, to the right frames, and count for the source's identity."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_importers import make_numbered, make_tum, picture, refusal, run

import source as sources
from capture.beside import openpose_folder
from capture.errors import UserError
from capture.importers import ImportConfig, record
from capture.importers.openpose import files_by_frame
from capture.recording import Recording
from capture.video import write_video


def write(folder: Path, names: list[str]) -> Path:
    """OpenPose files that each say their own name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}_keypoints.json").write_text(json.dumps({"people": [], "name": name}))
    return folder


def said(recording: Recording) -> list[str | None]:
    paths = [recording.openpose_path(i) for i in range(len(recording))]
    return [None if path is None else json.loads(path.read_text())["name"] for path in paths]


def film(tmp_path: Path, count: int = 10) -> Path:
    write_video(tmp_path / "clip.mp4", (picture(i) for i in range(count)), 25)
    return tmp_path / "clip.mp4"


@pytest.mark.parametrize("ending", ["_openpose", "_keypoints"])
def test_files_of_a_video_keep_to_their_frames(tmp_path, ending):
    clip, names = film(tmp_path), [f"clip_{i:012d}" for i in range(10)]
    write(tmp_path / f"clip{ending}", names)
    assert said(run(tmp_path, clip)) == names
    assert said(run(tmp_path, clip, start=3, every=2, max_frames=3)) == names[3:8:2]


def test_a_missing_file_is_a_frame_without_landmarks_and_is_said(tmp_path):
    clip, names = film(tmp_path), [f"clip_{i:012d}" for i in range(10) if i != 4]
    write(tmp_path / "clip_openpose", names)
    recording = run(tmp_path, clip)
    assert said(recording)[4] is None and said(recording)[5] == "clip_000000000005"
    assert any("1 of 10 frames have no file" in note for note in recording.notes)


def test_numbers_from_one_are_understood(tmp_path):
    write(tmp_path / "clip_openpose", [f"clip_{i:04d}" for i in range(1, 11)])
    assert said(run(tmp_path, film(tmp_path)))[0] == "clip_0001"


def test_files_of_a_folder_belong_to_the_pictures_of_their_name(tmp_path):
    tum, numbered = make_tum(tmp_path / "tum", {}), make_numbered(tmp_path / "numbered")
    write(tum / "openpose", [str(i) for i in range(6)])
    write(numbered / "keypoints", [f"{i:04d}" for i in range(4)])
    assert said(run(tmp_path, tum, every=2)) == ["0", "2", "4"]
    assert said(run(tmp_path, numbered, start=1)) == ["0001", "0002", "0003"]


def test_a_recording_of_ours_hands_them_on(tmp_path):
    write(tmp_path / "clip_openpose", [f"clip_{i:012d}" for i in range(10)])
    ours = run(tmp_path, film(tmp_path))
    assert said(run(tmp_path, ours.folder, start=4, every=3)) == ["clip_000000000004", "clip_000000000007"]


def test_files_of_another_film_are_refused(tmp_path):
    clip = film(tmp_path)
    for names, reason in (
        ([f"clip_{i:012d}" for i in range(50)], "numbers up to 49"),
        ([f"clip_{i:012d}" for i in range(3)], "only 3 of 10 frames"),
        (["front"], "no frame number"),
        (["a_0001", "b_0001"], "one frame number"),
    ):
        folder = write(tmp_path / "clip_openpose", names)
        with pytest.raises(UserError, match=reason) as caught:
            run(tmp_path, clip)
        assert "\n" not in str(caught.value) and "clip_openpose" in str(caught.value)
        shutil.rmtree(folder)
    write(tmp_path / "clip_openpose", [f"clip_{i:012d}" for i in range(11)])
    assert len(run(tmp_path, clip)) == 10  # a decoder may see one frame more


@pytest.mark.parametrize("content", ["{", "[]", '{"people": 1}', "\x00", "[" * 100_000])
def test_a_broken_file_is_refused_where_the_source_is_at_hand(tmp_path, content):
    source = make_numbered(tmp_path / "numbered")
    write(source / "openpose", [f"{i:04d}" for i in range(4)])
    (source / "openpose" / "0002_keypoints.json").write_text(content)
    assert "0002_keypoints.json: not a file of OpenPose" in refusal(tmp_path, source)


def test_a_folder_without_openpose_files_is_no_openpose_folder(tmp_path):
    (tmp_path / "keypoints").mkdir()
    (tmp_path / "keypoints" / "notes.json").write_text("{}")
    assert openpose_folder(tmp_path) is None
    with pytest.raises(UserError, match="holds no OpenPose files"):
        files_by_frame(tmp_path / "keypoints", 3)


def test_files_beside_a_video_are_part_of_the_source(tmp_path):
    clip = str(film(tmp_path))
    alone = {**sources.describe(clip), "digest": sources.digest(clip)}
    write(tmp_path / "clip_openpose", ["clip_000000000000"])
    assert not sources.is_same(clip, alone)
    together = {**sources.describe(clip), "digest": sources.digest(clip)}
    assert together["files"] == 2
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(clip, moved)
    shutil.copytree(tmp_path / "clip_openpose", moved / "clip_openpose")
    assert sources.is_same(str(moved / "clip.mp4"), together)
    (moved / "clip_openpose" / "clip_000000000000_keypoints.json").write_text('{"people": [], "name": "another film!"}')
    assert not sources.is_same(str(moved / "clip.mp4"), together)


def test_without_them_nothing_is_written(tmp_path):
    record(ImportConfig(), tmp_path / "rec", film(tmp_path))
    assert not (tmp_path / "rec" / "openpose").exists()
