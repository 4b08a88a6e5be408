"""The effects planted in a synthetic cohort beside what the scripts recovered from its films.

The injected courses are summarised here by a few lines of their own, not by the code that is tested. ``by_chance``
decides whether accuracies are beyond chance.

Run     python -m synthetic compare --root DIR
"""

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t

from fergi.dataset import (
    CLIP_KEY,
    ISSUES,
    Folders,
    read_black_images,
    read_excluded_participants,
    read_image_reactions,
    read_valid_sessions,
)
from fergi.features import read_clips
from fergi.files import read_json, read_table, read_tables, require, summarise, write_table
from fergi.preference.pairs import Pairs, pairs_of
from fergi.preference.results import (
    ENSEMBLE,
    INTEGRATED_ENSEMBLE,
    TRAINED_SCORERS,
    VALENCE,
    correct_and_total,
    fold_scores,
    read_results,
)
from fergi.script import argument_parser, run
from synthetic.cohort import BASELINE, REACTION, UNREADABLE_ISSUES, UNSTEADY, Truth
from synthetic.labels import ANNOTATED, BY_COIN, TURNED_ROUND, tuned_table

UNITS = (4, 12)  # the AUs of the planted effect
WINDOW = 3  # frames (eq. 1: 0.1 s at 30 FPS)
MOST_DISTURBED = 0.2  # share of a clip's frames (Section 5.1)
MOST_LOST = 0.05  # of the other clips
LEAST_CORRELATION = 0.9
LEAST_SHARE = 0.9  # of the clips in which an AU moves: so many must reach that correlation
MOVES = 1.0  # intensity by which an AU changes in the clips in which its course is compared
LEAST_SPREAD = 0.3  # standard deviation of injected activation values below which there is no correlation
TELLING = 1.0  # difference of injected AU12 − AU4 activation of pairs in which faces tell
CHANCE = 3.0  # standard deviations
SHUFFLES = 1000
COLUMNS = ["quantity", "planted", "recovered", "required", "verdict"]
MOST_BY_COIN = 0.5  # points of accuracy
SMALL, LARGE = 0.25, 0.5  # shares of what the labels tell; by so much nothing else may move
RECOVERED, NOT_RECOVERED = "recovered", "NOT RECOVERED"

Row = tuple[str, str, str, str, bool]
Clip = tuple[str, int, int]  # participant, session, image
Courses = Mapping[Clip, pd.DataFrame]


def compare(folders: Folders) -> pd.DataFrame:
    """Planted and recovered, one row a quantity; columns ``COLUMNS``.

    Raises
    ------
    FergiError
        If an earlier step's file is missing or unusable.
    """
    advice = "Run python -m synthetic cohort first."
    strength = read_json(folders.synthetic_truth, advice)["strength"]
    truth = Truth(folders.root)
    require([truth.images], "tables of the truth about images", advice)
    images = read_table(truth.images, key=CLIP_KEY, text_key=["participant"], numeric=["black"])
    clips = list(images[["participant", *CLIP_KEY]].itertuples(index=False, name=None))
    black = {clip for clip, is_black in zip(clips, images["black"], strict=True) if is_black}
    courses: dict[str, Courses] = {}
    for kind in (BASELINE, REACTION):
        paths = [truth.course(who, session, kind, image) for who, session, image in clips]
        require(paths, f"injected courses of {kind} clips", advice)
        courses[kind] = dict(zip(clips, map(pd.read_csv, paths), strict=True))
    rows = [
        *_faces(folders, courses[REACTION], strength),
        *_people(folders, courses, black),
        *_preferences(folders, courses[REACTION], strength),
    ]
    if strength > 0:  # else there are no pairs to tune on
        rows += [*tuned_scorer_rows(_tuned(folders, "scorer")), *tuned_generator_rows(_tuned(folders, "generator"))]
    return pd.DataFrame([(*row, RECOVERED if good else NOT_RECOVERED) for *row, good in rows], columns=COLUMNS)


def read_activation(folders: Folders, kind: str, units: Sequence[int] = UNITS) -> dict[Clip, tuple[float, ...]]:
    """The activation values of AUs in the valid clips of one kind."""
    columns = [f"AU{unit}_activation_value" for unit in units]
    advice = f"Run preprocess_{kind}_data.py first."
    folder, sessions = folders.activation_tables(kind), read_valid_sessions(folders)
    tables = read_tables(folder, sessions, key=CLIP_KEY, numeric=columns, advice=advice)
    return {
        (who, session, image): tuple(values)
        for who, table in tables.items()
        for session, image, *values in table.itertuples(index=False, name=None)
    }


# Faces -------------------------------------------------------------------------------------------------------------


def injected_activation(course: np.ndarray) -> float:
    """Largest mean of three successive frames less the first such mean (eqs. 1–2), of one AU in one clip."""
    means = np.convolve(course, np.full(WINDOW, 1 / WINDOW), mode="valid")
    return float(means.max() - means[0])


def _faces(folders: Folders, courses: Courses, strength: float) -> list[Row]:
    """Courses and activation values of AU4 and AU12 in the reactions."""
    paths = [folders.session(who, n) / f"{REACTION}_clip_{image}_features.csv" for who, n, image in courses]
    require(paths, "feature files", "Run clips_facial_process.py first.")
    features, problems = read_clips(paths)
    lengths = zip(paths, map(len, courses.values()), features.lengths, strict=True) if not problems else ()
    problems += [f"{path} is of another film than was made" for path, made, found in lengths if made != found]
    if problems:
        raise summarise(problems, len(paths), "feature files", "Run clips_facial_process.py --redo.")
    activation = read_activation(folders, REACTION)
    rows: list[Row] = []
    for number, unit in enumerate(UNITS):
        name = f"AU{unit}"
        correlations, errors, planted, found = [], [], [], []
        estimates = np.split(features.column(name), features.starts[1:-1])
        for (clip, injected), estimate in zip(courses.items(), estimates, strict=True):
            clear = injected["disturbance"].isna().to_numpy()
            course = injected[name].to_numpy(float)
            errors.append(np.abs(course - estimate)[clear])
            if np.ptp(course[clear]) >= MOVES:
                correlations.append(np.corrcoef(course[clear], estimate[clear])[0, 1])
            if clip in activation:
                planted.append(injected_activation(np.where(clear, course, course[0])))
                found.append(activation[clip][number])
        rows.append(clips_row(name, correlations, float(np.concatenate(errors).mean()), strength))
        quantity = f"{name}, activation values: correlation over {len(found)} valid reactions"
        enough = np.std(planted) >= LEAST_SPREAD
        rows.append(_correlation(quantity, float(np.corrcoef(planted, found)[0, 1]) if enough else None, strength))
    return rows


def clips_row(name: str, correlations: Sequence[float], error: float, strength: float) -> Row:
    """The row on an AU frame by frame: its correlations in the clips in which it moves, and the mean error in all."""
    lowest = f"lowest {min(correlations):.2f}; " if correlations else ""
    *row, high = _correlation(
        f"{name}, frame by frame: median correlation in the clips in which it moves ({lowest}mean error {error:.2f})",
        float(np.median(correlations)) if correlations else None,
        strength,
    )
    reaching = sum(each >= LEAST_CORRELATION for each in correlations)
    if correlations:
        row[2] += f"; {reaching} of {len(correlations)} clips ≥ {LEAST_CORRELATION}"
        row[3] += ", and in nine of ten clips"
    return *row, high and reaching >= LEAST_SHARE * len(correlations)


def _correlation(quantity: str, found: float | None, strength: float) -> Row:
    """A row on a correlation; None if faces move too little for one, which is right at strength 0 only."""
    if found is None:
        return quantity, "–", "hardly moves", "nothing at strength 0", strength == 0
    return quantity, "1", f"{found:.3f}", f"≥ {LEAST_CORRELATION}", found >= LEAST_CORRELATION


# People and clips --------------------------------------------------------------------------------------------------


def _people(folders: Folders, courses: Mapping[str, Courses], black: set[Clip]) -> list[Row]:
    """Who is excluded, which images are black, whose answers are missing, which clips are invalid."""
    sessions = read_valid_sessions(folders)
    found_black = {(who, *key) for who, each in read_black_images(folders, sessions).items() for key in each}
    excluded = read_excluded_participants(folders, sessions)
    answers = {who: pd.read_csv(folders.image_tables / f"{who}.csv")[list(ISSUES)].isna() for who in sessions}
    some = [who for who, missing in answers.items() if missing.any(axis=None)]
    entirely = [who for who, missing in answers.items() if missing.all(axis=None)]
    people = "the only participant without answers on issues, as config lists"
    good = some == entirely == [UNREADABLE_ISSUES]
    images = "black images (participant-session-image)"
    rows: list[Row] = [
        ("participant whose AU4 moves at rest", UNSTEADY, _listed(excluded), "the same", excluded == [UNSTEADY]),
        (images, _listed(black), _listed(found_black), "the same", black == found_black),
        (people, UNREADABLE_ISSUES, _listed(some), "the same", good),
    ]
    for kind, of_kind in courses.items():
        disturbed = {clip for clip, each in of_kind.items() if each["disturbance"].notna().mean() > MOST_DISTURBED}
        used = set(read_activation(folders, kind))
        could_be = set(of_kind) - (black if kind == REACTION else set())
        others = could_be - disturbed
        n_found, n_lost = len((could_be - used) & disturbed), len(others - used)
        quantity = f"{kind} clips with more than a fifth of the frames disturbed"
        found = f"{n_found}, and {n_lost} of {len(others)} others"
        good = not disturbed & used and n_lost <= MOST_LOST * len(others)
        rows.append((quantity, str(len(disturbed & could_be)), found, "all, and at most 5 % of others", good))
    return rows


def _listed(names: Iterable[str | Clip]) -> str:
    return (
        ", ".join(sorted("-".join(map(str, [name] if isinstance(name, str) else name)) for name in names)) or "nobody"
    )


# Preferences -------------------------------------------------------------------------------------------------------


def _preferences(folders: Folders, courses: Courses, strength: float) -> list[Row]:
    """Accuracies: beyond those of shuffled reactions if an effect was planted, and within them at strength 0."""
    images, results = read_preferences(folders)
    pairs, chance = pairs_of(images), by_chance(images, results)
    models = {"selected": f"AUcomb_selected_{VALENCE}", "all": VALENCE}
    models |= {"ensemble": ENSEMBLE, "with AUs": INTEGRATED_ENSEMBLE}
    counted = {title: correct_and_total(results, model) for title, model in models.items()}
    accuracy = {title: 100 * correct / total if total else float("nan") for title, (correct, total) in counted.items()}
    shown = {title: f"{accuracy[title]:.1f} % of {n}" if n else "no pairs" for title, (_, n) in counted.items()}
    gain = accuracy["with AUs"] - accuracy["ensemble"]
    selected, everything = "AUcomb, accuracy on selected pairs", "AUcomb, accuracy on all pairs"
    together = "ensemble of scorers with AUs"
    if strength > 0:
        planted = _planted_accuracies(images, pairs, courses)
        told, alone = f"{planted['telling']} where faces tell", f"alone {accuracy['ensemble']:.1f} %"
        more = accuracy["selected"] > accuracy["all"]
        beyond = chance.at["all", "counted"] - chance.at["all", "expected"] > CHANCE * chance.at["all", "deviation"]
        return [
            (selected, told, shown["selected"], "more than on all pairs", more),
            (everything, planted["all"], shown["all"], "more than chance", beyond),
            (f"{together}, accuracy on all pairs", alone, shown["with AUs"], "more than alone", gain > 0),
        ]
    rows: list[Row] = []
    for title, pairs_counted, quantity, found in (
        ("selected", "selected", selected, shown["selected"]),
        ("all", "all", everything, shown["all"]),
        ("gain", "all", f"{together}, gain on all pairs", f"{gain:+.1f} points"),
    ):
        count, expected, margin = chance.loc[title] * [1, 1, CHANCE]
        points = 100 / max(counted[pairs_counted][1], 1)
        required = f"{points * expected:.1f} ± {points * margin:.1f} (reactions shuffled)"
        rows.append((quantity, "nothing", found, required, abs(count - expected) <= margin))
    return rows


def read_preferences(folders: Folders) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images of the included participants that have a valid reaction, and the results of stage 9 in paper mode."""
    results = read_results(folders, "paper")
    images = read_image_reactions(
        folders,
        read_valid_sessions(folders),
        image_columns=["rank_score", *TRAINED_SCORERS],
        activation_columns=[f"AU{unit}_activation_value" for unit in UNITS],
    )
    return images[images["participant"].isin(results["user_id"])].reset_index(drop=True), results


def by_chance(images: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """What stage 9 counts, and what it would count by chance.

    The null hypothesis: reactions are independent of which image of a session is preferred. A shuffle permutes each
    session's reactions among its images, and the pairs are counted again. All else stays: rankings, scores, how much
    each person moves, and the parameters of each fold, which were found on other people. So pairs of one session stay
    as dependent as they are, and a gain, the difference of two accuracies on the same pairs, is compared with such
    differences.

    Parameters
    ----------
    images, results : pandas.DataFrame
        From ``read_preferences``.

    Returns
    -------
    pandas.DataFrame
        Index: ``selected`` and ``all``, correct predictions of AUcomb on these pairs; ``gain``, correct predictions
        of the ensemble with AUs on all pairs less those without. Columns: ``counted``, and of ``SHUFFLES`` shuffles
        the mean, ``expected``, and the standard deviation, ``deviation``.
    """
    pairs, scores = pairs_of(images), fold_scores(images, results)
    parameters = results.set_index("user_id").loc[images["participant"]]
    weight = parameters[f"AUcomb_coef_for_{INTEGRATED_ENSEMBLE}"].to_numpy()[:, None]
    threshold = parameters["diff_threshold"].to_numpy()[pairs.preferred, None]
    ensemble = scores[ENSEMBLE].to_numpy()[:, None]

    random = np.random.default_rng(0)
    session = images.groupby(["participant", "session_index"]).ngroup().to_numpy()
    place = np.argsort(session, kind="stable")
    valence = np.repeat(scores[[VALENCE]].to_numpy(), 1 + SHUFFLES, axis=1)  # the first column is not shuffled
    for column in range(1, 1 + SHUFFLES):
        valence[place, column] = valence[np.lexsort((random.random(len(images)), session)), 0]
    right = pairs.agrees(valence)
    counts = {
        "selected": (right & (np.abs(pairs.difference(valence)) >= threshold)).sum(axis=0),
        "all": right.sum(axis=0),
        "gain": pairs.agrees(ensemble + weight * valence).sum(axis=0) - pairs.agrees(ensemble).sum(),
    }
    rows = [(each[0], each[1:].mean(), each[1:].std()) for each in counts.values()]
    return pd.DataFrame(rows, index=list(counts), columns=["counted", "expected", "deviation"], dtype=float)


def _planted_accuracies(images: pd.DataFrame, pairs: Pairs, courses: Courses) -> dict[str, str]:
    """Accuracy of the injected AU12 less the injected AU4: on all pairs, and on those that differ by ``TELLING``.

    Equal faces count half.
    """
    injected = []
    for clip in images[["participant", *CLIP_KEY]].itertuples(index=False, name=None):
        smile, frown = (injected_activation(courses[clip][f"AU{unit}"].to_numpy(float)) for unit in (12, 4))
        injected.append(smile - frown)
    difference = pairs.difference(injected)
    told = np.abs(difference) >= TELLING
    return {
        "all": f"{100 * (np.mean(difference > 0) + np.mean(difference == 0) / 2):.1f} %",
        "telling": f"{100 * (difference[told] > 0).mean():.1f} % of {told.sum()}" if told.any() else "none",
    }


# Tuning ------------------------------------------------------------------------------------------------------------


def _tuned(folders: Folders, what: str) -> pd.DataFrame:
    path = tuned_table(folders, what)
    require([path], "tables of tunings", f"Run python -m synthetic tuned --what {what} first.")
    return pd.read_csv(path)


def tuned_scorer_rows(table: pd.DataFrame) -> list[Row]:
    """Rows on the scorers that were tuned on each kind of labels; ``table`` is that of ``synthetic tuned``.

    Gains and their intervals over new scenes are means over the seeds. Labels turned round do not make it worse:
    its loss has a factor that finds that they do not agree with its scores, and stays near 0.
    """
    gain = table.groupby("labels")[["gain", "lower", "upper"]].mean()
    shown = {row.Index: f"{row.gain:+.2f} [{row.lower:.2f}, {row.upper:.2f}]" for row in gain.itertuples()}
    quantity = f"PickScore tuned on {_pairs_of(table)}: gain in accuracy on new pairs, points"
    coin, turned = (gain.at[labels, "gain"] for labels in (BY_COIN, TURNED_ROUND))
    coins, turns = (f"the same, labels {how}" for how in ("by coin", "turned round"))
    return [
        (quantity, "quality", shown[ANNOTATED], "more than 0", bool(gain.at[ANNOTATED, "lower"] > 0)),
        (coins, "nothing", shown[BY_COIN], f"within {MOST_BY_COIN} points", bool(abs(coin) < MOST_BY_COIN)),
        (turns, "no gain", shown[TURNED_ROUND], f"less than {MOST_BY_COIN} points", bool(turned < MOST_BY_COIN)),
    ]


def tuned_generator_rows(table: pd.DataFrame) -> list[Row]:
    """Rows on the generators that were tuned on each kind of labels; ``table`` is that of ``synthetic tuned``.

    What the labels do not tell stays if its interval includes 0 or it moves by less than a quarter of what they tell
    (many small steps move everything a little), and in any case by less than half of that.
    """
    moved = {labels: mean_and_margin(each["fidelity"]) for labels, each in table.groupby("labels")}
    moved["night"] = mean_and_margin(table.loc[table["labels"] == ANNOTATED, "night"])
    shown = {name: f"{mean:+.3f} ± {margin:.3f}" for name, (mean, margin) in moved.items()}
    quantity = f"generator tuned on {_pairs_of(table)}: shift of the fidelity of samples, in shares of its range"
    told, margin = moved[ANNOTATED]

    def stays(name: str) -> bool:
        return abs(moved[name][0]) < min(max(moved[name][1], SMALL * told), LARGE * told)

    against = moved[TURNED_ROUND][0] < -moved[TURNED_ROUND][1]
    within = f"0 in its interval or below {SMALL:g} of the first, and below {LARGE:g} of it"
    return [
        (quantity, "fidelity", shown[ANNOTATED], "more than 0", told > margin),
        ("the same, labels by coin", "nothing", shown[BY_COIN], within, stays(BY_COIN)),
        ("the same, labels turned round", "the opposite", shown[TURNED_ROUND], "less than 0", against),
        (
            "samples with a dark sky where the prompt says night: share",
            "nothing",
            shown["night"],
            within,
            stays("night"),
        ),
    ]


def _pairs_of(table: pd.DataFrame) -> str:
    told = table[table["labels"] == ANNOTATED].iloc[0]
    return f"{told['pairs']:.0f} pairs from faces ({100 * told['right']:.0f} % of their labels right)"


def mean_and_margin(values: Iterable[float]) -> tuple[float, float]:
    """The mean over seeds, and half its 95 % interval (Student's t); infinite for a single seed."""
    values = np.asarray(list(values), float)
    if len(values) < 2:
        return float(values.mean()), np.inf
    return float(values.mean()), float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def as_text(table: pd.DataFrame) -> str:
    """The table of ``compare`` for a terminal of 120 columns."""
    widths, lines = (40, 22, 22, 18, 13), []
    for row in (COLUMNS, *table[COLUMNS].astype(str).itertuples(index=False, name=None)):
        cells = map(textwrap.wrap, row, widths)
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            lines.append("".join(f"{part:<{width + 1}}" for part, width in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, write the table and print it."""
    parser = argument_parser(__doc__, "python -m synthetic compare")
    folders = Folders(parser.parse_args(arguments).root.resolve())
    table = compare(folders)
    write_table(table, folders.planted_recovered)
    print(as_text(table))
    print(f"Wrote {folders.planted_recovered}.")


if __name__ == "__main__":
    run(main)
