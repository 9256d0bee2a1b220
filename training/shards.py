"""Pieces of a batch on cores of their own.

PyTorch shares every single operation among its threads, and waits for the slowest of them a thousand times a step; with
a busy neighbour two threads are then slower than one.  Here each piece of a batch runs forward and backward on one
thread, and the pieces meet once a step.  Sums are taken in the order of the pieces, so the result is the same bytes on
any number of cores.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import nn

from rendering.networks import Renderer

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Shards:
    """``count`` views of one renderer: shared weights, separate running statistics."""

    def __init__(self, renderer: Renderer, count: int) -> None:
        self.renderer = renderer
        self.views = [renderer] if count == 1 else [_view(renderer) for _ in range(count)]
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self.views)

    def map(self, work: Callable[[Renderer, Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
        """``work`` on every piece, each with a view of its own; afterwards the views agree again."""
        assert len(pieces) <= len(self.views)
        if len(self.views) == 1:
            return [work(self.renderer, piece) for piece in pieces]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(len(self.views), initializer=torch.set_num_threads, initargs=(1,))
        views = self.views[: len(pieces)]
        self.spread()
        results = list(self._pool.map(work, views, pieces))
        self._gather(views)
        return results

    @torch.no_grad()
    def spread(self) -> None:
        """Give every view the renderer's running statistics."""
        for view in self.views:
            for mine, common in zip(view.buffers(), self.renderer.buffers(), strict=True):
                mine.copy_(common)

    @torch.no_grad()
    def _gather(self, views: list[Renderer]) -> None:
        """The renderer's running statistics become the mean of the views'."""
        for common, *mine in zip(self.renderer.buffers(), *(view.buffers() for view in views), strict=True):
            common.copy_(torch.stack(mine).mean(dim=0) if common.is_floating_point() else mine[0])


def _view(renderer: Renderer) -> Renderer:
    """A copy with the very same parameters."""
    view = copy.deepcopy(renderer)
    for mine, common in zip(view.modules(), renderer.modules(), strict=True):
        for name, parameter in common.named_parameters(recurse=False):
            assert isinstance(parameter, nn.Parameter)
            mine.register_parameter(name, parameter)
    return view
