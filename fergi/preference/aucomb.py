"""AUcomb as a valence model: two AUs, and the parameters of eqs. 3–6 (Section 6.2.4)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from fergi.preference.checks import check
from fergi.preference.grid_search import GridLimits, fit_valence, search_settings
from fergi.preference.pairs import Pairs
from fergi.preference.valence import activation_values, combined_valence


@dataclass(frozen=True)
class AUcomb:
    """k (per intensity unit), w_AU4, and d, the difference from which on a pair is selected (Section 6.2.4)."""

    decay: float
    au4_weight: float
    threshold: float

    action_units: ClassVar[tuple[int, ...]] = (4, 12)
    inner_folds: ClassVar[int | None] = None

    def valence(self, reactions: pd.DataFrame) -> np.ndarray:
        """Eq. 5, between −1 and 1, shape (n_reactions,)."""
        au4, au12 = activation_values(reactions, self.action_units).T
        return combined_valence(au4, au12, decay=self.decay, au4_weight=self.au4_weight)

    @classmethod
    def fit(
        cls,
        reactions: pd.DataFrame,
        pairs: Pairs,
        training: np.ndarray,
        *,
        incorrect_penalty: float,
        **limits: GridLimits,
    ) -> list[Self]:
        """The best k, w and d of each fit by eq. 9, on the grids of ``search_settings`` in the paper's mode."""
        search = search_settings("paper", incorrect_penalty=incorrect_penalty, **limits)
        found = fit_valence(pairs, *activation_values(reactions, cls.action_units).T, search, training)
        return [cls(*map(float, each)) for each in found.T]

    def parameters(self) -> dict[str, Any]:
        """k, w_AU4 and d by name."""
        return dict(vars(self))

    @classmethod
    def from_parameters(cls, parameters: Any) -> Self:
        """The other way round; ValueError says what does not fit."""
        check(parameters, {"decay": (), "au4_weight": (), "threshold": ()}, "parameters")
        return cls(**{name: float(value) for name, value in parameters.items()})
