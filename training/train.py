"""Stage 06: frames, masks and rasters of a cast become an avatar (paper, sections 3.2 to 3.4).

Enters: subject folders.  Leaves: the avatar's files (``rendering.avatar``), its checkpoint and log.jsonl.
B pictures in a batch, H x W pixels of the person crop.  I true picture, B0 its background, M matte; hats are predicted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from capture.errors import UserError
from capture.progress import progress
from rendering.avatar import OURS, Avatar, Parts
from rendering.networks import NeuralTexture, compute_dtype, num_parameters, on_device
from rendering.painter import pick_device
from training import pretrained
from training.cast import Actor, crop_wh, load_cast, whose_turn
from training.checkpoint import Saver, load_checkpoint
from training.config import NONE, TrainConfig, path_of
from training.dataset import Augment
from training.discriminator import MultiScaleDiscriminator
from training.features import FeatureTerm, load_features
from training.guard import FAILURES_FILE, Guard
from training.heldback import heldback_psnr_db, judge
from training.preview import Preview
from training.ranks import everywhere, is_lead, rank, world_size
from training.state import TrainState
from training.step import Batch, NotFinite, Outcome, train_step
from training.ticks import append, masked_psnr_db, tick, truncate_log
from training.warmstart import proven_light, warm_texture

__all__ = ["Actor", "TrainConfig", "fit_cast", "masked_psnr_db", "new_state", "train", "truncate_log"]

log = logging.getLogger(__name__)


def train(config: TrainConfig, out_dir: Path, subjects: Mapping[str, Path], parts: Parts = OURS) -> None:
    """Train one renderer and one texture per subject; continue from the checkpoint in ``out_dir`` if there is one.

    On the CPU the files are the same bytes however often the run was interrupted.
    """
    everywhere(_train, config, out_dir, dict(subjects), parts)


def _train(config: TrainConfig, out_dir: Path, subjects: Mapping[str, Path], parts: Parts) -> None:
    device = pick_device(config.device)
    cast = load_cast(subjects, device, config.early_stop, parts.texture.needs_view, parts.texture.num_figures)
    with reproducible(device):
        fit_cast(config, out_dir, cast, device, parts)


def fit_cast(
    config: TrainConfig, out_dir: Path, cast: list[Actor], device: torch.device, parts: Parts = OURS
) -> TrainState:
    """Train from nothing, and save the avatar."""
    features, feature_note = load_features(
        config.feature_width, config.feature_blocks, config.seed, config.feature_kind
    )
    state = new_state(config, cast, device, parts)
    whole = replace(config, steps=config.steps * len(cast))  # everybody has as many turns as somebody alone
    log.info("%s parameters, %s, %s", f"{num_parameters(state.renderer):,}", device, state.dtype)
    optimise(whole, out_dir, cast, state, on_device(features, device))
    if is_lead():
        Avatar(
            renderer=state.average_renderer.eval(),
            textures={actor.frames.name: texture for actor, texture in zip(cast, state.average_textures, strict=True)},
            bodies={actor.frames.name: actor.shape for actor in cast},
            settings=_settings(config, cast, state, feature_note, device),
        ).save(out_dir)
    return state


def optimise(config: TrainConfig, out_dir: Path, cast: list[Actor], state: TrainState, features: FeatureTerm) -> None:
    """The training loop, from the checkpoint in ``out_dir`` on where there is one."""
    checkpoint_path, log_path = out_dir / "checkpoints" / "last.safetensors", out_dir / "log.jsonl"
    saved = load_checkpoint(checkpoint_path)
    if saved is not None:
        state.load_state_dict(saved)
        log.info("continuing at step %d of %d", state.step, config.steps)
    if is_lead():
        checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
        truncate_log(log_path, state.step)
        if (out_dir / FAILURES_FILE).exists():
            truncate_log(out_dir / FAILURES_FILE, state.step)
    first_step, started_s = state.step, time.monotonic()
    saver = Saver(checkpoint_path, config.checkpoint_every_s)
    preview = Preview(out_dir, cast, config.preview_every_s)
    guard = Guard(out_dir, config.retries)
    loss = float("nan")

    def speed() -> float:
        return (state.step - first_step) / max(time.monotonic() - started_s, 1e-9)

    def note() -> str:
        return f"loss {loss:.3f}, {speed() * config.batch_size:.1f} images/s"

    steps = range(state.step, config.steps)
    for step in progress(steps, "train", note=note) if is_lead() else steps:
        if state.progress.is_over:  # found out by the run that was interrupted
            break
        try:
            outcomes, pieces = _step(config, cast, state, features, guard)
        except UserError:  # the same command goes on from here, with other random numbers
            saver.save(state)
            raise
        figures = {}
        if step % config.log_every == 0 or state.step == config.steps:
            figures = tick(step, outcomes, pieces)
            loss = figures["loss"]
        if config.early_stop and state.step % config.early_stop_every == 0:
            psnr_db = heldback_psnr_db(state, cast)
            judge(state, psnr_db, config.early_stop_patience)
            figures = (figures or tick(step, outcomes, pieces)) | {"heldback_psnr_db": psnr_db}
        if is_lead():
            if figures:
                append(log_path, figures, speed())
            saver.save_if_due(state)
            preview.draw_if_due(state)
        if state.progress.is_over:
            log.info("stopping at step %d: held-back frames were best at step %d", state.step, state.progress.best_step)
            break
    if is_lead():
        saver.save(state)
        preview.draw(state)


def _step(
    config: TrainConfig, cast: list[Actor], state: TrainState, features: FeatureTerm, guard: Guard
) -> tuple[list[Outcome], list[Batch]]:
    """One step, tried again with other random numbers when something in it is not a number."""
    subject, trains_texture = whose_turn(state.step, len(cast), config.split, config.seed)
    actor = cast[subject]
    positions = torch.from_numpy(actor.keyframe_positions if trains_texture else actor.train_positions)
    augment = Augment(config.rescale_min, config.rescale_max, config.shift, config.grid_noise)
    rate = decayed(state.step, config.steps, config.decay_from)
    for attempt in count(1):
        chosen = positions[torch.randint(len(positions), (config.batch_size,), generator=state.rng)]
        pieces = _my_pieces(actor, chosen, augment, state)
        try:
            return train_step(config, state, subject, pieces, features, trains_texture, rate), pieces
        except NotFinite as error:
            frames = actor.frames.frame_indices[chosen.numpy()].tolist()
            turn = {"subject": actor.frames.name, "frames": frames, "trains_texture": trains_texture}
            guard.failed(state.step, attempt, turn, pieces, error)
    raise AssertionError("count never ends")


def _my_pieces(actor: Actor, chosen: Tensor, augment: Augment, state: TrainState) -> list[Batch]:
    """This rank's part of the batch.  Every piece has random numbers of its own, so that it is the same on any rank."""
    parts = chosen.tensor_split(world_size() * len(state.shards))
    seeds = torch.randint(2**62, (len(parts),), generator=state.rng).tolist()
    pieces = []
    for part, seed in list(zip(parts, seeds, strict=True))[rank() :: world_size()]:
        noise_rng = state.noise_rng.manual_seed(seed + 1)
        pieces.append(actor.frames.batch(part, augment, torch.Generator().manual_seed(seed), noise_rng))
    return pieces


def new_state(config: TrainConfig, cast: list[Actor], device: torch.device, parts: Parts = OURS) -> TrainState:
    """Networks and textures at step 0."""
    initial = NeuralTexture.shared_initial(config.texture_px, config.texture_channels, config.seed)
    textures = [start_texture(config, initial, actor, parts.texture) for actor in cast]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        renderer = parts.renderer(asdict(config))
        if is_pretrained(config, parts):
            pretrained.begin(path_of(config.pretrained), renderer, pretrained.RENDERER)
            log.info("the networks begin with weights that have painted others")
        elif parts == OURS and config.pretrained != NONE and is_lead():
            enough = pretrained.NOISE_TAKES * TrainConfig.steps
            if config.steps < enough:
                log.warning(
                    "the networks begin with noise, as weights are shipped for the default networks alone; that takes "
                    "longer: train.steps=%d",
                    enough,
                )
        discriminator = new_discriminator(config)
    exposures = [nn.Parameter(torch.zeros(len(actor.frames), 3)) for actor in cast]
    return TrainState(
        renderer,
        textures,
        exposures,
        discriminator,
        weight_decay=config.weight_decay,
        seed=config.seed,
        device=device,
        dtype=pick_dtype(config, device),
        num_shards=num_shards(config, device),
        keeps_statistics=is_pretrained(config, parts),
    )


def new_discriminator(config: TrainConfig) -> MultiScaleDiscriminator | None:
    """What judges the pictures, with the shipped weights where there are some; None when nobody is to."""
    if not config.adversarial:
        return None
    discriminator = MultiScaleDiscriminator(config.discriminator_width, config.discriminator_scales)
    if has_weights(config, pretrained.DISCRIMINATOR):
        pretrained.begin(path_of(config.pretrained), discriminator, pretrained.DISCRIMINATOR)
    return discriminator


def is_pretrained(config: TrainConfig, parts: Parts) -> bool:
    """Whether the networks begin with shipped weights."""
    return parts == OURS and has_weights(config, pretrained.RENDERER)


def has_weights(config: TrainConfig, part: str) -> bool:
    """Whether weights of that part (``pretrained.RENDERER``, ``DISCRIMINATOR``) of this architecture are shipped."""
    if config.pretrained == NONE:
        return False
    return pretrained.fits(path_of(config.pretrained), asdict(config), part)


def start_texture(
    config: TrainConfig, initial: Tensor, actor: Actor, kind: type[NeuralTexture] = NeuralTexture
) -> NeuralTexture:
    """What somebody's texture is before training: ``initial`` (T, T, C), or his colours, and the light he stood in."""
    if not config.warm_start:
        return kind(initial)
    if not (config.light and kind.takes_light):
        return kind(warm_texture(initial, actor.frames, actor.keyframe_positions, shape=actor.shape))
    light = actor.light if actor.is_light_known else proven_light(actor.frames, actor.train_positions)
    return kind(warm_texture(initial, actor.frames, actor.keyframe_positions, light, actor.shape), light)


def num_shards(config: TrainConfig, device: torch.device) -> int:
    """Pieces that this rank cuts its part of a batch into.  Raises UserError when a batch cannot be shared evenly."""
    if config.batch_size % world_size():
        raise UserError(
            f"train.batch_size = {config.batch_size}: cannot be shared evenly by {world_size()} processes; choose a "
            f"multiple, for example --set train.batch_size={2 * world_size()}"
        )
    if device.type != "cpu":
        return 1
    return max(1, min(config.shards, config.batch_size) // world_size())


def decayed(step: int, steps: int, decay_from: float) -> float:
    """1, then from ``decay_from`` of the run on linearly towards 0."""
    return min(1.0, (steps - step) / max(1.0, steps * (1 - decay_from)))


def pick_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """What the networks multiply in."""
    dtypes = {"auto": compute_dtype(device), "bf16": torch.bfloat16, "fp32": torch.float32}
    return dtypes[config.precision]


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Same inputs, same bytes on the CPU.  On the GPU speed comes first: sums over texels run in any order there."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)  # the shards are the parallelism
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
        torch.set_num_threads(before[2])


def _settings(
    config: TrainConfig,
    cast: list[Actor],
    state: TrainState,
    feature_note: str,
    device: torch.device,
) -> dict:
    """avatar.json: what made this avatar."""
    return {
        "subjects": [actor.frames.name for actor in cast],
        "image_wh": list(crop_wh(cast[0])),
        "parameters": num_parameters(state.renderer),
        "steps": state.step,
        "heldback_psnr_db": state.progress.best_db,  # null without early_stop
        "features": feature_note if config.feature else "off",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "precision": str(state.dtype).removeprefix("torch."),
        "frames": {
            actor.frames.name: {"train": len(actor.train_positions), "keyframes": len(actor.keyframe_positions)}
            for actor in cast
        },
        "px_per_m": {actor.frames.name: actor.px_per_m for actor in cast},
        "margins": {actor.frames.name: actor.margins for actor in cast},
        "exposure_range": {
            actor.frames.name: _range(exposure) for actor, exposure in zip(cast, state.exposures, strict=True)
        },
        "train": asdict(config),
    }


def _range(exposure: Tensor) -> list[float]:
    """Darkest and brightest gain that training found."""
    gain = (exposure - exposure.mean(dim=0)).detach().exp()
    return [round(float(gain.min()), 4), round(float(gain.max()), 4)]
