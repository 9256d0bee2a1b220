"""One step of the alternating optimisation: paint, compare, change R or T (paper, Eqs. 2 to 10).

Enters: a batch.  Leaves: the weighted losses.  B pictures, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rendering.networks import NeuralTexture, Renderer, Rendering, Surface
from training.features import FeatureTerm
from training.losses import (
    adversarial_loss,
    composite,
    discriminator_loss,
    mask_loss,
    pixel_loss,
    total_variation,
)
from training.ranks import mean_over_ranks, sum_over_ranks, world_size
from training.state import TrainState, set_rate

if TYPE_CHECKING:
    from training.config import TrainConfig


@dataclass(frozen=True)
class Batch:
    """B training pictures with the body's raster.  Colours in [-1, 1]."""

    surface: Surface
    target: Tensor  # (B, 3, H, W)
    background: Tensor  # (B, 3, H, W) the true picture, the person painted over with what surrounds him
    mask: Tensor  # (B, 1, H, W) matte in [0, 1]
    valid: Tensor  # (B, 1, H, W) 1 where the camera saw; 0 where the crop reaches beyond the picture
    positions: Tensor  # (B,) int64 which of the subject's frames


@dataclass(frozen=True)
class Outcome:
    """What a step found."""

    losses: dict[str, Tensor]  # weighted, by the paper's names
    blended: Tensor  # (B, 3, H, W) the person over the true background, I-hat-0
    truth: Tensor  # (B, 3, H, W)
    judged: tuple[Tensor, Tensor] | None  # what a discriminator compares, true and painted (B, 3, H, W)

    @property
    def total(self) -> Tensor:
        return torch.stack(list(self.losses.values())).sum()  # Eq. 8

    def detached(self) -> Outcome:
        losses = {name: value.detach() for name, value in self.losses.items()}
        judged = None if self.judged is None else (self.judged[0], self.judged[1].detach())
        return Outcome(losses, self.blended.detach(), self.truth, judged)


class NotFinite(Exception):
    """A step that must not be learned from."""

    def __init__(self, names: list[str], losses: dict[str, float | None]) -> None:
        super().__init__(", ".join(names))
        self.names, self.losses = names, losses


def train_step(
    config: TrainConfig,
    state: TrainState,
    subject: int,
    pieces: Sequence[Batch],
    features: FeatureTerm,
    trains_texture: bool,
    rate: float,
) -> list[Outcome]:
    """Change R (Eq. 9), or with ``trains_texture`` T (Eq. 10); without ``config.split`` both.

    pieces: this rank's share of the batch in equal parts, at most one per shard; ``rate`` scales the learning rates.
    Raises NotFinite, and leaves the state as it was, when a loss, a gradient or a running statistic is not a number.
    """
    state.learn(renderer=not (config.split and trains_texture), texture=trains_texture or not config.split)
    learned = state.learned
    num_pieces = len(pieces) * world_size()
    statistics = [buffer.clone() for buffer in state.renderer.buffers()]

    judges: list[nn.Parameter] = []
    if state.discriminator is not None and not trains_texture:
        turn = state.step // 2 if config.split else state.step  # one of two trains R
        if turn % config.discriminator_every == 0:
            judges = list(state.discriminator.parameters())

    def work(renderer: Renderer, piece: Batch) -> tuple[Outcome, tuple[Tensor | None, ...]]:
        outcome = compare(config, state, renderer, subject, piece, features)
        gradients = torch.autograd.grad(outcome.total / num_pieces, learned, allow_unused=True)
        outcome = outcome.detached()
        if judges:
            gradients += torch.autograd.grad(_judged(state, outcome) / num_pieces, judges)
        return outcome, gradients

    results = state.shards.map(work, pieces)
    outcomes = [outcome for outcome, _ in results]
    for parameter, *shares in zip([*learned, *judges], *(gradients for _, gradients in results), strict=True):
        parameter.grad = _summed([share for share in shares if share is not None], parameter)
    sum_over_ranks([parameter.grad for parameter in [*learned, *judges] if parameter.grad is not None])
    mean_over_ranks([buffer for buffer in state.renderer.buffers() if buffer.is_floating_point()])
    try:
        _check_finite(state, outcomes)
    except NotFinite:
        _undo(state, statistics)
        raise
    state.apply_gradients(config.renderer_lr * rate, config.texture_lr * rate, config.exposure_lr * rate)
    if judges:
        _apply_discriminator(state, config.discriminator_lr * rate)
    state.update_average(config.average_decay)
    state.step += 1
    return outcomes


def _check_finite(state: TrainState, outcomes: Sequence[Outcome]) -> None:
    """Raises NotFinite with what is not; every rank sees the same sums and so decides alike."""
    names = list(outcomes[0].losses)
    losses = [torch.stack([outcome.losses[name] for outcome in outcomes]).mean() for name in names]
    mean_over_ranks(losses)
    values, words = list(losses), [f"loss {name}" for name in names]
    parts = {"renderer": state.renderer, "texture": state.textures, "exposure": state.exposures}
    for name, part in (parts | ({"discriminator": state.discriminator} if state.discriminator else {})).items():
        gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        if gradients:
            # The norm overflows before the square in Adam's second moment does.
            values.append(torch.stack(torch._foreach_norm(gradients)).square().sum())
            words.append(f"gradient of the {name}")
    statistics = [buffer.sum() for buffer in state.renderer.buffers() if buffer.is_floating_point()]
    if statistics:
        values.append(torch.stack(statistics).sum())
        words.append("running statistics of the renderer")
    found = torch.stack([value.float() for value in values])
    if not bool(found.isfinite().all()):  # the only wait for the device
        finite = found.isfinite().tolist()
        shown = {
            name: value if fine else None for name, value, fine in zip(names, found.tolist(), finite, strict=False)
        }
        raise NotFinite([word for word, fine in zip(words, finite, strict=True) if not fine], shown)


@torch.no_grad()
def _undo(state: TrainState, statistics: Sequence[Tensor]) -> None:
    """Back to before the step: nothing but the running statistics has changed."""
    for buffer, before in zip(state.renderer.buffers(), statistics, strict=True):
        buffer.copy_(before)
    modules = (state.renderer, state.textures, state.exposures, state.discriminator)
    for module in modules:
        if module is not None:
            module.zero_grad(set_to_none=True)


def _summed(shares: list[Tensor], parameter: Tensor) -> Tensor | None:
    """The sum in the order given, in the parameter's memory order: the fused optimisers walk both by address."""
    if not shares:
        return None
    total = shares[0] if shares[0].stride() == parameter.stride() else torch.empty_like(parameter).copy_(shares[0])
    for share in shares[1:]:
        total.add_(share)
    return total


def compare(
    config: TrainConfig,
    state: TrainState,
    renderer: Renderer,
    subject: int,
    batch: Batch,
    features: FeatureTerm,
) -> Outcome:
    """Paint the batch and weigh every loss that is switched on."""
    with state.precision():
        rendering = paint(state, renderer, subject, batch, config.exposure)
    visible = rendering.mask * batch.valid
    blended = composite(rendering.image, visible, batch.background)
    truth = torch.where(batch.valid > 0, batch.target, batch.background)
    losses = {}
    if config.pixel:
        losses["pixel"] = config.pixel_weight * pixel_loss(rendering.image, rendering.rough, visible, truth)
    if config.mask:
        losses["mask"] = config.mask_weight * mask_loss(rendering.mask_logit, batch.mask, batch.valid)
    if config.tv:
        smooth_image = config.tv_image_weight * total_variation(blended)
        losses["tv"] = smooth_image + config.tv_mask_weight * total_variation(rendering.mask)
    with state.precision():
        if config.feature:
            weight = features.usual_weight if config.feature_weight is None else config.feature_weight
            losses["feature"] = weight * features.distance(blended, truth)
        judged = None
        if state.discriminator is not None:
            # Both cut out alike, with the true matte and no more than is painted: it must find the person wanting,
            # not his shadow, or the outline; or else background is painted around him.
            seen = torch.minimum(batch.mask, rendering.mask.detach()) * batch.valid
            judged = composite(truth, seen, batch.background), composite(rendering.image, seen, batch.background)
            losses["adversarial"] = config.adversarial_weight * adversarial_loss(state.discriminator(judged[1]), 1.0)
    own = renderer.own_loss(rendering, batch.surface, state.step / config.steps)
    if own is not None:
        losses["own"] = own
    return Outcome(losses, blended, truth, judged)


def paint(state: TrainState, renderer: Renderer, subject: int, batch: Batch, exposure: bool) -> Rendering:
    """R(T, I_uv, I_norm), exposed like the frames it is compared with."""
    texture = state.textures[subject]
    assert isinstance(texture, NeuralTexture)
    # What the camera did not see teaches nothing; but next to what it saw it has a trace of a gradient, of which Adam
    # makes a full step: colours of the rainbow, where nobody would see them but for other poses and views.
    teaches = batch.valid.flatten()[batch.surface.pixel] > 0
    rendering = renderer.picture(texture, replace(batch.surface, teaches=teaches))
    if not exposure:
        return rendering
    gain = state.gain(subject, batch.positions)
    return replace(rendering, image=(rendering.image + 1) * gain - 1, rough=(rendering.rough + 1) * gain - 1)


def _judged(state: TrainState, outcome: Outcome) -> Tensor:
    """What the discriminator minimises on one piece."""
    assert state.discriminator is not None and outcome.judged is not None
    with state.precision():
        # One pass: its normalisation looks at every picture alone.
        scores = state.discriminator(torch.cat(outcome.judged))
        real, fake = zip(*(score.chunk(2) for score in scores), strict=True)
        return discriminator_loss(real, fake)


def _apply_discriminator(state: TrainState, rate: float) -> None:
    assert state.discriminator_optimizer is not None
    set_rate(state.discriminator_optimizer, rate)
    state.discriminator_optimizer.step()
    state.discriminator_optimizer.zero_grad(set_to_none=True)
