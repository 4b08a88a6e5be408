"""One training spread over several processes, as torchrun starts them, with the result that one process gives.

Every process takes its share of each batch. Gradients are averaged by DistributedDataParallel, and batch statistics
are those of the whole batch: with PyTorch's SyncBatchNorm on CUDA, and where that does not exist (CPU, gloo) with the
``SynchronisedBatchNorm`` below. What remains is the rounding of sums that are added in another order.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn.parallel import DistributedDataParallel

from fergi.files import FergiError


@dataclass(frozen=True)
class Process:
    """One of the processes of a training.

    Attributes
    ----------
    rank, world_size : int
        Its number, from 0, and how many there are.
    device : torch.device
        Where it computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether it is the one that reports and writes."""
        return self.rank == 0

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world_size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def all_agree(self, text: str) -> bool:
        """Whether every process has come here with the same text."""
        if self.world_size == 1:
            return True
        own = torch.tensor(list(hashlib.sha256(text.encode()).digest()), device=self.device)
        every = [torch.empty_like(own) for _ in range(self.world_size)]
        distributed.all_gather(every, own)
        return all(torch.equal(own, other) for other in every)

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.world_size > 1:
            distributed.barrier()

    def spread(self, network: nn.Module) -> nn.Module:
        """The network as it is to be trained; ``network`` itself keeps the parameters."""
        if self.world_size == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            network, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
        )


def choose_device(name: str | None) -> torch.device:
    """The device of that name; without one CUDA if it is there, else the CPU.

    Of several processes that torchrun started on a machine each gets the CUDA device of its number, going round where
    there are fewer devices; a device that is named with its number stays that one.

    Raises
    ------
    FergiError
        If there is no such device, or it is of a kind that nothing here runs on.
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


@contextmanager
def joined_process(device: torch.device, timeout: timedelta | None = None) -> Iterator[Process]:
    """The process in its group: the one that torchrun's environment variables describe, or alone.

    ``timeout`` is how long processes wait for each other, if not as long as PyTorch has them wait.

    Raises
    ------
    FergiError
        If the processes of this machine have not one CUDA device each, their own.
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


class _NormaliseOverProcesses(torch.autograd.Function):
    """Normalisation of channels by the mean and variance over all processes' pictures."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own = x.new_tensor([x.numel() // x.shape[1]])
        sums = torch.cat([x.sum((0, 2, 3)), own])
        distributed.all_reduce(sums)
        count, mean = sums[-1], sums[:-1] / sums[-1]
        centred = x - mean[:, None, None]
        variance = centred.square().sum((0, 2, 3))
        distributed.all_reduce(variance)
        variance /= count
        scale = torch.rsqrt(variance + eps)
        normalised = centred.mul_(scale[:, None, None])
        ctx.save_for_backward(normalised, weight, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return torch.addcmul(bias[:, None, None], normalised, weight[:, None, None]), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor | None) -> tuple[Tensor, Tensor, Tensor, None]:
        normalised, weight, scale, count = ctx.saved_tensors
        of_bias = gradient.sum((0, 2, 3))
        of_weight = (gradient * normalised).sum((0, 2, 3))
        means = torch.stack([of_bias, of_weight])
        distributed.all_reduce(means)
        means /= count
        of_x = gradient - means[0][:, None, None] - normalised * means[1][:, None, None]
        return of_x.mul_((weight * scale)[:, None, None]), of_weight, of_bias, None


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of the whole batch of all processes; a share may be empty.

    Works with every backend of ``torch.distributed``; entries are named as those of BatchNorm2d.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, channels, h, w) → the same."""
        if not self.training:
            return super().forward(x)
        # Half precision is too coarse for the sums.
        whole = x.to(torch.promote_types(x.dtype, self.weight.dtype))
        result, mean, variance, count = _NormaliseOverProcesses.apply(whole, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return result.to(x.dtype)


def synchronise_batch_norms(network: nn.Module, process: Process) -> nn.Module:
    """The network with every BatchNorm2d synchronised; unchanged for a single process."""
    if process.world_size == 1:
        return network
    if process.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                synchronised = SynchronisedBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
                synchronised.load_state_dict(child.state_dict())
                setattr(parent, name, synchronised)
    return network
