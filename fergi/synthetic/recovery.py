"""What was planted in a synthetic cohort beside what the scripts recovered from its films.

The injected courses are summarised here once more, in a few lines of their own and not by the code that is tested.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fergi.dataset import (
    CLIP_KEY,
    ISSUES,
    Folders,
    read_black_images,
    read_excluded_participants,
    read_valid_sessions,
)
from fergi.features import read_clips
from fergi.files import read_json, read_table, require, summarise
from fergi.lopo import ENSEMBLE, INTEGRATED_ENSEMBLE, VALENCE, correct_and_total
from fergi.pairs import Pairs, pairs_within_sessions
from fergi.synthetic.cohort import BASELINE, REACTION, UNREADABLE_ISSUES, UNSTEADY
from fergi.synthetic.recordings import Truth

UNITS = (4, 12)  # the AUs of the planted effect
WINDOW = 3  # frames (eq. 1: 0.1 s at 30 FPS)
MOST_DISTURBED = 0.2  # share of a clip's frames (Section 5.1)
LEAST_CORRELATION = 0.9
MOVES = 1.0  # intensity by which an AU changes in the clips in which its course is compared
LEAST_SPREAD = 0.3  # standard deviation of injected activation values from which their correlation says anything
TELLING = 1.0  # difference of injected AU12 − AU4 activation from which on a pair can be told
CHANCE = 3.0  # standard deviations
COLUMNS = ["quantity", "planted", "recovered", "required", "verdict"]
RECOVERED, NOT_RECOVERED = "recovered", "NOT RECOVERED"


def compare(folders: Folders) -> pd.DataFrame:
    """Planted and recovered, one row a quantity; columns ``COLUMNS``.

    Raises
    ------
    FergiError
        If an earlier step's file is missing or unusable.
    """
    strength = read_json(folders.synthetic_truth, "Run python -m fergi.synthetic cohort first.")["strength"]
    rows = [*_faces(folders, strength), *_people(folders), *_preferences(folders, strength)]
    return pd.DataFrame(
        [(*row[:4], RECOVERED if row[4] else NOT_RECOVERED) for row in rows],
        columns=COLUMNS,
    )


Row = tuple[str, str, str, str, bool]


# Faces -------------------------------------------------------------------------------------------------------------


def injected_activation(course: np.ndarray) -> float:
    """Largest mean of three successive frames less the first such mean (eqs. 1–2), of one AU in one clip."""
    means = np.convolve(course, np.full(WINDOW, 1 / WINDOW), mode="valid")
    return float(means.max() - means[0])


def _images(folders: Folders) -> pd.DataFrame:
    """The truth about images."""
    path = Truth(folders.root).images
    require([path], "tables of the truth about images", "Run python -m fergi.synthetic cohort first.")
    return read_table(path, key=CLIP_KEY, text_key=["participant"], numeric=["black"])


def _clips(folders: Folders, kind: str) -> list[tuple[str, int, int]]:
    """Participant, session, image of every clip that was made."""
    truth = _images(folders)
    clips = list(truth[["participant", *CLIP_KEY]].itertuples(index=False, name=None))
    paths = [Truth(folders.root).course(who, session, kind, image) for who, session, image in clips]
    require(paths, f"injected courses of {kind} clips", "Run python -m fergi.synthetic cohort first.")
    return clips


def _faces(folders: Folders, strength: float) -> list[Row]:
    """Courses and activation values of AU4 and AU12, and which clips are valid."""
    truth, clips = Truth(folders.root), _clips(folders, REACTION)
    paths = [folders.session(who, n) / f"{REACTION}_clip_{image}_features.csv" for who, n, image in clips]
    require(paths, "feature files", "Run clips_facial_process.py first.")
    features, problems = read_clips(paths)
    if problems:
        raise summarise(problems, len(paths), "feature files", "Run clips_facial_process.py --redo.")
    estimated = np.split(features.intensities, features.starts[1:-1])
    injected = [pd.read_csv(truth.course(who, n, REACTION, image)) for who, n, image in clips]
    activation = {
        who: read_table(
            folders.activation_tables(REACTION) / f"{who}.csv",
            key=CLIP_KEY,
            numeric=[f"AU{unit}_activation_value" for unit in UNITS],
        ).set_index(list(CLIP_KEY))
        for who in read_valid_sessions(folders)
    }
    columns = list(injected[0].columns)
    rows: list[Row] = []
    for unit in UNITS:
        name, place = f"AU{unit}", columns.index(f"AU{unit}") - 1
        courses, errors = [], []
        planted, found = [], []
        for (who, n, image), true, ours in zip(clips, injected, estimated, strict=True):
            clear = true["disturbance"].isna().to_numpy()
            course, ours = true[name].to_numpy(float), ours[:, place]
            if len(course) != len(ours):
                raise ValueError(f"{len(course)} injected and {len(ours)} estimated frames")
            errors.append(np.abs(course - ours)[clear])
            if np.ptp(course[clear]) >= MOVES:
                courses.append(np.corrcoef(course[clear], ours[clear])[0, 1])
            if (n, image) in activation[who].index:
                planted.append(injected_activation(np.where(clear, course, course[0])))
                found.append(activation[who].at[(n, image), f"{name}_activation_value"])
        rows += [
            _correlation(
                f"{name}, frame by frame: correlation in a clip, median of {len(courses)} in which it moves "
                f"(lowest {min(courses, default=float('nan')):.2f}; mean error {np.concatenate(errors).mean():.2f})",
                float(np.median(courses)) if courses else None,
                strength,
            ),
            _correlation(
                f"{name}, activation values: correlation over {len(found)} valid reactions",
                float(np.corrcoef(planted, found)[0, 1]) if np.std(planted) >= LEAST_SPREAD else None,
                strength,
            ),
        ]
    return rows


def _correlation(quantity: str, found: float | None, strength: float) -> Row:
    """A row on a correlation; None where faces move too little for one, as they may at strength 0 only."""
    if found is None:
        return quantity, "–", "hardly moves", "nothing at strength 0", strength == 0
    return quantity, "1", f"{found:.3f}", f"≥ {LEAST_CORRELATION}", found >= LEAST_CORRELATION


# People and clips --------------------------------------------------------------------------------------------------


def _people(folders: Folders) -> list[Row]:
    """Who and what is left out."""
    sessions = read_valid_sessions(folders)
    images = _images(folders)
    keys = list(images[["participant", *CLIP_KEY]].itertuples(index=False, name=None))
    planted_black = {key for key, is_black in zip(keys, images["black"], strict=True) if is_black}
    found_black = {(who, *key) for who, each in read_black_images(folders, sessions).items() for key in each}
    excluded = read_excluded_participants(folders, sessions)
    rows: list[Row] = [
        ("participant whose AU4 moves at rest", UNSTEADY, _listed(excluded), "the same", excluded == [UNSTEADY]),
        (
            "black images (participant-session-image)",
            _listed(_joined(planted_black)),
            _listed(_joined(found_black)),
            "the same",
            planted_black == found_black,
        ),
    ]
    tables = {who: pd.read_csv(folders.image_tables / f"{who}.csv") for who in sessions}
    empty = [who for who, table in tables.items() if table[list(ISSUES)].isna().to_numpy().all()]
    rows.append(
        (
            "participant whose answers on issues cannot be read",
            UNREADABLE_ISSUES,
            _listed(empty),
            "the same",
            empty == [UNREADABLE_ISSUES],
        )
    )
    for kind in (BASELINE, REACTION):
        spoilt = {
            (who, n, image)
            for who, n, image in _clips(folders, kind)
            if pd.read_csv(Truth(folders.root).course(who, n, kind, image))["disturbance"].notna().mean()
            > MOST_DISTURBED
        }
        used = {
            (who, int(n), int(image))
            for who in sessions
            for n, image in pd.read_csv(folders.activation_tables(kind) / f"{who}.csv")[list(CLIP_KEY)].to_numpy()
        }
        could_be = {key for key in keys if kind == BASELINE or key not in planted_black}
        missed, lost = spoilt & used, could_be - spoilt - used
        rows.append(
            (
                f"{kind} clips with more than a fifth of the frames disturbed",
                str(len(spoilt & could_be)),
                f"{len((could_be - used) & spoilt)}, and {len(lost)} of {len(could_be - spoilt)} others",
                "all, and at most 5 % of others",
                not missed and len(lost) <= 0.05 * len(could_be - spoilt),
            )
        )
    return rows


def _joined(keys: set[tuple[str, int, int]]) -> list[str]:
    return ["-".join(map(str, key)) for key in sorted(keys)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nobody"


# Preferences -------------------------------------------------------------------------------------------------------


def _preferences(folders: Folders, strength: float) -> list[Row]:
    """Accuracies; at strength 0 they must be those of chance."""
    results = pd.read_csv(folders.preference_results(), dtype={"user_id": str})
    images, pairs = _rated_pairs(folders, set(results["user_id"]))
    planted = _planted_accuracies(folders, images, pairs)
    by_chance = null_deviation(images.groupby(["participant", "session_index"]).size())
    accuracy, counted = {}, {}
    for title, model in (
        ("selected", f"AUcomb_selected_{VALENCE}"),
        ("all", VALENCE),
        ("ensemble", ENSEMBLE),
        ("with AUs", INTEGRATED_ENSEMBLE),
    ):
        correct, n_pairs = counted[title] = correct_and_total(results, model)
        accuracy[title] = 100 * correct / n_pairs if n_pairs else float("nan")
    shown = {title: f"{accuracy[title]:.1f} % of {n_pairs}" for title, (_, n_pairs) in counted.items()}
    gain = accuracy["with AUs"] - accuracy["ensemble"]
    deviations = (counted["all"][0] - counted["all"][1] / 2) / by_chance
    if strength > 0:
        return [
            (
                "AUcomb, accuracy on selected pairs",
                f"{planted['telling']} where faces tell",
                shown["selected"],
                "more than on all pairs",
                accuracy["selected"] > accuracy["all"],
            ),
            (
                "AUcomb, accuracy on all pairs",
                planted["all"],
                shown["all"],
                "more than chance",
                deviations > CHANCE,
            ),
            (
                "ensemble of scorers with AUs, accuracy on all pairs",
                f"alone {accuracy['ensemble']:.1f} %",
                shown["with AUs"],
                "more than alone",
                gain > 0,
            ),
        ]
    margin = 100 * CHANCE * by_chance / counted["all"][1]
    return [
        (
            "AUcomb, accuracy on all pairs",
            "nothing",
            shown["all"],
            f"50 % within {margin:.1f}",
            abs(deviations) <= CHANCE,
        ),
        (
            "ensemble of scorers with AUs, gain on all pairs",
            "nothing",
            f"{gain:+.1f} points",
            f"within {margin:.1f}",
            abs(gain) <= margin,
        ),
    ]


def _rated_pairs(folders: Folders, included: set[str]) -> tuple[pd.DataFrame, Pairs]:
    """Images of the included participants that have a valid reaction, with their ranks, and their pairs."""
    tables = []
    for number, who in enumerate(sorted(included)):
        ranks = pd.read_csv(folders.image_tables / f"{who}.csv")[[*CLIP_KEY, "rank_score"]]
        reacted = pd.read_csv(folders.activation_tables(REACTION) / f"{who}.csv")[list(CLIP_KEY)]
        tables.append(ranks.merge(reacted, on=list(CLIP_KEY)).assign(participant=who, number=number))
    images = pd.concat(tables, ignore_index=True)
    return images, pairs_within_sessions(images["number"], images["session_index"], images["rank_score"])


def _planted_accuracies(folders: Folders, images: pd.DataFrame, pairs: Pairs) -> dict[str, str]:
    """How often the injected AU12 less the injected AU4 prefers the right image: all pairs, and those it tells.

    Two faces that did not move at all are told apart by a coin, as an estimate's noise does.
    """
    injected = []
    for who, n, image in images[["participant", *CLIP_KEY]].itertuples(index=False, name=None):
        course = pd.read_csv(Truth(folders.root).course(who, n, REACTION, image))
        smile, frown = (injected_activation(course[f"AU{unit}"].to_numpy(float)) for unit in (12, 4))
        injected.append(smile - frown)
    difference = pairs.difference(injected)
    told = np.abs(difference) >= TELLING
    return {
        "all": f"{100 * (np.mean(difference > 0) + np.mean(difference == 0) / 2):.1f} %",
        "telling": f"{100 * (difference[told] > 0).mean():.1f} % of {told.sum()}" if told.any() else "none",
    }


def null_deviation(sizes: Iterable[int]) -> float:
    """Standard deviation of the number of correct pairs if scores tell nothing.

    Of the pairs of n images in random order, n (n − 1) (2 n + 5) / 72 is the variance of the number in the right order
    (Kendall 1938).

    Parameters
    ----------
    sizes : iterable of int
        Images of each session.
    """
    return math.sqrt(sum(n * (n - 1) * (2 * n + 5) / 72 for n in sizes))


def output(folders: Folders) -> Path:
    """Where the comparison is written."""
    return folders.results / "planted_recovered.csv"
