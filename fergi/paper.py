"""The paper's claims as data, and the check of our numbers against them.

Reads   preparation/ and results/ as stages 6 to 9 left them (stage 9 in the modes paper, released and strict),
        results/published/ (python -m fergi.published)
Writes  results/paper_check.csv                   claim, paper, released mode, paper mode, verdict, reason
        results/accuracy_intervals.csv            Tables 1 and 2 and their differences with bootstrap intervals
        results/overall_rating_correlations.csv   Section 6.1 (with _released before .csv for that mode)
        results/emotion_rank_sums.csv             likewise
Run     python -m fergi.paper            or all before it as well: make reproduce
        python -m fergi.paper --without-check    for other data than the published: all but the first of these files
Takes   about six seconds; no GPU.

Exits with 1 if a claim that should hold does not. Known disagreements are shown with their reason and do not count.
"""

import itertools
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from fergi.activation import ACTIVATION_COLUMNS
from fergi.dataset import (
    CLIP_KEY,
    CLIP_KINDS,
    FETCH_ADVICE,
    ISSUES,
    Folders,
    read_black_images,
    read_excluded_participants,
    read_image_reactions,
    read_valid_sessions,
)
from fergi.files import FergiError, check_writable, read_table, read_tables, write_table
from fergi.preference.results import (
    ENSEMBLE,
    INTEGRATED,
    INTEGRATED_ENSEMBLE,
    TRAINED_SCORERS,
    VALENCE,
    correct_and_total,
)
from fergi.script import argument_parser, run
from fergi.statistics import (
    EMOTIONS,
    binomial_p,
    bootstrap_accuracies,
    emotion_rank_sums,
    rating_correlations,
    significant_units,
)

MODES = ("released", "paper")
SELECTED = "AUcomb_selected_"
NAMES = {
    "CLIP_score": "CLIP",
    "Aesthetic_score": "Aesthetic",
    "BLIP_score": "BLIP",
    "ImageReward_score": "ImageReward",
    "PickScore": "PickScore",
    "HPS_V2_score": "HPS v2",
    ENSEMBLE: "ensemble",
    VALENCE: "AUcomb",
}
WITH_AUS = dict(zip((*TRAINED_SCORERS, ENSEMBLE), (*INTEGRATED, INTEGRATED_ENSEMBLE), strict=True))

RESULT_COLUMNS = (
    *(f"{name.removesuffix('_score')}_weight" for name in TRAINED_SCORERS),
    *("exp_decay_coef", "AU4_coef", "diff_threshold"),
    *(
        f"{model}_n_{kind}"
        for model in (*NAMES, *(SELECTED + name for name in NAMES), *WITH_AUS.values())
        for kind in ("correct", "incorrect")
    ),
)


@dataclass(frozen=True)
class Claim:
    """One statement of the paper (or of its release) that public files can confirm.

    Attributes
    ----------
    section, what, paper : str
        Where it stands, what it is about, and the value as printed.
    value : callable
        From the measurements of one mode to our value.
    holds : callable
        Whether our value is the paper's.
    shown : callable
        Our value as text.
    paper_mode_differs : str
        Why the value may differ in paper mode, which follows the paper's text where the release does not.
    disagrees : str
        Why the claim is known not to hold.
    """

    section: str
    what: str
    paper: str
    value: Callable[["Measurements"], Any]
    holds: Callable[[Any], bool]
    shown: Callable[[Any], str] = str
    paper_mode_differs: str = ""
    disagrees: str = ""


@dataclass(frozen=True)
class Measurements:
    """Everything that claims are compared with, in one mode."""

    sessions: dict[str, list[int]]
    black: dict[str, set[tuple[int, int]]]
    image_counts: dict[str, int]
    without_issue_answers: list[str]
    reactions: pd.DataFrame
    excluded: list[str]
    results: pd.DataFrame
    ratings: pd.DataFrame
    emotions: pd.DataFrame
    intervals: pd.DataFrame
    equal_activations: int
    equal_results: tuple[int, int]


# Table S1: participant → sessions (structured + free-form), valid images.
TABLE_S1 = {
    "001": (20, 100), "002": (10, 50), "004": (18, 87), "005": (18, 85), "006": (18, 90), "007": (18, 88),
    "008": (18, 85), "009": (18, 88), "010": (17, 84), "011": (18, 87), "012": (16, 80), "015": (18, 89),
    "016": (20, 100), "017": (3, 15), "018": (15, 75), "020": (20, 92), "021": (18, 87), "022": (15, 75),
    "023": (20, 99), "024": (12, 58), "025": (13, 63), "026": (20, 100), "028": (20, 99), "030": (20, 99),
    "031": (20, 100), "032": (20, 99), "033": (20, 99), "034": (20, 98), "035": (20, 99), "037": (20, 100),
    "038": (20, 96), "039": (20, 96), "040": (13, 65),
}  # fmt: skip
RATING_COUNTS = (104, 185, 258, 456, 581, 403, 216)  # Fig. 3
# Section 6.1: target, AU, Spearman's rho, upper bound of p.
CORRELATIONS = (
    ("rating", 2, "0.09", 5e-5),
    ("rating", 4, "-0.18", 5e-17),
    ("rating", 9, "-0.09", 5e-5),
    ("rating", 12, "0.08", 5e-4),
    ("extremity", 1, "0.10", 5e-6),
    ("extremity", 2, "0.11", 5e-7),
    ("extremity", 5, "0.08", 5e-4),
    ("extremity", 12, "0.14", 5e-11),
    ("extremity", 20, "0.08", 1e-4),
)
# Section 6.1: emotion, AU, z of the rank-sum test, upper bound of p.
RANK_SUMS = (
    ("disappointed", 1, "-4.25", 5e-5),
    ("disappointed", 2, "-5.82", 1e-8),
    ("disappointed", 4, "4.82", 5e-6),
    ("disappointed", 12, "-4.86", 5e-6),
    ("satisfied", 4, "-9.07", 5e-19),
    ("satisfied", 5, "-6.62", 5e-11),
    ("satisfied", 9, "-6.93", 5e-12),
    ("satisfied", 25, "-3.79", 5e-4),
    ("surprised", 9, "3.78", 5e-4),
    ("surprised", 12, "4.29", 5e-5),
    ("surprised", 25, "4.01", 1e-4),
    ("surprised", 26, "4.45", 1e-5),
    ("disgusted", 4, "8.43", 1e-16),
    ("disgusted", 5, "3.94", 1e-4),
    ("disgusted", 9, "4.87", 1e-5),
    ("amused", 6, "7.00", 1e-11),
    ("amused", 9, "5.01", 1e-6),
    ("amused", 12, "9.15", 1e-19),
    ("amused", 20, "6.12", 1e-9),
    ("amused", 25, "3.85", 1e-4),
    ("scared", 4, "5.60", 5e-8),
    ("scared", 5, "4.39", 5e-5),
)
# Of these, the ones that the release's own files contradict.
MISPRINTS = {
    ("disgusted", 4): "The release's own files give z = 8.338, and its p, 7.5e-17, explains the printed bound better "
    "than that of z = 8.43 (3.5e-17) does; probably a misprint.",
    ("amused", 25): "z = 3.85 itself has p = 1.2e-4, which is not below the printed bound; a slip in the bound.",
}
TABLE_1 = {
    "CLIP_score": "58.25",
    "Aesthetic_score": "51.39",
    "BLIP_score": "49.78",
    "ImageReward_score": "62.19",
    "PickScore": "61.31",
    "HPS_V2_score": "62.04",
    ENSEMBLE: "66.57",
    VALENCE: "72.70",
}
TABLE_2 = {
    "CLIP_score": "57.50",
    "Aesthetic_score": "49.92",
    "BLIP_score": "49.92",
    VALENCE: "58.23",
    "ImageReward_score": "60.44",
    "PickScore": "63.36",
    "HPS_V2_score": "61.94",
    ENSEMBLE: "65.79",
}
TABLE_2_WITH_AUS = {"ImageReward_score": "63.67", "PickScore": "65.42", "HPS_V2_score": "65.53", ENSEMBLE: "67.49"}

PRODUCT_REASON = (
    "The release multiplies s_AU4 by s_AU12 here, which eq. 5 does not; paper mode follows eq. 5 (Differences, AUcomb)."
)

# What public files cannot confirm: section, claim, what would be needed.
NOT_CHECKABLE = (
    ("3.1, A.1", "39 people recruited, 6 removed, and why", "the recruitment records"),
    ("3.2.2", "recordings mostly 640 x 480, standardised to 30 FPS", "the videos"),
    ("3.2.3", "images made by Stable Diffusion v1.4", "the images"),
    ("3, A.2", "576 different prompts; 288 structured and 288 free-form sessions", "data.json of every session"),
    ("4, B", "AU model trained on DISFA and DISFA+ (about 130,000 frames)", "both data sets, on request"),
    ("5", "per-frame features from the videos", "the videos and the trained AU model"),
    ("6.2.1", "bangs (2 people) and an unsteady camera (1) as reasons to leave people out", "the videos"),
    ("6.2.3", "values of the six scorers", "images, prompts and, for Aesthetic and BLIP, trained networks"),
    ("6.2", "AU2 and AU9 did not help", "a description of what was compared"),
    ("Figs. 5-6", "the two examples", "the videos, images and prompts"),
)


def _equals(expected: Any) -> Callable[[Any], bool]:
    return lambda value: value == expected


def _prints_as(printed: str) -> Callable[[float], bool]:
    """Whether a value, rounded to as many decimals, reads as printed."""
    decimals = len(printed.partition(".")[2])
    return lambda value: f"{value:.{decimals}f}" == printed


def _test_holds(printed: str, bound: float) -> Callable[[tuple[float, float]], bool]:
    """Whether a statistic reads as printed and its p value is below the bound."""
    return lambda test: _prints_as(printed)(test[0]) and test[1] < bound


def _show_test(test: tuple[float, float]) -> str:
    return f"{test[0]:.3f}, p {test[1]:.1e}"


def _show_bound(bound: float) -> str:
    return f"p < {bound:.0e}".replace("e-0", "e-")


def _percent(measured: Measurements, model: str) -> float:
    correct, total = correct_and_total(measured.results, model)
    return 100 * correct / total


def _mismatches(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """``33 of 33 as printed``, or the first that is not."""
    wrong = [name for name in theirs if ours.get(name) != theirs[name]] + [name for name in ours if name not in theirs]
    same = len(theirs) - sum(name in theirs for name in wrong)
    return f"{same} of {len(theirs)} as printed" + (f" (first other: {wrong[0]})" if wrong else "")


def claims() -> list[Claim]:
    """Every claim that public files can confirm, in the paper's order."""
    n_all = f"{len(TABLE_S1)} of {len(TABLE_S1)} as printed"
    listed = [
        Claim("3", "participants", "33", lambda m: len(m.sessions), _equals(33)),
        Claim("3", "sessions, each with one prompt", "576", lambda m: sum(map(len, m.sessions.values())), _equals(576)),
        Claim("3.3", "black images", "53", lambda m: sum(map(len, m.black.values())), _equals(53)),
        Claim(
            "3.3",
            "images generated",
            "2880",
            lambda m: sum(m.image_counts.values()) + sum(map(len, m.black.values())),
            _equals(2880),
        ),
        Claim("3", "images kept", "2827", lambda m: sum(m.image_counts.values()), _equals(2827)),
        Claim(
            "Table S1",
            "sessions of each participant",
            n_all,
            lambda m: _mismatches({p: len(s) for p, s in m.sessions.items()}, {p: n for p, (n, _) in TABLE_S1.items()}),
            _equals(n_all),
        ),
        Claim(
            "Table S1",
            "valid images of each participant",
            n_all,
            lambda m: _mismatches(m.image_counts, {p: n for p, (_, n) in TABLE_S1.items()}),
            _equals(n_all),
        ),
        Claim(
            "3.2.3",
            "participants whose answers on issues are unreliable",
            "the first 7",
            lambda m: m.without_issue_answers,
            lambda names: names == sorted(TABLE_S1)[:7],
            lambda names: f"the first {len(names)}" if names == sorted(TABLE_S1)[: len(names)] else " ".join(names),
        ),
        Claim(
            "Fig. 3",
            "images with a valid reaction, by rating 1-7",
            " ".join(map(str, RATING_COUNTS)),
            lambda m: tuple(int((m.reactions["overall_rating"] == rating).sum()) for rating in range(1, 8)),
            _equals(RATING_COUNTS),
            lambda counts: " ".join(map(str, counts)),
        ),
    ]

    def significant(table: str, target: str) -> Callable[[Measurements], tuple[int, ...]]:
        return lambda m: significant_units(getattr(m, table)[f"{target}_p"])

    def test(table: str, target: str, statistic: str, unit: int) -> Callable[[Measurements], tuple[float, float]]:
        return lambda m: tuple(getattr(m, table).loc[unit, [f"{target}_{statistic}", f"{target}_p"]])

    for table, statistic, symbol, tests in (
        ("ratings", "rho", "rho", CORRELATIONS),
        ("emotions", "z", "z", RANK_SUMS),
    ):
        for target in dict.fromkeys(target for target, *_ in tests):
            units = tuple(unit for each, unit, *_ in tests if each == target)
            listed.append(
                Claim(
                    "6.1",
                    f"{target}: significant AUs",
                    " ".join(map(str, units)),
                    significant(table, target),
                    _equals(units),
                    lambda found: " ".join(map(str, found)),
                )
            )
            for each, unit, printed, bound in tests:
                if each == target:
                    listed.append(
                        Claim(
                            "6.1",
                            f"{target}, AU{unit}: {symbol}",
                            f"{printed}, {_show_bound(bound)}",
                            test(table, target, statistic, unit),
                            _test_holds(printed, bound),
                            _show_test,
                            disagrees=MISPRINTS.get((target, unit), ""),
                        )
                    )

    n_pairs = partial(correct_and_total, name=VALENCE)
    n_selected = partial(correct_and_total, name=SELECTED + VALENCE)
    listed += [
        Claim(
            "6.2.1",
            "participants left out (the release names them)",
            "3: 002 004 039",
            lambda m: f"{len(m.excluded)}: {' '.join(m.excluded)}",
            _equals("3: 002 004 039"),
        ),
        Claim("6.2.4", "participants included", "30", lambda m: len(m.results), _equals(30)),
        Claim("6.2.4", "pairs of images", "3534", lambda m: n_pairs(m.results)[1], _equals(3534)),
        Claim("6.2.4", "pairs selected", "685", lambda m: n_selected(m.results)[1], _equals(685)),
        Claim(
            "6.2.4",
            "share of pairs selected, %",
            "19.38",
            lambda m: 100 * n_selected(m.results)[1] / n_pairs(m.results)[1],
            _prints_as("19.38"),
            "{:.2f}".format,
        ),
        Claim(
            "6.2.3",
            "weights of ImageReward, PickScore, HPS v2 in every fold",
            "0.1 0.6 0.3",
            lambda m: _settings(m.results, [f"{name.removesuffix('_score')}_weight" for name in TRAINED_SCORERS]),
            _equals({(0.1, 0.6, 0.3): 30}),
            _show_settings,
        ),
        Claim(
            "6.2.4",
            "k, w_AU4, d in 20 of 30 folds",
            "0.5 0.5 0.26",
            lambda m: _settings(m.results, ["exp_decay_coef", "AU4_coef", "diff_threshold"]),
            lambda settings: settings.get((0.5, 0.5, 0.26)) == 20,
            _show_settings,
        ),
    ]

    def accuracy(
        section: str, what: str, printed: str, model: str, reason: str = "", minus: str | None = None
    ) -> Claim:
        return Claim(
            section,
            what,
            printed,
            lambda m: _percent(m, model) - (_percent(m, minus) if minus else 0),
            _prints_as(printed),
            "{:.2f}".format,
            paper_mode_differs=reason,
        )

    for model, printed in TABLE_1.items():
        listed.append(accuracy("Table 1", f"{NAMES[model]}, selected pairs, %", printed, SELECTED + model))
    listed.append(
        accuracy(
            "6.2.4", "AUcomb above ensemble, selected pairs", "6.13", SELECTED + VALENCE, minus=SELECTED + ENSEMBLE
        )
    )
    for model, printed in TABLE_2.items():
        reason = PRODUCT_REASON if model == VALENCE else ""
        listed.append(accuracy("Table 2", f"{NAMES[model]}, all pairs, %", printed, model, reason))
    for model, printed in TABLE_2_WITH_AUS.items():
        listed.append(
            accuracy("Table 2", f"{NAMES[model]} with AUs, all pairs, %", printed, WITH_AUS[model], PRODUCT_REASON)
        )
    listed += [
        accuracy(
            "6.2.5",
            "ensemble with AUs above ensemble",
            "1.70",
            INTEGRATED_ENSEMBLE,
            PRODUCT_REASON,
            minus=ENSEMBLE,
        ),
        Claim(
            "6.2.5",
            "models that gain from AUs",
            "all 4",
            lambda m: [NAMES[model] for model in WITH_AUS if _percent(m, WITH_AUS[model]) > _percent(m, model)],
            lambda gaining: len(gaining) == len(WITH_AUS),
            lambda gaining: f"{'all ' if len(gaining) == len(WITH_AUS) else ''}{len(gaining)}",
        ),
        Claim(
            "6.2.5",
            "models better than AUcomb on all pairs",
            "ImageReward PickScore HPS v2 ensemble",
            lambda m: [NAMES[model] for model in TABLE_2 if _percent(m, model) > _percent(m, VALENCE)],
            _equals([NAMES[model] for model in WITH_AUS]),
            " ".join,
        ),
        Claim(
            "6.2.5",
            "AUcomb on all pairs against chance, binomial test",
            "p < 5e-22",
            lambda m: binomial_p(*n_pairs(m.results)),
            lambda p: p < 5e-22,
            "p {:.2e}".format,
        ),
        Claim(
            "Abstract",
            "AUcomb above each trained scorer, selected pairs, significantly",
            "3 of 3",
            lambda m: sum(
                m.intervals.loc[f"AUcomb - {NAMES[model]}, selected", "lower"] > 0 for model in TRAINED_SCORERS
            ),
            _equals(len(TRAINED_SCORERS)),
            lambda n: f"{n} of {len(TRAINED_SCORERS)}",
        ),
        Claim(
            "release",
            "activation values as published",
            "51132",
            lambda m: m.equal_activations,
            _equals(51132),
        ),
        Claim(
            "release",
            "figures of the results table as published",
            "1530 of 1530",
            lambda m: m.equal_results,
            lambda equal: equal == (1530, 1530),
            lambda equal: f"{equal[0]} of {equal[1]}",
            paper_mode_differs="Weights and coefficients are exact decimals, and eq. 5 holds on all pairs "
            "(Differences).",
        ),
    ]
    return listed


def _settings(results: pd.DataFrame, columns: Sequence[str]) -> dict[tuple[float, ...], int]:
    """How many folds chose each combination of parameters, the most frequent first."""
    counts = results[list(columns)].round(6).value_counts(sort=False).sort_values(ascending=False, kind="stable")
    return {tuple(float(value) for value in values): int(n) for values, n in counts.items()}


def _show_settings(settings: dict[tuple[float, ...], int]) -> str:
    (values, n), *others = settings.items()
    return " ".join(f"{value:g}" for value in values) + f" in {n}" + (f", {len(others)} others" if others else "")


def tables_1_and_2(results: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """Tables 1 and 2 and the differences that the paper makes of them, with 95 % intervals over participants.

    Returns
    -------
    pandas.DataFrame
        Index ``figure``; columns ``table``, ``kind`` (accuracy or difference), ``estimate``, ``lower``, ``upper``,
        in percent and percentage points.
    """
    selected = {f"{name}, selected": SELECTED + model for model, name in NAMES.items()}
    everything = {f"{name}, all": model for model, name in NAMES.items()}
    integrated = {f"{NAMES[model]} with AUs, all": with_aus for model, with_aus in WITH_AUS.items()}
    accuracies = selected | everything | integrated
    differences = {
        f"AUcomb - {name}, {pairs}": (prefix + VALENCE, prefix + model)
        for pairs, prefix in (("selected", SELECTED), ("all", ""))
        for model, name in NAMES.items()
        if model != VALENCE
    } | {f"{NAMES[model]} with AUs - without, all": (with_aus, model) for model, with_aus in WITH_AUS.items()}
    table = bootstrap_accuracies(results, list(accuracies.values()), differences, resamples=resamples, seed=seed)
    table.index = pd.Index([*accuracies, *differences], name="figure")
    table.insert(0, "table", ["Table 1" if name.endswith("selected") else "Table 2" for name in table.index])
    table.insert(1, "kind", ["accuracy"] * len(accuracies) + ["difference"] * len(differences))
    return table


def _show_interval(row: pd.Series) -> str:
    """An estimate with its interval; few people can leave no pair in the sample, or in some of the resamples."""
    if pd.isna(row.estimate):
        return "no pairs"
    return f"{row.estimate:.2f} " + ("(no interval)" if pd.isna(row.lower) else f"[{row.lower:.2f}, {row.upper:.2f}]")


def read_results(folders: Folders, mode: str, strict_lopo: bool = False) -> pd.DataFrame:
    """The results of stage 9 in one mode.

    Raises
    ------
    FergiError
        If the table is missing or unusable; it names the command that makes it.
    """
    return _read_results(folders.preference_results(mode, strict_lopo), f"Run {_stage_9(mode, strict_lopo)} first.")


def _stage_9(mode: str, strict_lopo: bool) -> str:
    """The command that makes the results of one mode."""
    options = f"{' --mode released' if mode == 'released' else ''}{' --strict-lopo' if strict_lopo else ''}"
    return f"image_preference_binary_classification_based_on_ranking.py{options}"


def _results_of(
    folders: Folders, reactions: pd.DataFrame, excluded: Sequence[str], mode: str, strict_lopo: bool = False
) -> pd.DataFrame:
    """The results of stage 9 in one mode, if they are of the people who have reactions and are not left out."""
    results = read_results(folders, mode, strict_lopo)
    different = sorted((set(reactions["participant"]) - {*excluded}).symmetric_difference(results["user_id"]))
    if different:
        raise FergiError(
            f"{folders.preference_results(mode, strict_lopo)} has results of other people than stages 7 and 8 leave: "
            f"{len(different)} are only in one of them (first: {different[0]}). "
            f"Run {_stage_9(mode, strict_lopo)} again."
        )
    return results


def _read_results(path: Path, advice: str) -> pd.DataFrame:
    """A results table; every column but the participant's is a number, and none that a claim needs is missing."""
    try:
        header = pd.read_csv(path, nrows=0).columns if path.is_file() else ["user_id"]
        numeric = dict.fromkeys([*RESULT_COLUMNS, *(name for name in header if name != "user_id")])
        return read_table(path, text_key=["user_id"], numeric=list(numeric))
    except ValueError as error:
        raise FergiError(f"{error}. {advice}") from error


def _reactions(folders: Folders, sessions: dict[str, list[int]]) -> pd.DataFrame:
    """What Section 6.1 rests on: one row an image with a valid reaction."""
    return read_image_reactions(
        folders, sessions, image_columns=["overall_rating", *EMOTIONS], activation_columns=ACTIVATION_COLUMNS
    )


def _statistics(reactions: pd.DataFrame, mode: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of Section 6.1 in one mode."""
    decimals = None if mode == "released" else 9
    return rating_correlations(reactions, decimals), emotion_rank_sums(reactions, decimals)


def measure(folders: Folders, mode: str, *, resamples: int, seed: int) -> Measurements:
    """Everything that claims are compared with, in one mode (``released`` or ``paper``)."""
    sessions = read_valid_sessions(folders)
    reactions = _reactions(folders, sessions)
    images = read_tables(folders.image_tables, sessions, key=CLIP_KEY, kept=ISSUES, advice=FETCH_ADVICE)
    excluded = read_excluded_participants(folders, sessions)
    results = _results_of(folders, reactions, excluded, mode)
    ratings, emotions = _statistics(reactions, mode)
    return Measurements(
        sessions=sessions,
        black=read_black_images(folders, sessions),
        image_counts={participant: len(table) for participant, table in images.items()},
        without_issue_answers=[name for name, table in images.items() if table[list(ISSUES)].isna().all(axis=None)],
        reactions=reactions,
        excluded=excluded,
        results=results,
        ratings=ratings,
        emotions=emotions,
        intervals=tables_1_and_2(results, resamples=resamples, seed=seed),
        equal_activations=sum(_equal_activations(folders, kind, sessions) for kind in CLIP_KINDS),
        equal_results=_equal_results(results, folders),
    )


def _equal_activations(folders: Folders, kind: str, participants: Sequence[str]) -> int:
    """How many of our activation values of one kind of clip are the published ones, to the last digit."""
    ours, theirs = (
        pd.concat(
            read_tables(folder, participants, key=CLIP_KEY, numeric=ACTIVATION_COLUMNS, advice=advice),
            names=["participant"],
        )
        .set_index(list(CLIP_KEY), append=True)
        .droplevel(1)
        for folder, advice in (
            (folders.activation_tables(kind), f"Run preprocess_{kind}_data.py first."),
            (folders.published / folders.activation_tables(kind).name, FETCH_ADVICE),
        )
    )
    return int((ours.reindex(theirs.index) == theirs).to_numpy().sum())


def _equal_results(results: pd.DataFrame, folders: Folders) -> tuple[int, int]:
    """How many figures of the results table are the published ones, to the last digit, and how many there are."""
    published = _read_results(folders.published / folders.preference_results().name, FETCH_ADVICE).set_index("user_id")
    ours = results.set_index("user_id").reindex(index=published.index, columns=published.columns)
    return int((ours == published).to_numpy().sum()), published.size


def check(measured: dict[str, Measurements]) -> pd.DataFrame:
    """All claims beside our values.

    Parameters
    ----------
    measured : dict
        ``released`` and ``paper`` → measurements.

    Returns
    -------
    pandas.DataFrame
        Columns ``section``, ``claim``, ``paper``, ``released``, ``paper mode``, ``verdict``, ``reason``. Verdicts:
        ``agrees`` (in both modes), ``agrees as released`` (in paper mode it differs for the reason given),
        ``disagrees`` (known, for the reason given), ``not checkable`` (reason: what is missing), ``FAILS``.
    """
    rows = []
    for claim in claims():
        values = {mode: claim.value(measured[mode]) for mode in MODES}
        holds = {mode: bool(claim.holds(value)) for mode, value in values.items()}
        if all(holds.values()):
            verdict, reason = "agrees", ""
        elif holds["released"] and claim.paper_mode_differs:
            verdict, reason = "agrees as released", claim.paper_mode_differs
        elif claim.disagrees:
            verdict, reason = "disagrees", claim.disagrees
        else:
            verdict, reason = "FAILS", "This should hold."
        shown = [claim.shown(values[mode]) for mode in MODES]
        rows.append((claim.section, claim.what, claim.paper, *shown, verdict, reason))
    rows += [(section, what, "", "", "", "not checkable", f"Needs {needs}.") for section, what, needs in NOT_CHECKABLE]
    return pd.DataFrame(rows, columns=["section", "claim", "paper", "released", "paper mode", "verdict", "reason"])


def report(table: pd.DataFrame) -> str:
    """The table of ``check`` for a terminal of 140 columns, reasons numbered below it."""
    reasons = list(dict.fromkeys(reason for reason in table["reason"] if reason))
    shown = table.drop(columns="reason")
    shown["verdict"] += [f" [{reasons.index(reason) + 1}]" if reason else "" for reason in table["reason"]]
    widths = (8, 50, 20, 20, 20, 22)
    rule = ["-" * width for width in widths]
    lines = []
    for row in (shown.columns, rule, *shown.itertuples(index=False)):
        cells = [textwrap.wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            lines.append("  ".join(f"{part:<{width}}" for part, width in zip(parts, widths, strict=True)).rstrip())
    lines += ["", *(f"[{number}] {reason}" for number, reason in enumerate(reasons, 1)), ""]
    counts = table["verdict"].value_counts()
    lines.append(", ".join(f"{n} {verdict}" for verdict, n in counts.items()) + ".")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure in both modes, compare, write and print both tables."""
    parser = argument_parser(__doc__)
    parser.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2312_03187, help="of the bootstrap (default: %(default)s)")
    parser.add_argument(
        "--without-check",
        action="store_true",
        help="for other data than the published: compare nothing with the paper, and remove an earlier comparison",
    )
    chosen = parser.parse_args(arguments)
    if chosen.resamples < 1 or chosen.seed < 0:
        parser.error("--resamples must be at least 1, and --seed at least 0")
    folders = Folders(chosen.root)
    if folders.synthetic_truth.is_file() and not chosen.without_check:
        raise FergiError(
            f"{folders.synthetic_truth} says that these data are synthetic, which the paper's claims are not about. "
            "Leave the comparison out with: python -m fergi.paper --without-check"
        )
    sessions = read_valid_sessions(folders)  # a wrong --root is told before anything is made in it
    check_writable(folders.results)
    bootstrap = {"resamples": chosen.resamples, "seed": chosen.seed}
    check_file = folders.results / "paper_check.csv"
    if chosen.without_check:
        reactions, excluded = _reactions(folders, sessions), read_excluded_participants(folders, sessions)
        results = {mode: _results_of(folders, reactions, excluded, mode) for mode in MODES}
        statistics = {mode: _statistics(reactions, mode) for mode in MODES}
        intervals = {mode: tables_1_and_2(results[mode], **bootstrap) for mode in MODES}
    else:
        measured = {mode: measure(folders, mode, **bootstrap) for mode in MODES}
        statistics = {mode: (measured[mode].ratings, measured[mode].emotions) for mode in MODES}
        intervals = {mode: measured[mode].intervals for mode in MODES}
        reactions, excluded = measured["paper"].reactions, measured["paper"].excluded
    strict = _results_of(folders, reactions, excluded, "paper", strict_lopo=True)
    intervals["strict"] = tables_1_and_2(strict, **bootstrap)

    if chosen.without_check:
        check_file.unlink(missing_ok=True)
    else:
        table = check(measured)
        write_table(table, check_file)
    write_table(
        pd.concat(intervals, names=["mode"]).reset_index()[
            ["mode", "table", "figure", "kind", "estimate", "lower", "upper"]
        ],
        folders.results / "accuracy_intervals.csv",
    )
    for mode in MODES:
        suffix = "_released" if mode == "released" else ""
        for name, each in zip(("overall_rating_correlations", "emotion_rank_sums"), statistics[mode], strict=True):
            write_table(each.reset_index(), folders.results / f"{name}{suffix}.csv")
    if not chosen.without_check:
        print(report(table) + "\n")
    print("Tables 1 and 2 with 95 % bootstrap intervals over participants (percent, percentage points):\n")
    print(
        pd.concat(
            {mode: each.apply(_show_interval, axis=1) for mode, each in intervals.items()},
            axis=1,
        ).to_string()
    )
    written = "accuracy_intervals.csv and the statistics of Section 6.1"
    if chosen.without_check:
        print(f"\nWrote {written} to {folders.results}. Nothing was compared with the paper.")
        return 0
    print(f"\nWrote paper_check.csv, {written} to {folders.results}.")
    failed = table[table["verdict"] == "FAILS"]
    if len(failed):
        raise FergiError(
            f"{len(failed)} of {len(table)} claims that should hold do not "
            f"(first: {failed['claim'].iloc[0]}: {failed['released'].iloc[0]} instead of {failed['paper'].iloc[0]}). "
            "See results/paper_check.csv."
        )
    return 0


if __name__ == "__main__":
    run(main)
