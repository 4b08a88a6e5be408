"""Where the scores in the image tables come from, and whether trained networks can have given them.

Needs no PyTorch, so that stages 9 and 10 stay quick.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fergi.dataset import Folders
from fergi.files import read_json, sha256, write_json
from fergi.scorers.registry import SCORERS
from fergi.weights import WEIGHT_FILES


def untrained_columns(scores: pd.DataFrame) -> list[str]:
    """A sentence for every score column that no trained network gives.

    Parameters
    ----------
    scores : pandas.DataFrame
        Images by columns; those of registered scorers are looked at. Standard deviations need ten images.
    """
    sentences = []
    for column, expected in {scorer.column: scorer.expected for scorer in SCORERS.values()}.items():
        if expected is None or column not in scores or scores[column].count() == 0:
            continue
        lowest, highest, least = expected
        median, spread = scores[column].median(), scores[column].std()
        flat = scores[column].count() >= 10 and spread < least
        if not lowest <= median <= highest or flat:
            sentences.append(
                f"{column} does not look like a trained network's: median {median:.3g} and standard deviation "
                f"{spread:.2g}, expected {lowest:g} to {highest:g} and at least {least:g}."
            )
    return sentences


def scorer_agreement(images: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Spearman correlations between scores, and between each score and the overall rating.

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image: the columns and ``overall_rating``, where 0 stands for no rating.
    columns : sequence of str
        Scores.

    Returns
    -------
    pandas.DataFrame
        Scores by scores, and a column ``overall_rating``, over the images that have a rating.
    """
    rated = images["overall_rating"].where(images["overall_rating"] > 0)
    table = images[list(columns)].assign(overall_rating=rated)
    return table.corr(method="spearman").loc[list(columns)]


def _table_sums(folders: Folders, participants: Iterable[str]) -> dict[str, str]:
    paths = [folders.image_tables / f"{participant}.csv" for participant in participants]
    return {path.name: sha256(path) if path.is_file() else "missing" for path in paths}


def write_table_settings(folders: Folders, participants: Iterable[str], columns: Mapping[str, Mapping]) -> None:
    """Write the settings of the image tables: their SHA-256, and ``<column>: <name>`` for each score's settings."""
    scores = {f"{column}: {name}": value for column, settings in columns.items() for name, value in settings.items()}
    write_json(_table_sums(folders, participants) | scores, folders.score_settings)


def read_table_settings(folders: Folders, participants: Iterable[str]) -> dict[str, Any] | None:
    """The settings of the image tables, if they are of these very tables; None for fetched or changed tables."""
    if not folders.score_settings.is_file():
        return None
    settings = read_json(folders.score_settings, "Remove it, or run preprocess_image_data.py again.")
    sums = _table_sums(folders, participants)
    return settings if isinstance(settings, dict) and sums and sums.items() <= settings.items() else None


def score_origins(folders: Folders, participants: Iterable[str], scores: pd.DataFrame) -> list[str]:
    """Sentences on where the scores in these participants' tables come from, and warnings of those that look untrained.

    ``scores`` has the columns in use, over all of their images.
    """
    settings = read_table_settings(folders, participants)
    if settings is None:
        sentences = ["Scores: published, or of an unknown origin (no settings of them beside the tables)."]
    else:
        sentences = []
        for column in scores.columns:
            files = []
            for file in WEIGHT_FILES:
                if found := settings.get(f"{column}: {file.path}"):
                    published = "the published file" if found == file.sha256 else "not the published file"
                    state = "published sum not known" if file.sha256 is None else published
                    files.append(f"{Path(file.path).name} ({found[:12]}…, {state})")
            if tuned := settings.get(f"{column}: adapter"):
                files.append(f"tuned values ({tuned[:12]}…)")
            if files:
                sentences.append(f"Scores: {column} made here with {', '.join(files)}.")
    return sentences + [f"Warning: {each}" for each in untrained_columns(scores)]
