"""Losses of preference pairs. ``label`` is the probability that the first picture is preferred, 0.5 for a tie.

Every function takes tensors of shape (n,) and gives the loss of each pair, shape (n,).
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

LN_2 = math.log(2)


def logistic_loss(difference: Tensor, label: Tensor) -> Tensor:
    """−label · log σ(difference) − (1 − label) · log σ(−difference); a tie's is lowered by ln 2, so that its best is 0.

    PickScore's loss; ``difference`` is the first picture's score minus the second's, as logits.
    """
    loss = label * softplus(-difference) + (1 - label) * softplus(difference)
    return torch.where(label == 0.5, loss - LN_2, loss)


def triplet_loss(first: Tensor, second: Tensor, label: Tensor, margin: float) -> Tensor:
    """max(0, |a − p|² − |a − n|² + margin) with the prompt's embedding a and the preferred and the other picture's.

    Social Reward's loss. Embeddings have length 1, so |a − p|² = 2 − 2 cos(a, p), and ``first`` and ``second`` are the
    two pictures' cosines with the prompt. A tie has no preferred picture, and its loss is 0.
    """
    ahead = torch.sign(label - 0.5) * (first - second)
    return torch.where(label == 0.5, torch.zeros_like(ahead), (margin - 2 * ahead).clamp(min=0))


def anchor_loss(first: Tensor, second: Tensor, first_before: Tensor, second_before: Tensor) -> Tensor:
    """The mean over both pictures of (z − z before)², of logits: tuned scores stay near those before.

    A loss of differences leaves location and scale of the scores free, and labels that are often wrong then take the
    scorer far from what it knew.
    """
    return ((first - first_before) ** 2 + (second - second_before) ** 2) / 2
