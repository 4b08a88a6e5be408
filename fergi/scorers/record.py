"""What the scores in the image tables were made with, and whether they can come from trained networks.

Needs no network libraries, so that stage 9 stays quick.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fergi.dataset import Folders
from fergi.files import read_json, sha256, write_json

# Column → where the median of images under their own prompts lies, and the least standard deviation over images.
# Wide on purpose: any trained scorer lies far inside, whatever the images.
#   cosines (CLIP, BLIP, HPS v2): training pulls matching pairs together, so that their median is clearly above 0;
#     without training it is near 0 or the same for all. PickScore is such a cosine times 100.
#   Aesthetic: trained on ratings from 1 to 10. ImageReward: standardised to mean 0 and standard deviation 1.
EXPECTED = {
    "CLIP_score": (0.1, 0.6, 0.005),
    "Aesthetic_score": (1.0, 10.0, 0.05),
    "BLIP_score": (0.1, 0.9, 0.005),
    "ImageReward_score": (-2.5, 2.5, 0.1),
    "PickScore": (10.0, 40.0, 0.1),
    "HPS_V2_score": (0.1, 0.6, 0.002),
    "HPS_V2_1_score": (0.1, 0.6, 0.002),
}


def untrained_columns(scores: pd.DataFrame) -> list[str]:
    """A sentence for every score column that no trained network gives.

    Parameters
    ----------
    scores : pandas.DataFrame
        Images by columns; only columns of ``EXPECTED`` are looked at. Standard deviations need ten images.
    """
    sentences = []
    for column, (lowest, highest, least) in EXPECTED.items():
        if column not in scores or scores[column].count() == 0:
            continue
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


def _table_sums(folders: Folders, participants: Iterable[str]) -> dict[str, str | None]:
    def of(path: Path) -> str | None:
        return sha256(path) if path.is_file() else None

    return {f"{participant}.csv": of(folders.image_tables / f"{participant}.csv") for participant in participants}


def write_score_record(folders: Folders, participants: Iterable[str], columns: Mapping[str, Mapping[str, Any]]) -> None:
    """Write beside the image tables what each of their score columns was made with."""
    write_json({"tables": _table_sums(folders, participants), "columns": columns}, folders.score_record)


def made_here(folders: Folders, participants: Iterable[str]) -> dict[str, Any] | None:
    """Column → what it was made with, if the tables are those that the record beside them describes; else None."""
    if not folders.score_record.is_file():
        return None
    content = read_json(folders.score_record, "Remove it, or run preprocess_image_data.py again.")
    known, columns = (content.get(name) if isinstance(content, dict) else None for name in ("tables", "columns"))
    if not isinstance(known, dict) or not isinstance(columns, dict):
        return None
    sums = _table_sums(folders, participants)
    same = sums and all(found is not None and known.get(name) == found for name, found in sums.items())
    return columns if same else None


def describe_scores(folders: Folders, participants: Iterable[str], scores: pd.DataFrame) -> list[str]:
    """Sentences on where the scores come from, and warnings of those that look untrained.

    Parameters
    ----------
    folders : Folders
        Where the image tables are.
    participants : iterable of str
        Whose tables are used.
    scores : pandas.DataFrame
        The score columns in use, over all of their images.
    """
    columns = made_here(folders, participants)
    if columns is None:
        sentences = ["Scores: published, or of an unknown origin (no record of them beside the tables)."]
    else:
        sentences = []
        for column in scores.columns:
            if column in columns:
                files = [
                    f"{Path(each['file']).name} ({each['sha256'][:12]}…, {_STATES[each['is_published_file']]})"
                    for each in columns[column]["checkpoints"]
                ]
                sentences.append(f"Scores: {column} made here with {', '.join(files)}.")
    return sentences + [f"Warning: {each}" for each in untrained_columns(scores)]


_STATES = {True: "the published file", False: "not the published file", None: "published sum not known"}
