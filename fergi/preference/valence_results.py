"""What stage 9 writes for valence models other than AUcomb (FAU-Net, linear), in the columns of FAU-Net's release."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fergi.preference.folds import mean_and_deviation, own_valence
from fergi.preference.grid_search import (
    ENSEMBLE,
    TRAINED_SCORERS,
    WITH_AUS,
    Search,
    fit_integration,
    held_out_integration,
)
from fergi.preference.model import ValenceModel
from fergi.preference.pairs import Pairs, pairs_of
from fergi.preference.results import ENSEMBLE_WEIGHTS, SCORERS, additional_scorers, correct_and_total, counts

AUS = "AUs_integrated_score"  # the valence
WITH_VALENCE = {name: f"ensemble_{name.removesuffix('_score')}_AUs_score" for name in TRAINED_SCORERS}
WITH_VALENCE[ENSEMBLE] = WITH_AUS[ENSEMBLE]
RELEASED_COLUMNS = (
    "user_id",
    *ENSEMBLE_WEIGHTS,
    *(column for model in (ENSEMBLE, AUS, *SCORERS) for column in counts(model)),
    *(column for model in WITH_VALENCE.values() for column in (f"AUs_coef_for_{model}", *counts(model))),
)
PROPORTIONS = np.linspace(0.01, 1.0, 100)


def search_with_valence(
    images: pd.DataFrame, models: Sequence[ValenceModel], search: Search
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results of the folds and the counts of the selection.

    Parameters
    ----------
    images : pandas.DataFrame
        As for ``search_preferences``, with the activation values that the models need.
    models : sequence of ValenceModel
        One a participant, fitted on all others; by name.
    search : Search
        Of the integration. Where it is strict, each fold gives all images the valence of its own model; otherwise
        training images have that of the fold that holds their participant out, as in the release.

    Returns
    -------
    results : pandas.DataFrame
        One row a participant: ``RELEASED_COLUMNS``, then counts of other registered scorers on all pairs.
    selection : pandas.DataFrame
        See ``selection_counts``.

    Raises
    ------
    ValueError
        As ``fit_folds`` does.
    """
    pairs, others = pairs_of(images), additional_scorers(images.columns)
    valence = own_valence(models, images, pairs.owner)
    carried = [model.valence(images) if search.strict else valence for model in models]
    folds = fit_integration(images, pairs, carried, search, range(len(models)))
    integrated = held_out_integration(images, pairs.owner, valence, folds).rename(
        columns={WITH_AUS[name]: WITH_VALENCE[name] for name in WITH_VALENCE}
    )
    scores = pd.concat([images[[*SCORERS, *others]], integrated], axis=1).assign(**{AUS: valence})

    columns = {"user_id": pairs.names}
    columns |= zip(ENSEMBLE_WEIGHTS, np.array([each.ensemble_weights for each in folds]).T, strict=True)
    weights = np.array([each.integration_weights for each in folds]).T
    columns |= {f"AUs_coef_for_{name}": each for name, each in zip(WITH_VALENCE.values(), weights, strict=True)}
    for name in scores:
        right = pairs.agrees(scores[name])
        columns |= zip(counts(name), (pairs.count(right), pairs.count(~right)), strict=True)
    added = [column for name in others for column in counts(name)]
    selecting = scores[[*SCORERS, ENSEMBLE, AUS]].copy()
    for number in range(len(models)):  # z-scores of each fold, since their last bits decide between equal differences
        mean, deviation = mean_and_deviation(images[list(SCORERS)], pairs.owner, number)
        own = pairs.owner == number
        selecting.loc[own, list(SCORERS)] = (images.loc[own, list(SCORERS)].to_numpy() - mean) / deviation
    return pd.DataFrame(columns)[[*RELEASED_COLUMNS, *added]], selection_counts(selecting, pairs)


def selection_counts(scores: pd.DataFrame, pairs: Pairs) -> pd.DataFrame:
    """How often each score is right on the pairs that differ most by one score.

    As in FAU-Net's release: of each participant the pairs whose absolute difference reaches a percentile of theirs;
    both orders of a pair are counted, and of a tie one of them is right; the valence is compared in float32.

    Returns
    -------
    pandas.DataFrame
        ``selected_by``, ``proportion`` (0.01–1), ``score``, ``n_correct``, ``n_incorrect``.
    """
    values = {name: scores[name].to_numpy() for name in scores}
    values[AUS] = values[AUS].astype(np.float32)
    differences = {name: pairs.difference(each) for name, each in values.items()}
    right = np.stack([1 + np.sign(each).astype(int) for each in differences.values()])
    correct = np.zeros((len(values), len(values), len(PROPORTIONS)), int)
    total = np.zeros((len(values), len(PROPORTIONS)), int)
    for number in np.unique(pairs.participant):
        own = pairs.participant == number
        for place, difference in enumerate(differences.values()):
            size = np.abs(difference[own])
            limits = np.percentile(np.repeat(size, 2), 100 * (1 - PROPORTIONS)).astype(size.dtype)
            selected = size[:, None] >= limits
            correct[place] += right[:, own] @ selected
            total[place] += 2 * selected.sum(axis=0)
    table = pd.DataFrame(
        [(by, proportion, name) for by in values for name in values for proportion in PROPORTIONS.round(2)],
        columns=["selected_by", "proportion", "score"],
    )
    return table.assign(n_correct=correct.ravel(), n_incorrect=(total[:, None] - correct).ravel())


def accuracies(results: pd.DataFrame, valence_name: str) -> pd.DataFrame:
    """Correct predictions on all pairs over all participants: ``correct``, ``total``, ``percent``, a row a score."""
    names = {AUS: valence_name, ENSEMBLE: "ensemble"} | {name: name.removesuffix("_score") for name in SCORERS}
    rows = {name: correct_and_total(results, model) for model, name in names.items()}
    rows |= {f"{names[scorer]} with AUs": correct_and_total(results, model) for scorer, model in WITH_VALENCE.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["correct", "total"])
    return table.assign(percent=100 * table["correct"] / table["total"])
