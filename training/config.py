"""The settings of stages 06 and 07 and of changes to an avatar, with what each is for and what it may be.

They are read without torch: what they refuse, and what is up to date, is said before that is loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from capture.errors import ANY, UserError, check_ranges
from rendering.widths import parse_widths

PERSON, HEAD, NONE = "person", "head", "none"  # what pretrained weights paint
WEIGHTS = Path(__file__).with_name("pretrained_weights")
HELDOUT_FRAMES = 300  # a film of minutes holds out a thousand, which take as long as training
LOSSES = {  # the switches of the losses, and what they are called
    "pixel": "pixel loss",
    "mask": "mask loss",
    "feature": "feature loss",
    "tv": "total variation",
    "adversarial": "adversarial loss",
}
PRECISIONS = ("auto", "bf16", "fp32")
RANGES: dict[str, tuple[float, float]] = {  # settings and the least and the greatest value that can be
    **dict.fromkeys(("steps", "batch_size", "shards", "feature_width", "discriminator_width"), (1, ANY)),
    **dict.fromkeys(("log_every", "early_stop_every", "early_stop_patience", "discriminator_every"), (1, ANY)),
    **dict.fromkeys(("texture_channels", "latent_channels"), (3, ANY)),  # colours
    **dict.fromkeys(("renderer_lr", "texture_lr", "exposure_lr", "discriminator_lr", "weight_decay"), (0, ANY)),
    **dict.fromkeys(("seed", "retries", "grid_noise", "shift"), (0, ANY)),
    **dict.fromkeys(("average_decay", "decay_from"), (0, 1)),
    **dict.fromkeys(("rescale_min", "rescale_max"), (0.1, 10)),
    "texture_px": (8, 16384),
    "feature_blocks": (1, 5),  # of VGG19
    "discriminator_scales": (1, 4),
}

EVALUATE_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("full_long_side_px", "video_height_px", "turntable_height_px", "picture_height_px"), (64, 8192)),
    **dict.fromkeys(("flip_crop_frames", "flip_full_frames", "picture_frames", "heldout_frames"), (0, ANY)),
    "turntable_frames": (1, ANY),
}


@dataclass(frozen=True)
class TrainConfig:
    """Defaults are the ``demo`` preset: two CPU cores, less than a minute."""

    widths: str = "16,32,64,96,128"  # channels per level of R1 and of R2; more gained nothing on held-out frames
    norm: bool = True  # batch normalisation in R1 and R2
    latent_channels: int = 16  # between R1 and R2
    texture_px: int = 256  # paper, section 4.1
    texture_channels: int = 8  # paper, section 4.1
    # R1 and R2 begin with networks that have painted others, where those are of these widths: person, or none for
    # noise.  Heads have their own.
    pretrained: str = PERSON
    warm_start: bool = True  # first three texture channels start as back-projected colours
    # The colours are those seen from the front, shown in a light found in the frames, unless without it they foretell
    # frames better.  Only with warm_start.
    light: bool = True
    # Per subject of the cast.  Begun with networks that have painted others, held-out quality is nearly flat from here
    # on; from noise it needs three times as many.
    steps: int = 300
    batch_size: int = 2  # at equal cost, more and smaller steps were better
    shards: int = 2  # parts of a batch, each on a CPU core of its own; a GPU takes the batch whole
    # Alternate R on all frames (Eq. 9) with T on keyframes (Eq. 10); false: both at once on all frames.  The paper
    # splits, and so do the gpu and paper presets.  From noise it is better, with rates that make up for each side's
    # having half of the updates; begun as here both are level (docs/results.md).
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
    adversarial: bool = True
    detail: bool = True  # after training, what the crops are too coarse for becomes a texture of its own (``detail``)
    pixel_weight: float = 10.0
    mask_weight: float = 2.0
    # auto: VGG19 where its file is cached, otherwise SSIM, the best of the embedded; vgg, random, laplacian, ssim
    feature_kind: str = "auto"
    feature_weight: float | None = None  # none: the kind's own, in features.py
    tv_image_weight: float = 0.05  # the paper's beta_I
    tv_mask_weight: float = 0.1  # the paper's beta_m
    adversarial_weight: float = 0.3
    feature_width: int = 8  # of the random stand-in for VGG19
    feature_blocks: int = 3  # how deep into VGG19; each block halves the picture
    discriminator_width: int = 24
    discriminator_scales: int = 2
    discriminator_lr: float = 2e-4
    discriminator_every: int = 2  # steps; it learns faster than what it judges
    # The paper's 0.02 belongs to pictures of 1024: there it moves a sample by less than a pixel's neighbourhood.  At a
    # quarter of that size it scrambles the face, and the network learns to blur.
    grid_noise: float = 0.005
    rescale_min: float = 0.9  # the crops are already sized to the person; the paper's are not: 0.5 to 1.25
    rescale_max: float = 1.15
    shift: float = 0.03  # of the crop, either way
    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda
    precision: str = "auto"  # bf16 where the hardware multiplies it; auto, bf16, fp32
    # Stop when a tenth of the training frames, held back for this, is painted no better any more.
    early_stop: bool = False
    early_stop_every: int = 50  # steps between two measurements
    early_stop_patience: int = 4  # measurements without a gain
    retries: int = 3  # of a step with a loss or gradient that is not a number
    log_every: int = 20  # steps
    checkpoint_every_s: float = field(default=20.0, metadata={"cosmetic": True})
    preview_every_s: float = field(default=60.0, metadata={"cosmetic": True})

    def __post_init__(self) -> None:
        check_ranges("train", self, RANGES)
        parse_widths(self.widths)
        if self.pretrained != NONE:
            path_of(self.pretrained)
        if self.rescale_min > self.rescale_max:
            raise UserError(f"train.rescale_min = {self.rescale_min}: must not exceed rescale_max {self.rescale_max}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device):
            raise UserError(f'train.device "{self.device}": expected auto, cpu, cuda, cuda:1 or mps')
        if self.precision not in PRECISIONS:
            raise UserError(f'train.precision "{self.precision}": expected one of {", ".join(PRECISIONS)}')
        if not any(getattr(self, name) for name in LOSSES):
            raise UserError(f"train: every loss is off; leave one of {', '.join(LOSSES)} on")


def path_of(name: str) -> Path:
    """Where the weights of PERSON or HEAD are.  Raises UserError for another name."""
    if name not in (PERSON, HEAD):
        raise UserError(f'train.pretrained "{name}": expected {PERSON} or {NONE}')
    return WEIGHTS / f"{name}.safetensors"


@dataclass(frozen=True)
class AdaptConfig:
    """What is not said here is as the avatar was trained."""

    steps: int = 50  # a warm texture is nearly there after 25; of few frames a hundred learn what hides mistakes
    rate: float = 1.0  # of train.texture_lr


@dataclass(frozen=True)
class FinetuneConfig:
    """What is not said here is as the avatar was trained."""

    steps: int = 150
    # Of the rates it was trained at: Adam's first steps are full ones, and should not undo what is there.
    rate: float = 0.5


@dataclass(frozen=True)
class EvaluateConfig:
    """What is measured; every figure says in metrics.json how it was made."""

    # Of longer held-out parts; in runs of neighbours, evenly spread; 0 = all
    heldout_frames: int = HELDOUT_FRAMES
    full_long_side_px: int = 640  # of whole pictures: FLIP of a 1080p frame takes seconds and tells nothing more
    flip_crop_frames: int = 16  # evenly spread; FLIP costs more than all other figures together
    flip_full_frames: int = 6
    video_height_px: int = 512
    turntable_frames: int = 48
    turntable_height_px: int = 640
    picture_frames: int = 6  # held-out frames that the report shows large
    picture_height_px: int = 480
    num_workers: int = field(default=2, metadata={"cosmetic": True})

    def __post_init__(self) -> None:
        check_ranges("evaluate", self, EVALUATE_RANGES)
