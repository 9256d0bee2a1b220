#!/usr/bin/env python3
"""THE MAP: from a film of one person to an avatar that moves, in seven stages.

     sensor or file -> Recording -> Masks -> BodyFit -> Keyframes -> Rasters -> Avatar -> Report

Each row of STAGES makes one folder from earlier folders; its function, right below, names the module that does it.
``stages.py`` decides what must run and why.  Settings are called ``section.key``: CONFIGS says which dataclass holds a
section; named bundles of settings are in ``presets.py``, what else the command line needs in ``commands.py``; the
commands that show an avatar in ``show_commands.py``.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Started by a Python that has not the packages: by the one that has.
if any(find_spec(name) is None for name in ("click", "numpy", "scipy", "numba", "cv2", "av", "torch", "mediapipe")):
    _own = Path(__file__).with_name(".venv") / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if os.environ.get("PIPELINE_PYTHON") or not _own.exists():
        sys.stderr.write("error: the packages of requirements.txt are not installed; run make demo, which does that\n")
        sys.exit(2)
    os.environ["PIPELINE_PYTHON"] = str(_own)  # once, and never again
    if os.name == "nt":
        sys.exit(subprocess.run([_own, *sys.argv]).returncode)
    os.execv(_own, [str(_own), *sys.argv])

import click

import doctor as doctors
from capture.errors import UserError
from changes import change
from commands import (
    Atlas,
    is_live,
    is_sensor,
    live_settings,
    main,
    open_change,
    open_project,
    options,
    show,
)
from comparing import ablate, compare
from presets import PRESETS
from project import Job, Stage
from rehearsal import rehearsed
from settings import read_assignments
from show_commands import COMMANDS
from stages import plan, run
from workspace import claim, known_names

# What each stage calls.  Imports wait until the stage runs: --help must answer at once.


def _record(job: Job) -> None:
    if job.source == "demo":
        from demo.performer import film

        film(job.settings.config("demo"), job.out_dir)
    else:
        from capture.importers import record

        assert job.source is not None
        record(job.settings.config("recording"), job.out_dir, job.source)


def _matte(job: Job) -> None:
    from capture.matting import matte

    matte(job.settings.config("matte"), job.out_dir, job.folders["01_recording"])


def _fit(job: Job) -> None:
    from fitting.fit import fit

    fit(job.settings.config("fit"), job.out_dir, job.folders["01_recording"], job.folders["02_masks"])


def _keyframes(job: Job) -> None:
    from fitting.keyframes import keyframes

    keyframes(job.settings.config("keyframes"), job.out_dir, job.folders["03_fit"])


def _rasterize(job: Job) -> None:
    from rendering.rasters import rasterize

    rasterize(job.settings.config("raster"), job.out_dir, job.folders["01_recording"], job.folders["03_fit"])


def _train(job: Job) -> None:
    from training.close_up import train_avatar

    train_avatar(job.settings.config("train"), job.out_dir, job.subjects)


def _adapt(job: Job) -> None:
    from training.adapt import adapt

    ((name, folder),) = job.subjects.items()
    adapt(job.settings.config("adapt"), _chosen(job), job.out_dir, job.folders["06_avatar"], name, folder)


def _finetune(job: Job) -> None:
    from training.adapt import finetune

    ((name, folder),) = job.subjects.items()
    finetune(job.settings.config("finetune"), _chosen(job), job.out_dir, job.folders["06_avatar"], name, folder)


def _chosen(job: Job) -> dict[str, Any]:
    return {
        key: value
        for key, value in vars(job.settings.config("train")).items()
        if job.settings.is_explicit(f"train.{key}")
    }


def _evaluate(job: Job) -> None:
    from training.evaluate import evaluate
    from training.report import report

    evaluate(job.settings.config("evaluate"), job.out_dir, job.folders["06_avatar"], job.subjects)
    report(job.out_dir, job.folders["06_avatar"], job.subjects)


OF_A_SUBJECT = ("01_recording", "02_masks", "03_fit", "04_keyframes", "05_rasters")
# For looking at and for going on.
OF_TRAINING = tuple(
    folder + name
    for folder in ("", "close_up/")
    for name in ("log.jsonl", "failures.jsonl", "preview.jpg", "checkpoints/*")
)

STAGES = (
    # folder, command, version (raise it whenever the stage writes something else), function, settings, inputs
    Stage("01_recording", "record", 4, _record, ("recording", "demo", "capture"), (), judges_source=True),
    Stage("02_masks", "matte", 11, _matte, ("matte",), ("01_recording",), ("checker.mp4",), judges_source=True),
    Stage("03_fit", "fit", 24, _fit, ("fit",), ("01_recording", "02_masks"), ("overlay.mp4",), judges_source=True),
    Stage("04_keyframes", "keyframes", 4, _keyframes, ("keyframes",), ("03_fit",)),
    Stage("05_rasters", "rasterize", 4, _rasterize, ("raster",), ("01_recording", "03_fit")),
    Stage("06_avatar", "train", 20, _train, ("train",), OF_A_SUBJECT, OF_TRAINING, of_avatar=True),
    Stage(
        "07_report",
        "evaluate",
        15,
        _evaluate,
        ("evaluate",),
        (*OF_A_SUBJECT, "06_avatar"),
        ("report.html", "heldout.mp4", "turntable.mp4", "metrics.json:timing_s", "metrics.json:peak_rss_mb"),
        of_avatar=True,
    ),
)

# What may be done to a finished avatar; changes.py runs them.
ADAPT = Stage("06_avatar", "adapt", 17, _adapt, ("adapt",), OF_A_SUBJECT, OF_TRAINING, of_avatar=True)
FINETUNE = Stage("06_avatar", "finetune", 16, _finetune, ("finetune",), OF_A_SUBJECT, OF_TRAINING, of_avatar=True)

CONFIGS = {
    "recording": "capture.importers.ImportConfig",
    "demo": "demo.performer.DemoConfig",
    "capture": "capture.recorder.CaptureConfig",
    "matte": "capture.matting.MatteConfig",
    "fit": "fitting.fit.FitConfig",
    "keyframes": "fitting.keyframes.KeyframeConfig",
    "raster": "rendering.rasters.RasterConfig",
    "train": "training.config.TrainConfig",
    "adapt": "training.config.AdaptConfig",
    "finetune": "training.config.FinetuneConfig",
    "evaluate": "training.config.EvaluateConfig",
}

SENSORS = {  # what is filmed live: --source NAME or NAME:ARGUMENT -> who opens it
    "demo": "demo.live.DemoSensor",
    "kinect": "capture.kinect.sensor.KinectSensor",
    "replay": "capture.sensor.ReplaySensor",
    "webcam": "capture.webcam.Webcam",
}

log = logging.getLogger("pipeline")
ATLAS = Atlas(STAGES, CONFIGS, PRESETS, SENSORS)


@click.group(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"], "obj": ATLAS})
def cli() -> None:
    """Film one person, get an avatar back.  For a first try: pipeline.py run --subject demo"""


@cli.command("run")
@options("subjects", "source", "no_depth", "avatar", "preset", "set")
@click.option("--until", metavar="STAGE", help="Stop after this stage.")
@click.option("--force", "again", multiple=True, metavar="STAGE", help="Make this stage again; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done and why.")
@click.option("--seconds", type=float, metavar="N", help="Film for so long; otherwise until Ctrl-C.")
@click.option("--no-window", is_flag=True, help="Say in the terminal what a window would show while filming.")
def run_command(
    until: str | None, again: tuple[str, ...], dry_run: bool, seconds: float | None, no_window: bool, **given: Any
) -> None:
    """Everything that is missing or stale, from the recording to the report."""
    last = ATLAS.stage(until) if until else None
    force = [ATLAS.stage(word) for word in again]
    if STAGES[0] in force:
        raise UserError("--force record: run never records again; use pipeline.py record --subject NAME --force")
    if is_live(given["source"]):
        from filming import Wishes, film_live, is_filmed

        wishes = Wishes(given["source"], seconds, not no_window, force=False)
        subject, is_there = is_filmed(ATLAS, wishes.source, given)
        if dry_run and not is_there:
            click.echo(f"{subject}\n  {STAGES[0].name}   to do       to be filmed with {wishes.source}, then the rest")
            return
        given["source"] = None
        if not is_there:
            for line in film_live(ATLAS, SENSORS, subject, wishes, given):
                click.echo(line)
    elif seconds is not None or no_window:
        raise UserError("--seconds and --no-window go with a source that is filmed live: --source kinect")
    project = open_project(ATLAS, **given)
    if dry_run:
        show(plan(project, last, force), project)
        return
    is_tracked = last not in STAGES[:2]  # before that there is nothing to rehearse
    with rehearsed() if is_tracked else nullcontext():
        run(project, last, force)
    if last in (None, STAGES[-1]):
        click.echo(project.folder(STAGES[-1], project.avatar) / "report.html")


@cli.command("record")
@options("subject", "record_source", "no_depth", "preset", "set", "force")
@click.option("--seconds", type=float, metavar="N", help="Film for so long; otherwise until Ctrl-C.")
@click.option("--no-window", is_flag=True, help="Say in the terminal what a window would show.")
def record_command(subject: str, force: bool, seconds: float | None, no_window: bool, **given: Any) -> None:
    """The recording only, from a file or live from a sensor; --force replaces one that exists."""
    if is_sensor(given["source"], SENSORS):
        from filming import Wishes, film_live

        wishes = Wishes(given["source"], seconds, not no_window, force)
        for line in film_live(ATLAS, SENSORS, subject, wishes, given):
            click.echo(line)
        return
    if seconds is not None or no_window:
        raise UserError(f"--seconds and --no-window go with a sensor: --source {', '.join(SENSORS)}")
    project = open_project(ATLAS, subjects=[subject], **given)
    if force and project.source is None:
        raise UserError("record --force: say what to record instead, with --source PATH")
    run(project, only=STAGES[0], force=STAGES[:1] if force else ())


@cli.command("convert")
@click.argument("source", type=click.Path(path_type=Path), metavar="SOURCE")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT")
@click.option("--layout", required=True, metavar="folder|tum|container", help="What to write.")
@click.option("--set", "assignments", multiple=True, metavar="recording.KEY=VALUE", help="What to take of the source.")
def convert_command(source: Path, out: Path, layout: str, assignments: tuple[str, ...]) -> None:
    """Any source as a folder of pictures, in TUM's layout, or as one file of ours."""
    other = [word for word in read_assignments(assignments) if not word.startswith("recording.")]
    if other:
        raise UserError(f"--set {other[0]}: convert has no use for it, only for recording.KEY")
    settings = live_settings(ATLAS, Path(), None, assignments)
    from capture.convert import convert

    for note in convert(settings.config("recording"), source, out, layout):
        click.echo(note)
    click.echo(out)


def _add_stage_command(stage: Stage, summary: str) -> None:
    """A command that makes one stage from what is there."""

    @cli.command(stage.command, help=summary)
    @options(*(("avatar", "subjects") if stage.of_avatar else ("subjects",)), "preset", "set", "force")
    def command(force: bool, **given: Any) -> None:
        run(open_project(ATLAS, **given), only=stage, force=(stage,) if force else ())


_add_stage_command(ATLAS.stage("matte"), "Who is the subject, pixel by pixel.")
_add_stage_command(ATLAS.stage("fit"), "The body in every frame.")
_add_stage_command(ATLAS.stage("keyframes"), "Which frames train what, and which are held out.")
_add_stage_command(ATLAS.stage("rasterize"), "The fitted body as seen by the camera.")
_add_stage_command(ATLAS.stage("train"), "The avatar of one subject, or of several.")
_add_stage_command(ATLAS.stage("evaluate"), "How good the avatar is on held-out frames; ends with the report.")


def _add_change_command(row: Stage, summary: str) -> None:
    """A command that makes a finished avatar into another one."""

    @cli.command(row.command, help=summary)
    @options("base", "subject", "as", "steps", "set", "force")
    def command(
        avatar: str, subject: str, other: str | None, steps: int | None, assignments: tuple[str, ...], force: bool,
        workspace: Path,
    ) -> None:  # fmt: skip
        project = open_change(ATLAS, workspace, row, avatar, subject, other, steps, assignments)
        change(project, row, avatar, subject, is_forced=force)
        click.echo(project.folder(row, project.avatar))


_add_change_command(ADAPT, "Somebody new in a trained avatar: a texture, under the same networks.")
_add_change_command(FINETUNE, "Networks and texture of one subject trained on, from a trained avatar.")


@cli.command("compare")
@options("base", "seeds", "steps")
@click.option("--methods", default="anr,dnr", metavar="anr,dnr,tna,vid2vid", help="Which; the first is the reference.")
def compare_command(avatar: str, methods: str, seeds: int, steps: int | None, workspace: Path) -> None:
    """Other methods on the avatar's own data: the paper's Table 1."""
    click.echo(compare(open_project(ATLAS, workspace, (), avatar), ATLAS.stage("train"), methods, seeds, steps))


@cli.command("ablate")
@options("base", "seeds", "steps")
@click.option("--rows", metavar="ROW,ROW...", help="Only these; by default all of them.")
def ablate_command(avatar: str, rows: str | None, seeds: int, steps: int | None, workspace: Path) -> None:
    """The avatar without each of its losses and ideas: the paper's Table 2."""
    click.echo(ablate(open_project(ATLAS, workspace, (), avatar), ATLAS.stage("train"), rows, seeds, steps))


@cli.command("report")
@options("avatar", "subjects")
def report_command(**given: Any) -> None:
    """The report page again, from measurements that exist."""
    project = open_project(ATLAS, **given)
    folder = project.folder(STAGES[-1], project.avatar)
    if not folder.exists():
        raise UserError(f"{folder}: not made yet; run pipeline.py evaluate --avatar {project.avatar}")
    from training.report import report

    with claim(project.workspace, [project.avatar]):
        job = project.job(STAGES[-1], project.avatar, folder)
        report(folder, job.folders["06_avatar"], job.subjects)
    click.echo(folder / "report.html")


@cli.command("status")
@options("subjects", "preset", "set")
def status_command(subjects: tuple[str, ...], workspace: Path, **given: Any) -> None:
    """What is up to date, what is not, and why; of everybody when no --subject is given."""
    for name in subjects or known_names(workspace):
        try:
            project = open_project(ATLAS, workspace, (), avatar=name, **given)
            show([step for step in plan(project) if step.name == name], project)
        except UserError as error:
            click.echo(f"{name}\n  {error}")


@cli.command("doctor")
@options()
@click.argument("source", required=False, type=click.Path(path_type=Path), metavar="[FILE|FOLDER|kinect]")
def doctor_command(workspace: Path, source: Path | None) -> None:
    """Is this machine ready?  With a FILE or FOLDER: what is it, and can it be a source?  With kinect: does it film?"""
    checks = []
    found = doctors.examine(workspace) if source is None else doctors.examine_source(source)
    if source is not None and source.name.partition(":")[0] == "kinect" and not source.exists():
        found = doctors.examine_kinect(source.name.partition(":")[2])
    for check in found:
        click.echo(f"{check.state:8} {check.what:10} {check.words}")
        checks.append(check)
    if any(check.state == "missing" for check in checks):
        raise UserError(f"{source or 'this machine'} is not ready; see the lines marked missing")


for command in COMMANDS:
    cli.add_command(command)


if __name__ == "__main__":
    sys.exit(main(cli))
