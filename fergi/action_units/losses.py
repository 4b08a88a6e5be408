r"""The training loss: squared error, cosine, and cross-entropy of thresholds (Appendix B.3, eqs. 11–17).

Labels are integers 0–5, shape (n, 64), column AU − 1; −1 is no label, and takes no part in anything.
Sums run over AUs, the mean over the frames of a batch, labelled or not.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fergi.action_units.network import N_ACTION_UNITS, N_THRESHOLDS, threshold_logits

N_INTENSITIES = N_THRESHOLDS + 1
LOSS_NAMES = ("mse", "cosine", "cross_entropy")


class LossWeights(NamedTuple):
    """Weights by the frequency of labels.

    Attributes
    ----------
    mse : Tensor, shape (64, 6)
        :math:`w_{i,j}` of eq. 16 for AU i and intensity j.
    cross_entropy : Tensor, shape (64, 5, 2)
        :math:`w_{i,j,0}` and :math:`w_{i,j,1}` of eq. 17 for AU i and threshold j.
    """

    mse: Tensor
    cross_entropy: Tensor


def intensity_counts(labels: Tensor) -> Tensor:
    """How often each AU has each intensity, :math:`n_{i,j}`, shape (64, 6), int64."""
    return torch.stack([(labels == intensity).sum(0) for intensity in range(N_INTENSITIES)], dim=1)


def threshold_counts(counts: Tensor) -> Tensor:
    """How many labels lie below each threshold, and how many reach it, shape (64, 5, 2)."""
    up_to = counts.cumsum(1)
    below = up_to[:, :-1]
    return torch.stack([below, up_to[:, -1:] - below], dim=2)


def _ratio(parts: Tensor | float, whole: Tensor) -> Tensor:
    """Parts by the whole, in float64; 0 where the whole is 0: a group that does not occur, or an AU without a label."""
    return torch.where(whole > 0, parts / torch.where(whole > 0, whole, 1).double(), 0.0)


def mse_weights(counts: Tensor, mode: str) -> Tensor:
    r"""Weights of the squared error by intensity (eq. 16), shape (64, 6), float32.

    The intensities {0, 1} share one weight and {2, 3, 4, 5} another, by the inverse frequency of these two groups.

    Parameters
    ----------
    counts : Tensor, shape (64, 6)
        :math:`n_{i,j}`.
    mode : {"paper", "released"}
        "paper": as printed. "released": without the factors 2 and 4 in the numerators; they stay in the denominator.
    """
    if mode not in ("paper", "released"):
        raise ValueError(f"mode must be 'paper' or 'released', not {mode!r}")
    low, high = _ratio(1.0, counts[:, :2].sum(1)), _ratio(1.0, counts[:, 2:].sum(1))
    whole = 2 * low + 4 * high
    if mode == "paper":
        low, high = 2 * low, 4 * high
    weights = torch.stack([low, low, high, high, high, high], dim=1)
    return _ratio(weights, whole[:, None]).to(torch.float32)


def cross_entropy_weights(counts: Tensor) -> Tensor:
    r"""Weights of the cross-entropy by threshold and side (eq. 17), shape (64, 5, 2), float32.

    By the inverse frequency of each side of each threshold; an AU's ten weights add up to 1.
    """
    inverse = _ratio(1.0, threshold_counts(counts))
    return _ratio(inverse, inverse.sum((1, 2), keepdim=True)).to(torch.float32)


def loss_weights(labels: Tensor, mode: str) -> LossWeights:
    """The weights of both losses from the labels of the training frames, shape (n, 64)."""
    counts = intensity_counts(labels)
    return LossWeights(mse_weights(counts, mode), cross_entropy_weights(counts))


def loss_parts(outputs: Tensor, labels: Tensor, weights: LossWeights) -> Tensor:
    r"""The three losses of each frame (eqs. 12–15), shape (n, 3): squared error, cosine, cross-entropy.

    .. math:: E_{reg,cos} = 1 - \frac{\sum_i y_i \hat y_i}{\sqrt{\sum_i y_i^2} \sqrt{\sum_i \hat y_i^2}}

    The paper prints eq. 13 without the roots; with them it is the cosine that it is called. A frame whose labels
    are all 0 has cosine loss 1 and no gradient from it.

    Parameters
    ----------
    outputs : Tensor, shape (n, 384)
        Of the network.
    labels : Tensor, shape (n, 64)
        −1 or 0–5.
    weights : LossWeights
        From the training frames.
    """
    labelled = labels >= 0
    truth = torch.where(labelled, labels, 0)
    predicted = torch.where(labelled, outputs[:, :N_ACTION_UNITS], 0.0)
    actual = truth.to(outputs.dtype)

    chosen = weights.mse.expand(len(labels), -1, -1).gather(2, truth.long()[:, :, None])[:, :, 0]
    squared = (torch.where(labelled, chosen, 0.0) * (actual - predicted).square()).sum(1)

    cosine = 1 - functional.cosine_similarity(actual, predicted, dim=1)

    thresholds = torch.arange(1, N_THRESHOLDS + 1, device=labels.device)
    reached = truth[:, :, None] >= thresholds
    chosen = torch.where(reached, weights.cross_entropy[:, :, 1], weights.cross_entropy[:, :, 0])
    entropy = functional.binary_cross_entropy_with_logits(
        threshold_logits(outputs), reached.to(outputs.dtype), reduction="none"
    )
    crossed = (torch.where(labelled[:, :, None], chosen, 0.0) * entropy).sum((1, 2))
    return torch.stack([squared, cosine, crossed], dim=1)
