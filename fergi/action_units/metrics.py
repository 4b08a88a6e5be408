r"""How well estimated AU intensities agree with labels: ICC(3,1), MSE, MAE, Pearson correlation.

All work down the first axis (frames) and give one value a column (AU); intensities are in units of 0–5.
A value that is not defined (no frames, or for ICC and correlation no variation) is NaN.
ICC(3,1) is Shrout and Fleiss's (1979) and was checked against the example of their Table 2 (0.71, four judges).
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

METRICS = ("ICC", "MSE", "MAE", "Pearson")


def _by_column(measure: Callable[..., float], raters: tuple[ArrayLike, ...], mask: ArrayLike | None) -> np.ndarray:
    """``measure`` of the raters' masked values, for each column."""
    arrays = [np.asarray(rater, dtype=float) for rater in raters]
    if any(array.shape != arrays[0].shape for array in arrays):
        raise ValueError(f"shapes differ: {', '.join(str(array.shape) for array in arrays)}")
    used = np.ones(arrays[0].shape, bool) if mask is None else np.asarray(mask, dtype=bool)
    if used.shape != arrays[0].shape:
        raise ValueError(f"the mask has shape {used.shape}, the values have {arrays[0].shape}")
    trailing = used.shape[1:]
    table = (len(used), int(np.prod(trailing)))
    flat, kept = [array.reshape(table) for array in arrays], used.reshape(table)
    values = [measure(*(array[rows, column] for array in flat)) for column, rows in enumerate(kept.T)]
    return np.array(values, dtype=float).reshape(trailing)


def icc31(*raters: ArrayLike, mask: ArrayLike | None = None) -> np.ndarray:
    r"""Intra-class correlation ICC(3,1): fixed raters, single ratings, consistency (Shrout and Fleiss 1979).

    .. math:: \frac{BMS - EMS}{BMS + (k - 1) EMS}

    with the mean squares between targets and of the residual of a two-way analysis of variance, and k raters.

    Parameters
    ----------
    *raters : array_like, shape (n_targets, ...)
        Two or more; for an AU model the estimates and the labels.
    mask : array_like of bool, same shape, optional
        Which targets to use.

    Returns
    -------
    ndarray, shape (...)
        At most 1; NaN with fewer than two targets or without any variation.
    """
    if len(raters) < 2:
        raise ValueError("ICC needs at least two raters")

    def measure(*columns: np.ndarray) -> float:
        ratings = np.stack(columns, axis=1)
        n, k = ratings.shape
        if n < 2:
            return np.nan
        target_means = ratings.mean(1)
        between = k * np.square(target_means - ratings.mean()).sum() / (n - 1)
        residual = ratings - target_means[:, None] - ratings.mean(0) + ratings.mean()
        error = np.square(residual).sum() / ((n - 1) * (k - 1))
        whole = between + (k - 1) * error
        return (between - error) / whole if whole > 0 else np.nan

    return _by_column(measure, raters, mask)


def mse(predicted: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None) -> np.ndarray:
    """Mean squared error, in squared intensity units."""
    return _by_column(lambda x, y: np.square(x - y).mean() if len(x) else np.nan, (predicted, labels), mask)


def mae(predicted: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None) -> np.ndarray:
    """Mean absolute error, in intensity units."""
    return _by_column(lambda x, y: np.abs(x - y).mean() if len(x) else np.nan, (predicted, labels), mask)


def pearson(predicted: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None) -> np.ndarray:
    """Pearson's correlation; NaN where one side does not vary."""

    def measure(x: np.ndarray, y: np.ndarray) -> float:
        if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
            return np.nan
        x, y = x - x.mean(), y - y.mean()
        return float((x @ y) / np.sqrt((x @ x) * (y @ y)))

    return _by_column(measure, (predicted, labels), mask)


def agreement_sums(predicted: Tensor, labels: Tensor) -> Tensor:
    """What the four metrics need of a batch, to be added up over batches and processes.

    Parameters
    ----------
    predicted, labels : Tensor, shape (n, n_units)
        Labels below 0 are left out.

    Returns
    -------
    Tensor of float64, shape (7, n_units)
        Count, Σx, Σy, Σx², Σy², Σxy, Σ|x − y|.
    """
    used = labels >= 0
    x = torch.where(used, predicted.double(), 0.0)
    y = torch.where(used, labels.double(), 0.0)
    parts = [used.double(), x, y, x * x, y * y, x * y, (x - y).abs()]
    return torch.stack([part.sum(0) for part in parts])


def agreement(sums: Tensor) -> dict[str, np.ndarray]:
    r"""The metrics of ``METRICS`` from ``agreement_sums``, each of shape (n_units,).

    With two raters ICC(3,1) is :math:`2 S_{xy} / (S_{xx} + S_{yy})`, S being centred sums. The sums are in double
    precision, enough for intensities; for numbers far from 0 that hardly vary use the functions above.
    """
    n, x, y, xx, yy, xy, absolute = sums.cpu().numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        # Rounding can leave a hair of variation where there is none.
        smallest = 1e-12 * n
        s_xx, s_yy, s_xy = xx - x * x / n, yy - y * y / n, xy - x * y / n
        varied = (n > 1) & (s_xx > smallest) & (s_yy > smallest)
        some = (n > 1) & (s_xx + s_yy > smallest)
        return {
            "ICC": np.where(some, 2 * s_xy / (s_xx + s_yy), np.nan),
            "MSE": np.where(n > 0, (xx + yy - 2 * xy) / n, np.nan),
            "MAE": np.where(n > 0, absolute / n, np.nan),
            "Pearson": np.where(varied, s_xy / np.sqrt(s_xx * s_yy), np.nan),
        }
