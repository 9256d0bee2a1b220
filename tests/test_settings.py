"""Settings: every layer typed by the config class, later layers win, mistakes are named with the nearest match."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest

from capture.errors import UserError
from capture.manifest import Scalar
from settings import Layer, Settings, read_assignments, read_toml, with_content


def settings(*layers: Layer) -> Settings:
    return Settings(fakes.CONFIGS, layers)


def chosen(word: str) -> Settings:
    return settings(Layer("--set", read_assignments([word]), is_text=True))


def test_later_layers_win() -> None:
    preset = Layer("preset demo", {"train.steps": 10, "matte.softness": 0.1, "train.rate": 1}, is_explicit=False)
    own = Layer("subject.toml", {"matte.softness": 0.2, "train.rate": 2.0})
    command = Layer("--set", {"train.rate": "3"}, is_text=True)
    merged = settings(preset, own, command)
    assert merged.config("train") == fakes.TrainConfig(steps=10, rate=3.0)
    assert merged.config("matte") == fakes.MatteConfig(softness=0.2)
    assert merged.is_explicit("matte.softness") and not merged.is_explicit("train.steps")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("train.steps=8", 8),
        ("matte.softness=2", 2.0),
        ("matte.softness=1e-3", 1e-3),
        ("recording.no_depth=true", True),
        ("recording.no_depth=off", False),
        ("matte.mode=8", "8"),
        ("matte.mode=a=b", "a=b"),
        ("train.rate=none", None),
        ("train.rate=0.5", 0.5),
    ],
)
def test_words_become_the_type_of_the_field(word: str, value: object) -> None:
    name = word.partition("=")[0]
    found = chosen(word).that_matter([name.split(".")[0]])[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("trian.steps=8", "did you mean train"),
        ("train.stesp=8", "did you mean train.steps"),
        ("train.zzz=8", "there are train.pause_s, train.rate, train.steps"),
        ("train.steps=8.5", "expected a whole number"),
        ("train.steps=many", "--set train.steps=many: expected a whole number"),
        ("matte.softness=nan", "expected a number"),
        ("recording.no_depth=maybe", "expected true or false"),
        ("train.rate=x", "expected a number or none"),
        ("matte.softness=-1", "must not be negative"),
        ("steps=8", "expected section.key=value"),
        ("train.steps", "expected section.key=value"),
    ],
)
def test_mistakes_are_named(word: str, complaint: str) -> None:
    with pytest.raises(UserError) as caught:
        chosen(word)
    assert complaint in str(caught.value)


def test_cosmetic_settings_do_not_matter() -> None:
    assert "recording.workers" not in chosen("recording.workers=8").that_matter(["recording"])
    assert chosen("recording.workers=8").config("recording").workers == 8


def test_a_setting_that_came_late_counts_once_it_is_changed() -> None:
    """What was recorded before there was a second performer stays up to date."""
    configs = {"demo": "demo.performer.DemoConfig"}

    def that_matter(*words: str) -> dict[str, Scalar]:
        layer = Layer("--set", read_assignments(words), is_text=True)
        return Settings(configs, (layer,)).that_matter(["demo"])

    assert "demo.performer" not in that_matter() and "demo.performer" not in that_matter("demo.performer=demo")
    assert that_matter("demo.performer=dana")["demo.performer"] == "dana"


def test_the_content_of_a_named_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "body.npz"
    found = []
    for content in (b"one", b"two", b"one"):
        path.write_bytes(content)
        found.append(chosen(f"matte.plate={path}").that_matter(["matte"])["matte.plate"])
    assert found[0] == found[2] != found[1] and str(path) in str(found[0])
    assert chosen("matte.plate=none.npz").that_matter(["matte"])["matte.plate"] == "none.npz"


def test_the_content_of_a_named_folder_counts_unless_the_name_is_a_word(tmp_path: Path) -> None:
    folder = tmp_path / "openpose"
    folder.mkdir()
    found = []
    for name, content in (("0.json", "one"), ("0.json", "two"), ("1.json", "one")):
        (folder / name).write_text(content)
        found.append(with_content(str(folder), {"file": True}))
    assert len(set(found)) == 3 and all(str(text).startswith(str(folder)) for text in found)
    assert with_content(str(folder), {"file": True, "words": (str(folder),)}) == str(folder)
    assert with_content(str(folder), {}) == str(folder)


def test_subject_toml(tmp_path: Path) -> None:
    path = tmp_path / "subject.toml"
    assert read_toml(path) == (None, {})
    path.write_text('preset = "cpu"\ntrain.steps = 9\n[matte]\nsoftness = 1\nmode = "slow"\n')
    preset, values = read_toml(path)
    assert preset == "cpu"
    assert settings(Layer(str(path), values)).config("matte") == fakes.MatteConfig(softness=1.0, mode="slow")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[train", "cannot be read"),
        ("steps = 8", "expected a table"),
        ("preset = 8", "expected a name in quotes"),
        ("[train]\nsteps = '8'", "subject.toml: train.steps = '8': expected a whole number"),
        ("[train]\nsteps = true", "expected a whole number"),
        ("[recording]\nno_depth = 1", "expected true or false"),
        ("[train]\nstesp = 8", "did you mean train.steps"),
    ],
)
def test_mistakes_in_subject_toml_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "subject.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        settings(Layer(str(path), read_toml(path)[1]))
    assert complaint in str(caught.value) and str(path) in str(caught.value)


def test_no_file_has_no_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("one")
    assert with_content("", {"file": True}) == ""
    assert with_content(".", {"file": True}) != "."
