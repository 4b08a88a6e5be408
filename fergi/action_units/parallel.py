"""One training spread over several processes, as torchrun starts them, with the result that one process gives.

Every process takes its share of each batch. Gradients are averaged by DistributedDataParallel, and batch statistics
are those of the whole batch: with PyTorch's SyncBatchNorm on CUDA, and where that does not exist (CPU, gloo) with the
``SynchronisedBatchNorm`` below. What remains is the rounding of sums that are added in another order.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from fergi.processes import Process


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
