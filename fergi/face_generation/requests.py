"""Which faces to synthesise: a table of texts and AU intensities, or intensities like those of other people.

A table has the column ``prompt`` and any of
AU1, …, AU26    intensities 0–5. In a row with some of them, an empty or missing one is 0; a row without any tells the
                generator nothing about AUs
expression      what the classifier of --guidance should see
n               how many pictures (1)
seed            of the row's first picture; the next ones have the numbers after it
person          rows of one person become one subject
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from fergi.action_units.faces_dataset import INDEX, LABEL_COLUMNS
from fergi.face_generation.captions import caption
from fergi.face_generation.pictures import FEATURES, HIGHEST, of_sharing_people, read_pictures
from fergi.features import FrameLimits, read_clips, require_one_estimator, valid_frames
from fergi.files import FergiError, read_table, summarise

OTHERS = ("expression", "n", "seed", "person")
LARGEST_SEED = 2**32 - 1
SUBJECT_SIZE = 1000  # pictures of a subject where no people are named; it is then no person, only a part of the work
ADVICE = f"Columns are prompt, {LABEL_COLUMNS[0]} to {LABEL_COLUMNS[-1]}, {', '.join(OTHERS)}."


def read_requests(path: Path) -> pd.DataFrame:
    """A table, checked.

    Returns
    -------
    pandas.DataFrame
        prompt, expression, person (str, "" for none), n (int), seed (float, NaN for none), AU1, …, AU26 (float; NaN in
        all of them where nothing is told).

    Raises
    ------
    FergiError
        If it cannot be read, lacks the prompts or has a column that is not known, or rows are unusable.
    """
    try:
        read_table(path, kept=["prompt"])
    except ValueError as error:
        raise FergiError(f"{error}. {ADVICE}") from error
    cells = pd.read_csv(path, dtype=str, keep_default_na=False)
    unknown = [name for name in cells.columns if name not in ("prompt", *LABEL_COLUMNS, *OTHERS)]
    if unknown:
        raise summarise(unknown, len(cells.columns), f"columns of {path}", ADVICE, "are not known")
    problems: dict[int, str] = {}  # by row

    def numbers(name: str, highest: float, lowest: float = 0, *, whole: bool = True) -> np.ndarray:
        """A column; NaN where it is empty or missing."""
        texts = cells[name].str.strip() if name in cells else pd.Series("", index=cells.index)
        values = pd.to_numeric(texts, errors="coerce").to_numpy(float)
        good = (values >= lowest) & (values <= highest) & ((values % 1 == 0) | (not whole))
        for row in np.flatnonzero(~good & (texts != "").to_numpy()):
            kind = "a whole number" if whole else "a number"
            wanted = f"{kind} from {lowest} to {highest:.0f}"
            problems.setdefault(row, f"line {row + 2}, column {name}: {texts[row]!r} is not {wanted}")
        return values

    intensities = np.stack([numbers(name, HIGHEST, whole=False) for name in LABEL_COLUMNS], axis=1)
    told = ~np.isnan(intensities).all(axis=1)
    intensities[told] = np.nan_to_num(intensities[told])
    n, seed = numbers("n", 1e6, 1), numbers("seed", LARGEST_SEED)
    people = cells["person"].str.strip() if "person" in cells else pd.Series("", index=cells.index)
    for row in np.flatnonzero(people == "") if (people != "").any() else ():
        problems.setdefault(row, f"line {row + 2}: no person, whom other rows have")
    if problems:
        raise summarise([problems[row] for row in sorted(problems)], len(cells), f"rows of {path}", ADVICE)
    expressions = cells["expression"].str.strip() if "expression" in cells else ""
    texts = {"prompt": cells["prompt"].str.strip(), "expression": expressions, "person": people}
    given = {**texts, "n": np.nan_to_num(n, nan=1).astype(int), "seed": seed}
    return pd.DataFrame(given | dict(zip(LABEL_COLUMNS, intensities.T, strict=True)))


def like(folder: Path, number: int, seed: int, limits: FrameLimits) -> pd.DataFrame:
    """Requests for pictures whose intensities are those of frames of other people, drawn at random.

    Parameters
    ----------
    folder : Path
        Of aligned faces, whose captions and expressions are taken over, or any with feature files.
    number : int
        Of pictures.
    seed : int
        Of the drawing.
    limits : FrameLimits
        Of valid frames; others of the feature files are not drawn.

    Returns
    -------
    pandas.DataFrame
        As of ``read_requests``; AUs that are not known are NaN, each for itself. Nothing says who the people are.

    Raises
    ------
    FergiError
        If there are neither, or they cannot be used.
    """
    if (folder / INDEX).is_file():
        found, _ = read_pictures([folder])
        intensities, captions, expressions = found.intensities, found.captions, found.expressions
    else:
        intensities = _estimated(folder, limits)
        captions, expressions = np.full(len(intensities), ""), np.full(len(intensities), "")
    rows = np.random.default_rng(seed).integers(len(intensities), size=number)
    prompts = [said or caption(told) for said, told in zip(captions[rows], intensities[rows], strict=True)]
    given = {"prompt": prompts, "expression": expressions[rows], "person": "", "n": 1, "seed": np.nan}
    return pd.DataFrame(given | dict(zip(LABEL_COLUMNS, intensities[rows].T, strict=True)))


def _estimated(folder: Path, limits: FrameLimits) -> np.ndarray:
    """Intensities of the valid frames of people who share their data, brought into 0–5, shape (n, 12)."""
    paths = sorted(folder.rglob(f"*{FEATURES}"))
    if not paths:
        raise FergiError(f"{folder} has neither {INDEX} nor feature files (*{FEATURES}). Choose another --like.")
    paths = of_sharing_people(folder, paths)
    require_one_estimator({path.parent for path in paths}, folder)
    features, problems = read_clips(paths)
    if problems:
        raise summarise(problems, len(paths), "feature files", "Make them again, or choose another --like.")
    intensities = features.intensities[valid_frames(features, limits)].clip(0, HIGHEST)
    if not len(intensities):
        raise FergiError(f"None of the {len(features.values)} frames in {folder} is valid. Choose another --like.")
    return intensities


def each_picture(requests: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row a picture: subject, frame (from 1 within the subject), seed, prompt, expression, AU1, …, AU26.

    ``seed`` decides the seeds that the table does not give, each with its row and number, so that a row's pictures do
    not depend on the rows after it.
    """
    rows = requests.loc[requests.index.repeat(requests["n"])]
    number = rows.groupby(level=0).cumcount().to_numpy()
    drawn = [
        np.random.SeedSequence((seed, *each)).generate_state(1)[0] for each in zip(rows.index, number, strict=True)
    ]
    seeds = np.where(rows["seed"].isna(), drawn, rows["seed"].fillna(0) + number).astype(np.int64)
    if (rows["person"] != "").any():
        subjects = pd.factorize(rows["person"])[0]
    else:
        subjects = np.arange(len(rows)) // SUBJECT_SIZE
    names = pd.Series([f"SYN{subject + 1:04}" for subject in subjects])
    frames = names.groupby(names).cumcount() + 1
    first = pd.DataFrame({"subject": names, "frame": frames, "seed": seeds})
    return pd.concat([first, rows[["prompt", "expression", *LABEL_COLUMNS]].reset_index(drop=True)], axis=1)


def fingerprint(pictures: pd.DataFrame) -> str:
    """A hash of a table of ``each_picture``."""
    return hashlib.sha256(pictures.to_csv(index=False).encode()).hexdigest()
