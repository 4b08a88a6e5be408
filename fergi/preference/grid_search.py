"""The search for the parameters of the scores (Sections 6.2.3–6.2.5): its grids, the fit, and the scores.

``fit`` finds the parameters on everybody, for new people. ``fit_folds`` finds them once for each participant held
out. ``score`` gives the scores of any images with the parameters of either.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fergi.preference.folds import carried, first_best, mean_and_deviation, training_masks
from fergi.preference.pairs import Pairs, pairs_of
from fergi.preference.valence import DECIMALS, combined_valence
from fergi.scorers import registry

GridLimits = tuple[float, float, float]

# Columns of the scorers in the ensemble: those of the paper that were trained on preferences.
TRAINED_SCORERS = tuple(each.column for each in registry.SCORERS.values() if each.paper and each.in_ensemble)
# Names of the scores in the release. ``WITH_AUS``: score → the same score integrated with the valence score (eq. 10).
ENSEMBLE, VALENCE = "ensemble_baseline_score", "AUcomb_valence_score"
WITH_AUS = {name: f"ensemble_{name.removesuffix('_score')}_AUcomb_score" for name in TRAINED_SCORERS}
WITH_AUS[ENSEMBLE] = "ensemble_all_score"


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
        Whether training participants carry the parameters of the fold at hand (see ``folds.carried``).
    """

    ensemble_weights: np.ndarray
    decays: np.ndarray
    au4_weights: np.ndarray
    thresholds: np.ndarray
    integration_weights: np.ndarray
    incorrect_penalty: float
    activation_decimals: int | None = DECIMALS
    product_valence: bool = False
    strict: bool = False


def search_settings(mode: str, *, incorrect_penalty: float, strict: bool = False, **limits: GridLimits) -> Search:
    """The search as the paper describes it or as the release does it.

    Parameters
    ----------
    mode : {"paper", "released"}
        ``paper``: each value is the decimal number itself; 66 triples of ensemble weights; equal activations are
        equal. ``released``: sums of floats (0.6 is then 0.6000000000000001), which lose six of the triples; k one
        step further; activations as they are; the slip in eq. 5.
    incorrect_penalty, strict
        See ``Search``.
    **limits : tuple
        First value, last value and step of each grid of ``Search``; for ``ensemble_weights`` of a single weight.
    """
    if mode not in ("paper", "released"):
        raise ValueError(f"mode must be 'paper' or 'released', not {mode!r}")
    released = mode == "released"
    grids = {}
    for name, (first, last, step) in limits.items():
        n_steps = round((last - first) / step) + (released and name == "decays")
        grids[name] = first + step * np.arange(n_steps + 1)
        if not released:
            grids[name] = np.round(grids[name], 10)
    triples = released_triples if released else paper_triples
    grids["ensemble_weights"] = triples(grids["ensemble_weights"])
    return Search(
        **grids,
        incorrect_penalty=incorrect_penalty,
        activation_decimals=None if released else DECIMALS,
        product_valence=released,
        strict=strict,
    )


def paper_triples(grid: np.ndarray) -> np.ndarray:
    """All triples from the grid that sum to its last value (66 for 0, 0.1, …, 1), shape (n, 3)."""
    last = len(grid) - 1
    return grid[[(i, j, last - i - j) for i in range(last + 1) for j in range(last + 1 - i)]]


def released_triples(grid: np.ndarray) -> np.ndarray:
    """The triples whose third weight, last − first − second in floats, is not below 0 (60 of the 66), shape (n, 3)."""
    triples = np.array([(first, second, grid[-1] - first - second) for first in grid for second in grid])
    return triples[triples[:, 2] >= 0]


@dataclass(frozen=True)
class Integration:
    """How valence joins the scores of scoring models.

    Attributes
    ----------
    mean, deviation : ndarray, shape (3,)
        Of ``TRAINED_SCORERS`` over the training images, for z-scores (Section 6.2.3).
    ensemble_weights : ndarray, shape (3,)
        Of the z-scores in the ensemble (eq. 7).
    integration_weights : ndarray, shape (4,)
        a of eq. 10 for each of ``TRAINED_SCORERS`` and for their ensemble.
    """

    mean: np.ndarray
    deviation: np.ndarray
    ensemble_weights: np.ndarray
    integration_weights: np.ndarray

    def scores(self, images: pd.DataFrame, valence: np.ndarray) -> pd.DataFrame:
        """``ENSEMBLE`` (eq. 7) and the scores with AUs (eq. 10, named as in ``WITH_AUS``), one row an image."""
        z_scores = (images[list(TRAINED_SCORERS)].to_numpy(float) - self.mean) / self.deviation
        ensemble = weighted_sum(z_scores, self.ensemble_weights)
        integrated = np.column_stack([z_scores, ensemble]) + self.integration_weights * valence[:, None]
        return pd.DataFrame(
            {ENSEMBLE: ensemble} | dict(zip(WITH_AUS.values(), integrated.T, strict=True)), images.index
        )


@dataclass(frozen=True)
class Parameters(Integration):
    """What a fit with AUcomb finds: all that the scores of new images need.

    Attributes
    ----------
    decay, au4_weight : float
        k, per intensity unit (eqs. 3–4), and w_AU4 (eq. 5).
    threshold : float
        d: pairs whose valence scores differ by this or more are selected (Section 6.2.4).
    activation_decimals, product_valence
        See ``Search``.
    """

    decay: float
    au4_weight: float
    threshold: float
    activation_decimals: int | None = DECIMALS
    product_valence: bool = False


def activations(images: pd.DataFrame, decimals: int | None) -> np.ndarray:
    """AU4 and AU12 activation, in intensity units, rounded if ``decimals`` is a number, shape (2, n_images)."""
    activation = np.array([images[f"AU{unit}_activation_value"].to_numpy(float) for unit in (4, 12)])
    return activation if decimals is None else np.round(activation, decimals)


def weighted_sum(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ensemble score of eq. 7: scores of shape (n_images, 3) with weights of shape (…, 3), added from left to right."""
    return weights[..., 0] * scores[:, 0] + weights[..., 1] * scores[:, 1] + weights[..., 2] * scores[:, 2]


def score(images: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Scores of images with the parameters of a fit, which should not have seen the images' participants.

    ``images`` has one row an image with a valid reaction: ``TRAINED_SCORERS``, AU4 and AU12 activation; no rank.

    Returns
    -------
    pandas.DataFrame
        One row an image: ``selection``, the valence score (eq. 5), which selects pairs; ``VALENCE``, the same on all
        pairs, or with the release's slip; ``ENSEMBLE`` (eq. 7); and the scores with AUs (eq. 10).
    """
    au4, au12 = activations(images, parameters.activation_decimals)
    selection, valence = (
        combined_valence(au4, au12, decay=parameters.decay, au4_weight=parameters.au4_weight, product=product)
        for product in (False, parameters.product_valence)
    )
    scores = pd.DataFrame({"selection": selection, VALENCE: valence}, images.index)
    return scores.join(parameters.scores(images, valence))


def fit(images: pd.DataFrame, search: Search) -> Parameters:
    """Parameters for new people, fitted on everybody; columns and errors as with ``fit_folds``."""
    return _fit(images, search, [None])[0]


def fit_folds(images: pd.DataFrame, search: Search) -> list[Parameters]:
    """Parameters of each participant's fold, which holds this participant out, by name in ascending order.

    ``images`` has one row an image with a valid reaction: ``participant``, ``session_index``, ``rank_score``,
    ``TRAINED_SCORERS``, ``AU4_activation_value`` and ``AU12_activation_value``.

    Raises
    ------
    ValueError
        If there are fewer than two participants, a score does not vary, or a session has tied ranks.
    """
    if (n_participants := images["participant"].nunique()) < 2:
        raise ValueError("holding out one participant needs at least two participants")
    return _fit(images, search, range(n_participants))


def _fit(images: pd.DataFrame, search: Search, folds: Sequence[int | None]) -> list[Parameters]:
    """The parameters of each fold, given by whom it holds out: everybody in turn, or None alone."""
    pairs = pairs_of(images)
    au4, au12 = activations(images, search.activation_decimals)
    found = fit_valence(pairs, au4, au12, search, training_masks(folds, len(pairs.names)))
    valences = []
    for held_out in folds:
        decay, au4_weight, _ = found[:, carried(pairs.owner, held_out, strict=search.strict)]
        valences.append(combined_valence(au4, au12, decay=decay, au4_weight=au4_weight, product=search.product_valence))
    return [
        Parameters(
            **vars(integration),
            **dict(zip(("decay", "au4_weight", "threshold"), map(float, valence), strict=True)),
            activation_decimals=search.activation_decimals,
            product_valence=search.product_valence,
        )
        for integration, valence in zip(fit_integration(images, pairs, valences, search, folds), found.T, strict=True)
    ]


def fit_integration(
    images: pd.DataFrame, pairs: Pairs, valences: Sequence[np.ndarray], search: Search, folds: Sequence[int | None]
) -> list[Integration]:
    """What each fold finds for eqs. 7–10.

    ``valences`` has one array a fold: the valence that each image carries in it, shape (n_images,). ``folds`` are as
    in ``_fit``, columns and errors as with ``fit_folds``.
    """
    trained = images[list(TRAINED_SCORERS)]
    moments = [mean_and_deviation(trained, pairs.owner, held_out) for held_out in folds]
    z_scores = [(trained.to_numpy(float) - mean) / deviation for mean, deviation in moments]
    candidates = [weighted_sum(z, search.ensemble_weights[:, None]).T for z in z_scores]
    weights = search.ensemble_weights[[_best(*each, pairs) for each in zip(candidates, folds, strict=True)]]
    fitted = []
    for number, held_out in enumerate(folds):
        source = carried(pairs.owner, held_out, strict=search.strict)
        added = search.integration_weights * valences[number][:, None]
        scores = (*z_scores[number].T, weighted_sum(z_scores[number], weights[source]))
        best = [_best(each[:, None] + added, held_out, pairs) for each in scores]
        fitted.append(Integration(*moments[number], weights[number], search.integration_weights[best]))
    return fitted


def held_out_integration(
    images: pd.DataFrame, owner: np.ndarray, valence: np.ndarray, folds: Sequence[Integration]
) -> pd.DataFrame:
    """``Integration.scores`` of each image by the fold that holds its participant out; ``valence`` (n_images,)."""
    places = [np.flatnonzero(owner == number) for number in range(len(folds))]
    scores = [each.scores(images.iloc[place], valence[place]) for place, each in zip(places, folds, strict=True)]
    return pd.concat(scores).iloc[np.argsort(np.concatenate(places))]


def _best(scores: np.ndarray, held_out: int | None, pairs: Pairs) -> int:
    """The first of the scores (n_images, n) with the most correct training pairs (eq. 8)."""
    return first_best(pairs.count(pairs.agrees(scores)), held_out)


def fit_valence(pairs: Pairs, au4: np.ndarray, au12: np.ndarray, search: Search, training: np.ndarray) -> np.ndarray:
    """The k, w_AU4 and d of each fit: the first maximum of eq. 9 in this order (Section 6.2.4), shape (3, n_fits).

    ``training`` says which participants each fit sees, bool, shape (n_fits, n_participants).
    """
    correct, incorrect = selected_counts(pairs, au4, au12, search)
    # Counts are whole numbers, so that their sums as floats are exact in any order.
    total = [training.astype(float) @ each.reshape(len(pairs.names), -1) for each in (correct, incorrect)]
    best = np.argmax(total[0] - search.incorrect_penalty * total[1], axis=1)
    k, w, d = np.unravel_index(best, correct.shape[1:])
    return np.array([search.decays[k], search.au4_weights[w], search.thresholds[d]])


def selected_counts(pairs: Pairs, au4: np.ndarray, au12: np.ndarray, search: Search) -> tuple[np.ndarray, np.ndarray]:
    """Correct and incorrect predictions on the selected pairs at each point of the (k, w, d) grid.

    A pair is selected where the scores differ by d or more. How many thresholds it reaches is looked up once, and all
    thresholds are counted together.

    Returns
    -------
    correct, incorrect : ndarray of int, shape (n_participants, n_decays, n_weights, n_thresholds)
    """
    n_thresholds = len(search.thresholds)
    shape = (len(pairs.names), len(search.decays), len(search.au4_weights), n_thresholds)
    counts = np.zeros((2, *shape), np.int32)
    group = pairs.participant * (n_thresholds + 1)
    for k, decay in enumerate(search.decays):
        for w, weight in enumerate(search.au4_weights):
            difference = pairs.difference(combined_valence(au4, au12, decay=decay, au4_weight=weight))
            passed = np.searchsorted(search.thresholds, np.abs(difference), side="right")
            for which, pair in enumerate((difference > 0, difference <= 0)):
                histogram = np.bincount((group + passed)[pair], minlength=len(pairs.names) * (n_thresholds + 1))
                at_least = histogram.reshape(len(pairs.names), -1)[:, ::-1].cumsum(axis=1)[:, ::-1]
                counts[which, :, k, w] = at_least[:, 1:]
    return counts[0], counts[1]
