"""Several processes, one training: what ``torchrun --nproc-per-node N pipeline.py ...`` starts.

Rank 0, the lead, runs the command line, holds the locks and writes every file.  The others follow: they wait until the
lead trains, do their part of every batch, and wait again.  A process that torchrun did not start is a lead without
followers, and all of this costs it nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from capture.errors import UserError

R = TypeVar("R")
# Followers wait while the lead matts and fits, which takes hours of a long recording.
PATIENCE = timedelta(days=7)
_at_work = False


def join() -> None:
    """Meet the other ranks.  With GPUs every rank takes the one of its number."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_lead() -> bool:
    return rank() == 0


def everywhere(work: Callable[..., R], *arguments: Any) -> R:
    """``work(*arguments)``, at the same time on every follower; called by the lead."""
    global _at_work
    _announce((work, arguments))
    _at_work = True
    try:
        result = work(*arguments)
    except UserError:  # all ranks meet it at the same point
        _at_work = False
        raise
    _at_work = False
    return result


def is_training() -> bool:
    """Whether followers are still at the work that the lead gave up."""
    return _at_work


def dismiss() -> None:
    """The lead has nothing more to train: followers end."""
    _announce(None)
    _leave()


def follow() -> None:
    """What a follower does with its life."""
    join()
    while (job := _hear()) is not None:
        work, arguments = job
        try:
            work(*arguments)
        except UserError:  # the lead meets the same one, and says it
            continue
    _leave()


def _leave() -> None:
    # Together: gloo's threads abort a process whose peer is gone while they still listen to it.
    dist.barrier()
    dist.destroy_process_group()


def sum_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Every tensor becomes the sum of its copies on all ranks, the same bytes everywhere; one message for all."""
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    start = 0
    for tensor in tensors:
        part = flat[start : start + tensor.numel()]
        tensor.copy_(part.view(tensor.shape))
        start += tensor.numel()


def mean_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Every tensor becomes the mean of its copies on all ranks."""
    sum_over_ranks(tensors)
    if world_size() > 1:
        for tensor in tensors:
            tensor.div_(world_size())


def as_lead_says(value: float) -> float:
    """The lead's value, on every rank: what decides about the course of training must not differ by a rounding."""
    if world_size() == 1:
        return value
    said = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(said, 0)
    return float(said)


def _announce(job: tuple[Callable[..., Any], tuple[Any, ...]] | None) -> None:
    if world_size() > 1:
        dist.broadcast_object_list([job], 0, device=torch.device("cpu"))


def _hear() -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    heard: list[Any] = [None]
    dist.broadcast_object_list(heard, 0, device=torch.device("cpu"))
    return heard[0]
