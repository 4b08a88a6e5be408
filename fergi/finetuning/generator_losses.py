"""Losses of preferences for diffusion models.

An error e is the squared error of the network's prediction of the noise, averaged over channels, height and width;
``reference`` is the same error of the network as it was before, for the same picture, noise and timestep. Every
function takes tensors of shape (n,) and gives one value for each pair or picture, shape (n,).
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

BEST_REWARD = 2.0  # of ReFL: a reward above it has no more effect
REFL_SCALE = 1e-3


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """The error e of each picture, float64; shapes (n, channels, height, width)."""
    return ((prediction.float() - target.float()) ** 2).mean(dim=(1, 2, 3), dtype=torch.float64)


def dpo_margin(first: Tensor, second: Tensor, first_reference: Tensor, second_reference: Tensor, beta: float) -> Tensor:
    """−½ · β · [(e₁ − e₂) − (e₁ − e₂ of the reference)]: the logit with which the network prefers the first picture.

    Diffusion-DPO's (the factor ½ is in its code; diffusers' script has half of its β in place of it). The four errors
    are of the same noise and timestep.
    """
    return -0.5 * beta * ((first - second) - (first_reference - second_reference))


def dpo_loss(margin: Tensor, label: Tensor) -> Tensor:
    """−label · log σ(margin) − (1 − label) · log σ(−margin).

    ``label`` is the probability that the first picture is preferred. A tie (0.5) keeps the margin at 0. Before the
    first step every margin is 0, and every loss ln 2.
    """
    return label * softplus(-margin) + (1 - label) * softplus(margin)


def kto_divergence(gain: Tensor) -> Tensor:
    """The estimate of the divergence from the reference: the mean gain of a batch, at least 0; a constant."""
    return gain.detach().mean().clamp(min=0)


def kto_loss(gain: Tensor, liked: Tensor, divergence: Tensor, beta: float) -> Tensor:
    """1 − σ(±β · (gain − divergence)), with + for liked pictures and − for others.

    Diffusion-KTO's, of single pictures; ``gain`` is e of the reference minus e.
    """
    sign = torch.where(liked, 1.0, -1.0).to(gain.dtype)
    return torch.sigmoid(-sign * beta * (gain - divergence))


def refl_loss(reward: Tensor) -> Tensor:
    """0.001 · max(0, 2 − reward): ReFL's, of standardised rewards."""
    return REFL_SCALE * (BEST_REWARD - reward).clamp(min=0)
