"""What the pretraining is made of: four people, each filmed in several colours, tracked once."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo import pretrain
from demo.character import Character
from demo.choreography import SCRIPT_S


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The stages that were made, in order; each leaves a file instead of what it makes."""
    done: list[tuple[str, str]] = []

    def stage(name: str, out_at: int):
        def make(*arguments: object) -> None:
            out = arguments[out_at]
            assert isinstance(out, Path)
            done.append((name, out.parent.name))
            (out / "made").write_text(name)

        return make

    for name, out_at in (("matte", 1), ("fit", 1), ("keyframes", 1), ("rasterize", 1), ("_rehearse", 2)):
        monkeypatch.setattr(pretrain, name, stage(name, out_at))
    monkeypatch.setattr(Character, "load", staticmethod(lambda path: "who"))
    monkeypatch.setattr(pretrain, "dyed", lambda character, rng: f"{character} dyed {rng.integers(1 << 30)}")

    def shoot(config, scratch: Path, character: str, begin: int, out_dir: Path) -> None:
        assert begin == SCRIPT_S * config.frames_per_second < config.num_frames  # what the demo shows is not in it
        done.append((character, out_dir.parent.name))
        (out_dir / "made").write_text(character)

    monkeypatch.setattr(pretrain, "_shoot", shoot)
    return done


def test_a_person_is_tracked_once_and_filmed_in_every_colour(made: list[tuple[str, str]], tmp_path: Path) -> None:
    found = pretrain.subjects_of(tmp_path, "dana", pretrain.PEOPLE["dana"])
    assert [name for name, _ in found] == [f"dana-{look}" for look in range(pretrain.LOOKS)]
    stages = [name for name, _ in made]
    assert [stages.count(name) for name in ("matte", "fit", "keyframes", "rasterize")] == [1, 1, 1, 1]
    assert len({name for name, _ in made if name.startswith("who")}) == pretrain.LOOKS
    for _, folder in found:
        for stage in ("01_recording", "02_masks", "03_fit", "04_keyframes", "05_rasters"):
            assert (folder / stage / "made").is_file()
        assert (folder / "03_fit").resolve() == (tmp_path / "dana-0" / "03_fit").resolve()


def test_what_is_finished_is_not_made_again(made: list[tuple[str, str]], tmp_path: Path) -> None:
    pretrain.subjects_of(tmp_path, "dana", pretrain.PEOPLE["dana"])
    made.clear()
    pretrain.subjects_of(tmp_path, "dana", pretrain.PEOPLE["dana"])
    assert made == []


def test_people_move_and_are_dyed_differently() -> None:
    seeds = [person.seed for person in pretrain.PEOPLE.values()]
    assert len(set(seeds)) == len(seeds) and 0 not in seeds  # 0 is the demo's own
