"""Activation values of another estimator, mapped to the distribution of those that a preference model was fitted on.

Parameters of valence are not meant for other estimators, whose intensities have other scales. The map goes by rank:
the value below which a share of one's own reactions lies becomes the value below which the same share of the model's
reactions lay, for each AU on its own.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from fergi.activation import ACTIVATION_COLUMNS
from fergi.files import FergiError

FEWEST_REACTIONS = 50  # below this, ranks say little on a distribution
MOST_REACTIONS = 100_000  # of so many, drawn at random, where there are more: memory does not grow with their number
N_QUANTILES = 201


def activation_quantiles(reactions: pd.DataFrame) -> dict[str, list[float]]:
    """``N_QUANTILES`` evenly spaced quantiles of each activation column that has values, to 4 decimals."""
    shares = np.linspace(0, 1, N_QUANTILES)
    there = [name for name in ACTIVATION_COLUMNS if name in reactions and reactions[name].notna().any()]
    return {name: np.quantile(reactions[name].dropna(), shares).round(4).tolist() for name in there}


class DistributionMap:
    """The map by rank; call it with a table of reactions.

    Parameters
    ----------
    tables : iterable of pandas.DataFrame
        All reactions of one's own, table by table.
    quantiles : mapping
        Activation column → evenly spaced quantiles of the model's data. Other columns stay as they are.
    seed : int
        Of the draw of reactions, where there are more than ``MOST_REACTIONS``.

    Raises
    ------
    FergiError
        If there are fewer than ``FEWEST_REACTIONS``.
    """

    def __init__(
        self, tables: Iterable[pd.DataFrame], quantiles: Mapping[str, Sequence[float]], *, seed: int = 0
    ) -> None:
        columns = [name for name in ACTIVATION_COLUMNS if name in quantiles]
        rng, kept, keys = np.random.default_rng(seed), np.zeros((0, len(columns))), np.zeros(0)
        self.n_reactions = 0
        for table in tables:
            self.n_reactions += len(table)
            kept = np.concatenate([kept, table[columns].to_numpy(float)])
            keys = np.concatenate([keys, rng.random(len(table))])
            if len(keys) > MOST_REACTIONS:  # those with the smallest keys are a random sample
                smallest = np.argpartition(keys, MOST_REACTIONS)[:MOST_REACTIONS]
                kept, keys = kept[smallest], keys[smallest]
        if self.n_reactions < FEWEST_REACTIONS:
            raise FergiError(
                f"There are {self.n_reactions} valid reactions, and mapping their distribution needs "
                f"{FEWEST_REACTIONS}. Record more, or use features of the estimator that the model was fitted on."
            )
        self.quantiles = {name: np.asarray(quantiles[name], float) for name in columns}
        self.values = {name: np.sort(column[~np.isnan(column)]) for name, column in zip(columns, kept.T, strict=True)}

    def __call__(self, reactions: pd.DataFrame) -> pd.DataFrame:
        """The reactions with mapped activation values; equal values stay equal, and NaN stays NaN.

        A value's rank is the middle of the ranks of its equals.
        """
        mapped = {}
        for name, own in self.values.items():
            if not len(own):
                continue
            value = reactions[name].to_numpy(float)
            rank = sum(np.searchsorted(own, value, side=side) for side in ("left", "right")) / 2 / len(own)
            quantiles = self.quantiles[name]
            moved = np.interp(rank, np.linspace(0, 1, len(quantiles)), quantiles)
            mapped[name] = np.where(np.isnan(value), np.nan, moved)
        return reactions.assign(**mapped)
