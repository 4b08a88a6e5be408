"""Labels with which estimates disagree become the estimates' mean (after SynFER's pseudo-label generator).

The ensemble is the head of ``pseudo_labels`` and any other estimators, each with one vote. The label is not part of it:
if it is wrong, it would keep a share of its error. A label stays as it is, to the bit, unless the ensemble's mean is
further from it than the threshold. What is not labelled stays so.
"""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fergi.action_units.faces_dataset import INDEX, LABEL_COLUMNS
from fergi.features import SETTINGS_FILE
from fergi.files import FergiError, replacing, summarise, write_tables

LABELS = "ActionUnit_Labels"  # of DISFA's layout
CHANGES = "label_changes.csv"
DECIMALS = 3  # of estimates in the table of changes


def ensemble_mean(estimates: np.ndarray) -> np.ndarray:
    """The mean over estimators, shape (n, …), of estimates (estimators, n, …); NaN where none has an estimate."""
    known = ~np.isnan(estimates)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, estimates, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def correct(labels: np.ndarray, estimates: np.ndarray, threshold: float) -> np.ndarray:
    """Labels, of which those that are more than ``threshold`` from the ensemble's mean become that mean.

    Parameters
    ----------
    labels : ndarray, shape (n, 12)
        Intensities 0–5, NaN where there is none, which stays so.
    estimates : ndarray, shape (estimators, n, 12)
        Intensities; NaN where an estimator gives none, who then has no vote.
    threshold : float
        In units of intensity.

    Returns
    -------
    ndarray of float64, shape (n, 12)
        Not rounded.

    Raises
    ------
    FergiError
        If the estimates are not for these labels.
    """
    labels, estimates = np.asarray(labels, float), np.asarray(estimates, float)
    if estimates.ndim != labels.ndim + 1 or estimates.shape[1:] != labels.shape:
        raise FergiError(
            f"Estimates of shape {estimates.shape} do not fit labels of shape {labels.shape}. Give each estimator's of "
            "the same pictures, in the same order."
        )
    mean = ensemble_mean(estimates)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(mean - labels) > threshold, mean, labels)


def check_expressions(labels: Iterable[str], classes: Sequence[str]) -> None:
    """Stop if labels are none of the classes, unless there are no classes at all, as of a head without expressions."""
    words = sorted(set(labels) - {""})
    if unknown := [repr(str(word)) for word in words if classes and word not in classes]:
        advice = f"It knows {', '.join(classes)}; rename them, or train another head with --head DIR --labelled FOLDER."
        raise summarise(unknown, len(words), "expressions", advice, "are not known to the head")


def correct_expressions(
    labels: Sequence[str], probabilities: np.ndarray, classes: Sequence[str], threshold: float
) -> np.ndarray:
    """Expressions, of which a label becomes another class whose mean probability is more than ``threshold`` higher.

    Parameters
    ----------
    labels : sequence of str, length n
        "" where there is none, which stays so.
    probabilities : ndarray, shape (estimators, n, classes)
        NaN where an estimator gives none.
    classes : sequence of str
        Names of the last axis; without any nothing is changed.
    threshold : float
        From 0 to 1.

    Returns
    -------
    ndarray of str, shape (n,)
        The most probable class, the first of several, where it is changed.

    Raises
    ------
    FergiError
        If a label is none of the classes, or the probabilities are not for these labels.
    """
    words, known = np.asarray(labels, str), list(classes)
    check_expressions(words, known)
    if np.ndim(probabilities) != 3 or np.shape(probabilities)[1:] != (len(words), len(known)):
        raise FergiError(
            f"Probabilities of shape {np.shape(probabilities)} do not fit {len(words)} pictures and {len(known)} "
            "expressions. Give each estimator's of the same pictures, in the same order."
        )
    mean, changed = ensemble_mean(np.asarray(probabilities, float)), words.astype(object)
    for row in np.flatnonzero((words != "") & ~np.isnan(mean).any(axis=1) & (len(known) > 0)):
        best = int(mean[row].argmax())
        if mean[row, best] - mean[row, known.index(words[row])] > threshold:
            changed[row] = known[best]
    return changed.astype(str)


def whole(intensities: np.ndarray) -> np.ndarray:
    """Intensities as label files have them: 0–5, whole, halves upwards; NaN stays."""
    return np.floor(np.clip(intensities, 0, 5) + 0.5)


def changed_intensities(
    images: Sequence[str], before: np.ndarray, after: np.ndarray, estimates: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """A row for each intensity that ``correct`` has changed: image, label (AU1, …), before, after (whole), ensemble,
    and each estimator's, by its name. All arrays have the shape (n, 12).
    """
    rows, columns = np.nonzero((before != after) & ~np.isnan(before))
    table = {
        "image": np.asarray(images, object)[rows],
        "label": [LABEL_COLUMNS[column] for column in columns],
        "before": [f"{value:g}" for value in before[rows, columns]],
        "after": [f"{value:.0f}" for value in whole(after)[rows, columns]],
        "ensemble": after[rows, columns],
    }
    return pd.DataFrame(table | {name: values[rows, columns] for name, values in estimates.items()}).round(DECIMALS)


def changed_expressions(
    images: Sequence[str],
    before: Sequence[str],
    after: np.ndarray,
    classes: Sequence[str],
    probabilities: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    """A row for each expression that ``correct_expressions`` has changed, with the new one's probabilities."""
    rows = np.flatnonzero(np.asarray(before, str) != after)
    columns = [list(classes).index(word) for word in after[rows]]
    chosen = {name: values[rows, columns] for name, values in probabilities.items()}
    mean = ensemble_mean(np.stack([*probabilities.values()]))[rows, columns]
    words = {"before": np.asarray(before, object)[rows], "after": after[rows].astype(object), "ensemble": mean}
    table = pd.DataFrame({"image": np.asarray(images, object)[rows], "label": "expression"} | words | chosen)
    return table.round(DECIMALS)


def write_corrected(folder: Path, out: Path, changes: pd.DataFrame) -> None:
    """A copy of a folder of faces with changed labels, without its settings; ``out`` is not inside ``folder``.

    The index and label files in DISFA's layout keep every cell and line that is not changed. Everything else is linked
    (hard links; copies where the file system has none).

    Raises
    ------
    FergiError
        If nothing can be written.
    """
    index = pd.read_csv(folder / INDEX, dtype=str, keep_default_na=False)
    row_of = {image: row for row, image in enumerate(index["image"])}
    lines: dict[str, dict[str, str]] = {}  # label file → frame → label
    for image, label, after in changes[["image", "label", "after"]].itertuples(index=False):
        row = row_of[image]
        index.loc[row, label] = after
        if label in LABEL_COLUMNS and "frame" in index:
            subject = index["subject"][row]
            file = f"{subject}/{subject}_au{label.removeprefix('AU')}.txt"
            lines.setdefault(file, {})[index["frame"][row]] = after
    _link(folder, out)
    for file in sorted((folder / LABELS).glob("*/*_au*.txt")):
        place = file.relative_to(folder / LABELS)
        _write_lines(file, out / LABELS / place, lines.get(place.as_posix(), {}))
    write_tables({out / CHANGES: changes, out / INDEX: index})


def _link(folder: Path, out: Path) -> None:
    """All files of a folder but its index, settings and label files; those that are there already stay."""
    for parent, folders, names in os.walk(folder):
        place = Path(parent).relative_to(folder)
        if place == Path():
            folders[:] = [name for name in folders if name != LABELS]
            names = [name for name in names if name not in (INDEX, SETTINGS_FILE)]
        try:
            (out / place).mkdir(parents=True, exist_ok=True)
            for name in names:
                source, target = Path(parent, name), out / place / name
                if target.exists():
                    continue
                try:
                    os.link(source, target)
                except OSError:
                    shutil.copy2(source, target)
        except OSError as error:
            raise FergiError(
                f"Cannot write into {out / place}: {error.strerror}. Make room or choose another --out, and run again."
            ) from error


def _write_lines(file: Path, target: Path, labels: Mapping[str, str]) -> None:
    """A label file with lines "frame,intensity", of which some frames get another label."""
    lines = []
    for line in file.read_text().splitlines(keepends=True):
        frame = line.partition(",")[0].strip()
        lines.append(f"{frame},{labels[frame]}\n" if frame in labels else line)
    with replacing(target) as written:
        written.write("".join(lines).encode())
