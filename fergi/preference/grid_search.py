"""The search for the parameters of the scores (Sections 6.2.3–6.2.5): its grids, the fit, and the scores.

``fit`` finds the parameters on everybody, for new people. ``fit_folds`` finds them once for each participant held
out. ``score`` gives the scores of any images with the parameters of either.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from fergi.preference.folds import Fold, mean_and_deviation
from fergi.preference.pairs import Pairs, pairs_within_sessions
from fergi.preference.valence import combined_valence
from fergi.scorers import registry

GridLimits = tuple[float, float, float]

# Columns of the scorers in the ensemble: those of the paper that were trained on preferences.
TRAINED_SCORERS = tuple(each.column for each in registry.SCORERS.values() if each.paper and each.in_ensemble)


@dataclass(frozen=True)
class Search:
    """The grids and the rules of the search.

    Attributes
    ----------
    ensemble_weights : ndarray, shape (n, 3)
        Candidate weights of ``TRAINED_SCORERS`` (eqs. 7–8).
    decays, au4_weights, thresholds : ndarray
        Candidates for k (eqs. 3–4), w_AU4 (eq. 5) and d (Section 6.2.4), ascending.
    integration_weights : ndarray
        Candidates for a (eq. 10).
    incorrect_penalty : float
        What an incorrect prediction costs where a correct one gains 1 (eq. 9: 2).
    activation_decimals : int or None
        Decimals to which activation values are rounded before scores are compared, so that equal reactions are
        equal; None compares the numbers with their rounding noise, as the release does.
    product_valence : bool
        The release's slip on all pairs and in the integration (see ``combined_valence``).
    strict : bool
        Whether the folds are strict (see ``Fold``).
    """

    ensemble_weights: np.ndarray
    decays: np.ndarray
    au4_weights: np.ndarray
    thresholds: np.ndarray
    integration_weights: np.ndarray
    incorrect_penalty: float
    activation_decimals: int | None = 9
    product_valence: bool = False
    strict: bool = False


def paper_grid(limits: GridLimits) -> np.ndarray:
    """Grid from first to last, both included, each value the decimal number nearest to it."""
    return np.round(released_grid(limits), 10)


def released_grid(limits: GridLimits) -> np.ndarray:
    """The same grid from sums of floats, as the release has it (0.6 is then 0.6000000000000001)."""
    first, last, step = limits
    return first + step * np.arange(round((last - first) / step) + 1)


def search_settings(
    mode: str,
    *,
    strict: bool = False,
    ensemble_weight: GridLimits,
    decay: GridLimits,
    au4_weight: GridLimits,
    threshold: GridLimits,
    integration_weight: GridLimits,
    incorrect_penalty: float,
) -> Search:
    """The search as the paper describes it or as the release does it.

    Parameters
    ----------
    mode : {"paper", "released"}
        ``paper``: 66 triples of ensemble weights; k up to its last value; eq. 5 everywhere; equal activations
        are equal. ``released``: the 60 triples that survive sums of floats; k one step further; the slip in
        eq. 5; activations as they are.
    strict : bool
        See ``Fold``.
    ensemble_weight, decay, au4_weight, threshold, integration_weight : tuple
        First value, last value and step.
    incorrect_penalty : float
        See ``Search``.
    """
    exact = Search(
        ensemble_weights=paper_ensemble_weights(ensemble_weight),
        decays=paper_grid(decay),
        au4_weights=paper_grid(au4_weight),
        thresholds=paper_grid(threshold),
        integration_weights=paper_grid(integration_weight),
        incorrect_penalty=incorrect_penalty,
        strict=strict,
    )
    if mode == "paper":
        return exact
    if mode != "released":
        raise ValueError(f"mode must be 'paper' or 'released', not {mode!r}")
    first, last, step = decay
    return replace(
        exact,
        ensemble_weights=released_ensemble_weights(ensemble_weight),
        decays=released_grid((first, last + step, step)),
        au4_weights=released_grid(au4_weight),
        thresholds=released_grid(threshold),
        integration_weights=released_grid(integration_weight),
        activation_decimals=None,
        product_valence=True,
    )


def paper_ensemble_weights(limits: GridLimits) -> np.ndarray:
    """All triples from the grid that sum to its last value (66 for 0, 0.1, …, 1), shape (n, 3)."""
    n_steps = round((limits[1] - limits[0]) / limits[2])
    triples = [(i, j, n_steps - i - j) for i in range(n_steps + 1) for j in range(n_steps + 1 - i)]
    return paper_grid(limits)[np.array(triples)]


def released_ensemble_weights(limits: GridLimits) -> np.ndarray:
    """The triples whose third weight, 1 − first − second in floats, is not below 0 (60 of the 66), shape (n, 3)."""
    grid = released_grid(limits)
    triples = np.array([(first, second, limits[1] - first - second) for first in grid for second in grid])
    return triples[triples[:, 2] >= 0]


@dataclass(frozen=True)
class Parameters:
    """What a fit finds, and all that a score of new images needs.

    Attributes
    ----------
    mean, deviation : ndarray, shape (3,)
        Of ``TRAINED_SCORERS`` over the training images, for z-scores (Section 6.2.3).
    ensemble_weights : ndarray, shape (3,)
        Of the z-scores in the ensemble (eq. 7), which sum to 1.
    decay, au4_weight : float
        k, per intensity unit (eqs. 3–4), and w_AU4 (eq. 5).
    threshold : float
        d: pairs whose valence scores differ by this or more are selected (Section 6.2.4).
    integration_weights : ndarray, shape (4,)
        a of eq. 10 for each of ``TRAINED_SCORERS`` and for their ensemble.
    activation_decimals : int or None
        See ``Search``.
    product_valence : bool
        See ``Search``.
    """

    mean: np.ndarray
    deviation: np.ndarray
    ensemble_weights: np.ndarray
    decay: float
    au4_weight: float
    threshold: float
    integration_weights: np.ndarray
    activation_decimals: int | None = 9
    product_valence: bool = False


class Scores(NamedTuple):
    """Scores of images.

    Attributes
    ----------
    selection : ndarray, shape (n_images,)
        The valence score (eq. 5), which selects pairs.
    valence : ndarray, shape (n_images,)
        The valence score as all pairs and the integration have it: the same, but for the release's slip.
    ensemble : ndarray, shape (n_images,)
        Of ``TRAINED_SCORERS`` (eq. 7).
    integrated : ndarray, shape (n_images, 4)
        Each of ``TRAINED_SCORERS`` and their ensemble with AUs (eq. 10).
    """

    selection: np.ndarray
    valence: np.ndarray
    ensemble: np.ndarray
    integrated: np.ndarray


def activations(images: pd.DataFrame, decimals: int | None) -> np.ndarray:
    """AU4 and AU12 activation, in intensity units, rounded if ``decimals`` is a number, shape (2, n_images)."""
    activation = np.array([images[f"AU{unit}_activation_value"].to_numpy(float) for unit in (4, 12)])
    return activation if decimals is None else np.round(activation, decimals)


def weighted_sum(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ensemble score of eq. 7: scores of shape (n_images, 3) with weights of shape (…, 3), added from left to right."""
    return weights[..., 0] * scores[:, 0] + weights[..., 1] * scores[:, 1] + weights[..., 2] * scores[:, 2]


def score(images: pd.DataFrame, parameters: Parameters) -> Scores:
    """Scores of images with the parameters of a fit.

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image with a valid reaction: ``TRAINED_SCORERS``, AU4 and AU12 activation. No rank is needed.
    parameters : Parameters
        Of a fit that did not see the persons, for a fair comparison with their ranking.
    """
    au4, au12 = activations(images, parameters.activation_decimals)
    selection, valence = (
        combined_valence(au4, au12, decay=parameters.decay, au4_weight=parameters.au4_weight, product=product)
        for product in (False, parameters.product_valence)
    )
    z_scores = (images[list(TRAINED_SCORERS)].to_numpy(float) - parameters.mean) / parameters.deviation
    ensemble = weighted_sum(z_scores, parameters.ensemble_weights)
    integrated = np.column_stack([z_scores, ensemble]) + parameters.integration_weights * valence[:, None]
    return Scores(selection, valence, ensemble, integrated)


def fit(images: pd.DataFrame, search: Search) -> Parameters:
    """Parameters for new people, fitted on everybody; see ``fit_folds`` for the columns and errors."""
    return _fit(images, search, [Fold(None)])[0]


def fit_folds(images: pd.DataFrame, search: Search) -> list[Parameters]:
    """Parameters of the fold of each participant, who is held out, by name in ascending order.

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image with a valid reaction: ``participant``, ``session_index``, ``rank_score``,
        ``TRAINED_SCORERS``, ``AU4_activation_value`` and ``AU12_activation_value``.
    search : Search
        Grids and rules.

    Raises
    ------
    ValueError
        If there are fewer than two participants, a score does not vary, or a session has tied ranks.
    """
    n_participants = images["participant"].nunique()
    if n_participants < 2:
        raise ValueError("holding out one participant needs at least two participants")
    return _fit(images, search, [Fold(held_out, search.strict) for held_out in range(n_participants)])


def _fit(images: pd.DataFrame, search: Search, folds: list[Fold]) -> list[Parameters]:
    """The parameters of each fold: either of everybody's alone, or of every participant's."""
    names, participant = np.unique(images["participant"].to_numpy(str), return_inverse=True)
    pairs = pairs_within_sessions(participant, images["session_index"], images["rank_score"], names)
    au4, au12 = activations(images, search.activation_decimals)
    correct, incorrect = selected_counts(pairs, au4, au12, search)
    objective = (correct - search.incorrect_penalty * incorrect).reshape(pairs.n_participants, -1)
    k, w, d = np.unravel_index([fold.first_best(objective) for fold in folds], correct.shape[1:])
    decay, au4_weight, threshold = search.decays[k], search.au4_weights[w], search.thresholds[d]

    moments = [mean_and_deviation(images[list(TRAINED_SCORERS)], fold.trains(participant)) for fold in folds]
    z_scores = [(images[list(TRAINED_SCORERS)].to_numpy(float) - mean) / deviation for mean, deviation in moments]
    ensemble_weights = np.array([fit_ensemble(z, pairs, search, f) for z, f in zip(z_scores, folds, strict=True)])
    fitted = []
    for number, fold in enumerate(folds):
        carried = fold.carried(participant)
        valence = combined_valence(
            au4, au12, decay=decay[carried], au4_weight=au4_weight[carried], product=search.product_valence
        )
        ensemble = weighted_sum(z_scores[number], ensemble_weights[carried])
        fitted.append(
            Parameters(
                *moments[number],
                ensemble_weights=ensemble_weights[number],
                decay=float(decay[number]),
                au4_weight=float(au4_weight[number]),
                threshold=float(threshold[number]),
                integration_weights=np.array(
                    [fit_integration(each, valence, pairs, search, fold) for each in (*z_scores[number].T, ensemble)]
                ),
                activation_decimals=search.activation_decimals,
                product_valence=search.product_valence,
            )
        )
    return fitted


def selected_counts(pairs: Pairs, au4: np.ndarray, au12: np.ndarray, search: Search) -> tuple[np.ndarray, np.ndarray]:
    """Correct and incorrect predictions on the selected pairs at each point of the (k, w, d) grid.

    A pair is selected where the scores differ by d or more. How many thresholds it passes is found by sorting
    it into them, so that all thresholds are counted at once.

    Returns
    -------
    correct, incorrect : ndarray of int, shape (n_participants, n_decays, n_weights, n_thresholds)
    """
    n_thresholds = len(search.thresholds)
    shape = (pairs.n_participants, len(search.decays), len(search.au4_weights), n_thresholds)
    counts = np.zeros((2, *shape), np.int32)
    group = pairs.participant * (n_thresholds + 1)
    for k, decay in enumerate(search.decays):
        for w, weight in enumerate(search.au4_weights):
            difference = pairs.difference(combined_valence(au4, au12, decay=decay, au4_weight=weight))
            passed = np.searchsorted(search.thresholds, np.abs(difference), side="right")
            for which, pair in enumerate((difference > 0, difference <= 0)):
                histogram = np.bincount((group + passed)[pair], minlength=pairs.n_participants * (n_thresholds + 1))
                at_least = histogram.reshape(pairs.n_participants, -1)[:, ::-1].cumsum(axis=1)[:, ::-1]
                counts[which, :, k, w] = at_least[:, 1:]
    return counts[0], counts[1]


def fit_ensemble(z_scores: np.ndarray, pairs: Pairs, search: Search, fold: Fold) -> np.ndarray:
    """Weights of eq. 7: the first triple with the most correct training pairs (eq. 8), shape (3,)."""
    candidates = weighted_sum(z_scores, search.ensemble_weights[:, None]).T
    return search.ensemble_weights[fold.first_best(pairs.count(pairs.agrees(candidates)))]


def fit_integration(score: np.ndarray, valence: np.ndarray, pairs: Pairs, search: Search, fold: Fold) -> float:
    """The weight a of eq. 10: the first with the most correct training pairs, for one score (n_images,)."""
    candidates = score[:, None] + search.integration_weights * valence[:, None]
    return search.integration_weights[fold.first_best(pairs.count(pairs.agrees(candidates)))]
