"""Two processes train what one would: torchrun with gloo on two CPU processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_workspace import make_workspace, stamp

import pipeline

ROOT = Path(__file__).parents[1]
SETTINGS = (
    "train.widths=8,16", "train.texture_px=64", "train.feature_width=4", "train.feature_blocks=2", "train.steps=4",
    "train.discriminator_width=4", "train.log_every=1", "train.device=cpu", "train.precision=fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    for name in ("ada", "bob"):
        make_workspace(folder, steps=1, name=name)
        stamp(folder, name)
    return folder


def on_two(workspace: Path, *words: str) -> subprocess.CompletedProcess:
    """The command line in two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | {"OMP_NUM_THREADS": "1"}
    line = [*launcher, str(ROOT / "pipeline.py"), *words, "--workspace", str(workspace)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)


def curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "06_avatar" / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("more", [(), ("train.split=true", "train.adversarial=true", "train.batch_size=4")])
def test_two_processes_have_the_loss_curve_of_one(workspace, more):
    words = ["--subject", "ada", "--subject", "bob", *(f"--set={setting}" for setting in (*SETTINGS, *more))]
    alone = ["train", "--avatar", "one", "--force", *words, "--workspace", str(workspace)]
    CliRunner().invoke(pipeline.cli, alone, catch_exceptions=False)
    done = on_two(workspace, "train", "--avatar", "two", "--force", *words)
    assert done.returncode == 0, done.stderr
    curves = [curve(workspace / name) for name in ("one", "two")]
    files = [sorted(p.name for p in (workspace / name / "06_avatar").rglob("*")) for name in ("one", "two")]
    assert len(curves[0]) == len(curves[1]) == 8  # four for each of two people
    for one, two in zip(*curves, strict=True):
        for name in one.keys() - {"steps_per_s"}:
            assert two[name] == pytest.approx(one[name], abs=1e-4), (one["step"], name)
    assert files[0] == files[1]
    assert not list(workspace.glob("*/.lock")) and not list(workspace.glob("two/.06*"))


def test_a_command_that_trains_nothing_ends_on_every_rank(workspace):
    done = on_two(workspace, "status", "--subject", "ada")
    assert done.returncode == 0 and done.stdout.count("06_avatar") == 1


def test_a_mistake_is_said_once_and_ends_every_rank(workspace):
    people = ("--subject", "ada", "--subject", "bob")
    done = on_two(workspace, "train", "--avatar", "odd", *people, "--set", "train.batch_size=3")
    assert done.returncode != 0
    assert done.stderr.count("cannot be shared evenly by 2 processes") == 1
    assert "train.batch_size=4" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="registers with glibc")
def test_a_rank_ends_with_its_code_whatever_libraries_do_when_they_are_taken_down():
    code = """
import atexit, ctypes, commands
libc = ctypes.CDLL(None)
libc.__cxa_atexit(libc.abort, None, None)
atexit.register(print, "tidied")
print("printed")
commands._end(3)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (3, ["printed", "tidied"]), done.stderr
