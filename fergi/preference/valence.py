"""Valence scores of reactions from brow lowering and smiling (Section 6.2.2, eqs. 3–6)."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

DECIMALS = 9  # of activation values: they are multiples of 1/3000 with noise in their last bits


def activation_values(reactions: pd.DataFrame, action_units: Iterable[int]) -> np.ndarray:
    """Activation values for a valence model, in intensity units, shape (n_reactions, n_action_units).

    They are rounded, so that equal reactions are equal, and not below 0 (eq. 2). NaN stays where there is no value.
    """
    columns = [f"AU{unit}_activation_value" for unit in action_units]
    return np.maximum(reactions[columns].to_numpy(float).round(DECIMALS), 0)


def au4_valence(au4: ArrayLike, *, decay: float) -> np.ndarray:
    r"""Valence from AU4, the brow lowerer (eq. 3): :math:`s_{AU4} = -(1 - e^{-k \alpha_4})`.

    Parameters
    ----------
    au4 : array_like
        Activation values, in intensity units, at least 0.
    decay : float
        k, per intensity unit.

    Returns
    -------
    ndarray
        Between −1 (strong frown) and 0 (none), of the shape of ``au4``.
    """
    return -(1 - np.exp(-decay * np.asarray(au4)))


def au12_valence(au12: ArrayLike, *, decay: float) -> np.ndarray:
    r"""Valence from AU12, the lip corner puller (eq. 4): :math:`s_{AU12} = 1 - e^{-k \alpha_{12}}`, from 0 to 1."""
    return 1 - np.exp(-decay * np.asarray(au12))


def combined_valence(
    au4: ArrayLike, au12: ArrayLike, *, decay: ArrayLike, au4_weight: ArrayLike, product: bool = False
) -> np.ndarray:
    r"""AUcomb valence score (eqs. 3–6).

    .. math:: s_{AUcomb} = w_{AU4} s_{AU4} + (1 - w_{AU4}) s_{AU12}

    Parameters
    ----------
    au4, au12 : array_like, shape (n_reactions,)
        Activation values, in intensity units.
    decay, au4_weight : float or array_like, shape (n_reactions,)
        k (per intensity unit) and w_AU4 (0–1), for all reactions or one for each.
    product : bool
        The release's slip, which it makes for all pairs and in the integration but not in the selection:
        s_AU4 · s_AU12 in place of s_AU4.

    Returns
    -------
    ndarray, shape (n_reactions,)
        Between −1 and 1; higher is more pleased.
    """
    decay, au4_weight = np.asarray(decay), np.asarray(au4_weight)
    frown, smile = au4_valence(au4, decay=decay), au12_valence(au12, decay=decay)
    weighted = au4_weight * smile * frown if product else au4_weight * frown
    return weighted + (1 - au4_weight) * smile
