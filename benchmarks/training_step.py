"""What a training step costs on this CPU, per preset-sized network, and what sampling only covered pixels saves.

    python benchmarks/training_step.py [--repeats 5]

Prints two tables: CPU milliseconds of R and T steps (batch 4, 256 x 160, all losses of the demo preset), and texture
sampling against a dense ``grid_sample``, forward and backward.  CPU time, best of ``--repeats``, so that a busy
neighbour does not count.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from fitting.body.model import BodyModel
from rendering.avatar import Shape
from rendering.networks import NeuralTexture, compute_dtype, num_parameters, on_device
from training.dataset import NUM_PLANES, Augment, SubjectFrames
from training.features import load_features
from training.step import train_step
from training.train import Actor, TrainConfig, new_state

CPU = torch.device("cpu")
HEIGHT, WIDTH, BATCH = 256, 160, 4
COVERED = 0.25  # of a person crop
SETTINGS = ("8,16,32,64", "16,32,64,96", TrainConfig().widths, "24,48,96,192,256")


def random_subject() -> Actor:
    """Random pictures on random covered pixels: speed does not depend on what is shown."""
    rng = np.random.default_rng(0)
    count = int(COVERED * HEIGHT * WIDTH)
    pixel = np.concatenate([np.sort(rng.permutation(HEIGHT * WIDTH)[:count]) for _ in range(BATCH)])
    frames = SubjectFrames(
        name="random",
        frame_indices=np.arange(BATCH),
        planes=torch.from_numpy(rng.integers(0, 255, (BATCH, NUM_PLANES, HEIGHT, WIDTH), np.uint8)),
        starts=np.arange(BATCH + 1) * count,
        pixel=torch.from_numpy(pixel.astype(np.int32)),
        uv_i16=torch.from_numpy(rng.integers(-32768, 32767, (BATCH * count, 2), np.int16)),
        normal_i8=torch.from_numpy(rng.integers(-127, 127, (BATCH * count, 3), np.int8)),
    )
    body = BodyModel.default()
    return Actor(frames, np.arange(BATCH), np.arange(BATCH), Shape(body, np.zeros(body.num_shape, np.float32), None))


def cpu_ms(call: Callable[[], object], repeats: int) -> float:
    """Best CPU milliseconds, all threads together."""
    call()
    times = []
    for _ in range(repeats):
        started_s = time.process_time()
        call()
        times.append(time.process_time() - started_s)
    return min(times) * 1e3


def step_table(repeats: int) -> None:
    print("| widths | parameters | precision | R step, CPU ms | T step, CPU ms |\n|---|---|---|---|---|")
    actor = random_subject()
    for widths in SETTINGS:
        for precision in ("auto", "fp32") if compute_dtype(CPU) != torch.float32 else ("fp32",):
            config = replace(TrainConfig(), widths=widths, precision=precision, warm_start=False, discriminator_every=1)
            state = new_state(config, [actor], CPU)
            features = on_device(load_features(config.feature_width, config.feature_blocks, 0)[0], CPU)
            augment = Augment(config.rescale_min, config.rescale_max, config.shift, config.grid_noise)

            def step(trains_texture: bool, config=config, state=state, features=features, augment=augment) -> None:
                parts = torch.arange(BATCH).chunk(len(state.shards))
                pieces = [actor.frames.batch(part, augment, state.rng, state.noise_rng) for part in parts]
                train_step(replace(config, split=True), state, 0, pieces, features, trains_texture, 1.0)

            costs = [cpu_ms(partial(step, trains_texture), repeats) for trains_texture in (False, True)]
            count = num_parameters(state.renderer) / 1e6
            print(
                f"| {widths} | {count:.2f} M | {str(state.dtype)[6:]} | {costs[0]:.0f} | {costs[1]:.0f} |", flush=True
            )


def sampling_table(repeats: int) -> None:
    count = int(COVERED * BATCH * HEIGHT * WIDTH)
    texture = NeuralTexture(NeuralTexture.shared_initial(256, 8, 0))
    uv = torch.rand(count, 2)
    grid = torch.rand(BATCH, HEIGHT, WIDTH, 2) * 2 - 1
    dense = texture.texels.detach().permute(2, 0, 1)[None].contiguous().requires_grad_()

    def sparse() -> None:
        texture.sample(uv).sum().backward()

    def whole() -> None:
        F.grid_sample(
            dense.expand(BATCH, -1, -1, -1), grid, padding_mode="border", align_corners=False
        ).sum().backward()

    sparse_ms, whole_ms = cpu_ms(sparse, repeats), cpu_ms(whole, repeats)
    print("\n| texture sampling, forward and backward | CPU ms |\n|---|---|")
    print(f"| dense grid_sample | {whole_ms:.1f} |\n| covered pixels only ({COVERED:.0%}) | {sparse_ms:.1f} |")
    print(f"| ratio | {whole_ms / sparse_ms:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as in training: the shards are the parallelism
    print(f"{TrainConfig().shards} shards of one thread, batch {BATCH}, {HEIGHT} x {WIDTH}\n")
    torch.manual_seed(0)
    step_table(arguments.repeats)
    sampling_table(arguments.repeats)


if __name__ == "__main__":
    main()
