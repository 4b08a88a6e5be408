"""What is computed for Sections 6.1 and 6.2 once stages 5 to 9 are done: tests, intervals, and what figures show."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from fergi.activation import ACTIVATION_COLUMNS
from fergi.dataset import EMOTIONS
from fergi.features import ACTION_UNITS
from fergi.preference.grid_search import Search, activations, selected_counts
from fergi.preference.pairs import pairs_of
from fergi.preference.results import ENSEMBLE, VALENCE, fold_scores

MIDDLE_RATING = 4
N_TESTS = len(ACTION_UNITS) * (2 + len(EMOTIONS))
BONFERRONI_THRESHOLD = 0.05 / N_TESTS  # p values below are significant in Section 6.1
NO_TEST = (float("nan"), float("nan"))  # statistic and p value
RESAMPLES, SEED = 10_000, 2312_03187  # of the bootstrap, unless said otherwise


# Section 6.1 -------------------------------------------------------------------------------------------------------


def _activations(images: pd.DataFrame, decimals: int | None) -> np.ndarray:
    """Activation values, shape (n_images, n_units), rounded so that equal reactions rank as equal.

    Activation values are differences of means of rounded intensities. Two equal reactions can therefore differ in
    their last bits, and then do not tie in the ranks. ``decimals`` None leaves them so, as the release does.
    """
    values = images[list(ACTIVATION_COLUMNS)].to_numpy(float)
    return values if decimals is None else np.round(values, decimals)


def rating_correlations(images: pd.DataFrame, decimals: int | None = 9) -> pd.DataFrame:
    """Spearman correlation of each AU's activation with the overall rating and with its extremity (Section 6.1).

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image with a valid reaction: ``overall_rating`` (1–7; images with 0, no rating, are dropped) and
        the activation columns.
    decimals : int or None
        Digits to which activation values are rounded first; None for the release, which lets noise break ties.

    Returns
    -------
    pandas.DataFrame
        Index ``AU``; columns ``rating_rho``, ``rating_p``, ``extremity_rho``, ``extremity_p``; the extremity is
        |rating − 4|. NaN where activation or rating is the same for all images.

    Notes
    -----
    The p values take images as independent, as the paper does; images of one person are not.
    """
    rated = images[images["overall_rating"] > 0]
    rating, activations = rated["overall_rating"].to_numpy(float), _activations(rated, decimals)
    found = {}
    for name, target in (("rating", rating), ("extremity", np.abs(rating - MIDDLE_RATING))):
        tests = [
            stats.spearmanr(each, target) if np.ptp(each) > 0 and np.ptp(target) > 0 else NO_TEST
            for each in activations.T
        ]
        found[f"{name}_rho"], found[f"{name}_p"] = zip(*tests, strict=True)
    return pd.DataFrame(found, index=pd.Index(ACTION_UNITS, name="AU"))


def emotion_rank_sums(images: pd.DataFrame, decimals: int | None = 9) -> pd.DataFrame:
    """Wilcoxon rank-sum tests of each AU's activation between images with and without each emotion (Section 6.1).

    The normal approximation without a correction for ties, as in the release; z > 0 means higher activation
    with the emotion.

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image with a valid reaction: the six ``EMOTIONS`` (1 or 0) and the activation columns.
    decimals : int or None
        Digits to which activation values are rounded first; None for the release, which lets noise break ties.

    Returns
    -------
    pandas.DataFrame
        Index ``AU``; columns ``<emotion>_z`` and ``<emotion>_p``; NaN for an emotion that nobody had, or all had.
    """
    activations, found = _activations(images, decimals), {}
    for emotion in EMOTIONS:
        felt = images[emotion].to_numpy() == 1
        two_groups = felt.any() and not felt.all()
        test = stats.ranksums(activations[felt], activations[~felt]) if two_groups else NO_TEST
        found[f"{emotion}_z"], found[f"{emotion}_p"] = test
    return pd.DataFrame(found, index=pd.Index(ACTION_UNITS, name="AU"))


def significant_units(p_values: pd.Series) -> tuple[int, ...]:
    """AUs whose p value is below the Bonferroni threshold."""
    return tuple(int(unit) for unit in p_values.index[p_values < BONFERRONI_THRESHOLD])


def marked(values: pd.DataFrame, p_values: pd.DataFrame, *, digits: int = 2) -> pd.DataFrame:
    """Statistics as text, with an asterisk where the p value is below the Bonferroni threshold (Section 6.1).

    A dash stands where there was nothing to test (NaN), as with an emotion that nobody felt.

    Parameters
    ----------
    values, p_values : pandas.DataFrame, both of one shape
        Statistics, and their p values at the same places; names are taken from ``values``.
    digits : int
        Digits after the point.
    """
    text = values.map(f"{{:.{digits}f}}".format)
    return (text + np.where(p_values < BONFERRONI_THRESHOLD, " *", "")).where(values.notna(), "–")


def rating_units(correlations: pd.DataFrame) -> pd.DataFrame:
    """The AUs of Figure 3 in its order, with the correlations that it shows: those that are significant.

    First the AUs significant for the rating only, then those for its extremity only, then those for both; each
    group by AU number. If none is significant, the AU with the smallest p for the rating and the one with the
    smallest for its extremity take their place.

    Parameters
    ----------
    correlations : pandas.DataFrame
        From ``rating_correlations``.

    Returns
    -------
    pandas.DataFrame
        Index ``AU``; columns ``rating`` and ``extremity``: ρ, or NaN where not shown.
    """
    p_values = correlations["rating_p"], correlations["extremity_p"]
    rating, extremity = (set(significant_units(p)) for p in p_values)
    if not rating | extremity:
        rating, extremity = (set(p.dropna().nsmallest(1).index) for p in p_values)
    order = [*sorted(rating - extremity), *sorted(extremity - rating), *sorted(rating & extremity)]
    shown = {"rating": rating, "extremity": extremity}
    return pd.DataFrame(
        {name: correlations[f"{name}_rho"].where(correlations.index.isin(units)) for name, units in shown.items()}
    ).loc[order]


# Section 6.2 -------------------------------------------------------------------------------------------------------


def fold_choices(results: pd.DataFrame, columns: Sequence[str]) -> dict[tuple[float, ...], int]:
    """How many folds of stage 9 chose each combination of the parameters in ``columns``, the most frequent first."""
    counts = results[list(columns)].round(6).value_counts(sort=False).sort_values(ascending=False, kind="stable")
    return {tuple(float(value) for value in values): int(n) for values, n in counts.items()}


def bootstrap_accuracies(
    results: pd.DataFrame,
    accuracies: Sequence[str],
    differences: Mapping[str, tuple[str, str]],
    *,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Accuracies and their differences in percent, with 95 % intervals from a percentile bootstrap over participants.

    Pairs of one person are not independent, so whole participants are drawn, with replacement; the fitted
    parameters stay as they are.

    Parameters
    ----------
    results : pandas.DataFrame
        One row a participant, with columns ``<model>_n_correct`` and ``<model>_n_incorrect``.
    accuracies : sequence of str
        Models.
    differences : mapping
        Name → (model, other model): accuracy of the first minus accuracy of the second.
    resamples, seed : int
        How many resamples, and where the generator starts.

    Returns
    -------
    pandas.DataFrame
        Index ``figure`` (the models, then the names of the differences); columns ``estimate``, ``lower``, ``upper``.
        The interval of a model is over the resamples in which it has pairs; NaN where it never has one.
    """
    draws = draw_participants(len(results), resamples, seed)

    def accuracy(model: str) -> np.ndarray:
        correct, incorrect = (results[f"{model}_n_{kind}"].to_numpy() for kind in ("correct", "incorrect"))
        return percent(draws @ correct, draws @ (correct + incorrect))

    values = {model: accuracy(model) for model in accuracies}
    values |= {name: accuracy(first) - accuracy(second) for name, (first, second) in differences.items()}
    rows = [with_interval(value) for value in values.values()]
    return pd.DataFrame(rows, index=pd.Index(values, name="figure"), columns=["estimate", "lower", "upper"])


def draw_participants(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each participant is in each resample, shape (1 + resamples, n); the first row is the sample itself."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.vstack([np.ones(n, int), drawn])


def percent(correct: np.ndarray, total: np.ndarray) -> np.ndarray:
    """NaN where there is no pair."""
    return np.divide(100 * correct, total, out=np.full(correct.shape, np.nan), where=total > 0)


def with_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate (the first row) and the ends of its 95 % interval (percentiles of the other rows, without NaN)."""
    tail = (1 - 0.95) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice encountered", RuntimeWarning)
        lower, upper = np.nanquantile(values[1:], [tail, 1 - tail], axis=0)
    return values[0], lower, upper


def pair_predictions(images: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """What both scores of ``fold_scores``, which has the same parameters and errors, predict for each pair.

    Returns
    -------
    pandas.DataFrame
        One row a pair: ``participant``; ``difference``, the absolute difference of the valence scores (eq. 5),
        0–1; ``selected``, whether it reaches the fold's d; and for ``VALENCE`` and ``ENSEMBLE`` whether the
        prediction is right (a tie is not).
    """
    scores = fold_scores(images, results)
    pairs = pairs_of(images)
    threshold = results.set_index(results["user_id"].astype(str)).loc[pairs.names, "diff_threshold"].to_numpy()
    difference = np.abs(pairs.difference(scores[VALENCE]))
    return pd.DataFrame(
        {
            "participant": pairs.names[pairs.participant],
            "difference": difference,
            "selected": difference >= threshold[pairs.participant],
            VALENCE: pairs.agrees(scores[VALENCE]),
            ENSEMBLE: pairs.agrees(scores[ENSEMBLE]),
        }
    )


def selected_accuracy(predictions: pd.DataFrame) -> pd.Series:
    """Table 1 of ``VALENCE`` and ``ENSEMBLE`` (percent), with ``n_pairs``, ``n_selected`` and ``share`` (percent).

    ``predictions`` are from ``pair_predictions``. The accuracies are NaN where no pair is selected.
    """
    selected = predictions[predictions["selected"]]
    counts = {"n_pairs": len(predictions), "n_selected": len(selected), "share": 100 * predictions["selected"].mean()}
    return pd.Series(counts | {name: 100 * selected[name].mean() for name in (VALENCE, ENSEMBLE)})


def selection_curve(predictions: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """Accuracy among the pairs whose valence scores differ by at least so much, for ever smaller differences.

    Pairs with equal differences come in together. The 95 % intervals are as in ``bootstrap_accuracies``.

    Parameters
    ----------
    predictions : pandas.DataFrame
        From ``pair_predictions``.
    resamples, seed : int
        How many resamples, and where the generator starts.

    Returns
    -------
    pandas.DataFrame
        At most 200 rows, evenly taken from all different differences, largest first; rows with fewer than 50 pairs,
        and with less than a tenth of all pairs, are dropped: they say little. Columns ``difference``; ``n_selected``;
        ``share`` (percent of all pairs); for ``VALENCE`` and ``ENSEMBLE`` the accuracy in percent, ``<name>_lower``
        and ``<name>_upper``.
    """
    ordered = predictions.sort_values("difference", ascending=False, kind="stable")
    difference = ordered["difference"].to_numpy()
    last = np.flatnonzero(np.append(difference[:-1] != difference[1:], True))  # of those with the same difference
    last = last[np.unique(np.linspace(0, len(last) - 1, min(200, len(last))).round().astype(int))]

    names, participant = np.unique(ordered["participant"].to_numpy(str), return_inverse=True)
    of_participant = participant[:, None] == np.arange(len(names))
    draws = draw_participants(len(names), resamples, seed)
    selected = draws @ of_participant.cumsum(axis=0)[last].T
    curve = {"difference": difference[last], "n_selected": selected[0], "share": 100 * selected[0] / len(ordered)}
    for name in (VALENCE, ENSEMBLE):
        correct = draws @ (of_participant & ordered[name].to_numpy(bool)[:, None]).cumsum(axis=0)[last].T
        ends = (name, f"{name}_lower", f"{name}_upper")
        curve |= dict(zip(ends, with_interval(percent(correct, selected)), strict=True))
    return pd.DataFrame(curve)[curve["n_selected"] >= min(50, len(ordered) / 10)].reset_index(drop=True)


def objective_by_decay_and_threshold(images: pd.DataFrame, search: Search) -> pd.DataFrame:
    """The objective of the search (eq. 9) over all participants, for each (k, d) at its best w_AU4.

    Parameters
    ----------
    images : pandas.DataFrame
        As for ``pair_predictions``; the ensemble's scorers are not needed.
    search : Search
        Grids, penalty and rounding.

    Returns
    -------
    pandas.DataFrame
        Index ``k``, columns ``d``; n_correct − 2 n_incorrect with the paper's penalty. Nobody is held out; each
        fold searches on the same values less those of one participant.
    """
    pairs = pairs_of(images)
    au4, au12 = activations(images, search.activation_decimals)
    correct, incorrect = (counts.sum(axis=0) for counts in selected_counts(pairs, au4, au12, search))
    objective = (correct - search.incorrect_penalty * incorrect).max(axis=1)
    return pd.DataFrame(
        objective, index=pd.Index(search.decays, name="k"), columns=pd.Index(search.thresholds, name="d")
    )
