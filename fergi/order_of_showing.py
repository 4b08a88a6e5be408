"""The order in which images were shown, which the rankings also contain. Not in the paper.

The earlier of two images is preferred more often than faces can tell, and some rankings are exactly the order of
showing; most likely the ranking page started in that order. That is an artefact of the page and not a preference: no
model of this project sees the numbers of images, and every accuracy has an order-balanced one beside it, the mean of
the accuracies on the pairs whose earlier image is preferred and on those whose later image is.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from fergi.preference.pairs import Pairs, pairs_of
from fergi.preference.results import SCORERS, VALENCE, fold_scores, tables_1_and_2
from fergi.statistics import draw_participants, percent, with_interval


def earlier_preferred(pairs: Pairs, number: np.ndarray) -> np.ndarray:
    """Whether the image shown earlier is the preferred one, bool, shape (n_pairs,).

    ``number`` says as which image of its session each image was shown, shape (n_images,).
    """
    return number[pairs.preferred] < number[pairs.other]


def earlier_by_participant(images: pd.DataFrame, *, resamples: int, seed: int) -> tuple[pd.DataFrame, pd.Series]:
    """How often the earlier image of a pair is preferred.

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image: ``participant``, ``session_index``, ``image_index``, ``rank_score``.
    resamples, seed : int
        Of the bootstrap over participants.

    Returns
    -------
    table : pandas.DataFrame
        Index ``participant``, those with a pair; columns ``earlier``, ``pairs`` (int) and ``percent``.
    everybody : pandas.Series
        ``estimate``, ``lower``, ``upper`` (percent, 95 % interval), ``pairs``, and ``above_half``, the number of
        participants above 50 %.
    """
    pairs = pairs_of(images)
    earlier = earlier_preferred(pairs, images["image_index"].to_numpy())
    table = pd.DataFrame(
        {"earlier": pairs.count(earlier), "pairs": pairs.count(np.ones(len(pairs), bool))},
        index=pd.Index(pairs.names, name="participant"),
    )
    table = table[table["pairs"] > 0].assign(percent=lambda t: 100 * t["earlier"] / t["pairs"])
    draws = draw_participants(len(table), resamples, seed)
    values = with_interval(percent(draws @ table["earlier"].to_numpy(), draws @ table["pairs"].to_numpy()))
    everybody = dict(zip(("estimate", "lower", "upper"), map(float, values), strict=True))
    everybody |= {"pairs": int(table["pairs"].sum()), "above_half": int((table["percent"] > 50).sum())}
    return table, pd.Series(everybody)


def rankings_in_order(images: pd.DataFrame, n_images: int = 5) -> tuple[int, int, float]:
    """Rankings that are the order of showing, of how many, and how many of these would be by chance (1 in n!).

    ``images`` are as for ``earlier_by_participant``, with every image that was ranked; sessions with exactly
    ``n_images`` of them count.
    """
    ordered = images.sort_values(["participant", "session_index", "image_index"])
    sessions = ordered.groupby(["participant", "session_index"])["rank_score"]
    whole = sessions.transform("size") == n_images
    ranks = ordered.loc[whole, "rank_score"].to_numpy().reshape(-1, n_images)
    return int((np.diff(ranks) < 0).all(axis=1).sum()), len(ranks), len(ranks) / math.factorial(n_images)


def order_balanced(
    pairs: Pairs,
    number: np.ndarray,
    right: Mapping[str, np.ndarray],
    used: Mapping[str, np.ndarray],
    *,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Accuracies on pairs whose earlier image is preferred, on those whose later image is, and their mean.

    Parameters
    ----------
    pairs : Pairs
        Pairs of images.
    number : ndarray, shape (n_images,)
        As which image of its session each was shown.
    right, used : mapping
        Name → whether the prediction is right, and whether it counts (bool, shape (n_pairs,)).
    resamples, seed : int
        Of the bootstrap over participants.

    Returns
    -------
    pandas.DataFrame
        One row a name, in percent: ``accuracy``, ``earlier``, ``later``, ``balanced``, and ``lower`` and ``upper``,
        the 95 % interval of ``balanced``. NaN where there is no such pair.
    """
    earlier = earlier_preferred(pairs, number)
    draws = draw_participants(len(pairs.names), resamples, seed)
    rows = {}
    for name, counts in used.items():
        totals = [draws @ pairs.count(counts & kind) for kind in (earlier, ~earlier)]
        correct = [draws @ pairs.count(right[name] & counts & kind) for kind in (earlier, ~earlier)]
        parts = [percent(*each) for each in zip(correct, totals, strict=True)]
        accuracy = percent(sum(correct), sum(totals))
        rows[name] = (accuracy[0], parts[0][0], parts[1][0], *with_interval((parts[0] + parts[1]) / 2))
    columns = ["accuracy", "earlier", "later", "balanced", "lower", "upper"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)


def balanced_tables(
    images: pd.DataFrame, results: pd.DataFrame, *, mode: str, resamples: int, seed: int
) -> pd.DataFrame:
    """Tables 1 and 2 with order-balanced accuracies beside the printed kind.

    Parameters
    ----------
    images : pandas.DataFrame
        Of the included participants, one row an image with a valid reaction, as for ``fold_scores``, with ``SCORERS``
        and ``image_index``.
    results : pandas.DataFrame
        Of stage 9 in the same mode (``read_results``).
    mode : {"paper", "released"}
        Which rounding and which valence the scores have (``search_settings``).
    resamples, seed : int
        Of the bootstrap over participants.

    Returns
    -------
    pandas.DataFrame
        ``order_balanced`` for the rows of ``tables_1_and_2`` of the paper's models.
    """
    released = mode == "released"
    images = images.reset_index(drop=True)
    scores = fold_scores(images, results, decimals=None if released else 9, product=released)
    scores = pd.concat([images[list(SCORERS)], scores], axis=1)
    pairs = pairs_of(images)
    threshold = results.set_index("user_id").loc[pairs.names, "diff_threshold"].to_numpy()
    selected = np.abs(pairs.difference(scores["selection"])) >= threshold[pairs.participant]
    everything = np.ones(len(pairs), bool)
    right, used = {}, {}
    for row in tables_1_and_2(results).itertuples():
        selection = row.pairs == "selected" and row.scorer == VALENCE
        column = "selection" if selection else row.model if row.with_aus else row.scorer
        if column in scores:  # and not of a scorer that the paper does not have
            right[row.Index] = pairs.agrees(scores[column])
            used[row.Index] = selected if row.pairs == "selected" else everything
    return order_balanced(pairs, images["image_index"].to_numpy(), right, used, resamples=resamples, seed=seed)
