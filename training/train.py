"""Stage 06: frames, masks and rasters of a cast become an avatar (paper, sections 3.2 to 3.4).

Enters: subject folders.  Leaves: the avatar's files (``rendering.avatar``), its checkpoint and log.jsonl.
B pictures in a batch, H x W pixels of the person crop.  I true picture, B0 its background, M matte; hats are predicted.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from capture.errors import UserError
from capture.matting import Masks
from capture.progress import progress
from capture.recording import Recording, write_atomically
from fitting.fit import BodyFit
from fitting.keyframes import Keyframes
from rendering.avatar import Avatar, Shape
from rendering.networks import (
    NeuralRenderer,
    NeuralTexture,
    compute_dtype,
    num_parameters,
    on_device,
    parse_widths,
)
from rendering.painter import pick_device
from rendering.rasters import Rasters
from training.checkpoint import load_checkpoint, save_checkpoint
from training.dataset import Augment, SubjectFrames
from training.discriminator import MultiScaleDiscriminator
from training.features import load_features
from training.state import TrainState
from training.step import Batch, Outcome, train_step
from training.warmstart import warm_texture

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig:
    """Defaults are the ``demo`` preset: two CPU cores, under two minutes."""

    widths: str = "16,32,64,96,128"  # channels per level of R1 and of R2; more gained nothing on held-out frames
    norm: bool = True  # batch normalisation in R1 and R2
    latent_channels: int = 16  # between R1 and R2
    texture_px: int = 256  # paper, section 4.1
    texture_channels: int = 8  # paper, section 4.1
    warm_start: bool = True  # first three texture channels start as back-projected colours
    steps: int = 900  # held-out quality is flat from about 500 on; sharpness still grows
    batch_size: int = 2  # at equal cost, more and smaller steps were better
    shards: int = 2  # parts of a batch, each on a CPU core of its own; a GPU takes the batch whole
    # Alternate R on all frames (Eq. 9) with T on keyframes (Eq. 10); false: both at once on all frames.  The paper
    # splits, and so do the gpu and paper presets.  In a run of hundreds of steps, half as many updates of each cost
    # more than the split gains: 0.3 to 0.5 dB on held-out frames of a real clip at equal cost.
    split: bool = False
    renderer_lr: float = 2e-3
    texture_lr: float = 1e-2  # a texel is seen by few pixels of few frames
    exposure_lr: float = 2e-3
    decay_from: float = 0.5  # part of the run after which the rates fall to zero linearly (pix2pixHD)
    weight_decay: float = 1e-2
    average_decay: float = 0.98  # of the running average of the weights, per step
    exposure: bool = True  # a gain per training frame and colour: the clip's exposure drifts, the person does not
    pixel: bool = True
    mask: bool = True
    feature: bool = True
    tv: bool = True
    adversarial: bool = False  # sharper only after far more steps than the demo has
    pixel_weight: float = 10.0
    mask_weight: float = 2.0
    # auto: VGG19 where its file is cached, otherwise random filters; vgg, random, laplacian, ssim
    feature_kind: str = "auto"
    feature_weight: float | None = None  # none: the kind's own, in features.py
    tv_image_weight: float = 0.05  # the paper's beta_I
    tv_mask_weight: float = 0.1  # the paper's beta_m
    adversarial_weight: float = 0.1
    feature_width: int = 8  # of the random stand-in for VGG19
    feature_blocks: int = 3  # how deep into VGG19; each block halves the picture
    discriminator_width: int = 64
    discriminator_scales: int = 2
    discriminator_lr: float = 2e-4
    # The paper's 0.02 belongs to pictures of 1024: there it moves a sample by less than a pixel's neighbourhood.  At a
    # quarter of that size it scrambles the face, and the network learns to blur.
    grid_noise: float = 0.005
    rescale_min: float = 0.9  # the crops are already sized to the person; the paper's are not: 0.5 to 1.25
    rescale_max: float = 1.15
    shift: float = 0.03  # of the crop, either way
    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda
    precision: str = "auto"  # bf16 where the hardware multiplies it; auto, bf16, fp32
    log_every: int = 20  # steps
    checkpoint_every_s: float = field(default=20.0, metadata={"cosmetic": True})


@dataclass(frozen=True)
class Actor:
    """One subject of the cast: what is seen of it, and when."""

    frames: SubjectFrames
    train_positions: np.ndarray  # frames that train R
    keyframe_positions: np.ndarray  # frames that train T
    shape: Shape

    @staticmethod
    def load(name: str, folder: Path, device: torch.device) -> Actor:
        """Open a subject.  Raises UserError when nothing in it can be learned from."""
        keyframes = Keyframes.load(folder / "04_keyframes")
        fit = BodyFit.load(folder / "03_fit")
        rasters = Rasters.load(folder / "05_rasters")
        wanted = np.union1d(keyframes.train_indices, keyframes.keyframe_indices)
        wanted = np.setdiff1d(wanted, keyframes.heldout_indices)
        recording, masks = Recording.load(folder / "01_recording"), Masks.load(folder / "02_masks")
        frames = SubjectFrames.load(name, wanted, recording, masks, rasters)
        train_positions = frames.positions_of(keyframes.train_indices)
        keyframe_positions = frames.positions_of(keyframes.keyframe_indices)
        if not len(train_positions):
            raise UserError(f"{name}: the body was found in no training frame; see 03_fit/overlay.mp4")
        return Actor(
            frames=frames.to(device),
            train_positions=train_positions,
            keyframe_positions=keyframe_positions if len(keyframe_positions) else train_positions,
            shape=Shape(fit.body, fit.shape, fit.vertex_offsets_m),
        )


def train(config: TrainConfig, out_dir: Path, subjects: Mapping[str, Path]) -> None:
    """Train one renderer and one texture per subject; continue from the checkpoint in ``out_dir`` if there is one.

    On the CPU the files are the same bytes however often the run was interrupted.
    """
    device = pick_device(config.device)
    cast = [Actor.load(name, folder, device) for name, folder in subjects.items()]
    with _reproducible(device):
        fit_cast(config, out_dir, cast, device)


def fit_cast(config: TrainConfig, out_dir: Path, cast: list[Actor], device: torch.device) -> TrainState:
    """The training loop."""
    features, feature_note = load_features(config.feature_width, config.feature_blocks, config.seed, config.feature_kind)
    features = on_device(features, device)
    state = new_state(config, cast, device)
    checkpoint_path, log_path = out_dir / "checkpoints" / "last.safetensors", out_dir / "log.jsonl"
    checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
    saved = load_checkpoint(checkpoint_path)
    if saved is not None:
        state.load_state_dict(saved)
        log.info("continuing at step %d of %d", state.step, config.steps)
    truncate_log(log_path, state.step)
    log.info("%s parameters, %s, %s", f"{num_parameters(state.renderer):,}", device, state.dtype)
    first_step, started_s = state.step, time.monotonic()
    saver = _Saver(checkpoint_path, config.checkpoint_every_s)
    augment = Augment(config.rescale_min, config.rescale_max, config.shift, config.grid_noise)

    for step in progress(range(state.step, config.steps), "train"):
        trains_texture = config.split and step % 2 == 1
        subject = int(torch.randint(len(cast), (), generator=state.rng))  # a random identity every step
        actor = cast[subject]
        positions = torch.from_numpy(actor.keyframe_positions if trains_texture else actor.train_positions)
        chosen = positions[torch.randint(len(positions), (config.batch_size,), generator=state.rng)]
        pieces = [
            actor.frames.batch(part, augment, state.rng, state.noise_rng) for part in chosen.chunk(len(state.shards))
        ]
        rate = decayed(step, config.steps, config.decay_from)
        outcomes = train_step(config, state, subject, pieces, features, trains_texture, rate)
        if step % config.log_every == 0 or state.step == config.steps:
            steps_per_s = (state.step - first_step) / (time.monotonic() - started_s)
            _log_tick(log_path, step, outcomes, pieces, steps_per_s)
        saver.save_if_due(state)

    saver.save(state)
    Avatar(
        renderer=state.average_renderer.eval(),
        textures={actor.frames.name: texture for actor, texture in zip(cast, state.average_textures, strict=True)},
        bodies={actor.frames.name: actor.shape for actor in cast},
        settings=_settings(config, cast, state, feature_note, device),
    ).save(out_dir)
    return state


def new_state(config: TrainConfig, cast: list[Actor], device: torch.device) -> TrainState:
    """Networks and textures at step 0."""
    initial = NeuralTexture.shared_initial(config.texture_px, config.texture_channels, config.seed)
    textures = [
        NeuralTexture(warm_texture(initial, actor.frames, actor.keyframe_positions) if config.warm_start else initial)
        for actor in cast
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        renderer = NeuralRenderer(
            config.texture_channels, config.latent_channels, parse_widths(config.widths), config.norm
        )
        discriminator = None
        if config.adversarial:
            discriminator = MultiScaleDiscriminator(config.discriminator_width, config.discriminator_scales)
    exposures = [nn.Parameter(torch.zeros(len(actor.frames), 3)) for actor in cast]
    return TrainState(
        renderer,
        textures,
        exposures,
        discriminator,
        weight_decay=config.weight_decay,
        seed=config.seed,
        device=device,
        dtype=_dtype(config, device),
        num_shards=max(1, min(config.shards, config.batch_size)) if device.type == "cpu" else 1,
    )


def decayed(step: int, steps: int, decay_from: float) -> float:
    """1, then from ``decay_from`` of the run on linearly towards 0."""
    return min(1.0, (steps - step) / max(1.0, steps * (1 - decay_from)))


def masked_psnr_db(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """PSNR over the pixels of the person, colours in [-1, 1]."""
    weight = (mask > 0.5).float()
    error = ((image.clamp(-1, 1) - target).square() * weight).sum() / (3 * weight.sum()).clamp_min(1)
    return 10 * torch.log10(4 / error.clamp_min(1e-10))


def truncate_log(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint that training continues from."""
    lines = path.read_text().splitlines() if path.is_file() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] < step]
    write_atomically(path, "".join(f"{line}\n" for line in kept).encode())


def _log_tick(path: Path, step: int, outcomes: list[Outcome], pieces: list[Batch], steps_per_s: float) -> None:
    def mean(values: Iterable[Tensor]) -> float:
        return torch.stack(list(values)).mean().item()

    tick = {"step": step, "loss": mean(outcome.total for outcome in outcomes)}
    tick |= {name: mean(outcome.losses[name] for outcome in outcomes) for name in outcomes[0].losses}
    pairs = zip(outcomes, pieces, strict=True)
    tick["train_psnr_db"] = mean(masked_psnr_db(o.blended, o.truth, piece.mask) for o, piece in pairs)
    with open(path, "a") as file:
        file.write(json.dumps(tick | {"steps_per_s": round(steps_per_s, 3)}) + "\n")


class _Saver:
    """Saves now and then; when it does has no influence on what is learned."""

    def __init__(self, path: Path, every_s: float) -> None:
        self.path, self.every_s = path, every_s
        self.due_s = time.monotonic() + every_s

    def save_if_due(self, state: TrainState) -> None:
        if time.monotonic() >= self.due_s:
            self.save(state)

    def save(self, state: TrainState) -> None:
        started_s = time.monotonic()
        save_checkpoint(self.path, state.state_dict())
        ended_s = time.monotonic()
        # Gigabytes of state must not take more than a twentieth of the run.
        self.due_s = ended_s + max(self.every_s, 20 * (ended_s - started_s))


def _dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    dtypes = {"auto": compute_dtype(device), "bf16": torch.bfloat16, "fp32": torch.float32}
    if config.precision not in dtypes:
        raise UserError(f'train.precision "{config.precision}": expected one of {", ".join(dtypes)}')
    return dtypes[config.precision]


@contextmanager
def _reproducible(device: torch.device) -> Iterator[None]:
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
    height, width = cast[0].frames.planes.shape[2:]
    return {
        "subjects": [actor.frames.name for actor in cast],
        "image_wh": [width, height],
        "parameters": num_parameters(state.renderer),
        "steps": state.step,
        "features": feature_note if config.feature else "off",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "precision": str(state.dtype).removeprefix("torch."),
        "frames": {
            actor.frames.name: {"train": len(actor.train_positions), "keyframes": len(actor.keyframe_positions)}
            for actor in cast
        },
        "exposure_range": {
            actor.frames.name: _range(exposure) for actor, exposure in zip(cast, state.exposures, strict=True)
        },
        "train": asdict(config),
    }


def _range(exposure: Tensor) -> list[float]:
    """Darkest and brightest gain that training found."""
    gain = (exposure - exposure.mean(dim=0)).detach().exp()
    return [round(float(gain.min()), 4), round(float(gain.max()), 4)]
