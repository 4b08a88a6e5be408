"""Who trains in a fold of the search, and how to count (Section 6.2.3).

A fold holds out one participant. It takes the parameters that do best on all others, and counts on the pairs of the
one held out. Nothing is computed again for each fold: each participant's counts are found once at every point of a
grid, and the training counts of a fold are their sum minus the counts of the participant held out.

In all functions ``held_out`` is the place of that participant in the ascending list of names. None means that nobody
is held out: everybody trains, and the parameters are for new people.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from fergi.preference.model import ValenceModel


def training_masks(folds: Sequence[int | None], n_participants: int) -> np.ndarray:
    """Who trains in each fold, bool, shape (n_folds, n_participants)."""
    return np.array([[held_out != number for number in range(n_participants)] for held_out in folds])


def first_best(value: np.ndarray, held_out: int | None) -> int:
    """The first point with the highest sum of ``value`` (n_participants, n_points) over those who train."""
    total = value.sum(axis=0)
    return int(np.argmax(total if held_out is None else total - value[held_out]))


def carried(owner: np.ndarray, held_out: int | None, *, strict: bool) -> np.ndarray:
    """The fold whose parameters each image carries where eq. 10 is fitted, shape (n_images,).

    In a strict fold that is the fold itself. Otherwise each training participant carries the parameters of the fold
    that holds them out, which saw the participant held out here; the release does so. Where everybody trains, the
    only fold is 0.
    """
    return np.full(len(owner), held_out or 0) if strict or held_out is None else owner


def mean_and_deviation(scores: pd.DataFrame, owner: np.ndarray, held_out: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n − 1) of scores over the training images, for z-scores (Section 6.2.3).

    ``scores`` has one row an image and one column a scorer, ``owner`` says whose image it is; both results have shape
    (n_scorers,).

    Raises
    ------
    ValueError
        If a score does not vary over the training images; it is named.
    """
    values = scores.to_numpy(float)[owner != (-1 if held_out is None else held_out)].T
    constant = np.ptp(values, axis=1) == 0
    if constant.any():
        raise ValueError(f"{scores.columns[constant][0]} is the same for all training images")
    # To the last bit as in the release: pandas with NumPy's sums for the mean, and with bottleneck's, which add from
    # first to last, for the deviation. HPS v2 has four decimals, so last bits order differences that should be equal.
    mean = np.array([each.sum() for each in np.ascontiguousarray(values)]) / values.shape[1]
    centred = values - (values.cumsum(axis=1)[:, -1] / values.shape[1])[:, None]
    return mean, np.sqrt((centred**2).cumsum(axis=1)[:, -1] / (values.shape[1] - 1))


def own_valence(models: Sequence["ValenceModel"], reactions: pd.DataFrame, owner: np.ndarray) -> np.ndarray:
    """Valence of each reaction by the model of the fold that holds its participant out, shape (n_reactions,)."""
    valence = np.empty(len(reactions))
    for number, model in enumerate(models):
        valence[owner == number] = model.valence(reactions[owner == number])
    return valence
