"""The plumbing between click and the stage runner: names and options in, a Project out; errors in one line.

Only this module and ``pipeline.py`` print: results to stdout, everything else through logging to stderr.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

import attempt
import project as projects
import source as sources
from capture.errors import UserError
from capture.manifest import Manifest
from project import Project, Stage, Step
from settings import Layer, Settings, nearest, read_assignments, read_toml
from workspace import check_name, check_not_linked

if TYPE_CHECKING:
    from capture.live import Source

F = TypeVar("F", bound=Callable[..., Any])
log = logging.getLogger(__name__)

NO_DEPTH = (
    "recording.no_depth=true",
    "demo.with_depth=false",
    "capture.no_depth=true",
)  # what --no-depth sets, whatever is recorded
EXIT_USER_ERROR, EXIT_INTERRUPTED = 2, 130
TOML = "subject.toml"
OUR_LOGGERS = (
    "capture",
    "fitting",
    "rendering",
    "training",
    "demo",
    "stages",
    "attempt",
    "captures",
    "changes",
    "filming",
    "exporting",
    "commands",
    "pipeline",
)


@dataclass(frozen=True)
class Atlas:
    """The tables of pipeline.py."""

    stages: tuple[Stage, ...]
    configs: Mapping[str, str]  # section -> dotted path of its dataclass
    presets: Mapping[str, Mapping[str, Any]]
    sensors: Mapping[str, str] = field(default_factory=dict)  # what is filmed live: NAME -> who opens it

    def stage(self, word: str) -> Stage:
        """The stage that a user means by ``fit``, ``03_fit`` or ``03``.  Raises UserError for no stage."""
        for stage in self.stages:
            if word.lower() in (stage.command, stage.name, *stage.name.split("_", 1)):
                return stage
        raise UserError(f"no stage is called {word!r}{nearest(word, [stage.command for stage in self.stages])}")

    def check_preset(self, preset: str, origin: str) -> str:
        """The preset's name itself.  Raises UserError when there is none of that name."""
        if preset not in self.presets:
            raise UserError(f"{origin} {preset!r}: there is no such preset{nearest(preset, self.presets)}")
        return preset


def open_project(
    atlas: Atlas,
    workspace: Path,
    subjects: Iterable[str],
    avatar: str | None = None,
    source: str | None = None,
    preset: str | None = None,
    assignments: Iterable[str] = (),
    no_depth: bool = False,
    like: Sequence[str] | None = None,
) -> Project:
    """What the options of a command amount to.  Creates nothing.  Raises UserError for anything that cannot be.

    An avatar that has no preset yet is made with that of ``like``, by default the subjects of its cast.
    """
    if workspace.exists() and not workspace.is_dir():
        raise UserError(f"--workspace {workspace}: is a file; give a folder")
    if preset is not None:
        atlas.check_preset(preset, "--preset")
    if avatar is not None:
        check_name(avatar, "--avatar")
    cast = tuple(dict.fromkeys(check_name(subject, "--subject") for subject in subjects))
    if not cast and avatar is None:
        raise UserError("--subject NAME is missing; for a first try: --subject demo")
    if not cast and avatar is not None:
        cast = cast_of(workspace, avatar) or (avatar,)
    if len(cast) > 1 and (avatar is None or avatar in cast):
        raise UserError("an avatar of several subjects needs a name of its own; add --avatar NAME")
    if source is None and cast == ("demo",) and not (workspace / "demo" / atlas.stages[0].name).exists():
        source = sources.DEMO
    if source is not None:
        if len(cast) > 1:
            raise UserError("--source goes with one --subject; record the subjects one by one, then run them together")
        sources.check(source)
    chosen = read_assignments([*assignments, *(NO_DEPTH if no_depth else ())])
    settings = {name: _settings(atlas, workspace / name, preset, chosen) for name in cast}
    doubt = ""
    if avatar is not None and avatar not in cast:
        own = preset or _own_preset(atlas, workspace / avatar)
        if own is None:
            presets = {name: _preset_of(atlas, workspace / name) for name in like or cast}
            own = next(iter(presets.values()))
            if len(set(presets.values())) > 1:
                each = ", ".join(f"{name} {of_name}" for name, of_name in presets.items())
                doubt = f"--avatar {avatar}: its subjects were made with different presets ({each}); add --preset NAME"
        settings[avatar] = _settings(atlas, workspace / avatar, own, chosen)
    return Project(atlas.stages, workspace, cast, avatar or cast[0], settings, source, doubt)


def open_change(
    atlas: Atlas,
    workspace: Path,
    row: Stage,
    avatar: str,
    subject: str,
    other: str | None,
    steps: int | None,
    assignments: Iterable[str],
) -> Project:
    """What the options of ``adapt`` and ``finetune`` amount to.  Raises UserError for anything that cannot be."""
    name = check_name(other, "--as") if other is not None else check_name(avatar, "--avatar")
    is_subject = (workspace / name / atlas.stages[0].name).exists()
    if row.command == "adapt" and (name == subject or is_subject):
        raise UserError("an avatar of several subjects needs a name of its own; add --as NAME")
    if other is not None and is_subject:
        raise UserError(f"--as {other}: is a subject with a recording of its own; choose another name")
    # train.steps means the steps of this training, not of the one that made the avatar.
    own = [f"{row.command}.{word[6:]}" if word.startswith("train.steps=") else word for word in assignments]
    own += [f"{row.command}.steps={steps}"] if steps is not None else []
    return open_project(atlas, workspace, [subject], name, assignments=own, like=[avatar])


def _settings(atlas: Atlas, home: Path, preset: str | None, chosen: Mapping[str, str]) -> Settings:
    """The layers of one subject or avatar: preset < its subject.toml < --set."""
    check_not_linked(home)
    _, own = read_toml(home / TOML)
    preset = preset or _preset_of(atlas, home)
    layers = (
        Layer(f"preset {preset}", atlas.presets[preset], is_explicit=False),
        Layer(str(home / TOML), own),
        Layer("--set", chosen, is_text=True),
    )
    return Settings(atlas.configs, layers, preset)


def _preset_of(atlas: Atlas, home: Path) -> str:
    """The preset of a subject or avatar for which none is given."""
    return _own_preset(atlas, home) or next(iter(atlas.presets))


def _own_preset(atlas: Atlas, home: Path) -> str | None:
    """The one in its subject.toml, otherwise the last one used: another one would train a small avatar over a large
    one.  None where there is neither."""
    preset, _ = read_toml(home / TOML)
    if preset is not None:
        atlas.check_preset(preset, f"{home / TOML}: preset")
    return preset or _last_preset(home, atlas)


def is_live(source: str | None) -> bool:
    """Whether there is nothing to import: somebody has to stand before this source."""
    return source is not None and source.partition(":")[0] in sources.LIVE


def is_sensor(source: str | None, sensors: Mapping[str, str]) -> bool:
    """Whether record films this source live."""
    return source is not None and source.partition(":")[0] in (*sensors, *sources.LIVE)


def live_settings(atlas: Atlas, workspace: Path, subject: str | None, assignments: Iterable[str]) -> Settings:
    """The settings of a live session: those of a subject, or of nobody in particular, and --set."""
    chosen = read_assignments(assignments)
    if subject is not None:
        return _settings(atlas, workspace / check_name(subject, "--subject"), None, chosen)
    return Settings(atlas.configs, (Layer("--set", chosen, is_text=True),))


def live_source(atlas: Atlas, workspace: Path, source: str, settings: Settings) -> Source:
    """The frames of a source to watch, not opened yet.  Raises UserError for a source that cannot be read."""
    if is_live(source):
        from capture.live import LiveFrames
        from capture.sensor import open_sensor

        return LiveFrames(open_sensor(source, atlas.sensors, workspace))
    from capture.replay import Replay

    sources.check(source)
    filmed = workspace / sources.DEMO / atlas.stages[0].name
    if source == sources.DEMO and not filmed.exists():
        from demo.performer import film

        return Replay(lambda folder: film(settings.config("demo"), folder))
    from capture.importers import recognise

    path = filmed if source == sources.DEMO else Path(source)
    layout = recognise(path)
    return Replay(lambda folder: layout.importer(settings.config("recording"), folder, path))


def _last_preset(home: Path, atlas: Atlas) -> str | None:
    found = [made for stage in atlas.stages if (made := Manifest.load(home / stage.name)) is not None]
    last = max(found, key=lambda made: made.finished, default=None)
    return last.preset if last is not None and last.preset in atlas.presets else None


def cast_of(workspace: Path, avatar: str) -> tuple[str, ...]:
    """The subjects that an avatar was trained on, in order; empty when it was not trained yet."""
    made = Manifest.load(workspace / avatar / "06_avatar")
    return projects.cast_of(made) if made is not None else ()


def show(steps: Iterable[Step], project: Project) -> None:
    """Print what is up to date and what is not, with the reasons."""
    name = ""
    for step in steps:
        if step.name != name:
            name = step.name
            click.echo(f"{name}  (preset {project.settings[name].preset})")
        reasons = [*step.reasons, *step.notes]
        if step.reasons and any((project.workspace / name).glob(f".{step.stage.name}.partial-*")):
            reasons.append("begun, then interrupted")
        word = "to do" if step.reasons else "up to date"
        click.echo(f"  {step.stage.name:14} {word:11} {'; '.join(reasons)}".rstrip())


def options(*names: str) -> Callable[[F], F]:
    """The options that several commands share, in the order in which --help lists them."""

    def decorate(function: F) -> F:
        for name in reversed((*names, "workspace")):
            function = OPTIONS[name](function)
        return function

    return decorate


OPTIONS = {
    "subjects": click.option("--subject", "subjects", multiple=True, metavar="NAME", help="Whom; may be repeated."),
    "whom": click.option("--subject", "subjects", multiple=True, metavar="NAME", help="Whom of the avatar's cast."),
    "subject": click.option("--subject", required=True, metavar="NAME", help="Whom."),
    "avatar": click.option("--avatar", metavar="NAME", help="The avatar; by default named like its only subject."),
    "source": click.option(
        "--source",
        metavar="demo|kinect|webcam|PATH",
        help="A video or RGB-D folder to import, or a sensor.",
    ),
    "record_source": click.option(
        "--source", metavar="kinect|webcam|demo|PATH", help="A sensor to film with, or a file or folder to import."
    ),
    "no_depth": click.option("--no-depth", is_flag=True, help="Leave the source's depth out."),
    "preset": click.option("--preset", metavar="NAME", help="demo, cpu, gpu or paper; by default the last one used."),
    "set": click.option("--set", "assignments", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a setting."),
    "force": click.option("--force", is_flag=True, help="Make it again although it is up to date."),
    "base": click.option("--avatar", required=True, metavar="NAME", help="The trained avatar."),
    "as": click.option("--as", "other", metavar="NAME", help="Leave the avatar as it is, and name the result so."),
    "steps": click.option("--steps", type=click.IntRange(min=1), metavar="N", help="How long to train."),
    "out": click.option(
        "--out", required=True, type=click.Path(path_type=Path), metavar="FILE.mp4", help="What to write."
    ),
    "seeds": click.option(
        "--seeds", type=click.IntRange(min=1), default=3, show_default=True, metavar="N", help="Trainings of each row."
    ),
    "workspace": click.option(
        "--workspace",
        type=click.Path(path_type=Path),
        default=Path("workspace"),
        metavar="DIR",
        help="Where results go.",
    ),
}


def main(cli: click.Group) -> int:
    """Run the command line and return its exit code; every error a user can mend is one line on stderr."""
    # Before any numerical library is loaded: spinning OpenMP threads make a shared machine crawl.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GLOG_minloglevel", "2")  # MediaPipe's C++ notices
    if _started_by_torchrun():
        _one_of_many(cli)
    return _run(cli)


def _started_by_torchrun() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ and "MASTER_ADDR" in os.environ


def _one_of_many(cli: click.Group) -> NoReturn:
    """Rank 0 does what the command line says; the other ranks train with it when it trains, and end when it ends."""
    from training import ranks

    code = 0
    if int(os.environ["RANK"]) > 0:
        ranks.follow()
    else:
        ranks.join()
        code = _run(cli)
        if not ranks.is_training():  # otherwise followers are in the middle of a step; torchrun ends them
            ranks.dismiss()
    _end(code)


def _end(code: int) -> NoReturn:
    """End this process with its work done, and without taking libraries down.

    Now and then gloo has a thread left when they are taken down, which aborts the process: torchrun calls that a
    failure, and ends every other rank.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more: | head
            stream.flush()
    os._exit(code)


def _run(cli: click.Group) -> int:
    _log_to_stderr()
    try:
        return cli.main(prog_name="pipeline.py", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
    except click.ClickException as error:
        _complain(error.format_message().replace("\n", " "))
    except UserError as error:
        _complain(str(error).replace("\n", " "))
    except (click.Abort, KeyboardInterrupt):
        _complain("stopped; what was finished is kept, and the same command makes the rest")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        words = _in_words(error)
        if words is None:
            raise
        _complain(words)
    return EXIT_USER_ERROR


def _in_words(error: OSError) -> str | None:
    is_named = isinstance(error.filename, str)
    path = Path(error.filename) if is_named else Path.cwd()
    full = attempt.disk_full(error, path)
    if full is not None:
        return str(full)
    if isinstance(error, PermissionError) or error.strerror == "Read-only file system":
        place = f"{path}" if is_named else "a file that was to be written"
        return f"{place}: {error.strerror}; choose another --workspace or --out, or change its permissions"
    return None


def _complain(line: str) -> None:
    click.echo(f"error: {line}", err=True)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.getLogger().addHandler(handler)
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
