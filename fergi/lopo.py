"""Which of two images a person prefers: the leave-one-participant-out search (Sections 6.2.3–6.2.5).

A fold leaves out one participant, takes the parameters that do best on all others, and counts on the one left
out. Nothing has to be computed again for each fold: each participant's counts are found once at every point of
the grid, and the training counts of a fold are their sum minus the counts of the participant left out.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fergi.preference.pairs import Pairs, pairs_within_sessions
from fergi.preference.valence import combined_valence

SCORERS = ("CLIP_score", "Aesthetic_score", "BLIP_score", "ImageReward_score", "PickScore", "HPS_V2_score")
TRAINED_SCORERS = ("ImageReward_score", "PickScore", "HPS_V2_score")
ENSEMBLE = "ensemble_baseline_score"
VALENCE = "AUcomb_valence_score"
INTEGRATED = (
    "ensemble_ImageReward_AUcomb_score",
    "ensemble_PickScore_AUcomb_score",
    "ensemble_HPS_V2_AUcomb_score",
)
INTEGRATED_ENSEMBLE = "ensemble_all_score"

GridLimits = tuple[float, float, float]


@dataclass(frozen=True)
class Search:
    """The grids and the rules of the search.

    Attributes
    ----------
    ensemble_weights : ndarray, shape (n, 3)
        Candidate weights of ImageReward, PickScore and HPS v2 (eqs. 7–8).
    decays, au4_weights, thresholds : ndarray
        Candidates for k (eqs. 3–4), w_AU4 (eq. 5) and d (Section 6.2.4), ascending.
    integration_weights : ndarray
        Candidates for a (eq. 10).
    incorrect_penalty : float
        What an incorrect prediction costs where a correct one gains 1 (eq. 9: 2).
    activation_decimals : int or None
        Decimals to which activation values are rounded before scores are compared, so that reactions which
        are equal are seen as equal; None compares the numbers with their rounding noise, as the release does.
    product_valence : bool
        The release's slip on all pairs and in the integration (see ``combined_valence``).
    strict : bool
        Whether the folds are strict: training participants then carry the parameters of the fold at hand.
        Otherwise they carry those of their own folds, which saw the participant left out.
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
    first, last, step = limits
    return np.round(first + step * np.arange(round((last - first) / step) + 1), 10)


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
        See ``Search``.
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


def _best_without(value: np.ndarray, left_out: int) -> int:
    """The first point with the highest sum of ``value`` (n_participants, n_points) over everybody but one."""
    return int(np.argmax(value.sum(axis=0) - value[left_out]))


@dataclass(frozen=True)
class ValenceFit:
    """Parameters of the valence score and what they select, fold by fold; every array has shape (n_participants,).

    ``correct`` and ``incorrect`` count the selected pairs of the participant left out.
    """

    decay: np.ndarray
    au4_weight: np.ndarray
    threshold: np.ndarray
    correct: np.ndarray
    incorrect: np.ndarray


def fit_valence(pairs: Pairs, au4: np.ndarray, au12: np.ndarray, search: Search) -> ValenceFit:
    """The (k, w_AU4, d) of each fold: the first maximum of eq. 9 in the order k, w_AU4, d (Section 6.2.4)."""
    correct, incorrect = (each.reshape(pairs.n_participants, -1) for each in selected_counts(pairs, au4, au12, search))
    objective = correct - search.incorrect_penalty * incorrect
    left_out = np.arange(pairs.n_participants)
    best = np.array([_best_without(objective, each) for each in left_out])
    k, w, d = np.unravel_index(best, (len(search.decays), len(search.au4_weights), len(search.thresholds)))
    return ValenceFit(
        decay=search.decays[k],
        au4_weight=search.au4_weights[w],
        threshold=search.thresholds[d],
        correct=correct[left_out, best],
        incorrect=incorrect[left_out, best],
    )


def standardised(scores: pd.DataFrame, training: np.ndarray) -> np.ndarray:
    """z-scores with the mean and the standard deviation (n − 1) of the training images (Section 6.2.3).

    Raises
    ------
    ValueError
        If a score does not vary over the training images; it is named.
    """
    values = scores.to_numpy(float)
    constant = np.ptp(values[training], axis=0) == 0
    if constant.any():
        raise ValueError(f"{scores.columns[constant][0]} is the same for all training images")
    return (values - values[training].mean(axis=0)) / values[training].std(axis=0, ddof=1)


def weighted_sum(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ensemble score of eq. 7: scores of shape (n_images, 3) with weights of shape (…, 3), added from left to right."""
    return weights[..., 0] * scores[:, 0] + weights[..., 1] * scores[:, 1] + weights[..., 2] * scores[:, 2]


def search_preferences(images: pd.DataFrame, search: Search) -> pd.DataFrame:
    """Tables 1 and 2, one row a participant: parameters of the fold that leaves them out, and counts on their pairs.

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image with a valid reaction: ``participant``, ``session_index``, ``rank_score``, the six
        ``SCORERS``, ``AU4_activation_value`` and ``AU12_activation_value``.
    search : Search
        Grids and rules.

    Returns
    -------
    pandas.DataFrame
        The released columns: ``user_id``, then parameters and ``…_n_correct`` / ``…_n_incorrect``.

    Raises
    ------
    ValueError
        If there are fewer than two participants, a score does not vary, or a session has tied ranks.
    """
    names, participant = np.unique(images["participant"].to_numpy(str), return_inverse=True)
    if len(names) < 2:
        raise ValueError("leaving one participant out needs at least two participants")
    pairs = pairs_within_sessions(participant, images["session_index"], images["rank_score"], names)
    n_pairs = pairs.per_participant
    au4, au12 = activations(images, search.activation_decimals)
    fit = fit_valence(pairs, au4, au12, search)

    def valence_with(fold: int | np.ndarray) -> np.ndarray:
        """The valence score with the parameters of one fold, or of one fold an image."""
        return combined_valence(
            au4, au12, decay=fit.decay[fold], au4_weight=fit.au4_weight[fold], product=search.product_valence
        )

    folds = range(len(names))
    z_scores = [standardised(images[list(TRAINED_SCORERS)], participant != left_out) for left_out in folds]

    # Ensemble weights of each fold: the most correct pairs among the others.
    ensemble_weights = np.empty((len(names), 3))
    for left_out in folds:
        candidates = weighted_sum(z_scores[left_out], search.ensemble_weights[:, None]).T
        best = _best_without(pairs.count(pairs.agrees(candidates)), left_out)
        ensemble_weights[left_out] = search.ensemble_weights[best]

    # Integration weight a of each fold, for the three scorers and their ensemble.
    names_integrated = (*INTEGRATED, INTEGRATED_ENSEMBLE)
    integration_weight = np.empty((len(names_integrated), len(names)))
    integrated_correct = np.empty((len(names_integrated), len(names)), int)
    ensemble_agrees = np.zeros(len(pairs), bool)
    own_valence = valence_with(participant)
    for left_out in folds:
        source = left_out if search.strict else participant
        valence = valence_with(left_out) if search.strict else own_valence
        ensemble = weighted_sum(z_scores[left_out], ensemble_weights[source])
        for index, score in enumerate((*z_scores[left_out].T, ensemble)):
            correct = pairs.count(pairs.agrees(score[:, None] + search.integration_weights * valence[:, None]))
            best = _best_without(correct, left_out)
            integration_weight[index, left_out] = search.integration_weights[best]
            integrated_correct[index, left_out] = correct[left_out, best]
        own = pairs.participant == left_out
        ensemble_agrees[own] = pairs.agrees(ensemble)[own]

    # Everything left out: predictions on the pairs of the fold's own participant.
    selection_difference = np.abs(
        pairs.difference(
            combined_valence(au4, au12, decay=fit.decay[participant], au4_weight=fit.au4_weight[participant])
        )
    )
    selected = selection_difference >= fit.threshold[pairs.participant]
    agrees = {name: pairs.agrees(images[name]) for name in SCORERS}
    agrees[ENSEMBLE] = ensemble_agrees

    columns: dict[str, np.ndarray] = {"user_id": names}

    def add_counts(name: str, correct: np.ndarray, total: np.ndarray) -> None:
        columns[f"{name}_n_correct"] = correct
        columns[f"{name}_n_incorrect"] = total - correct

    for index, name in enumerate(TRAINED_SCORERS):
        columns[f"{name.removesuffix('_score')}_weight"] = ensemble_weights[:, index]
    add_counts(ENSEMBLE, pairs.count(ensemble_agrees), n_pairs)
    columns["exp_decay_coef"] = fit.decay
    columns["AU4_coef"] = fit.au4_weight
    columns["AU12_coef"] = 1 - fit.au4_weight
    columns["diff_threshold"] = fit.threshold
    for name in (*SCORERS, ENSEMBLE):
        add_counts(f"AUcomb_selected_{name}", pairs.count(agrees[name] & selected), pairs.count(selected))
    add_counts(f"AUcomb_selected_{VALENCE}", fit.correct, fit.correct + fit.incorrect)
    for name in SCORERS:
        add_counts(name, pairs.count(agrees[name]), n_pairs)
    add_counts(VALENCE, pairs.count(pairs.agrees(own_valence)), n_pairs)
    for index, name in enumerate(names_integrated):
        columns[f"AUcomb_coef_for_{name}"] = integration_weight[index]
        add_counts(name, integrated_correct[index], n_pairs)
    return pd.DataFrame(columns)


def activations(images: pd.DataFrame, decimals: int | None) -> np.ndarray:
    """AU4 and AU12 activation, shape (2, n_images)."""
    activation = np.array([images[f"AU{unit}_activation_value"].to_numpy(float) for unit in (4, 12)])
    return activation if decimals is None else np.round(activation, decimals)


def fold_scores(images: pd.DataFrame, results: pd.DataFrame, *, decimals: int | None = 9) -> pd.DataFrame:
    """The valence score and the ensemble of each image, with the parameters found on all other people.

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image with a valid reaction, of the included participants: ``participant``, ``session_index``,
        ``rank_score``, the scorers of the ensemble, AU4 and AU12 activation.
    results : pandas.DataFrame
        Stage 9, one row a participant: ``user_id``, the ensemble weights, k, w and d of the fold that leaves
        this participant out.
    decimals : int or None
        To which activation values are rounded first (see ``Search``).

    Returns
    -------
    pandas.DataFrame
        One row an image, in the order of ``images``: ``VALENCE`` (eq. 5) and ``ENSEMBLE`` (eq. 7).

    Raises
    ------
    ValueError
        If the results are of other participants than the images.
    """
    names, participant = np.unique(images["participant"].to_numpy(str), return_inverse=True)
    fold = results.set_index(results["user_id"].astype(str)).sort_index()
    if list(fold.index) != list(names):
        raise ValueError(f"the results are of {len(fold)} participants, the images of {len(names)} or of others")
    au4, au12 = activations(images, decimals)
    valence = combined_valence(
        au4,
        au12,
        decay=fold["exp_decay_coef"].to_numpy()[participant],
        au4_weight=fold["AU4_coef"].to_numpy()[participant],
    )
    trained = images[list(TRAINED_SCORERS)]
    weights = fold[[f"{name.removesuffix('_score')}_weight" for name in TRAINED_SCORERS]].to_numpy(float)
    ensemble = np.empty(len(images))
    for left_out in range(len(names)):
        own = participant == left_out
        ensemble[own] = weighted_sum(standardised(trained, ~own), weights[left_out])[own]
    return pd.DataFrame({VALENCE: valence, ENSEMBLE: ensemble}, index=images.index)


def correct_and_total(results: pd.DataFrame, name: str) -> tuple[int, int]:
    """Correct predictions and all predictions of one model, over all participants."""
    correct = int(results[f"{name}_n_correct"].sum())
    return correct, correct + int(results[f"{name}_n_incorrect"].sum())


def accuracy_table(results: pd.DataFrame) -> pd.DataFrame:
    """Tables 1 and 2 side by side: each model's correct pairs and accuracy in percent.

    Columns: ``model``; among the selected pairs, among all pairs, and among all pairs with AUs, each with the
    number of pairs in its name; NaN where the paper has no such number.
    """
    with_aus = dict(zip((*TRAINED_SCORERS, ENSEMBLE), (*INTEGRATED, INTEGRATED_ENSEMBLE), strict=True))
    rows = []
    for name in (*SCORERS, ENSEMBLE, VALENCE):
        row: dict[str, str | int | float] = {"model": name}
        for title, model in (
            ("selected", f"AUcomb_selected_{name}"),
            ("all", name),
            ("with AUs", with_aus.get(name)),
        ):
            if model is not None:
                correct, total = correct_and_total(results, model)
                row[f"{title} correct"] = f"{correct}/{total}"
                row[f"{title} %"] = 100 * correct / total if total else float("nan")
        rows.append(row)
    return pd.DataFrame(rows)
