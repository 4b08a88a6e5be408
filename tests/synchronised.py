"""Several processes of a training on a CPU, which the script allows on CUDA only: what they share is proved with gloo.

PyTorch's SyncBatchNorm needs CUDA; the layer here takes its place.
"""

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

N_PROCESSES = 2


class _NormaliseOverProcesses(torch.autograd.Function):
    """Normalisation of channels by the mean and variance over the pictures of all processes."""

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
    """BatchNorm2d whose statistics in training are those of the whole batch of all processes; a share may be empty."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        whole = x.to(torch.promote_types(x.dtype, self.weight.dtype))  # half precision is too coarse for the sums
        result, mean, variance, count = _NormaliseOverProcesses.apply(whole, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return result.to(x.dtype)


def convert(network: nn.Module) -> nn.Module:
    """In place of ``SyncBatchNorm.convert_sync_batchnorm``: every BatchNorm2d of the network becomes one of these."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronisedBatchNorm
    return network


def _one_process(rank: int, port: int, work: Callable, arguments: tuple) -> None:
    signal.alarm(150)  # rather than wait for the others for ever
    torch.set_num_threads(1)
    more = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": N_PROCESSES, "LOCAL_WORLD_SIZE": N_PROCESSES}
    os.environ |= {name: str(value) for name, value in (more | {"MASTER_PORT": port}).items()}
    os.environ["MASTER_ADDR"] = "localhost"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.SyncBatchNorm, "convert_sync_batchnorm", convert)
        work(rank, *arguments)


def in_two_processes(work: Callable, *arguments: Any) -> None:
    """Call ``work(rank, *arguments)`` in two processes that torchrun might have started."""
    with contextlib.closing(socket.create_server(("localhost", 0))) as free:
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        _one_process, (port, work, arguments), nprocs=N_PROCESSES, start_method="spawn"
    )
