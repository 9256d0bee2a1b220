"""The renderer and its training on a GPU: first that it computes what the CPU computes, then how fast.

    python benchmarks/gpu.py [--device cuda] [--tiny] [--size 1024] [--batch 4] [--repeats 20]

Prints tables in Markdown.  ``--tiny`` is a smoke test that also runs on a CPU.  Times are medians over ``--repeats``
calls between device synchronisations; FLOP are counted by PyTorch, MFU is against ``--peak-tflops``.
Exit code 1 when a correctness row fails: a fast wrong picture is worth nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from capture.camera import Camera
from fitting.body.model import BodyModel
from rendering.avatar import Shape, surface_of
from rendering.networks import NeuralRenderer, NeuralTexture, Surface, num_parameters, on_device
from rendering.painter import Painter, pick_device
from rendering.rasterize import rasterize_covered
from rendering.rasterize_torch import TorchSurface, rasterize_torch
from rendering.rasters import CompactRaster
from training.dataset import NORMAL_SCALE, NUM_PLANES, UV_ZERO, Augment, SubjectFrames
from training.features import load_features
from training.state import TrainState
from training.step import train_step
from training.train import Actor, TrainConfig, new_state

ANR161 = TrainConfig(
    widths="64,128,256,512,1024,1440",
    pretrained="none",
    warm_start=False,
    adversarial=True,
    feature_width=64,
    feature_blocks=5,
    discriminator_width=64,
    discriminator_scales=3,
    discriminator_every=1,  # every step costs the same
    rescale_min=0.5,
    rescale_max=1.25,
)
TINY = replace(
    ANR161,
    widths="8,16",
    texture_px=32,
    feature_width=4,
    feature_blocks=2,
    discriminator_width=4,
    discriminator_scales=1,
)
CAMERA_FROM_BODY = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0.85], [0, 1, 0, 2.6], [0, 0, 0, 1]])
NUM_FRAMES = 4


def camera(size: int) -> Camera:
    return Camera((size, size), 1.2 * size, 1.2 * size, size / 2, size / 2)


def poses(body: BodyModel) -> np.ndarray:
    """(N, J, 3) limbs a little off rest."""
    rng = np.random.default_rng(0)
    return rng.uniform(-0.15, 0.15, (NUM_FRAMES, body.num_joints, 3)) * (np.arange(body.num_joints) > 0)[:, None]


def film(body: BodyModel, size: int) -> Actor:
    """A subject of random pictures on true rasters: speed does not depend on what is shown."""
    rng = np.random.default_rng(1)
    compact = [
        CompactRaster.of(rasterize_covered(body, body.posed(None, pose, CAMERA_FROM_BODY)[0], camera(size)))
        for pose in poses(body)
    ]
    planes = rng.integers(0, 255, (NUM_FRAMES, NUM_PLANES, size, size), np.uint8)
    planes[:, 7] = 255
    frames = SubjectFrames(
        name="synthetic",
        frame_indices=np.arange(NUM_FRAMES),
        planes=torch.from_numpy(planes),
        starts=np.concatenate([[0], np.cumsum([len(raster.pixel) for raster in compact])]),
        pixel=torch.from_numpy(np.concatenate([raster.pixel for raster in compact]).astype(np.int32)),
        uv_i16=torch.from_numpy(
            (np.concatenate([raster.uv_u16 for raster in compact]).astype(np.int32) - UV_ZERO).astype(np.int16)
        ),
        normal_i8=torch.from_numpy(
            np.rint(np.concatenate([raster.normal for raster in compact]) * NORMAL_SCALE).astype(np.int8)
        ),
    )
    everything = np.arange(NUM_FRAMES)
    return Actor(frames, everything, everything, Shape(body, np.zeros(body.num_shape, np.float32), None))


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


class Clock:
    """Median milliseconds of a call."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def ms(self, call: Callable[[], object]) -> float:
        for _ in range(3):
            call()
        times = []
        for _ in range(self.repeats):
            self.synchronize()
            started_s = time.perf_counter()
            call()
            self.synchronize()
            times.append((time.perf_counter() - started_s) * 1e3)
        return statistics.median(times)


def table(title: str, columns: tuple[str, ...], rows: list[tuple]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for row in rows:
        print(
            "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row) + " |",
            flush=True,
        )


# ---------------------------------------------------------------------------------------------------- correctness


def check(config: TrainConfig, actor: Actor, device: torch.device, size: int) -> list[tuple]:
    """(what, measured, bound, verdict) against the CPU path, float32 without TF32 unless the row says otherwise."""
    small = replace(
        config, widths="8,16,32", feature_width=4, feature_blocks=2, discriminator_width=4, precision="fp32"
    )
    rows = []

    def row(name: str, measured: float, bound: float, at_least: bool = False) -> None:
        is_good = measured >= bound if at_least else measured <= bound
        rows.append((name, measured, f"{'>=' if at_least else '<='} {bound:g}", "ok" if is_good else "FAILED"))

    body = actor.shape.body
    vertices_m = body.posed(None, poses(body)[0], CAMERA_FROM_BODY)[0]
    expected = rasterize_covered(body, vertices_m, camera(size))
    found = rasterize_torch(
        TorchSurface.of(body, device), torch.as_tensor(vertices_m, device=device)[None], [camera(size)]
    )
    same = np.intersect1d(expected.pixel, torch.as_tensor(found.pixel).cpu().numpy()).size
    row("rasteriser: share of equal covered pixels", same / max(len(expected.pixel), 1), 0.999, at_least=True)

    surface = surface_of(expected)
    texture = NeuralTexture(NeuralTexture.shared_initial(config.texture_px, config.texture_channels, 0))
    sampled = {}
    for where in (torch.device("cpu"), device):
        own = NeuralTexture(texture.texels.detach()).to(where)
        values = own.sample(surface.uv.to(where))
        values.square().sum().backward()
        assert own.texels.grad is not None
        sampled[where.type] = values.detach().cpu(), own.texels.grad.cpu()
    for name, index in (("values", 0), ("gradient", 1)):
        difference = (sampled["cpu"][index] - sampled[device.type][index]).abs().max()
        row(f"texture sampling: largest difference of {name}", difference.item(), 1e-3)

    torch.manual_seed(0)
    renderer = NeuralRenderer(config.texture_channels, config.latent_channels, (8, 16, 32))
    features, normals = texture(surface).detach(), surface.plane(surface.normal)
    renderer(features, normals)  # running statistics that are not the initial ones
    renderer.eval()
    with torch.no_grad():
        cpu = renderer(features, normals).image
        there = on_device(renderer, device)(features.to(device), normals.to(device)).image
        painted = Painter(renderer, device).paint(texture.to(device), surface.to(device))[0]
    row("networks: largest difference", (cpu - there.cpu()).abs().max().item(), 1e-3)
    error = (cpu.clamp(-1, 1) - painted.cpu()).square().mean().item()
    row(
        "painter (folded, own precision, graph): PSNR dB",
        float(10 * np.log10(4 / max(error, 1e-12))),
        40,
        at_least=True,
    )

    totals = {}
    for where in (torch.device("cpu"), device):
        state = new_state(small, [actor], where)
        batch_of = actor.frames.to(where)
        # The same noise on both: none.
        batch = batch_of.batch(torch.arange(2), Augment(), torch.Generator(), torch.Generator(where))
        feature_net = on_device(load_features(small.feature_width, small.feature_blocks, 0, "random")[0], where)
        totals[where.type] = [
            train_step(small, state, 0, [batch], feature_net, step % 2 == 1, 1.0)[0].total.item() for step in range(4)
        ]
    worst = max(abs(a - b) / abs(a) for a, b in zip(totals["cpu"], totals[device.type], strict=True))
    row("four training steps: largest relative difference of the loss", worst, 0.01)
    return rows


# ---------------------------------------------------------------------------------------------------------- speed


def render_rows(config: TrainConfig, actor: Actor, device: torch.device, size: int, clock: Clock) -> list[tuple]:
    """(what, ms, pictures per second) for one picture at a time."""
    torch.manual_seed(0)
    widths = tuple(int(width) for width in config.widths.split(","))
    renderer = NeuralRenderer(config.texture_channels, config.latent_channels, widths).to(device).eval()
    renderer.requires_grad_(False)
    body = actor.shape.body
    pose = poses(body)[0]
    surface = surface_of(rasterize_covered(body, body.posed(None, pose, CAMERA_FROM_BODY)[0], camera(size))).to(device)
    initial = NeuralTexture.shared_initial(config.texture_px, config.texture_channels, 0)
    texture = NeuralTexture(initial).to(device).requires_grad_(False)
    features, normals = texture(surface).contiguous(), surface.plane(surface.normal).contiguous()
    rows = []

    def add(name: str, call: Callable[[], object]) -> None:
        with torch.inference_mode():
            ms = clock.ms(call)
        rows.append((name, ms, 1e3 / ms))

    with tf32(False):
        add("networks, strict float32, eager", lambda: renderer(features, normals))
    with tf32(True):
        add("networks, PyTorch's default (TF32), eager", lambda: renderer(features, normals))
    eager = Painter(renderer, device, use_graph=False)
    low = features.to(eager.dtype, memory_format=torch.channels_last)
    low_normals = normals.to(eager.dtype, memory_format=torch.channels_last)
    add("networks, folded, bfloat16, channels last, eager", lambda: eager.paint_planes(low, low_normals))
    painter = Painter(renderer, device)
    if painter.use_graph:
        add("the same, CUDA graph", lambda: painter.paint_planes(low, low_normals))
    background = torch.rand(1, 3, size, size, device=device)

    def composed(where: Surface) -> torch.Tensor:
        image, mask, _ = painter.paint(texture, where)
        return torch.lerp(background, image, mask)

    add("texture sampling, networks, composite", lambda: composed(surface))
    tables = TorchSurface.of(body, device)

    def from_pose() -> torch.Tensor:
        vertices_m = body.posed(None, pose, CAMERA_FROM_BODY)[0]
        covered = rasterize_torch(tables, torch.as_tensor(vertices_m, device=device)[None], [camera(size)])
        return composed(surface_of(covered))

    add("pose to composited picture (goal 300 per second at 1024)", from_pose)
    return rows


def step_rows(
    config: TrainConfig, actor: Actor, device: torch.device, batch_size: int, clock: Clock, peak_tflops: float
) -> list[tuple]:
    """(what, ms per picture, TFLOP per picture, MFU) of R and T steps, data feed included."""
    frames = actor.frames.to(device)
    feature_net = on_device(load_features(config.feature_width, config.feature_blocks, 0, "random")[0], device)
    augment = Augment(config.rescale_min, config.rescale_max, config.shift, config.grid_noise)
    rows = []
    for precision, allows_tf32, label in (
        ("auto", True, "own precision"),
        ("fp32", True, "PyTorch's default (TF32)"),
        ("fp32", False, "strict float32"),
    ):
        with tf32(allows_tf32):
            state = new_state(replace(config, precision=precision), [actor], device)
            for trains_texture, name in ((False, "R step"), (True, "T step")):

                def step(state: TrainState = state, trains_texture: bool = trains_texture) -> None:
                    chosen = torch.arange(batch_size) % NUM_FRAMES
                    batch = frames.batch(chosen, augment, state.rng, state.noise_rng)
                    train_step(config, state, 0, [batch], feature_net, trains_texture, 1.0)

                ms = clock.ms(step) / batch_size
                with FlopCounterMode(display=False) as counter:
                    step()
                tflop = counter.get_total_flops() / batch_size / 1e12
                rows.append((f"{name}, {label}", ms, tflop, f"{100 * tflop / (ms * 1e-3) / peak_tflops:.1f} %"))
            if precision == "auto":
                rows.append(("data feed", _feed_ms(frames, augment, state, batch_size, clock), 0.0, ""))
                rows.append(("Adam and running average, R", _adam_ms(config, state, clock) / batch_size, 0.0, ""))
            del state
    return rows


def _feed_ms(frames: SubjectFrames, augment: Augment, state: TrainState, batch_size: int, clock: Clock) -> float:
    chosen = torch.arange(batch_size) % NUM_FRAMES
    return clock.ms(lambda: frames.batch(chosen, augment, state.rng, state.noise_rng)) / batch_size


def _adam_ms(config: TrainConfig, state: TrainState, clock: Clock) -> float:
    gradients = [torch.zeros_like(parameter) for parameter in state.renderer.parameters()]

    def update() -> None:
        for parameter, gradient in zip(state.renderer.parameters(), gradients, strict=True):
            parameter.grad = gradient
        state.apply_gradients(config.renderer_lr, config.texture_lr, config.exposure_lr)
        state.update_average(config.average_decay)

    return clock.ms(update)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("--tiny", action="store_true", help="small networks and pictures: does it run?")
    parser.add_argument("--size", type=int, default=1024, help="pixels of the square picture")
    parser.add_argument("--batch", type=int, default=4, help="pictures per training step")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--peak-tflops", type=float, default=790.0, help="bfloat16 matrix rate measured on this card")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    if device.type == "cpu" and not arguments.tiny:
        print("no GPU here, nothing to measure; --tiny --device cpu only shows that the script runs")
        return 0
    config, size, repeats = (TINY, 64, 2) if arguments.tiny else (ANR161, arguments.size, arguments.repeats)
    torch.backends.cudnn.benchmark = True
    clock = Clock(device, repeats)
    body = BodyModel.default()
    actor = film(body, size)
    with torch.device("meta"):
        widths = tuple(int(width) for width in config.widths.split(","))
        count = num_parameters(NeuralRenderer(config.texture_channels, config.latent_channels, widths))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    covered = len(actor.frames.pixel) / NUM_FRAMES / size**2
    print(
        f"{name}, torch {torch.__version__}, {count / 1e6:.1f} M parameters, {size} x {size}, body covers {covered:.1%}"
    )
    with tf32(False):
        checks = check(config, actor, device, size)
    table("Against the CPU path", ("what", "measured", "bound", "verdict"), checks)
    table(
        "Rendering, one picture at a time",
        ("what", "ms", "per second"),
        render_rows(config, actor, device, size, clock),
    )
    for batch_size in sorted({1, arguments.batch}):
        rows = step_rows(config, actor, device, batch_size, clock, arguments.peak_tflops)
        table(f"Training, batch {batch_size}", ("what", "ms per picture", "TFLOP per picture", "MFU"), rows)
    if device.type == "cuda":
        print(f"\npeak GPU memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    return 0 if all(verdict == "ok" for *_, verdict in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
