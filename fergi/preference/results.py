"""What stage 9 writes, and Tables 1 and 2 from it (Sections 6.2.3–6.2.5).

The released columns come first, under their names and in their order. Columns of scorers that are not the paper's
follow them.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from fergi.dataset import Folders, read_excluded_participants, read_image_reactions, read_valid_sessions
from fergi.files import FergiError, read_table
from fergi.preference.folds import mean_and_deviation
from fergi.preference.grid_search import (
    ENSEMBLE,
    TRAINED_SCORERS,
    VALENCE,
    WITH_AUS,
    Parameters,
    Search,
    fit_folds,
    score,
)
from fergi.preference.pairs import pairs_of
from fergi.scorers import registry

SCORERS = tuple(each.column for each in registry.SCORERS.values() if each.paper)
INTEGRATED_ENSEMBLE = WITH_AUS[ENSEMBLE]
SELECTED = "AUcomb_selected_"  # before a model: its predictions on the selected pairs only
ENSEMBLE_WEIGHTS = tuple(f"{name.removesuffix('_score')}_weight" for name in TRAINED_SCORERS)
INTEGRATION = [f"AUcomb_coef_for_{name}" for name in WITH_AUS.values()]
_PRINTED = {"HPSv2": "HPS v2", "HPSv2.1": "HPS v2.1"}  # where a table has another name than the registry


def counts(model: str) -> tuple[str, str]:
    """The two columns of a model's correct and incorrect predictions."""
    return f"{model}_n_correct", f"{model}_n_incorrect"


RELEASED_COLUMNS = (
    "user_id",
    *ENSEMBLE_WEIGHTS,
    *counts(ENSEMBLE),
    *("exp_decay_coef", "AU4_coef", "AU12_coef", "diff_threshold"),
    *(column for model in (*SCORERS, ENSEMBLE, VALENCE) for column in counts(SELECTED + model)),
    *(column for model in (*SCORERS, VALENCE) for column in counts(model)),
    *(column for model in WITH_AUS.values() for column in (f"AUcomb_coef_for_{model}", *counts(model))),
)


def additional_scorers(columns: Iterable[str]) -> tuple[str, ...]:
    """The registered scorers beside the paper's six whose columns are among ``columns``, in the registry's order."""
    there = set(columns)
    return tuple(each.column for each in registry.SCORERS.values() if not each.paper and each.column in there)


def search_preferences(images: pd.DataFrame, search: Search) -> pd.DataFrame:
    """One row a participant: parameters of the fold that holds them out, and counts on their pairs.

    ``images`` are as for ``fit_folds``, which also says what is refused, with the paper's six ``SCORERS``, and if
    there are any, columns of other registered scorers.

    Returns
    -------
    pandas.DataFrame
        ``RELEASED_COLUMNS``; then for each other scorer its counts on the selected and on all pairs.
    """
    parameters = fit_folds(images, search)
    pairs, others = pairs_of(images), additional_scorers(images.columns)
    scores = pd.concat([images[[*SCORERS, *others]], held_out_scores(images, pairs.owner, parameters)], axis=1)
    threshold = np.array([each.threshold for each in parameters])
    selected = np.abs(pairs.difference(scores["selection"])) >= threshold[pairs.participant]

    columns = {"user_id": pairs.names} | _parameter_columns(parameters)
    for name in scores.columns.drop("selection"):
        right = pairs.agrees(scores[name])
        columns |= zip(counts(name), (pairs.count(right), pairs.count(~right)), strict=True)
    for name in (*SCORERS, *others, ENSEMBLE, VALENCE):
        right = pairs.agrees(scores["selection" if name == VALENCE else name])
        numbers = pairs.count(selected & right), pairs.count(selected & ~right)
        columns |= zip(counts(SELECTED + name), numbers, strict=True)
    added = [column for name in others for model in (SELECTED + name, name) for column in counts(model)]
    return pd.DataFrame(columns)[[*RELEASED_COLUMNS, *added]]


def held_out_scores(images: pd.DataFrame, owner: np.ndarray, parameters: list[Parameters]) -> pd.DataFrame:
    """Scores of each participant's images with the parameters of the fold that holds this participant out."""
    places = [np.flatnonzero(owner == number) for number in range(len(parameters))]
    scores = [score(images.iloc[place], each) for place, each in zip(places, parameters, strict=True)]
    return pd.concat(scores).iloc[np.argsort(np.concatenate(places))]


def _parameter_columns(parameters: list[Parameters]) -> dict[str, np.ndarray]:
    """The parameters of each fold under their released names."""
    found = {name: np.array([vars(each)[name] for each in parameters]) for name in vars(parameters[0])}
    return {
        **dict(zip(ENSEMBLE_WEIGHTS, found["ensemble_weights"].T, strict=True)),
        "exp_decay_coef": found["decay"],
        "AU4_coef": found["au4_weight"],
        "AU12_coef": 1 - found["au4_weight"],
        "diff_threshold": found["threshold"],
        **dict(zip(INTEGRATION, found["integration_weights"].T, strict=True)),
    }


def fold_scores(
    images: pd.DataFrame, results: pd.DataFrame, *, decimals: int | None = 9, product: bool = False
) -> pd.DataFrame:
    """The scores of each image (see ``score``) with the parameters found on all other people.

    ``images`` are those of the included participants, with the columns for ``score`` and ``participant``; ``results``
    are from ``search_preferences`` or from the file of stage 9; ``decimals`` and ``product`` as in ``Search``.

    Raises
    ------
    ValueError
        If the results are of other participants than the images.
    """
    names, owner = np.unique(images["participant"].to_numpy(str), return_inverse=True)
    folds = results.set_index(results["user_id"].astype(str)).sort_index()
    if list(folds.index) != list(names):
        raise ValueError(f"the results are of {len(folds)} participants, the images of {len(names)} or of others")
    parameters = [
        Parameters(
            *mean_and_deviation(images[list(TRAINED_SCORERS)], owner, number),
            ensemble_weights=row[list(ENSEMBLE_WEIGHTS)].to_numpy(float),
            decay=row["exp_decay_coef"],
            au4_weight=row["AU4_coef"],
            threshold=row["diff_threshold"],
            integration_weights=row.reindex(INTEGRATION, fill_value=0.0).to_numpy(float),
            activation_decimals=decimals,
            product_valence=product,
        )
        for number, (_, row) in enumerate(folds.iterrows())
    ]
    return held_out_scores(images, owner, parameters)


def read_results(folders: Folders, mode: str, strict_lopo: bool = False, *, everybody: bool = False) -> pd.DataFrame:
    """The results of stage 9 in one mode: ``user_id`` as text, all other columns as numbers.

    ``everybody``: those without the exclusion of stage 8.

    Raises
    ------
    FergiError
        If the table is missing or unusable, or is not of the people whom stages 7 and 8 leave; it names the command
        that makes it.
    """
    path = folders.preference_results(mode, strict_lopo, everybody=everybody)
    options = f"{' --mode released' if mode == 'released' else ''}{' --strict-lopo' if strict_lopo else ''}"
    options += " --everybody" if everybody else ""
    command = f"image_preference_binary_classification_based_on_ranking.py{options}"
    try:
        header = pd.read_csv(path, nrows=0).columns if path.is_file() else ()
        numeric = dict.fromkeys(name for name in (*RELEASED_COLUMNS, *header) if name != "user_id")
        results = read_table(path, text_key=["user_id"], numeric=list(numeric))
    except ValueError as error:
        raise FergiError(f"{error}. Run {command} first.") from error
    sessions = read_valid_sessions(folders)
    reactions = read_image_reactions(folders, sessions, image_columns=(), activation_columns=())
    excluded = () if everybody else read_excluded_participants(folders, sessions)
    included = set(reactions["participant"]) - {*excluded}
    different = sorted(included.symmetric_difference(results["user_id"]))
    if different:
        raise FergiError(
            f"{path} has results of other people than stages 7 and 8 leave: {len(different)} are only in one of them "
            f"(first: {different[0]}). Run {command} again."
        )
    return results


def correct_and_total(results: pd.DataFrame, model: str) -> tuple[int, int]:
    """Correct predictions and all predictions of one model, over all participants."""
    correct, incorrect = (int(results[column].sum()) for column in counts(model))
    return correct, correct + incorrect


def tables_1_and_2(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of Tables 1 and 2, over all participants of ``search_preferences`` or of the file of stage 9.

    Returns
    -------
    pandas.DataFrame
        Models on the selected pairs, on all pairs, and with AUs on all pairs; in each part the paper's six scorers,
        their ensemble and AUcomb first, then other scorers. Index ``figure``: such as ``HPS v2, selected``,
        ``AUcomb, all`` and ``ensemble with AUs, all``. Columns: ``table`` (``Table 1`` or ``Table 2``); ``name``
        (``HPS v2``, without ``with AUs``); ``pairs`` (``selected`` or ``all``); ``with_aus`` (bool); ``scorer`` (a
        column of the image tables, ``ENSEMBLE`` or ``VALENCE``); ``model`` (what the columns of its counts begin
        with); ``correct``, ``total`` (int); and ``percent`` (NaN where there is no pair).
    """
    names = {each.column: _PRINTED.get(name, name) for name, each in registry.SCORERS.items()}
    names |= {ENSEMBLE: "ensemble", VALENCE: "AUcomb"}
    others = [name for name in additional_scorers(names) if counts(name)[0] in results]
    alone = (*SCORERS, ENSEMBLE, VALENCE, *others)
    rows = [("Table 1", names[scorer], "selected", False, scorer, SELECTED + scorer) for scorer in alone]
    rows += [("Table 2", names[scorer], "all", False, scorer, scorer) for scorer in alone]
    rows += [("Table 2", names[scorer], "all", True, scorer, model) for scorer, model in WITH_AUS.items()]
    table = pd.DataFrame(rows, columns=["table", "name", "pairs", "with_aus", "scorer", "model"])
    table[["correct", "total"]] = [correct_and_total(results, model) for model in table["model"]]
    table["percent"] = 100 * table["correct"] / table["total"]
    figure = table["name"] + np.where(table["with_aus"], " with AUs", "") + ", " + table["pairs"]
    return table.set_index(pd.Index(figure, name="figure"))
