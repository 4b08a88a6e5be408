r"""How well estimated AU intensities agree with labels: ICC(3,1), MSE, MAE; one value an AU.

Intensities are in units of 0–5. A value that is not defined (no frames, or for ICC no variation) is NaN.
ICC(3,1) is that of Shrout and Fleiss (1979): fixed raters, single ratings, consistency, here with two raters.
"""

import numpy as np
import torch
from torch import Tensor

METRICS = ("ICC", "MSE", "MAE")
N_SUMS = 7


def agreement_sums(predicted: Tensor, labels: Tensor) -> Tensor:
    """What the metrics need of a batch, to be added up over batches and processes.

    Parameters
    ----------
    predicted, labels : Tensor, shape (n, n_units)
        Frames with a label below 0 do not count.

    Returns
    -------
    Tensor of float64, shape (7, n_units)
        Count, Σx, Σy, Σx², Σy², Σxy, Σ|x − y|.
    """
    used = labels >= 0
    x = torch.where(used, predicted.double(), 0.0)
    y = torch.where(used, labels.double(), 0.0)
    return torch.stack([part.sum(0) for part in (used.double(), x, y, x * x, y * y, x * y, (x - y).abs())])


def agreement(sums: Tensor) -> dict[str, np.ndarray]:
    r"""The metrics of ``METRICS`` from ``agreement_sums``, each of shape (n_units,).

    With two raters ICC(3,1) is :math:`2 S_{xy} / (S_{xx} + S_{yy})`, S being centred sums. The sums are in double
    precision, enough for intensities, but not for numbers far from 0 that hardly vary.
    """
    n, x, y, xx, yy, xy, absolute = sums.cpu().numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        s_xx, s_yy, s_xy = xx - x * x / n, yy - y * y / n, xy - x * y / n
        varied = (n > 1) & (s_xx + s_yy > 1e-12 * n)  # rounding can leave a hair of variation where there is none
        return {
            "ICC": np.where(varied, 2 * s_xy / (s_xx + s_yy), np.nan),
            "MSE": np.where(n > 0, (xx + yy - 2 * xy) / n, np.nan),
            "MAE": np.where(n > 0, absolute / n, np.nan),
        }
