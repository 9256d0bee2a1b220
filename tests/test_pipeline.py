"""The command line: the map is consistent, mistakes are one line and exit code 2, nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import fakes
import numpy as np
import pytest

import pipeline
import workspace as workspaces
from capture.errors import UserError
from capture.video import write_video
from commands import Atlas, cast_of, main, open_project
from settings import Layer, Settings, config_class, field_types
from stages import run

ROOT = Path(__file__).parents[1]


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    line = [sys.executable, str(ROOT / "pipeline.py"), *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=120)


# The map.


def test_help_answers_at_once(tmp_path: Path) -> None:
    best_s = float("inf")
    for _ in range(3):  # the machine may be busy
        started_s = time.monotonic()
        done = command("--help", cwd=tmp_path)
        best_s = min(best_s, time.monotonic() - started_s)
    assert done.returncode == 0 and "run --subject demo" in done.stdout.replace("\n  ", " ")
    assert best_s < 1.0


def test_stages_only_read_earlier_stages() -> None:
    names = [stage.name for stage in pipeline.STAGES]
    assert len(names) == 7 and names == sorted(names)
    for i, stage in enumerate(pipeline.STAGES):
        assert set(stage.inputs) <= set(names[:i])
        assert set(stage.settings) <= set(pipeline.CONFIGS)


@pytest.mark.parametrize("section", pipeline.CONFIGS)
def test_every_section_has_a_config_of_scalars(section: str) -> None:
    config = config_class(pipeline.CONFIGS[section])
    assert field_types(config)
    config()  # the defaults are valid


@pytest.mark.parametrize("preset", pipeline.PRESETS)
def test_every_preset_names_real_settings(preset: str) -> None:
    Settings(pipeline.CONFIGS, [Layer(f"preset {preset}", pipeline.PRESETS[preset])])


def test_no_depth_holds_for_every_source(tmp_path: Path) -> None:
    settings = open_project(pipeline.ATLAS, tmp_path, ["alice"], no_depth=True).settings["alice"]
    assert settings.config("recording").no_depth and not settings.config("demo").with_depth


def test_every_stage_has_a_command() -> None:
    assert {stage.command for stage in pipeline.STAGES} <= set(pipeline.cli.commands)


# What the options amount to.

ATLAS = Atlas(fakes.STAGES, fakes.CONFIGS, {"demo": {}, "cpu": {"train.steps": 50}, "gpu": {"train.steps": 500}})


@pytest.mark.parametrize("word", ["matte", "02_masks", "02", "masks", "MATTE"])
def test_a_stage_has_several_names(word: str) -> None:
    assert ATLAS.stage(word) is fakes.STAGES[1]


def test_an_unknown_stage_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean matte"):
        ATLAS.stage("mate")


def test_presets_lose_to_subject_toml_which_loses_to_set(tmp_path: Path) -> None:
    (tmp_path / "alice").mkdir()
    (tmp_path / "alice/subject.toml").write_text('preset = "gpu"\n[matte]\nmode = "own"\nsoftness = 0.1')
    project = open_project(ATLAS, tmp_path, ["alice"], assignments=["matte.softness=0.2"])
    assert project.settings["alice"].config("train").steps == 500
    assert project.settings["alice"].config("matte") == fakes.MatteConfig(softness=0.2, mode="own")
    project = open_project(ATLAS, tmp_path, ["alice"], preset="cpu")
    assert project.settings["alice"].config("train").steps == 50


def test_the_last_preset_is_remembered(tmp_path: Path) -> None:
    film = tmp_path / "film.txt"
    film.write_text("one")
    workspace = tmp_path / "workspace"
    run(open_project(ATLAS, workspace, ["alice"], source=str(film), preset="cpu"))
    again = open_project(ATLAS, workspace, ["alice"])
    assert again.settings["alice"].preset == "cpu" and run(again) == []


def recorded(tmp_path: Path, **presets: str | None) -> tuple[Path, Path]:
    """A film, and a workspace with subjects recorded from it and matted, each with its preset."""
    film, workspace = tmp_path / "film.txt", tmp_path / "workspace"
    film.write_text("one")
    for name, preset in presets.items():
        run(open_project(ATLAS, workspace, [name], source=str(film), preset=preset), until=fakes.STAGES[1])
    return film, workspace


def test_a_new_avatar_has_the_preset_of_its_cast(tmp_path: Path) -> None:
    _, workspace = recorded(tmp_path, zoe="cpu", alice="cpu", bob="gpu")
    assert open_project(ATLAS, workspace, ["zoe", "alice"], "both").settings["both"].preset == "cpu"
    with pytest.raises(UserError, match=r"different presets \(zoe cpu, bob gpu\); add --preset"):
        run(open_project(ATLAS, workspace, ["zoe", "bob"], "both"))
    project = open_project(ATLAS, workspace, ["zoe", "bob"], "both", preset="gpu")
    run(project)
    assert open_project(ATLAS, workspace, [], "both").settings["both"].preset == "gpu"


def test_an_avatar_and_a_subject_never_share_a_folder(tmp_path: Path) -> None:
    film, workspace = recorded(tmp_path, zoe=None, alice=None)
    run(open_project(ATLAS, workspace, ["zoe", "alice"], "duo"))
    before = fakes.contents(workspace)
    for project, complaint in (
        (open_project(ATLAS, workspace, ["duo"], source=str(film)), "--subject duo: is the name of an avatar, of zoe"),
        (open_project(ATLAS, workspace, ["zoe", "duo"], "trio"), "duo"),
        (open_project(ATLAS, workspace, ["alice"], "zoe"), "--avatar zoe: is a subject with a recording"),
    ):
        with pytest.raises(UserError, match=complaint):
            run(project)
    assert fakes.contents(workspace) == before
    assert run(open_project(ATLAS, workspace, [], "duo")) == []


def test_an_attempt_goes_on_with_its_cast_in_the_same_order(tmp_path: Path) -> None:
    _, workspace = recorded(tmp_path, zoe=None, alice=None)
    train = next(stage for stage in fakes.STAGES if stage.of_avatar)
    one, other = (
        open_project(ATLAS, workspace, cast, "both").identity(train, "both")
        for cast in (["zoe", "alice"], ["alice", "zoe"])
    )
    assert one == other and one.key != other.key


def test_the_cast_of_an_avatar_is_remembered(tmp_path: Path) -> None:
    _, workspace = recorded(tmp_path, zoe=None, alice=None)
    run(open_project(ATLAS, workspace, ["zoe", "alice"], avatar="duo"))
    assert cast_of(workspace, "duo") == ("zoe", "alice")
    assert open_project(ATLAS, workspace, [], avatar="duo").subjects == ("zoe", "alice")
    assert open_project(ATLAS, workspace, [], avatar="alice").subjects == ("alice",)


def test_demo_needs_no_source(tmp_path: Path) -> None:
    assert open_project(ATLAS, tmp_path, ["demo"]).source == "demo"
    assert open_project(ATLAS, tmp_path, ["alice"]).source is None
    run(open_project(ATLAS, tmp_path / "workspace", ["demo"]))
    assert open_project(ATLAS, tmp_path / "workspace", ["demo"]).source is None


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"subjects": ["a", "b"]}, "needs a name of its own"),
        ({"subjects": ["a", "b"], "avatar": "a"}, "needs a name of its own"),
        ({"subjects": ["a", "b"], "avatar": "duo", "source": "demo"}, "goes with one --subject"),
        ({"subjects": []}, "--subject NAME is missing"),
        ({"subjects": ["a"], "preset": "gpuu"}, "did you mean gpu"),
        ({"subjects": ["a"], "source": "kinect"}, "is filmed live; first pipeline.py record"),
        ({"subjects": ["a"], "source": "nowhere/film.mp4"}, "no such file or folder"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, options: dict, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        open_project(ATLAS, tmp_path / "workspace", **options)
    assert not (tmp_path / "workspace").exists()


HOSTILE = [
    "",
    ".",
    "..",
    "a/b",
    "/a",
    "a\\b",
    "a b",
    ".a",
    "-a",
    "_a",
    "a\n",
    "ä",
    "con",
    "NUL",
    "com1.txt",
    "a.",
    "a" * 65,
    "a\0",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="--subject"):
        workspaces.check_name(name, "--subject")


@pytest.mark.parametrize("name", ["a", "Alice_2", "2026-01-01", "a.b", "console", "a" * 64])
def test_ordinary_names_are_not(name: str) -> None:
    assert workspaces.check_name(name, "--subject") == name


# As a user sees it.


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "--subject", "a", "--source", "no.mp4"], "no such file"),
        (["run", "--subject", "a/b"], "letters, digits"),
        (["run", "--subject", "a", "--preset", "huge"], "there is no such preset"),
        (["run", "--subject", "a"], "no recording yet"),
        (["run", "--subject", "a", "--source", "kinect:xbox"], "no such driver"),
        (["run", "--subject", "a", "--source", "demo", "--seconds", "3"], "filmed live"),
        (["run"], "--subject NAME is missing"),
        (["run", "--subject", "a", "--until", "fitt"], "did you mean fit"),
        (["run", "--subject", "a", "--force", "record"], "never records again"),
        (["run", "--subject", "a", "--source", "demo", "--set", "recording.evry=2"], "did you mean recording.every"),
        (["run", "--subjekt", "a"], "No such option"),
        (["fly"], "No such command"),
        (["fit", "--subject", "a"], "no recording yet"),
        (["train", "--avatar", "a"], "no recording yet"),
        (["report", "--avatar", "a"], "not made yet"),
        (["render", "--avatar", "a", "--out", "a.mp4"], "not made yet"),
        (["record", "--subject", "a", "--force"], "say what to record"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
    assert complaint in done.stderr
    assert not list(tmp_path.iterdir()), "nothing was created"


@pytest.mark.parametrize("kind", ["empty folder", "text named .mp4"])
def test_an_unusable_source_leaves_nothing_behind(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "film.mp4"
    if kind == "empty folder":
        source.mkdir()
    else:
        source.write_text("this is not a video")
    done = command("run", "--subject", "a", "--source", source, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_status_and_dry_run_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    film = tmp_path / "film.txt"
    film.write_text("one")
    workspace = tmp_path / "workspace"
    monkeypatch.setattr(pipeline, "ATLAS", ATLAS)
    monkeypatch.setattr(pipeline, "STAGES", fakes.STAGES)

    def say(*arguments: object) -> str:
        pipeline.cli.main([*map(str, arguments), "--workspace", str(workspace)], standalone_mode=False)
        return capsys.readouterr().out

    assert "01_recording   to do       not made yet" in say("run", "--subject", "a", "--source", film, "--dry-run")
    assert not workspace.exists()
    assert say("run", "--subject", "a", "--source", film).strip().endswith("report.html")
    before = fakes.contents(workspace)
    told = say("run", "--subject", "a", "--set", "matte.softness=0.7", "--dry-run")
    assert "02_masks       to do       matte.softness 0.5 -> 0.7" in told
    assert "06_avatar      to do       a/02_masks comes first" in told
    told = say("status")
    assert told.splitlines()[0] == "a  (preset demo)" and told.count("up to date") == 3
    assert fakes.contents(workspace) == before


def test_an_interrupt_is_one_line_and_exit_code_130(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", interrupted)
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "record", "--subject", "demo"])
    assert main(pipeline.cli) == 130
    assert "what was finished is kept, and the same command makes the rest" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = command("run", "--subject", "demo", cwd=tmp_path)
    assert done.returncode == 2 and "Permission denied" in done.stderr and "Traceback" not in done.stderr


def test_doctor_finds_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import doctor

    assert {check.what for check in doctor.examine(tmp_path)} >= {
        "python",
        "packages",
        "libraries",
        "cpu",
        "disk",
        "gpu",
    }
    pins = dict(doctor.pinned())
    assert pins["torch"] == "2.13.0" and pins["rembg"] == "2.0.86" and "pykinect2" not in pins
    wrong = tmp_path / "requirements.txt"
    wrong.write_text("numpy==1.0\nno-such-package==2.0  # why\n")
    monkeypatch.setattr(doctor, "REQUIREMENTS", wrong)
    (check,) = doctor.packages()
    assert (
        check.state == "missing" and "numpy 1.0" in check.words and "no-such-package 2.0 (found nothing)" in check.words
    )


def test_doctor_says_what_a_source_is_and_what_it_lacks(tmp_path: Path) -> None:
    from test_beside import write
    from test_prox import make_prox

    import doctor

    root = make_prox(tmp_path / "prox", "N0Sofa_00034_01")
    checks = {check.what: check for check in doctor.examine_source(root)}
    assert checks["source"].words == "a PROX recording: 4 colour pictures, 3 depth pictures of their names"
    assert checks["cameras"].state == "ok"
    assert "4 OpenPose files" in checks["landmarks"].words
    (root / "calibration" / "IR.json").unlink()
    assert {check.what: check.state for check in doctor.examine_source(root)}["cameras"] == "missing"
    write(tmp_path / "text_openpose", ["0"])
    (tmp_path / "text.mp4").write_text("not a film")
    (check,) = doctor.examine_source(tmp_path / "text.mp4")
    assert check.state == "missing" and "give a video file" in check.words
    (tmp_path / "a.task").write_text("not a bundle")
    (check,) = doctor.examine_source(tmp_path / "a.task")
    assert check.state == "missing" and "not a .task file" in check.words


def test_settings_are_read_without_torch() -> None:
    """Which takes seconds to load: a mistake is said, and what is up to date, before."""
    words = "import sys, pipeline, settings; [settings.config_class(path)() for path in pipeline.CONFIGS.values()]"
    done = subprocess.run(
        [sys.executable, "-c", f"{words}; print('torch' in sys.modules)"], capture_output=True, cwd=ROOT
    )
    assert done.stdout == b"False\n", done.stderr


BARE = Path(sys.base_prefix) / "bin" / "python3"


def has_packages(python: Path) -> bool:
    words = "import click, torch"
    return not python.exists() or subprocess.run([python, "-I", "-c", words], capture_output=True).returncode == 0


@pytest.mark.skipif(has_packages(BARE), reason="no Python without the packages here")
def test_any_python_starts_it_in_its_own_environment(tmp_path: Path) -> None:
    """./pipeline.py and python3 pipeline.py, as people type it."""
    alone = tmp_path / "pipeline.py"
    alone.write_text((ROOT / "pipeline.py").read_text())
    done = subprocess.run([BARE, "-I", alone, "--help"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    own = tmp_path / ".venv" / "bin"
    own.mkdir(parents=True)
    (own / "python").write_text('#!/bin/sh\necho "begun anew: $@"\n')
    (own / "python").chmod(0o755)
    done = subprocess.run([BARE, "-I", alone, "--help"], capture_output=True, text=True)
    assert done.stdout == f"begun anew: {alone} --help\n"
    assert os.access(ROOT / "pipeline.py", os.X_OK)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("record", "--subject", "a", "--source", "demo", "--set", "demo.performer=dana"), "demo.performer: the live"),
        (("convert", "a.mp4", "b", "--layout", "tum", "--set", "fit.height_m=1.8"), "convert has no use for it"),
        (("run", "--subject", "a", "--source", "a.mp4", "--workspace", "file"), "--workspace file: is a file"),
        (("train", "--subject", "a", "--set", "train.device=tpu"), "expected auto, cpu, cuda"),
        (("fit", "--subject", "a", "--set", "fit.height_m=178"), "did you mean 1.78?"),
    ],
)
def test_what_cannot_be_is_one_line(words: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    write_video(tmp_path / "a.mp4", [np.full((64, 48, 3), 90, np.uint8)] * 3, 30)
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [complaint in line for line in done.stderr.splitlines() if line.startswith("error: ")] == [True]
