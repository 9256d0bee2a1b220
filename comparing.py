"""Tables about a finished avatar: other methods, or itself without one idea, on its own data by its own evaluator.

Enters: a trained avatar and its subjects' stages.  Leaves: comparison/ beside its stages; see ``training.compare``.
Trials that were finished are not trained again, and one that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from capture.manifest import Manifest
from changes import trained_on
from project import Project, Stage
from stages import check_inputs_exist
from workspace import claim

if TYPE_CHECKING:
    from fitting.body.model import BodyModel
    from training.config import TrainConfig
    from training.rows import Row

FOLDER = "comparison"


def compare(project: Project, stage: Stage, methods: str, seeds: int, steps: int | None) -> str:
    """The table of "anr,dnr".  Raises UserError for a method that is not there, and without a trained avatar."""
    from training.rows import methods as rows

    return _tabulate("compare", project, stage, lambda config, bodies: rows(config, methods, bodies, steps), seeds)


def ablate(project: Project, stage: Stage, rows: str | None, seeds: int, steps: int | None) -> str:
    """The table of everything that can be left out, or of the ``rows`` named.  Raises UserError as ``compare`` does."""
    from training.rows import ablations

    return _tabulate("ablate", project, stage, lambda config, _: ablations(config, rows, steps), seeds)


def _tabulate(
    name: str,
    project: Project,
    stage: Stage,
    choose: Callable[[TrainConfig, Sequence[BodyModel]], list[Row]],
    seeds: int,
) -> str:
    avatar_dir = project.trained(stage)
    from rendering.avatar import Avatar
    from training.adapt import as_trained
    from training.compare import run_rows
    from training.trials import Bench

    made = Manifest.load(avatar_dir)
    if made is not None:  # those whom adapt took in taught the networks nothing
        project = replace(project, subjects=trained_on(made))
    avatar = Avatar.load(avatar_dir, "cpu")
    config = as_trained(avatar, {})
    rows = choose(config, [avatar.bodies[subject].body for subject in project.subjects])
    check_inputs_exist(project, stage)
    with claim(project.workspace, [project.avatar]):
        bench = Bench(
            folder=project.workspace / project.avatar / FOLDER,
            subjects={subject: project.workspace / subject for subject in project.subjects},
            inputs=project.identity(stage, project.avatar).inputs,
            evaluate=project.settings[project.avatar].config("evaluate"),
        )
        return run_rows(name, bench, rows, range(config.seed, config.seed + seeds))
