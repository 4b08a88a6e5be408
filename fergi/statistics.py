"""Statistics of Section 6.1, the binomial test of Section 6.2.5, and the bootstrap over participants."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from fergi.features import ACTION_UNITS

EMOTIONS = ("disappointed", "satisfied", "surprised", "disgusted", "amused", "scared")
MIDDLE_RATING = 4
N_TESTS = len(ACTION_UNITS) * (2 + len(EMOTIONS))
NO_TEST = (float("nan"), float("nan"))  # statistic and p value


def bonferroni_threshold(level: float = 0.05) -> float:
    """Largest p value that counts as significant in Section 6.1: 0.05 / (12 AUs · (2 + 6) tests)."""
    return level / N_TESTS


def activation_of(images: pd.DataFrame, unit: int, decimals: int | None) -> np.ndarray:
    """One AU's activation values, shape (n_images,), rounded so that equal reactions rank as equal.

    Activation values are differences of means of rounded intensities, so that two reactions which are equal
    can differ in their last bits, and then do not tie in the ranks. ``decimals`` None leaves them so (release).
    """
    values = images[f"AU{unit}_activation_value"].to_numpy(float)
    return values if decimals is None else np.round(values, decimals)


def rating_correlations(images: pd.DataFrame, decimals: int | None = 9) -> pd.DataFrame:
    """Spearman correlation of each AU's activation with the overall rating and with its extremity (Section 6.1).

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image with a valid reaction: ``overall_rating`` (1–7; 0 = not given, left out) and the
        activation columns.
    decimals : int or None
        See ``activation_of``.

    Returns
    -------
    pandas.DataFrame
        Index ``AU``; columns ``rating_rho``, ``rating_p``, ``extremity_rho``, ``extremity_p``; the extremity is
        |rating − 4|. NaN where one of the two is the same for all images.

    Notes
    -----
    The p values take images as independent, as the paper does; images of one person are not.
    """
    rated = images[images["overall_rating"] > 0]
    rating = rated["overall_rating"].to_numpy(float)
    rows = {}
    for unit in ACTION_UNITS:
        activation = activation_of(rated, unit, decimals)
        row = {}
        for name, target in (("rating", rating), ("extremity", np.abs(rating - MIDDLE_RATING))):
            varied = np.ptp(activation) > 0 and np.ptp(target) > 0
            row[f"{name}_rho"], row[f"{name}_p"] = stats.spearmanr(activation, target) if varied else NO_TEST
        rows[unit] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("AU")


def emotion_rank_sums(images: pd.DataFrame, decimals: int | None = 9) -> pd.DataFrame:
    """Wilcoxon rank-sum tests of each AU's activation between images with and without each emotion (Section 6.1).

    The normal approximation without a correction for ties, as in the release; z > 0 means higher activation
    with the emotion.

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image with a valid reaction: the six ``EMOTIONS`` (1 or 0) and the activation columns.
    decimals : int or None
        See ``activation_of``.

    Returns
    -------
    pandas.DataFrame
        Index ``AU``; columns ``<emotion>_z`` and ``<emotion>_p``; NaN for an emotion that nobody had, or all had.
    """
    rows = {}
    for unit in ACTION_UNITS:
        activation = activation_of(images, unit, decimals)
        row = {}
        for emotion in EMOTIONS:
            felt = images[emotion].to_numpy() == 1
            two_groups = felt.any() and not felt.all()
            test = stats.ranksums(activation[felt], activation[~felt]) if two_groups else NO_TEST
            row[f"{emotion}_z"], row[f"{emotion}_p"] = test
        rows[unit] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("AU")


def significant_units(p_values: pd.Series, level: float = 0.05) -> tuple[int, ...]:
    """AUs whose p value is below the Bonferroni threshold."""
    return tuple(int(unit) for unit in p_values.index[p_values < bonferroni_threshold(level)])


def binomial_p(correct: int, total: int) -> float:
    """Two-sided binomial test of ``correct`` out of ``total`` against one half (Section 6.2.5)."""
    return float(stats.binomtest(correct, total).pvalue)


def bootstrap_accuracies(
    results: pd.DataFrame,
    accuracies: Sequence[str],
    differences: Mapping[str, tuple[str, str]],
    *,
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> pd.DataFrame:
    """Percentile bootstrap over participants of accuracies and of their differences, in percent.

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
    level : float
        Coverage of the interval.

    Returns
    -------
    pandas.DataFrame
        Index ``figure`` (the models, then the names of the differences); columns ``estimate``, ``lower``, ``upper``.
        Resamples in which a model has no pair are left out of its interval; NaN where it never has one.
    """
    n = len(results)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    drawn = np.vstack([np.ones(n, int), drawn])  # row 0 is the sample itself

    def resampled(model: str) -> np.ndarray:
        correct = results[f"{model}_n_correct"].to_numpy()
        total = correct + results[f"{model}_n_incorrect"].to_numpy()
        n_pairs = drawn @ total
        return np.divide(100 * (drawn @ correct), n_pairs, out=np.full(len(drawn), np.nan), where=n_pairs > 0)

    def quantile(value: np.ndarray, share: float) -> float:
        drawn_pairs = value[1:][np.isfinite(value[1:])]
        return np.quantile(drawn_pairs, share) if len(drawn_pairs) else np.nan

    values = {model: resampled(model) for model in accuracies}
    values |= {name: resampled(first) - resampled(second) for name, (first, second) in differences.items()}
    tail = (1 - level) / 2
    return pd.DataFrame(
        {
            name: {
                "estimate": value[0],
                "lower": quantile(value, tail),
                "upper": quantile(value, 1 - tail),
            }
            for name, value in values.items()
        }
    ).T.rename_axis("figure")
