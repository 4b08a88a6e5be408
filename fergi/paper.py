"""The claims of the paper beside our numbers.

Reads   preparation/ and results/ as stages 5 to 9, fergi.section_6_1 and fergi.accuracy_intervals left them,
        results/published/ (python -m fergi.published)
Writes  results/paper_check.csv: section, claim, paper, released mode, paper mode, verdict, reason
Run     python -m fergi.paper            or all before it as well: make reproduce
Takes   about two seconds; no GPU.

The claims are on the published data; for other data there is nothing to compare. A last section, on the order in which
images were shown, is not in the paper; it has our values only and is not counted, and has more of them where
annotate_preferences.py --held-out was run.
Exits with 1 if a claim that should hold does not. Known disagreements are shown with their reason and do not count.
"""

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

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
from fergi.files import FergiError, check_writable, read_tables, require, write_table
from fergi.held_out import NAMES, read_held_out
from fergi.held_out import summary as held_out_summary
from fergi.order_of_showing import balanced_tables, earlier_by_participant, rankings_in_order
from fergi.preference.results import ENSEMBLE_WEIGHTS, SCORERS, read_results, tables_1_and_2
from fergi.script import argument_parser, run
from fergi.section_6_1 import read_statistics
from fergi.statistics import RESAMPLES, SEED, fold_choices, significant_units


@dataclass(frozen=True)
class Claim:
    """One statement of the paper (or of its release) that public files can confirm, beside our value in one mode.

    Attributes
    ----------
    section, what, paper, ours : str
        Where it stands, what it is about, the value as printed ("": not in the paper), and our value.
    holds : bool, optional
        Whether the claim holds; by default, whether both values read the same.
    paper_mode_differs : str
        Why the value may differ in paper mode, which follows the paper's text where the release does not.
    disagrees : str
        Why the claim is known not to hold.
    """

    section: str
    what: str
    paper: str
    ours: str
    holds: bool | None = None
    paper_mode_differs: str = ""
    disagrees: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the claim holds in this mode."""
        return self.ours == self.paper if self.holds is None else bool(self.holds)


# The paper's numbers -----------------------------------------------------------------------------------------------

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
# Printed accuracies in percent, by the row's name in ``tables_1_and_2``.
TABLE_1 = {
    "CLIP, selected": "58.25",
    "Aesthetic, selected": "51.39",
    "BLIP, selected": "49.78",
    "ImageReward, selected": "62.19",
    "PickScore, selected": "61.31",
    "HPS v2, selected": "62.04",
    "ensemble, selected": "66.57",
    "AUcomb, selected": "72.70",
}
TABLE_2 = {
    "CLIP, all": "57.50",
    "Aesthetic, all": "49.92",
    "BLIP, all": "49.92",
    "AUcomb, all": "58.23",
    "ImageReward, all": "60.44",
    "PickScore, all": "63.36",
    "HPS v2, all": "61.94",
    "ensemble, all": "65.79",
    "ImageReward with AUs, all": "63.67",
    "PickScore with AUs, all": "65.42",
    "HPS v2 with AUs, all": "65.53",
    "ensemble with AUs, all": "67.49",
}
WITH_AUS = ("ImageReward", "PickScore", "HPS v2", "ensemble")
# Rows of the tables that are shown balanced for the order of showing, and the verdict on what the paper does not tell.
BALANCED = ("AUcomb, selected", "AUcomb, all", "ensemble, all", "ensemble with AUs, all")
ADDED = "not in the paper"

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


# The claims --------------------------------------------------------------------------------------------------------


def claims(folders: Folders, mode: str) -> list[Claim]:
    """Every claim that public files can confirm, in the paper's order, beside our values in one mode.

    Raises
    ------
    FergiError
        If a stage's file is missing or unusable, or is not of the same people or results as the others.
    """
    results = read_results(folders, mode)
    tables = tables_1_and_2(results)
    ratings, emotions = read_statistics(folders, mode)
    alone = "AUcomb, selected", "ensemble, selected"
    return [
        *_participants_and_images(folders),
        *section_6_1_claims(ratings, "rho", CORRELATIONS),
        *section_6_1_claims(emotions, "z", RANK_SUMS),
        *_folds(folders, results, tables),
        *_accuracies("Table 1", TABLE_1, tables),
        _gain("6.2.4", "AUcomb above ensemble, selected pairs", "6.13", tables, *alone),
        *_accuracies("Table 2", TABLE_2, tables),
        *_comparisons(tables, _lower_ends(folders, mode, tables)),
        *_release(folders, results),
        *_order_of_showing(folders, results, mode),
    ]


def _participants_and_images(folders: Folders) -> list[Claim]:
    """Section 3, Table S1 and Figure 3."""
    sessions = read_valid_sessions(folders)
    images = read_tables(folders.image_tables, sessions, key=CLIP_KEY, kept=ISSUES, advice=FETCH_ADVICE)
    reactions = read_image_reactions(folders, sessions, image_columns=["overall_rating"], activation_columns=())
    n_images, n_black = (sum(map(len, each.values())) for each in (images, read_black_images(folders, sessions)))
    n_sessions = {name: len(numbers) for name, numbers in sessions.items()}
    n_valid = {name: len(table) for name, table in images.items()}
    unanswered = [name for name, table in images.items() if table[list(ISSUES)].isna().all(axis=None)]
    first = unanswered == sorted(TABLE_S1)[: len(unanswered)]
    unreliable = f"the first {len(unanswered)}" if first else " ".join(unanswered)
    of_rating = reactions["overall_rating"].value_counts().reindex(range(1, 8), fill_value=0)
    per_rating = (" ".join(map(str, each)) for each in (RATING_COUNTS, of_rating))
    return [
        Claim("3", "participants", "33", str(len(sessions))),
        Claim("3", "sessions, each with one prompt", "576", str(sum(map(len, sessions.values())))),
        Claim("3.3", "black images", "53", str(n_black)),
        Claim("3.3", "images generated", "2880", str(n_images + n_black)),
        Claim("3", "images kept", "2827", str(n_images)),
        Claim("Table S1", "sessions of each participant", *_as_printed(0, n_sessions)),
        Claim("Table S1", "valid images of each participant", *_as_printed(1, n_valid)),
        Claim("3.2.3", "participants whose answers on issues are unreliable", "the first 7", unreliable),
        Claim("Fig. 3", "images with a valid reaction, by rating 1-7", *per_rating),
    ]


def _as_printed(column: int, ours: dict[str, int]) -> tuple[str, str]:
    """``33 of 33 as printed`` in a column of Table S1, and how many of ours are, with the first that is not."""
    theirs = {name: row[column] for name, row in TABLE_S1.items()}
    wrong = [name for name in theirs | ours if ours.get(name) != theirs.get(name)]
    same = len(theirs) - len(theirs.keys() & wrong)
    other = f" (first other: {wrong[0]})" if wrong else ""
    return f"{len(theirs)} of {len(theirs)} as printed", f"{same} of {len(theirs)} as printed{other}"


def section_6_1_claims(
    table: pd.DataFrame, statistic: str, tests: Sequence[tuple[str, int, str, float]]
) -> list[Claim]:
    """Which AUs are significant for a rating or an emotion, and each of their tests."""
    listed = []
    for target in dict.fromkeys(target for target, *_ in tests):
        own = [test for test in tests if test[0] == target]
        units = [unit for _, unit, *_ in own], significant_units(table[f"{target}_p"])
        listed.append(Claim("6.1", f"{target}: significant AUs", *(" ".join(map(str, each)) for each in units)))
        for _, unit, printed, bound in own:
            value, p = table.loc[unit, [f"{target}_{statistic}", f"{target}_p"]]
            values = f"{printed}, p < {bound:.0e}".replace("e-0", "e-"), f"{value:.3f}, p {p:.1e}"
            holds = f"{value:.{len(printed.partition('.')[2])}f}" == printed and p < bound
            misprint = MISPRINTS.get((target, unit), "")
            listed.append(Claim("6.1", f"{target}, AU{unit}: {statistic}", *values, holds, disagrees=misprint))
    return listed


def _folds(folders: Folders, results: pd.DataFrame, tables: pd.DataFrame) -> list[Claim]:
    """Sections 6.2.1, 6.2.3 and 6.2.4: who is included, which pairs are selected, what the folds chose."""
    excluded = read_excluded_participants(folders, read_valid_sessions(folders))
    found = f"{len(excluded)}: {' '.join(excluded)}"
    n_pairs, n_selected = tables.loc[["AUcomb, all", "AUcomb, selected"], "total"]
    weights = fold_choices(results, ENSEMBLE_WEIGHTS)
    coefficients = fold_choices(results, ["exp_decay_coef", "AU4_coef", "diff_threshold"])
    which = "weights of ImageReward, PickScore, HPS v2 in every fold"
    twenty = coefficients.get((0.5, 0.5, 0.26)) == 20
    return [
        Claim("6.2.1", "participants left out (the release names them)", "3: 002 004 039", found),
        Claim("6.2.4", "participants included", "30", str(len(results))),
        Claim("6.2.4", "pairs of images", "3534", str(n_pairs)),
        Claim("6.2.4", "pairs selected", "685", str(n_selected)),
        Claim("6.2.4", "share of pairs selected, %", "19.38", f"{100 * n_selected / n_pairs:.2f}"),
        Claim("6.2.3", which, "0.1 0.6 0.3", _show_choices(weights), weights == {(0.1, 0.6, 0.3): 30}),
        Claim("6.2.4", "k, w_AU4, d in 20 of 30 folds", "0.5 0.5 0.26", _show_choices(coefficients), twenty),
    ]


def _show_choices(choices: dict[tuple[float, ...], int]) -> str:
    (values, n), *others = choices.items()
    return " ".join(f"{value:g}" for value in values) + f" in {n}" + (f", {len(others)} others" if others else "")


def _accuracies(table: str, printed: dict[str, str], tables: pd.DataFrame) -> list[Claim]:
    """The rows of Table 1 or 2."""
    listed = []
    for figure, value in printed.items():
        reason = PRODUCT_REASON if figure == "AUcomb, all" or "with AUs" in figure else ""
        ours = f"{tables.loc[figure, 'percent']:.2f}"
        listed.append(Claim(table, f"{figure} pairs, %", value, ours, paper_mode_differs=reason))
    return listed


def _gain(section: str, what: str, printed: str, tables: pd.DataFrame, one: str, other: str, reason: str = "") -> Claim:
    """How many points one row of the tables is above another."""
    gain = tables.loc[one, "percent"] - tables.loc[other, "percent"]
    return Claim(section, what, printed, f"{gain:.2f}", paper_mode_differs=reason)


def _comparisons(tables: pd.DataFrame, lower: pd.Series) -> list[Claim]:
    """Section 6.2.5 and the abstract: which models are better than which."""
    percent = tables["percent"]
    n_gaining = sum(percent[f"{name} with AUs, all"] > percent[f"{name}, all"] for name in WITH_AUS)
    alone = [figure for figure in TABLE_2 if "with AUs" not in figure]
    better = [figure.removesuffix(", all") for figure in alone if percent[figure] > percent["AUcomb, all"]]
    p = binomtest(*tables.loc["AUcomb, all", ["correct", "total"]]).pvalue
    n_beaten = sum(lower[f"AUcomb - {name}, selected"] > 0 for name in WITH_AUS[:3])
    above = "AUcomb above each trained scorer, selected pairs, significantly"
    rows = "ensemble with AUs, all", "ensemble, all"
    return [
        _gain("6.2.5", "ensemble with AUs above ensemble", "1.70", tables, *rows, PRODUCT_REASON),
        Claim("6.2.5", "models that gain from AUs", "all 4", f"all {n_gaining}" if n_gaining == 4 else str(n_gaining)),
        Claim("6.2.5", "models better than AUcomb on all pairs", " ".join(WITH_AUS), " ".join(better)),
        Claim("6.2.5", "AUcomb on all pairs against chance, binomial test", "p < 5e-22", f"p {p:.2e}", p < 5e-22),
        Claim("Abstract", above, "3 of 3", f"{n_beaten} of 3"),
    ]


def _lower_ends(folders: Folders, mode: str, tables: pd.DataFrame) -> pd.Series:
    """The lower ends of the intervals in one mode, by ``figure``, if they are of the same results as the tables."""
    path, command = folders.accuracy_intervals, "python -m fergi.accuracy_intervals"
    require([path], "table of intervals", f"Run {command} first.")
    intervals = pd.read_csv(path)
    intervals = intervals[intervals["mode"] == mode].set_index("figure")
    if not np.allclose(intervals["estimate"].reindex(tables.index), tables["percent"], rtol=0, atol=1e-6):
        raise FergiError(f"{path} is of other results than those of the {mode} mode. Run {command} again.")
    return intervals["lower"]


def _release(folders: Folders, results: pd.DataFrame) -> list[Claim]:
    """What the release's own files hold, to the last digit."""
    path = folders.published / folders.preference_results().name
    require([path], "table of results", FETCH_ADVICE)
    published = pd.read_csv(path, dtype={"user_id": str}).set_index("user_id")
    ours = results.set_index("user_id").reindex(index=published.index, columns=published.columns)
    participants = read_valid_sessions(folders)
    equal = sum(_equal_activations(folders, kind, participants) for kind in CLIP_KINDS)
    same = f"{(ours == published).to_numpy().sum()} of {published.size}"
    reason = "Weights and coefficients are exact decimals, and eq. 5 holds on all pairs (Differences)."
    figures = "figures of the results table as published"
    return [
        Claim("release", "activation values as published", "51132", str(equal)),
        Claim("release", figures, "1530 of 1530", same, paper_mode_differs=reason),
    ]


def _equal_activations(folders: Folders, kind: str, participants: Sequence[str]) -> int:
    """How many of our activation values of one kind of clip are the published ones, to the last digit."""
    folder, columns = folders.activation_tables(kind), {"key": CLIP_KEY, "numeric": ACTIVATION_COLUMNS}
    both = (
        read_tables(folder, participants, **columns, advice=f"Run preprocess_{kind}_data.py first."),
        read_tables(folders.published / folder.name, participants, **columns, advice=FETCH_ADVICE),
    )
    ours, theirs = (pd.concat(tables).set_index(list(CLIP_KEY), append=True).droplevel(1) for tables in both)
    return int((ours.reindex(theirs.index) == theirs).to_numpy().sum())


# Not in the paper --------------------------------------------------------------------------------------------------


def _order_of_showing(folders: Folders, results: pd.DataFrame, mode: str) -> list[Claim]:
    """How much of the rankings is the order of showing, and accuracies balanced for it."""
    sessions, columns = read_valid_sessions(folders), ["rank_score", *SCORERS]
    units = ["AU4_activation_value", "AU12_activation_value"]
    reacted = read_image_reactions(folders, sessions, image_columns=columns, activation_columns=units)
    images = read_tables(folders.image_tables, sessions, key=CLIP_KEY, numeric=["rank_score"], advice=FETCH_ADVICE)
    draws = {"resamples": RESAMPLES, "seed": SEED}
    _, everybody = earlier_by_participant(reacted, **draws)
    same, n_rankings, by_chance = rankings_in_order(pd.concat(images, names=["participant"]).reset_index(0))
    included = reacted[reacted["participant"].isin(results["user_id"])]
    balanced = balanced_tables(included, results, mode=mode, **draws)
    n_people = len(sessions)
    rows = [
        (f"earlier image preferred, {everybody['pairs']:.0f} pairs, {n_people} people, %", _interval(*everybody[:3])),
        ("people for whom it is above 50 %", f"{everybody['above_half']:.0f} of {n_people}"),
        ("five-image rankings equal to the order of showing", f"{same} of {n_rankings}"),
        ("as many by chance", f"{by_chance:.1f}"),
        *((f"{name}, order-balanced, %", _interval(*balanced.loc[name, ["balanced", "lower", "upper"]]))
          for name in BALANCED),
    ]  # fmt: skip
    if folders.preferences_held_out.is_file():
        for name, table in read_held_out(folders).groupby("model"):
            if name != "aucomb":
                found = held_out_summary(table, **draws).loc["order-balanced"]
                what = f"{NAMES[name]}, {found['n_pairs']:.0f} pairs, order-balanced, %"
                rows.append((what, _interval(*found[["estimate", "lower", "upper"]])))
    return [Claim("order", what, "", ours) for what, ours in rows]


def _interval(estimate: float, lower: float, upper: float) -> str:
    return f"{estimate:.2f} [{lower:.2f}, {upper:.2f}]"


# The check ---------------------------------------------------------------------------------------------------------


def check(released: Sequence[Claim], paper: Sequence[Claim]) -> pd.DataFrame:
    """All claims beside our values in both modes; ``released`` and ``paper`` are the same claims.

    Returns
    -------
    pandas.DataFrame
        Columns ``section``, ``claim``, ``paper``, ``released``, ``paper mode``, ``verdict``, ``reason``. Verdicts:
        ``agrees`` (in both modes), ``agrees as released`` (in paper mode it differs for the reason given),
        ``disagrees`` (known, for the reason given), ``not checkable`` (reason: what is missing), ``FAILS``, and
        last ``not in the paper``.
    """
    rows = []
    for claim, in_paper_mode in zip(released, paper, strict=True):
        if not claim.paper:
            verdict, reason = ADDED, ""
        elif claim.agrees and in_paper_mode.agrees:
            verdict, reason = "agrees", ""
        elif claim.agrees and claim.paper_mode_differs:
            verdict, reason = "agrees as released", claim.paper_mode_differs
        elif claim.disagrees:
            verdict, reason = "disagrees", claim.disagrees
        else:
            verdict, reason = "FAILS", "This should hold."
        rows.append((claim.section, claim.what, claim.paper, claim.ours, in_paper_mode.ours, verdict, reason))
    rows += [(section, what, "", "", "", "not checkable", f"Needs {needs}.") for section, what, needs in NOT_CHECKABLE]
    rows.sort(key=lambda row: ADDED in row)  # to the end
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
    counts = table.loc[table["verdict"] != ADDED, "verdict"].value_counts()
    lines.append(", ".join(f"{n} {verdict}" for verdict, n in counts.items()) + ".")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare in both modes, write and print."""
    folders = Folders(argument_parser(__doc__).parse_args(arguments).root)
    if folders.synthetic_truth.is_file():
        raise FergiError(
            f"{folders.synthetic_truth} says that these data are synthetic, and the paper's claims are not about them. "
            "Run python -m fergi.section_6_1 and python -m fergi.accuracy_intervals instead."
        )
    table = check(claims(folders, "released"), claims(folders, "paper"))
    check_writable(folders.results)
    write_table(table, folders.paper_check)
    print(f"{report(table)}\n\nWrote {folders.paper_check}.")
    failed = table[table["verdict"] == "FAILS"]
    if len(failed):
        raise FergiError(
            f"{len(failed)} of {(table['verdict'] != ADDED).sum()} claims that should hold do not "
            f"(first: {failed['claim'].iloc[0]}: {failed['released'].iloc[0]} instead of {failed['paper'].iloc[0]}). "
            f"See {folders.paper_check}."
        )


if __name__ == "__main__":
    run(main)
