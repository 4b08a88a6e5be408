"""Devices, the processes of torch.distributed, and worker processes: one way each."""

import contextlib
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import cv2
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from fergi.files import FergiError
from fergi.script import out_of_reach

PREFETCHED = 6  # items that a worker has ready, or under way, before they are asked for


@dataclass(frozen=True)
class Process:
    """One of the processes of a training."""

    rank: int  # from 0
    world_size: int  # how many processes there are
    device: torch.device  # where it computes

    @property
    def leads(self) -> bool:
        """Whether it is rank 0, which reports and writes."""
        return self.rank == 0

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world_size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def all_agree(self, text: str) -> bool:
        """Whether every process passes the same text."""
        if self.world_size == 1:
            return True
        own = torch.tensor(list(hashlib.sha256(text.encode()).digest()), device=self.device)
        every = [torch.empty_like(own) for _ in range(self.world_size)]
        distributed.all_gather(every, own)
        return all(torch.equal(own, other) for other in every)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world_size > 1:
            distributed.barrier()

    def spread(self, network: nn.Module) -> nn.Module:
        """The network in DDP, if there are several processes; ``network`` itself keeps the parameters."""
        if self.world_size == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            network, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
        )


def choose_device(name: str | None) -> torch.device:
    """The device of that name; without a name CUDA if it is there, else the CPU.

    Each process that torchrun started gets the CUDA device of its local rank, modulo the number of devices, unless the
    name has a number.

    Raises
    ------
    FergiError
        If there is no such device, or it is neither a CPU nor CUDA.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise FergiError(f"There is no device {name!r}. Choose cpu or cuda.") from error
    if device.type not in ("cpu", "cuda"):
        raise FergiError(f"The device {name!r} is not supported. Choose cpu or cuda.")
    n_devices = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= n_devices:
        raise FergiError(f"There is no device {name!r}: {n_devices} CUDA devices found. Choose cpu.")
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % n_devices)
    return device


@contextlib.contextmanager
def joined_process(device: torch.device, timeout: timedelta | None = None) -> Iterator[Process]:
    """Join the group that torchrun's environment variables describe, or be alone.

    ``timeout`` is how long processes wait for each other; the default is PyTorch's.

    Raises
    ------
    FergiError
        If the processes of this machine do not have one CUDA device each.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Process(0, 1, device)
        return
    on_cuda = device.type == "cuda"
    if on_cuda:
        n_processes, n_devices = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if n_processes > n_devices:
            raise FergiError(
                f"{n_processes} processes were started on this machine, which has {n_devices} CUDA devices. "
                f"Start {n_devices} with torchrun --nproc-per-node {n_devices}, or pass --device cpu."
            )
        if device.index not in (None, int(os.environ["LOCAL_RANK"])):
            raise FergiError(
                f"{n_processes} processes cannot share {device}. Pass --device cuda, which gives each its own, or "
                "start the script without torchrun."
            )
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    backend, own_device = ("nccl", device) if on_cuda else ("gloo", None)
    distributed.init_process_group(backend, device_id=own_device, timeout=timeout)
    yield Process(distributed.get_rank(), world_size, device)
    # Only after success: with NCCL a process that failed would wait here for others that wait for it.
    distributed.destroy_process_group()


@dataclass(eq=False)
class WorkerDied(Exception):
    """A worker process has ended before its work."""

    pid: int
    exit_code: int


@contextlib.contextmanager
def items_from_workers(dataset: Dataset, workers: int) -> Iterator[Iterator[Any]]:
    """The items of a data set, as worker processes of a DataLoader finish them; the workers end with the block.

    Each item arrives unchanged and unbatched. With ``workers=0`` this process makes the items itself.

    Raises
    ------
    WorkerDied
        If a worker dies. An exception of a data set is raised in this process instead.
    """
    others = set(multiprocessing.active_children())
    loader = DataLoader(
        dataset,
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=workers,
        worker_init_fn=start_worker,
        multiprocessing_context="forkserver" if workers else None,
        prefetch_factor=PREFETCHED if workers else None,
        in_order=False,
    )
    items, started = None, set()
    try:
        with out_of_reach():
            items = iter(loader)
            started = set(multiprocessing.active_children()) - others
        yield items
    except RuntimeError as error:
        for worker in started:
            worker.join(0.1)  # until its exit code is there
        died = next((worker for worker in started if worker.exitcode), None)
        if died is None:
            raise
        raise WorkerDied(died.pid, died.exitcode) from error
    finally:
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's would raise an exception for each worker
        for process in set(multiprocessing.active_children()) - others:  # an item may take minutes
            process.terminate()
        if started:
            items._shutdown_workers()  # what its destructor does, which exceptions can delay
        signal.signal(signal.SIGCHLD, handler)


def _unchanged(item: Any) -> Any:
    """In place of DataLoader's own conversion, which puts every array into shared memory."""
    return item


def start_worker(number: int) -> None:
    """A DataLoader's ``worker_init_fn``: no threads (PyTorch's are off already), and an end when the parent is gone."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    cv2.setNumThreads(0)  # none; 1 would wait for threads of the parent, which a fork does not copy
