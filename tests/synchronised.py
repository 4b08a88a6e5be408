"""Several processes of a training on a CPU, which the script allows on CUDA only: what they share is proved with gloo.

PyTorch's SyncBatchNorm needs CUDA; the layer here takes its place.
"""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce  # a sum over processes, with its gradient

N_PROCESSES = 2


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of the whole batch of all processes; a share may be empty."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        whole = x.to(torch.promote_types(x.dtype, self.weight.dtype))  # half precision is too coarse for the sums
        count = all_reduce(whole.new_tensor(whole.numel() / whole.shape[1]))
        mean = all_reduce(whole.sum((0, 2, 3))) / count
        centred = whole - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        normalised = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        return torch.addcmul(self.bias[:, None, None], normalised, self.weight[:, None, None]).to(x.dtype)


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
    sys.stdout.flush()
    os._exit(0)  # all is done; threads of gloo that are left sometimes abort a process that ends in the usual way


def in_two_processes(work: Callable, *arguments: Any) -> None:
    """Call ``work(rank, *arguments)`` in two processes that torchrun might have started."""
    with contextlib.closing(socket.create_server(("localhost", 0))) as free:
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        _one_process, (port, work, arguments), nprocs=N_PROCESSES, start_method="spawn"
    )
