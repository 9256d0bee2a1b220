"""The stage runner on fake stages: what runs, what does not and why, and what survives kills, edits and a full disk."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fakes
import numpy as np
import pytest

import attempt
import stages
from capture.errors import UserError
from capture.manifest import Manifest, digest_file, read_peak_rss_mb, read_timings_s
from project import Job, Project, Stage

ROOT = Path(__file__).parents[1]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "film.txt"
    path.write_text("one\ntwo\nthree\n")
    return path


def reasons(project: Project) -> dict[str, tuple[str, ...]]:
    return {step.label: step.reasons for step in stages.plan(project)}


def digests(workspace: Path) -> dict[str, str]:
    found = {}
    for path in sorted(workspace.glob("*/[0-9]*/stage.json")):
        manifest = Manifest.load(path.parent)
        assert manifest is not None
        found[path.parent.relative_to(workspace).as_posix()] = manifest.output_digest
    return found


def test_everything_is_made_once(workspace: Path, source: Path) -> None:
    project = fakes.project(workspace, "alice", source=source)
    assert [step.stage.name for step in stages.run(project)] == ["01_recording", "02_masks", "06_avatar"]
    assert (workspace / "alice/02_masks/001.txt").read_text() == "TWO 0.5 fast"
    assert stages.run(project) == []
    assert stages.run(fakes.project(workspace, "alice")) == []  # the source need not be given again
    assert fakes.calls(workspace) == ["record", "matte", "train"]
    assert not list(workspace.glob("alice/.*")), "no lock, no partial folder is left"
    assert not list(workspace.rglob("scratch*"))


def test_same_input_gives_the_same_digests_elsewhere(tmp_path: Path, source: Path) -> None:
    for place in ("a", "b"):
        stages.run(fakes.project(tmp_path / place / "workspace", "alice", source=source))
    assert digests(tmp_path / "a/workspace") == digests(tmp_path / "b/workspace")


def test_reasons_are_words(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source))
    changed = fakes.project(workspace, "alice", chosen={"matte.softness": "0.7", "train.rate": "0.1"})
    assert reasons(changed) == {
        "alice/01_recording": (),
        "alice/02_masks": ("matte.softness 0.5 -> 0.7",),
        "alice/06_avatar": ("train.rate None -> 0.1", "alice/02_masks comes first"),
    }
    newer = tuple(replace(stage, version=2) if stage.name == "06_avatar" else stage for stage in fakes.STAGES)
    assert reasons(fakes.project(workspace, "alice", stages=newer))["alice/06_avatar"] == ("stage version 1 -> 2",)


def test_cosmetic_settings_change_nothing(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source))
    assert not any(reasons(fakes.project(workspace, "alice", chosen={"matte.pause_s": "0.001"})).values())


def test_same_bytes_do_not_cascade(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source))
    newer = tuple(replace(stage, version=2) if stage.name == "02_masks" else stage for stage in fakes.STAGES)
    project = fakes.project(workspace, "alice", stages=newer)
    assert [step.stage.name for step in stages.run(project)] == ["02_masks"]
    assert stages.run(project) == []


def test_changed_bytes_do_cascade(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source))
    made = stages.run(fakes.project(workspace, "alice", chosen={"matte.mode": "slow"}))
    assert [step.stage.name for step in made] == ["02_masks", "06_avatar"]
    assert made[1].reasons == ("input alice/02_masks changed",)


def test_volatile_files_do_not_count(workspace: Path, source: Path) -> None:
    project = fakes.project(workspace, "alice", source=source)
    stages.run(project)
    before, log = digests(workspace), (workspace / "alice/06_avatar/log.jsonl").read_text()
    stages.run(project, force=(fakes.STAGES[2],))
    assert (workspace / "alice/06_avatar/log.jsonl").read_text() != log
    assert digests(workspace) == before


def test_volatile_json_keys_do_not_count(tmp_path: Path) -> None:
    fields = {"psnr_db": 20.0, "timing_s": {"01_recording": 1.0}}
    (tmp_path / "a.json").write_text(json.dumps(fields))
    (tmp_path / "b.json").write_text(json.dumps({**fields, "timing_s": None}))
    (tmp_path / "c.json").write_text(json.dumps({**fields, "psnr_db": 21.0}))
    a, b, c = (digest_file(tmp_path / f"{n}.json", ("metrics.json:timing_s",), "metrics.json") for n in "abc")
    assert a == b != c


def test_until_force_and_only(workspace: Path, source: Path) -> None:
    project = fakes.project(workspace, "alice", source=source)
    stages.run(project, until=fakes.STAGES[1])
    assert not (workspace / "alice/06_avatar").exists()
    stages.run(project, until=fakes.STAGES[1], force=(fakes.STAGES[1],))
    assert fakes.calls(workspace) == ["record", "matte", "matte"]
    stages.run(project, only=fakes.STAGES[2])
    assert fakes.calls(workspace)[-1] == "train"


def test_one_stage_needs_its_inputs(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source), until=fakes.STAGES[0])
    with pytest.raises(UserError, match="02_masks: not made yet, and train needs it"):
        stages.run(fakes.project(workspace, "alice"), only=fakes.STAGES[2])


def test_an_edit_by_hand_is_kept_and_what_reads_it_is_made_again(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source))
    edited = workspace / "alice/02_masks/001.txt"
    edited.write_text("repaired")
    project = fakes.project(workspace, "alice")
    steps = {step.stage.name: step for step in stages.plan(project)}
    assert steps["02_masks"].reasons == () and "changed by hand: 001.txt" in steps["02_masks"].notes[0]
    assert steps["06_avatar"].reasons == ("input alice/02_masks changed",)
    stages.run(project)
    assert edited.read_text() == "repaired" and "repaired" in (workspace / "alice/06_avatar/avatar.txt").read_text()
    assert stages.run(project) == []


def test_a_touched_file_is_not_a_changed_file(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source))
    os.utime(workspace / "alice/02_masks/001.txt", (1, 1))
    assert stages.run(fakes.project(workspace, "alice")) == []


def test_a_missing_file_is_made_again(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source))
    (workspace / "alice/02_masks/001.txt").unlink()
    assert reasons(fakes.project(workspace, "alice"))["alice/02_masks"] == ("001.txt is missing",)
    assert [step.stage.name for step in stages.run(fakes.project(workspace, "alice"))] == ["02_masks"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"stage": "02_masks"}', "\x00\xff"])
def test_a_damaged_manifest_means_make_it_again(workspace: Path, source: Path, damage: str) -> None:
    stages.run(fakes.project(workspace, "alice", source=source))
    (workspace / "alice/02_masks/stage.json").write_text(damage)
    assert reasons(fakes.project(workspace, "alice"))["alice/02_masks"] == ("its stage.json cannot be read",)
    assert [step.stage.name for step in stages.run(fakes.project(workspace, "alice"))] == ["02_masks"]


# What was recorded is never replaced by ``run``.


def test_another_source_is_refused_and_a_moved_one_is_not(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source))
    moved = source.with_name("moved.txt")
    source.rename(moved)
    assert stages.run(fakes.project(workspace, "alice", source=moved)) == []
    other = source.with_name("other.txt")
    other.write_text("one\ntwo\nthre3\n")  # the same size
    with pytest.raises(UserError, match=r"recorded from .*film.txt, not from .*other.txt; choose another --subject"):
        stages.run(fakes.project(workspace, "alice", source=other))
    moved.write_text("changed")
    with pytest.raises(UserError, match="--force"):
        stages.run(fakes.project(workspace, "alice", source=moved))
    assert fakes.calls(workspace) == ["record", "matte", "train"]


def test_other_recording_settings_are_refused_where_chosen(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source))
    with pytest.raises(UserError, match=r"recording.every 1 -> 2"):
        stages.run(fakes.project(workspace, "alice", chosen={"recording.every": "2"}))
    assert stages.run(fakes.project(workspace, "alice", chosen={"demo.frames": "9"})) == []  # not of this recording


def test_a_recording_without_manifest_is_never_replaced(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source))
    (workspace / "alice/01_recording/stage.json").unlink()
    before = fakes.contents(workspace)
    with pytest.raises(UserError, match="never replaced"):
        stages.run(fakes.project(workspace, "alice", source=source))
    assert fakes.contents(workspace) == before


def test_record_by_force_replaces_it(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source))
    source.write_text("four\n")
    stages.run(fakes.project(workspace, "alice", source=source), only=fakes.STAGES[0], force=fakes.STAGES[:1])
    assert (workspace / "alice/01_recording/lines.txt").read_text() == "FOUR\n"
    assert reasons(fakes.project(workspace, "alice"))["alice/02_masks"] == ("input 01_recording changed",)


def test_no_recording_and_no_source(workspace: Path) -> None:
    with pytest.raises(UserError, match="alice has no recording yet"):
        stages.run(fakes.project(workspace, "alice"))
    assert not workspace.exists()


@pytest.mark.parametrize("text", ["", "nobody\n"], ids=["refused by record", "refused by matte"])
def test_a_refused_source_leaves_the_workspace_as_it_was(workspace: Path, source: Path, text: str) -> None:
    source.write_text(text)
    with pytest.raises(UserError):
        stages.run(fakes.project(workspace, "alice", source=source))
    assert not workspace.exists()
    (workspace / "alice").mkdir(parents=True)
    (workspace / "alice/subject.toml").write_text("")
    with pytest.raises(UserError):
        stages.run(fakes.project(workspace, "alice", source=source))
    assert [p.name for p in (workspace / "alice").iterdir()] == ["subject.toml"]


def test_a_refusal_does_not_take_an_older_recording_along(workspace: Path, source: Path) -> None:
    source.write_text("nobody\n")
    stages.run(fakes.project(workspace, "alice", source=source), until=fakes.STAGES[0])
    before = fakes.contents(workspace)
    with pytest.raises(UserError):
        stages.run(fakes.project(workspace, "alice", source=source))
    assert fakes.contents(workspace) == before and list((workspace / "alice").iterdir()) == [
        workspace / "alice/01_recording"
    ]


# Casts.


def test_an_avatar_of_two_subjects(workspace: Path, source: Path) -> None:
    for name in ("alice", "bob"):
        stages.run(fakes.project(workspace, name, source=source), until=fakes.STAGES[1])
    duo = fakes.project(workspace, "alice", "bob", avatar="duo")
    assert [step.label for step in stages.run(duo)] == ["duo/06_avatar"]
    assert (workspace / "duo/06_avatar/avatar.txt").read_text().count("ONE") == 2
    (workspace / "bob/02_masks/000.txt").write_text("other")
    assert reasons(duo)["duo/06_avatar"] == ("input bob/02_masks changed",)
    solo = fakes.project(workspace, "alice", avatar="duo")
    assert reasons(solo)["duo/06_avatar"] == ("input bob/02_masks is no longer used",)


def test_timings_and_memory_are_recorded(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source, chosen={"matte.pause_s": "0.05"}))
    timings_s = read_timings_s(workspace / "alice")
    assert list(timings_s) == ["01_recording", "02_masks", "06_avatar"] and timings_s["02_masks"] >= 0.15
    peak_mb = read_peak_rss_mb(workspace / "alice")
    assert peak_mb is not None and 10 < peak_mb < 100_000
    assert read_peak_rss_mb(workspace / "nobody") is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures through /proc")
def test_memory_of_workers_counts_and_that_of_earlier_stages_does_not() -> None:
    big = np.ones(40 << 20)  # 320 MB that were in use before
    del big
    with attempt.Meter() as small:
        pass
    hold = "import time; held = bytearray(b'x') * (250 << 20); time.sleep(2)"
    with attempt.Meter() as meter:
        subprocess.run([sys.executable, "-c", hold], check=True)
    assert 250 < meter.peak_rss_mb - small.peak_rss_mb < 320


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc"
)
def test_a_stage_does_not_carry_the_holes_that_the_one_before_left_in_memory() -> None:
    with attempt.Meter() as before:
        pass
    arrays = [np.ones(100_000, np.uint8) for _ in range(3000)]  # too small for pages of their own
    kept = arrays[::100]
    del arrays
    with attempt.Meter() as after:
        pass
    assert len(kept) == 30 and after.peak_rss_mb < before.peak_rss_mb + 100


# Failure.


def failing(stage_name: str, function: Callable[[Job], None]) -> tuple[Stage, ...]:
    return tuple(replace(s, function=function) if s.name == stage_name else s for s in fakes.STAGES)


def test_an_old_result_survives_a_failed_rerun(workspace: Path, source: Path) -> None:
    stages.run(fakes.project(workspace, "alice", source=source))
    before = fakes.contents(workspace / "alice/06_avatar")

    def fail(job: Job) -> None:
        raise ZeroDivisionError("a bug")

    project = fakes.project(workspace, "alice", stages=failing("06_avatar", fail), chosen={"train.steps": "6"})
    with pytest.raises(ZeroDivisionError):
        stages.run(project)
    assert fakes.contents(workspace / "alice/06_avatar") == before
    (log,) = (workspace / "alice").glob(".06_avatar.partial-*/stage.log")
    assert "ZeroDivisionError: a bug" in log.read_text()
    assert reasons(fakes.project(workspace, "alice"))["alice/06_avatar"] == ()


def test_stale_and_torn_leftovers_are_cleaned(workspace: Path, source: Path) -> None:
    project = fakes.project(workspace, "alice", source=source)
    stages.run(project, until=fakes.STAGES[0])
    home = workspace / "alice"
    key = project.identity(fakes.STAGES[1], "alice").key
    (home / ".02_masks.partial-0123").mkdir()
    mine = attempt.partial_folder(home / "02_masks", key)
    mine.mkdir()
    (mine / "000.txt").write_text("from the killed attempt")
    (mine / "001.txt.partial").write_text("to")
    (mine / "overlay.partial.mp4").write_text("torn")
    stages.run(project)
    assert (home / "02_masks/000.txt").read_text() == "from the killed attempt"
    assert sorted(p.name for p in (home / "02_masks").iterdir()) == [
        "000.txt",
        "001.txt",
        "002.txt",
        "stage.json",
        "stage.log",
    ]
    assert not list(home.glob(".*"))


def test_a_replacement_killed_between_its_renames_is_finished(workspace: Path, source: Path) -> None:
    project = fakes.project(workspace, "alice", source=source)
    stages.run(project)
    home = workspace / "alice"
    (home / "01_recording").rename(home / ".01_recording.old")
    (home / "06_avatar").rename(home / ".06_avatar.old")
    assert stages.run(fakes.project(workspace, "alice")) == []
    assert (home / "01_recording/lines.txt").exists() and not list(home.glob(".*"))


def test_a_complete_partial_folder_is_published_not_made_again(workspace: Path, source: Path) -> None:
    project = fakes.project(workspace, "alice", source=source)
    stages.run(project)
    home, key = workspace / "alice", project.identity(fakes.STAGES[1], "alice").key
    (home / "02_masks").rename(attempt.partial_folder(home / "02_masks", key))
    stages.run(project)
    assert fakes.calls(workspace) == ["record", "matte", "train"]


RUN_SLOWLY = """
import sys; from pathlib import Path
import fakes, stages
project = fakes.project(Path(sys.argv[1]), "alice", source=sys.argv[2],
                        chosen={"matte.pause_s": "0.02", "train.pause_s": "0.02", "matte.mode": sys.argv[3]})
print("ready", flush=True)
stages.run(project)
"""
CHILD = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}


def start(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN_SLOWLY, *map(str, arguments)]
    child = subprocess.Popen(command, env=CHILD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return child


def test_kills_at_random_moments_change_nothing(tmp_path: Path, source: Path) -> None:
    for place in ("whole", "killed"):
        (tmp_path / place).mkdir()
    whole, killed = tmp_path / "whole/workspace", tmp_path / "killed/workspace"
    assert start(whole, source, "fast").wait() == 0
    rng, kills = random.Random(7), 0
    while kills < 25:
        child = start(killed, source, "fast")
        time.sleep(rng.uniform(0.0, 0.12))
        child.kill()
        if child.wait() == 0:
            break
        kills += 1
        for path in killed.glob("alice/[0-9]*"):
            assert Manifest.load(path) is not None, "a folder with its final name is complete"
    else:
        assert start(killed, source, "fast").wait() == 0
    assert kills >= 3, "the test must kill to mean something"
    assert digests(killed) == digests(whole)
    ran = fakes.calls(killed)
    assert sorted(ran, key=["record", "matte", "train"].index) == ran, "no finished stage ran again"


def test_one_writer_per_folder(workspace: Path, source: Path) -> None:
    source.write_text("line\n" * 200)
    child = start(workspace, source, "fast")
    try:
        while not (workspace / "alice/01_recording").exists():
            time.sleep(0.01)
        with pytest.raises(UserError, match=rf"process {child.pid} \(since .*\) is writing there"):
            stages.run(fakes.project(workspace, "alice", source=source))
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    # The holder is dead and its lock file still there: taken over, also when its process id lives on in somebody else.
    lock = workspace / "alice/.lock"
    assert json.loads(lock.read_text())["pid"] == child.pid
    lock.write_text(json.dumps({"pid": os.getpid(), "started": "2020-01-01T00:00:00+00:00"}))
    assert stages.run(fakes.project(workspace, "alice", source=source))
    assert not lock.exists()


def test_two_writers_at_once_never_mix(workspace: Path, source: Path) -> None:
    source.write_text("line\n" * 10)
    children = [start(workspace, source, mode) for mode in ("fast", "slow")]
    codes = [child.wait() for child in children]
    assert 0 in codes
    masks = {path.read_text().split()[-1] for path in (workspace / "alice/02_masks").glob("0*.txt")}
    assert len(masks) == 1


FULL_DISK = """
import resource, sys; from pathlib import Path
import fakes, stages
from dataclasses import replace
from capture.errors import UserError
def big(job):
    (job.out_dir / "kept.txt").write_text("kept")
    (job.out_dir / "big.bin").write_bytes(bytes(1 << 20))
rows = tuple(replace(s, function=big) if s.name == sys.argv[3] else s for s in fakes.STAGES)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    stages.run(fakes.project(Path(sys.argv[1]), "alice", source=sys.argv[2], stages=rows, chosen={"train.steps": "7"}))
except UserError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_is_one_line_and_keeps_what_was_there(workspace: Path, source: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(workspace), str(source)]
    first = subprocess.run([*command, "01_recording"], env=CHILD, capture_output=True, text=True)
    assert first.returncode == 2 and not workspace.exists(), "half an import is of no use"
    stages.run(fakes.project(workspace, "alice", source=source))
    before = fakes.contents(workspace)
    later = subprocess.run([*command, "06_avatar"], env=CHILD, capture_output=True, text=True)
    assert later.returncode == 2 and len(later.stdout.splitlines()) == 1
    assert "no room to write" in later.stdout and "MB free" in later.stdout and str(workspace / "alice") in later.stdout
    after = fakes.contents(workspace)
    assert {name: data for name, data in after.items() if "/." not in name} == before
    assert any(name.endswith("/kept.txt") for name in after), "what was begun can go on"


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (OSError(28, "No space left on device"), True),
        (RuntimeError("unexpected pos 64 vs 0, os error 28"), True),
        (OSError(2, "No such file"), False),
        (ValueError("a bug"), False),
    ],
)
def test_libraries_hide_a_full_disk(tmp_path: Path, error: Exception, is_full: bool) -> None:
    assert (attempt.disk_full(error, tmp_path / "not/yet/there") is not None) == is_full


def test_linked_output_is_refused(workspace: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    workspace.mkdir()
    (workspace / "alice").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="symbolic link"):
        stages.run(fakes.project(workspace, "alice", source=source))
    assert not list((tmp_path / "elsewhere").iterdir())
