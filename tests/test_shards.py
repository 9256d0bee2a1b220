"""Pieces of a batch on cores of their own compute what one piece after the other computes."""

from __future__ import annotations

import torch

from rendering.networks import NeuralRenderer
from training.shards import Shards


def renderer() -> NeuralRenderer:
    torch.manual_seed(0)
    return NeuralRenderer(8, 16, (8, 16, 16))


def pieces(count: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return [torch.rand(2, 8, 32, 24, generator=rng) + index for index in range(count)]


def paint(view: NeuralRenderer, piece: torch.Tensor) -> torch.Tensor:
    return view(piece, piece[:, :3]).image


def test_views_share_weights_and_nothing_else():
    shards = Shards(renderer(), 3)
    for view in shards.views:
        for mine, common in zip(view.parameters(), shards.renderer.parameters(), strict=True):
            assert mine is common
        for mine, common in zip(view.buffers(), shards.renderer.buffers(), strict=True):
            assert mine.data_ptr() != common.data_ptr()


def test_every_piece_is_painted_as_if_it_were_alone():
    shards = Shards(renderer(), 3)
    painted = shards.map(paint, pieces(3))
    for image, piece in zip(painted, pieces(3), strict=True):
        torch.testing.assert_close(image, paint(renderer(), piece))


def test_running_statistics_are_the_mean_of_what_the_pieces_saw():
    shards = Shards(renderer(), 2)
    shards.map(paint, pieces(2))
    alone = [renderer() for _ in range(2)]
    for view, piece in zip(alone, pieces(2), strict=True):
        paint(view, piece)
    for common, *mine in zip(shards.renderer.buffers(), *(view.buffers() for view in alone), strict=True):
        if common.is_floating_point():
            torch.testing.assert_close(common, torch.stack(mine).mean(0))


def test_fewer_pieces_than_shards_is_fine_and_one_shard_is_the_renderer_itself():
    assert len(Shards(renderer(), 3).map(paint, pieces(1))) == 1
    single = Shards(renderer(), 1)
    assert single.views[0] is single.renderer


def test_repeating_gives_the_same_bytes():
    runs = [torch.stack(Shards(renderer(), 2).map(paint, pieces(2))) for _ in range(5)]
    assert all(torch.equal(runs[0], run) for run in runs[1:])
