"""Who trains in a fold of the search, and how to count (Section 6.2.3).

A fold holds out one participant. It takes the parameters that do best on all others, and counts on the pairs of the
one held out. Nothing is computed again for each fold: each participant's counts are found once at every point of a
grid, and the training counts of a fold are their sum minus the counts of the participant held out. Without anybody
held out everybody trains, and the parameters are for new people.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Fold:
    """One fold.

    Attributes
    ----------
    held_out : int or None
        Number of the participant on whom nothing is fitted, from 0; None if everybody trains.
    strict : bool
        Which parameters training participants carry where eq. 10 is fitted: in a strict fold those of this fold;
        otherwise those of the folds that hold them out, which saw the participant held out here (as the release
        does). Where everybody trains, there is no other fold, and the fold is strict.
    """

    held_out: int | None
    strict: bool = False

    def trains(self, participant: np.ndarray) -> np.ndarray:
        """Which images (shape (n_images,)) are of participants who train."""
        return np.ones(len(participant), bool) if self.held_out is None else participant != self.held_out

    def first_best(self, value: np.ndarray) -> int:
        """The first point with the highest sum of ``value`` (n_participants, n_points) over those who train."""
        total = value.sum(axis=0)
        return int(np.argmax(total if self.held_out is None else total - value[self.held_out]))

    def carried(self, participant: np.ndarray) -> np.ndarray:
        """The number of the fold whose parameters each image carries where eq. 10 is fitted, shape (n_images,)."""
        if self.strict or self.held_out is None:
            return np.full(len(participant), self.held_out or 0)
        return participant


def mean_and_deviation(scores: pd.DataFrame, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n − 1) of the training images, for z-scores (Section 6.2.3).

    Parameters
    ----------
    scores : pandas.DataFrame
        One row an image, one column a scorer.
    training : ndarray of bool, shape (n_images,)
        Which images are of participants who train.

    Returns
    -------
    mean, deviation : ndarray, shape (n_scorers,)

    Raises
    ------
    ValueError
        If a score does not vary over the training images; it is named.
    """
    values = scores.to_numpy(float)[training]
    constant = np.ptp(values, axis=0) == 0
    if constant.any():
        raise ValueError(f"{scores.columns[constant][0]} is the same for all training images")
    return values.mean(axis=0), values.std(axis=0, ddof=1)
