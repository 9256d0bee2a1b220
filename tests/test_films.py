"""Films as their names ask for: what is written is what comes back, alpha included."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from capture.errors import UserError
from capture.films import check_film, open_film, with_spread_colours

WH = (64, 48)


def pictures(count: int = 4, channels: int = 4) -> list[np.ndarray]:
    """A red square that walks over nothing."""
    film = []
    for k in range(count):
        image = np.zeros((WH[1], WH[0], 4), np.uint8)
        image[12:36, 8 + 4 * k : 32 + 4 * k] = (200, 60, 40, 255)
        film.append(with_spread_colours(image)[..., :channels])
    return film


def read(path: Path, pixels: str, decoder: str | None = None) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if decoder is None:
            return [frame.to_ndarray(format=pixels) for frame in container.decode(stream)]
        context: Any = av.codec.CodecContext.create(decoder, "r")
        packets = [*container.demux(stream)]
        return [frame.to_ndarray(format=pixels) for packet in packets for frame in context.decode(packet)]


@pytest.mark.parametrize(("name", "decoder"), [("a.mov", None), ("a.webm", "libvpx-vp9")])
def test_transparent_films_keep_colour_and_alpha(tmp_path, name, decoder):
    with open_film(tmp_path / name, 25, has_alpha=True) as film:
        for picture in pictures():
            film.add(picture)
    shown = read(tmp_path / name, "rgba", decoder)
    assert len(shown) == 4
    for picture, back in zip(pictures(), shown, strict=True):
        error = np.abs(back.astype(int) - picture)
        assert error[..., 3].mean() < 2
        solid = cv2.erode((picture[..., 3] == 255).astype(np.uint8), np.ones((3, 3))) > 0
        assert error[solid][:, :3].mean() < 6
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.webm"])
def test_opaque_films_of_every_kind_play(tmp_path, name):
    with open_film(tmp_path / name, 25, has_alpha=False) as film:
        for picture in pictures(3, 3):
            film.add(picture)
    shown = read(tmp_path / name, "rgb24")
    assert len(shown) == 3 and np.abs(shown[1].astype(int) - pictures(3, 3)[1]).mean() < 6
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].average_rate == 25


@pytest.mark.parametrize("out", ["shots", "shot_%04d.png"])
def test_pictures_are_exact_and_replace_an_older_longer_film(tmp_path, out):
    for count in (4, 2):
        with open_film(tmp_path / out, 25, has_alpha=True) as film:
            for picture in pictures(count):
                film.add(picture)
    (tmp_path / "note.txt").write_text("mine")
    found = sorted(tmp_path.rglob("*.png"))
    assert [path.name for path in found] == (
        ["000000.png", "000001.png"] if out == "shots" else ["shot_0000.png", "shot_0001.png"]
    )
    back = cv2.cvtColor(cv2.imread(str(found[1]), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
    assert np.array_equal(back, pictures(2)[1])
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("out", ["shots", "shots/%06d.png"])
def test_pictures_of_others_are_never_replaced(tmp_path, out):
    folder = tmp_path / "shots"
    folder.mkdir()
    for name in ("000000.png", "20240101.png", "cat.png"):
        cv2.imwrite(str(folder / name), np.zeros((4, 4, 3), np.uint8))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match=r"\(000000\.png\); name a new folder"):
        open_film(tmp_path / out, 25, has_alpha=False)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("out", "word"), [("dir.mp4", "is a folder"), ("file/a.mov", "is a file"), ("file/shots", "is a file")]
)
def test_places_that_cannot_be_written_are_refused_before_anything_is_painted(tmp_path, out, word):
    (tmp_path / "dir.mp4").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=word):
        check_film(tmp_path / out, is_transparent=False)
    if sys.platform == "linux":
        with pytest.raises(UserError, match="nothing can be written to /proc"):
            check_film(Path("/proc/a.mp4"), is_transparent=False)


def test_two_writers_of_one_film_do_not_write_into_each_other(tmp_path, monkeypatch):
    first = open_film(tmp_path / "a.mp4", 25, has_alpha=False)
    monkeypatch.setattr("os.getpid", lambda: 4711)
    with open_film(tmp_path / "a.mp4", 25, has_alpha=False) as second, first:
        for film, count in ((first, 2), (second, 3)):
            for picture in pictures(count, 3):
                film.add(picture)
    assert len(read(tmp_path / "a.mp4", "rgb24")) == 3


@pytest.mark.parametrize("out", ["a.mp4", "a.mov", "shots"])
def test_an_error_in_the_middle_leaves_nothing_or_the_old_film(tmp_path, out):
    with pytest.raises(RuntimeError), open_film(tmp_path / out, 25, has_alpha=False) as film:
        film.add(pictures(1, 3)[0])
        raise RuntimeError
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("out", "is_transparent", "word"),
    [("a.mp4", True, "a.mov"), ("a.avi", False, ".webm"), ("a.png", False, "a_%06d.png"), ("a.gif", True, "PNG")],
)
def test_a_name_that_cannot_be_is_refused_with_one_that_can(out, is_transparent, word):
    with pytest.raises(UserError, match=word.replace(".", r"\.")) as refused:
        check_film(Path(out), is_transparent)
    assert "\n" not in str(refused.value)


def test_colours_are_carried_over_the_edge_and_alpha_is_not():
    image = np.zeros((40, 40, 4), np.uint8)
    image[10:30, 10:30] = (200, 60, 40, 255)
    spread = with_spread_colours(image)
    assert np.array_equal(spread[..., 3], image[..., 3])
    assert np.abs(spread[8, 20, :3].astype(int) - (200, 60, 40)).max() <= 2
    assert np.array_equal(spread[10:30, 10:30], image[10:30, 10:30])
