"""Which labels a scorer or a generator is tuned on: those that faces gave, and two kinds that serve as controls."""

from pathlib import Path

import numpy as np
import pandas as pd

from fergi.dataset import CLIP_KEY, Folders
from fergi.files import read_table, require, write_table
from synthetic.cohort import Truth

# As annotated; with a random half of the verdicts turned round; with all turned round.
ANNOTATED, BY_COIN, TURNED_ROUND = LABELS = ("annotated", "by_coin", "turned_round")
COLUMNS = ["participant", "session_index", "first_image", "second_image", "prompt", "probability_first", "verdict"]
DOUBT = 0.75  # probability of a verdict by coin, where faces gave none


def tuned_table(folders: Folders, what: str) -> Path:
    """What ``synthetic tuned`` measured: a row for each kind of labels and seed; ``what``: scorer or generator."""
    return folders.results / f"tuned_{what}.csv"


def write_labels(audience: Folders, labels: str, seed: int) -> tuple[Path, int, float]:
    """A table of pairs for trainers; its path, the number of pairs, and the share whose label is right.

    If no pair has a verdict, since the preference model found nothing in the faces, each gets one by coin.
    """
    require([audience.preferences], "tables of annotated pairs", "Run annotate_preferences.py on the audience first.")
    table = read_table(audience.preferences, text_key=COLUMNS[:1], key=COLUMNS[1:4], kept=COLUMNS[4:])
    random = np.random.default_rng([seed, LABELS.index(labels)])
    decided = table["verdict"] != "abstain"
    if decided.any():
        table = table[decided]
    else:
        table = table.assign(probability_first=random.choice([DOUBT, 1 - DOUBT], len(table)))
    first = table["probability_first"].to_numpy(float)
    if labels == BY_COIN:
        first = np.where(random.permutation(len(first)) < len(first) // 2, 1 - first, first)
    elif labels == TURNED_ROUND:
        first = 1 - first
    path = audience.root / "pairs" / f"{labels}_{seed}.csv"
    table = table.assign(probability_first=first, verdict=np.where(first > 0.5, "first", "second"))
    write_table(table[COLUMNS], path)
    return path, len(table), float(np.mean((first > 0.5) == _first_is_better(audience, table)))


def _first_is_better(audience: Folders, pairs: pd.DataFrame) -> np.ndarray:
    """By the drawn quality, of each pair."""
    images = pd.read_csv(Truth(audience.root).images, dtype={"participant": str})
    quality = images.set_index(["participant", *CLIP_KEY])["quality"]
    first, second = (
        quality.loc[pd.MultiIndex.from_frame(pairs[["participant", "session_index", f"{side}_image"]])].to_numpy()
        for side in ("first", "second")
    )
    return first > second
