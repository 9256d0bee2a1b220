"""One trial: a row of a table trained with one seed and scored on held-out frames, never twice.

    trials/<key>/trial.json      what it was (row, seed, settings, inputs) and every figure; written last
    trials/<key>/<subject>.png   some held-out frames as it paints them, over grey
    trials/<key>/log.jsonl       the losses
    trials/<key>/training/       networks and checkpoint, while it trains

The key is made of everything that can change the figures, so equal rows of two tables are one trial.
H x W pixels of the person crop.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from capture.files import encode_png, write_atomically
from capture.workers import Workers
from rendering.avatar import Avatar
from rendering.networks import num_parameters
from rendering.painter import pick_device
from training import metrics
from training.config import NONE, EvaluateConfig, TrainConfig, path_of
from training.evaluate import AHEAD, measured, workers
from training.features import VGG19_FILE, weights_dir
from training.flicker import Flicker
from training.lpips import ALEXNET_FILE, Lpips, load_lpips
from training.pictures import at_height, to_bytes
from training.pretrained import digest
from training.rows import Row
from training.score import AVATAR, OWN_FIGURES, Showing, Subject, comparison, load_scene, means, spread
from training.train import train

VERSION = 9  # raise it whenever the same trial would have other figures
SHOWN_FRAMES, SHOWN_HEIGHT_PX = 5, 320
TRUTH = "truth"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """Where trials are made, and on what: subjects are opened when the first trial needs them."""

    folder: Path
    subjects: Mapping[str, Path]  # name -> folder with the stages 01 to 05
    inputs: Mapping[str, str]  # digests of those stages
    evaluate: EvaluateConfig

    @cached_property
    def opened(self) -> list[Subject]:
        subjects = []
        for name, folder in self.subjects.items():
            subject = Subject.load(name, folder, self.evaluate.full_long_side_px, self.evaluate.heldout_frames)
            crops = [load_scene(subject, int(subject.heldout[p])).crop for p in shown(subject)]
            write_strip(self.folder / f"{TRUTH}-{name}.png", [over_grey(c.color, c.alpha) for c in crops])
            subjects.append(subject)
        return subjects

    @cached_property
    def lpips(self) -> Lpips | None:
        return load_lpips()[0]

    def identity(self, row: Row, seed: int) -> dict[str, Any]:
        """Everything that can change what the trial finds."""
        made_by = row.parts.renderer
        return {
            "version": VERSION,
            "parts": [getattr(made_by, "func", made_by).__name__, row.parts.texture.__name__],
            "train": {name: value for name, value in asdict(row.config).items() if name in MATTERS} | {"seed": seed},
            "inputs": dict(self.inputs),
            "begun": None if row.config.pretrained == NONE else digest(path_of(row.config.pretrained)),
            "weights": [name for name in (VGG19_FILE, ALEXNET_FILE) if (weights_dir() / name).is_file()],
            "device": pick_device(row.config.device).type,
            "evaluate": [
                self.evaluate.full_long_side_px,
                self.evaluate.flip_crop_frames,
                self.evaluate.flip_full_frames,
                self.evaluate.heldout_frames,
            ],
        }

    def trial_dir(self, row: Row, seed: int) -> Path:
        words = json.dumps(self.identity(row, seed), sort_keys=True).encode()
        return self.folder / "trials" / hashlib.sha256(words).hexdigest()[:16]


# Detail comes after training, and crops are scored without it.
MATTERS = {field.name for field in fields(TrainConfig) if not field.metadata.get("cosmetic")} - {"detail"}


def finished(folder: Path) -> dict[str, Any] | None:
    """The trial.json of a finished trial."""
    try:
        return json.loads((folder / "trial.json").read_text())
    except (OSError, ValueError):
        return None


def run_trial(bench: Bench, row: Row, seed: int) -> dict[str, Any]:
    """Train and score, or go on where it was interrupted, or only read what is there."""
    folder = bench.trial_dir(row, seed)
    trial = finished(folder)
    if trial is not None:
        log.info("%s, seed %d: done before", row.name, seed)
        return trial
    log.info("%s, seed %d: training", row.name, seed)
    training = folder / "training"
    is_resumed = (training / "checkpoints").exists()
    training.mkdir(parents=True, exist_ok=True)
    started_s = time.process_time()
    train(replace(row.config, seed=seed), training, bench.subjects, row.parts)
    cpu_s = time.process_time() - started_s
    avatar = Avatar.load(training, row.config.device, row.parts)
    figures = {}
    for subject in bench.opened:
        figures[subject.name] = score(bench.evaluate, avatar, subject, bench.lpips)
        write_strip(folder / f"{subject.name}.png", pictures(avatar, subject))
    textures = sum(num_parameters(texture) for texture in avatar.textures.values())
    trial = {
        "row": row.name,
        "seed": seed,
        "figures": figures,
        "parameters": num_parameters(avatar.renderer),
        "texture_parameters": textures,
        "steps": int(avatar.settings["steps"]),
        "training_cpu_s": None if is_resumed else round(cpu_s, 1),
        "identity": bench.identity(row, seed),
    }
    shutil.copyfile(training / "log.jsonl", folder / "log.jsonl")
    write_atomically(folder / "trial.json", (json.dumps(trial, indent=1) + "\n").encode())
    shutil.rmtree(training)
    return trial


def score(config: EvaluateConfig, avatar: Avatar, subject: Subject, lpips: Lpips | None) -> dict[str, float | None]:
    """The evaluator's figures of one avatar, flat: "crop_ssim", "masked_psnr_db", "flicker", ...; mean over frames."""
    count = len(subject.heldout)
    flip_crop, flip_full = (spread(count, n) for n in (config.flip_crop_frames, config.flip_full_frames))
    flicker = Flicker.of(subject.rasters, subject.heldout, len(subject.captured.fit.body.part_names) - 1)
    show = Showing(avatar, subject)

    def tasks() -> Iterator[tuple[Any, ...]]:
        for position in range(count):
            index = int(subject.heldout[position])
            scene = load_scene(subject, index)
            compared = comparison(scene, show(position))
            yield (*compared, position in flip_crop, position in flip_full)
            seen = scene.crop.alpha > metrics.MASK_THRESHOLD
            flicker.add(index, subject.rasters[index], compared[0], compared[1], seen)

    with Workers(workers(config), loads=metrics.__name__) as pool:
        rows = [{"method": AVATAR, **row} for row in measured(pool, tasks(), AHEAD, lpips)]
    nested = means(rows, AVATAR)
    flat = {f"{p}_{figure}": value for p in ("crop", "full") for figure, value in nested[p].items()}
    whole = {figure: nested[figure] for figure in OWN_FIGURES}
    return {**whole, **flat, "flicker": (flicker.figures() or {"ratio": None})["ratio"]}


def shown(subject: Subject) -> list[int]:
    """Positions of the held-out frames that pictures show."""
    return sorted(spread(len(subject.heldout), SHOWN_FRAMES))


def pictures(avatar: Avatar, subject: Subject) -> list[np.ndarray]:
    """Those frames (H, W, 3) as the avatar paints them."""
    found, wanted, show = [], shown(subject), Showing(avatar, subject)
    for position in range(len(subject.heldout)):
        # One that remembers has to paint all of them.
        guess = show(position) if show.remembers or position in wanted else None
        if guess is None or position not in wanted:
            continue
        scene = load_scene(subject, int(subject.heldout[position]))
        found.append(over_grey(guess.color, guess.alpha * scene.is_filmed))
    return found


def over_grey(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return metrics.composite(color, alpha, 0.5)


def write_strip(path: Path, images: Sequence[np.ndarray]) -> None:
    """Pictures (H, W, 3) in [0, 1] side by side."""
    if not images:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    strip = np.concatenate([at_height(to_bytes(image), SHOWN_HEIGHT_PX) for image in images], axis=1)
    write_atomically(path, encode_png(strip))


def read_strip(path: Path) -> np.ndarray | None:
    """(H', W', 3) uint8, None where there is none."""
    image = cv2.imread(str(path))
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
