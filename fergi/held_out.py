"""What to expect of annotations: predictions on people whom no model saw, compared with their rankings.

Accuracy by coverage, calibration, log loss and order-balanced accuracy of the valence models, each with a 95 %
interval over participants, as everywhere (``fergi.statistics``). The table that all of it starts from is
``results/preferences_held_out.csv``, one row a model and pair.
"""

import numpy as np
import pandas as pd

from fergi.dataset import Folders
from fergi.files import FergiError, read_table
from fergi.statistics import draw_participants, percent, with_interval

TEXT = ["model", "participant"]
KEY = ["session_index", "first_image", "second_image"]
NUMBERS = ["first_preferred", "difference", "probability_first"]
COVERAGES = (1.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05)
EDGES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 1.0)  # of the probabilities in the calibration table
NAMES = {"aucomb": "AUcomb", "fau-net": "FAU-Net", "linear": "linear"}


def read_held_out(folders: Folders) -> pd.DataFrame:
    """The predictions, one row a model and pair.

    Raises
    ------
    FergiError
        If the table is missing or unusable.
    """
    try:
        table = read_table(folders.preferences_held_out, text_key=TEXT, key=KEY, numeric=NUMBERS, kept=["selected"])
    except ValueError as error:
        raise FergiError(f"{error}. Run annotate_preferences.py --held-out first.") from None
    return table


def as_predictions(model: str, pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows of one model, from the pairs of ``preference.model.held_out``; ``model`` is a key of ``NAMES``."""
    table = pairs.rename(columns={"first": "first_image", "second": "second_image", "probability": "probability_first"})
    table = table.assign(model=model).reindex(columns=[*TEXT, *KEY, *NUMBERS, "selected"])
    return table.astype({"first_preferred": float, "selected": float})


class _Sums:
    """Sums over the pairs of each participant, and over resamples of participants."""

    def __init__(self, predictions: pd.DataFrame, resamples: int, seed: int) -> None:
        names, self.owner = np.unique(predictions["participant"].to_numpy(str), return_inverse=True)
        self.n = len(names)
        self.draws = draw_participants(self.n, resamples, seed)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Of values (n_pairs,), shape (1 + resamples,); the first is the sample itself."""
        return self.draws @ np.bincount(self.owner, np.asarray(values, float), self.n)


def _said_and_right(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The probability of the more probable image, 1/2 to 1, and whether it is preferred; at 1/2 nothing is right."""
    first = predictions["probability_first"].to_numpy(float)
    preferred = predictions["first_preferred"].to_numpy(float) == 1
    return np.maximum(first, 1 - first), np.where(first == 0.5, False, (first > 0.5) == preferred)


def accuracy_by_coverage(
    predictions: pd.DataFrame, coverages: tuple[float, ...] = COVERAGES, *, resamples: int, seed: int
) -> pd.DataFrame:
    """Accuracy on the surest pairs of all people together, for ever more of them.

    ``predictions`` are of one model (``read_held_out``).

    Returns
    -------
    pandas.DataFrame
        One row a coverage: ``coverage`` and ``minimum_probability`` as they came out (equally sure pairs come in
        together), ``n_pairs``, ``accuracy``, ``lower``, ``upper`` (percent).
    """
    said, right = _said_and_right(predictions)
    total = _Sums(predictions, resamples, seed)
    surest, rows = np.sort(said)[::-1], []
    for coverage in coverages:
        minimum = surest[max(0, round(coverage * len(said)) - 1)]
        chosen = said >= minimum
        values = with_interval(percent(total(chosen & right), total(chosen)))
        rows.append((chosen.mean(), minimum, int(chosen.sum()), *map(float, values)))
    return pd.DataFrame(rows, columns=["coverage", "minimum_probability", "n_pairs", "accuracy", "lower", "upper"])


def calibration_table(
    predictions: pd.DataFrame, edges: tuple[float, ...] = EDGES, *, resamples: int, seed: int
) -> pd.DataFrame:
    """How often the more probable image is preferred, beside what the probabilities say.

    Returns
    -------
    pandas.DataFrame
        One row for each bin of probability that has pairs: ``low``, ``high``, ``n_pairs``, ``said`` (mean
        probability), ``found``, ``lower``, ``upper`` (percent). A pair at exactly 1/2 counts half.
    """
    said, right = _said_and_right(predictions)
    right = np.where(said == 0.5, 0.5, right)
    total = _Sums(predictions, resamples, seed)
    place = np.clip(np.searchsorted(edges, said, side="right") - 1, 0, len(edges) - 2)
    rows = []
    for number in range(len(edges) - 1):
        chosen = place == number
        if chosen.any():
            values = with_interval(percent(total(chosen * right), total(chosen)))
            low, high = edges[number], edges[number + 1]
            rows.append((low, high, int(chosen.sum()), 100 * said[chosen].mean(), *map(float, values)))
    return pd.DataFrame(rows, columns=["low", "high", "n_pairs", "said", "found", "lower", "upper"])


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error in percentage points: mean distance of said and found, by pairs."""
    return float(np.average(np.abs(table["said"] - table["found"]), weights=table["n_pairs"]))


def summary(predictions: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """Single figures of one model.

    Returns
    -------
    pandas.DataFrame
        Index: ``accuracy``, ``order-balanced`` and, where there are AUcomb's own thresholds, ``at its thresholds``
        (percent); ``calibration error`` (percentage points); ``log loss`` (nats; guessing: 0.693). Columns
        ``estimate``, ``lower``, ``upper``, ``n_pairs``.
    """
    said, right = _said_and_right(predictions)
    earlier = predictions["first_preferred"].to_numpy(float) == 1
    total = _Sums(predictions, resamples, seed)
    everything = np.ones(len(said), bool)
    loss = -np.log(np.where(earlier, predictions["probability_first"], 1 - predictions["probability_first"]))
    of_each = [percent(total(right & kind), total(kind)) for kind in (earlier, ~earlier)]
    figures = {
        "accuracy": (percent(total(right), total(everything)), len(said)),
        "order-balanced": ((of_each[0] + of_each[1]) / 2, len(said)),
        "log loss": (total(loss) / total(everything), len(said)),
    }
    if predictions["selected"].notna().all():
        selected = predictions["selected"].to_numpy(float) == 1
        figures["at its thresholds"] = percent(total(selected & right), total(selected)), int(selected.sum())
    rows = {name: (*map(float, with_interval(values)), n) for name, (values, n) in figures.items()}
    error = calibration_error(calibration_table(predictions, resamples=1, seed=seed))
    rows["calibration error"] = (error, np.nan, np.nan, len(said))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "lower", "upper", "n_pairs"])


def show_figure(row: pd.Series) -> str:
    """A row of ``summary`` for a terminal or a page."""
    digits = 3 if row.name == "log loss" else 2
    shown = f"{row['estimate']:.{digits}f}"
    if pd.notna(row["lower"]):
        shown += f" [{row['lower']:.{digits}f}, {row['upper']:.{digits}f}]"
    return shown + (f" of {row['n_pairs']:.0f}" if row.name == "at its thresholds" else "")
