"""Training on several devices of one machine: Lightning's DDP over processes that encode a share of every batch.

All ranks build the same batch. Each encodes its share of the distinct texts, the vectors are gathered with their
gradient, and every rank computes the loss of the whole batch: in-batch negatives come from all of it, no text is
encoded twice, and, dropout aside (each rank draws its own), gradients equal those of one process up to rounding.

The process that calls `fit` is rank 0 and keeps callbacks, metrics and the model; the others live as long as its call.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch import distributed as dist

from estudio_core.errors import ConfigurationError, ModelError

_END_GRACE_S = 30
"""Seconds that ranks have to leave after the last step, before they are ended."""
_READY_POLL_S = 1.0

Main = Callable[[Any, int, Callable[[], None]], None]
"""What a rank runs: the job, its rank, and the function with which it joins the others."""


class Ranks:
    """The other ranks of a training, from the view of rank 0."""

    def __init__(self, folder: Path, world_size: int) -> None:
        self._folder = folder
        self._world_size = world_size
        self._processes: list[Any] = []
        self._ready: list[Connection] = []

    def start(self, main: Main, job: Any) -> None:
        """Start the processes; a fresh interpreter each, because a forked one cannot use CUDA."""
        context = multiprocessing.get_context("spawn")
        # As bytes: torch would hand parameters over in shared memory, and every rank would write into the same ones.
        packed = _packed(job) if self._world_size > 1 else b""
        for rank in range(1, self._world_size):
            receiving, sending = context.Pipe(duplex=False)
            process = context.Process(
                target=_run, args=(main, packed, rank, self._world_size, str(self._folder), sending), daemon=True
            )
            process.start()
            sending.close()
            self._processes.append(process)
            self._ready.append(receiving)

    def join(self) -> None:
        """Wait until all ranks are ready, then form the group with them.

        Raises:
            ModelError: a rank ended before.
        """
        waiting = list(self._ready)
        while waiting:
            for connection in wait(waiting, timeout=_READY_POLL_S):
                assert isinstance(connection, Connection)
                try:
                    failure = connection.recv()
                except EOFError:
                    failure = "it ended without a message; often it was killed for want of memory"
                if failure is not None:
                    raise ModelError(f"A training process of {self._world_size} did not start: {failure}")
                waiting.remove(connection)
        if self._processes:
            _form_group(self._folder, 0, self._world_size)

    def end(self, *, at_once: bool) -> None:
        """Leave the group and end the processes."""
        if self._processes and dist.is_initialized():
            dist.destroy_process_group()
        deadline = time.monotonic() + (0 if at_once else _END_GRACE_S)
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.terminate()
                process.join()


def _packed(job: Any) -> bytes:
    """Return `job` as bytes, with the code of what a new process could not import, such as a plugin's own loss."""
    import cloudpickle  # type: ignore[import-untyped]

    foreign = {type(part).__module__ for part in vars(job).values()} if hasattr(job, "__dict__") else set()
    modules = [sys.modules[name] for name in foreign if name in sys.modules and not _can_be_imported(name)]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        packed: bytes = cloudpickle.dumps(job)
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
    return packed


def _can_be_imported(name: str) -> bool:
    try:
        return PathFinder.find_spec(name.partition(".")[0]) is not None or name in sys.builtin_module_names
    except (ImportError, ValueError):
        return False


@contextmanager
def several_ranks(world_size: int, main: Main, job: Any) -> Iterator[Ranks]:
    """Run ranks 1 to `world_size` - 1 beside the block, which is rank 0 and has to `join` them.

    Args:
        world_size: Number of processes; with 1, nothing is started.
        main: Runs in each of the others; a function of a module.
        job: What it gets; pickled.
    """
    with tempfile.TemporaryDirectory(prefix="estudio-ranks-") as folder:
        ranks = Ranks(Path(folder), world_size)
        failed = True
        try:
            ranks.start(main, job)
            yield ranks
            failed = False
        finally:
            ranks.end(at_once=failed)


def _run(main: Main, packed: bytes, rank: int, world_size: int, folder: str, ready: Connection) -> None:
    """Run a rank in its process, which ends with its parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

    def join() -> None:
        ready.send(None)
        _form_group(Path(folder), rank, world_size)

    try:
        main(pickle.loads(packed), rank, join)  # noqa: S301 (what rank 0 packed a moment ago)
    except Exception as error:
        if not dist.is_initialized():
            ready.send(f"{type(error).__name__}: {error}")
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _form_group(folder: Path, rank: int, world_size: int) -> None:
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, init_method=f"file://{folder}/group", rank=rank, world_size=world_size)


class _Environment(ClusterEnvironment):
    """Tells Lightning that the processes are there, and which one this is."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__()
        self._rank = rank
        self._world_size = world_size

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return 0  # not used: the group is formed through a file

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._world_size

    def set_world_size(self, size: int) -> None:
        """Keep what is known already."""

    def global_rank(self) -> int:
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """Keep what is known already."""

    def local_rank(self) -> int:
        return self._rank

    def node_rank(self) -> int:
        return 0


def strategy_of(rank: int, world_size: int) -> DDPStrategy | str:
    """Return Lightning's strategy of a rank; `auto` for one process."""
    if world_size == 1:
        return "auto"
    return DDPStrategy(cluster_environment=_Environment(rank, world_size))


def device_of(rank: int, world_size: int) -> torch.device:
    """Return the device of a rank.

    Raises:
        ConfigurationError: there are GPUs, and fewer than ranks.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if world_size > torch.cuda.device_count():
        raise ConfigurationError(
            f"devices is {world_size}, and this machine has {torch.cuda.device_count()} GPUs. Ask for fewer."
        )
    return torch.device("cuda", rank)


def my_share(order: list[int]) -> list[int]:
    """Return those of `order` that this rank encodes: every n-th, so that ranks get texts of like length."""
    if not dist.is_initialized():
        return order
    # With fewer texts than ranks, all take part all the same: DDP waits for a gradient of each.
    return order[dist.get_rank() :: dist.get_world_size()] or order[:1]


def gathered(mine: Tensor, count: int) -> Tensor:
    """Return the vectors of all ranks, [count, dim], in the order of which `my_share` took every n-th.

    Args:
        mine: Vectors of this rank's share.
        count: Number of vectors of all shares.
    """
    if not dist.is_initialized():
        return mine
    result: Tensor = _Gathered.apply(mine, count)  # type: ignore[no-untyped-call]  # torch has no type here
    return result


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor, count: int) -> Tensor:
        world = dist.get_world_size()
        padded = mine.new_zeros(-(-count // world), mine.shape[1])
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(parts, padded)
        result = mine.new_empty(count, mine.shape[1])
        for rank, part in enumerate(parts):
            share = result[rank::world]
            share.copy_(part[: len(share)])
        ctx.shape = mine.shape
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        world = dist.get_world_size()
        share = gradient[dist.get_rank() :: world]
        # Every rank has the whole loss; DDP then takes the mean of what is a sum over ranks.
        return (share * world if len(share) else gradient.new_zeros(ctx.shape)), None
