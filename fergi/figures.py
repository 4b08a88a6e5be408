"""Figures 3 to 6 of the paper, and four of ours that show what its tables rest on.

Two kinds of functions, neither of which reads a file. The first compute what is to be drawn, from the tables of
stages 5 to 9. The others take such tables (or examples of reactions) and return a ``matplotlib.figure.Figure``;
``save`` writes it. The figures are made without pyplot, so that nothing opens a window or stays in memory.

A box in these figures reaches from the first to the third quartile, with a line at the median; there are no
whiskers and no single points (captions of Figures 3 and 4). Sizes are those of a printed page: 18 cm wide, type
of 7 points and more. Colours are never alone in saying something: position, a label or a marker says it too.
"""

import contextlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

from fergi.examples import Example
from fergi.files import replacing
from fergi.preference.grid_search import Search, activations, selected_counts
from fergi.preference.pairs import Pairs, pairs_within_sessions
from fergi.preference.results import ENSEMBLE, VALENCE, fold_scores
from fergi.statistics import EMOTIONS, MIDDLE_RATING, bonferroni_threshold, significant_units

RATINGS = (1, 2, 3, 4, 5, 6, 7)
CURVES = {VALENCE: "AUcomb valence", ENSEMBLE: "ensemble of ImageReward, PickScore and HPS v2"}
MODES = {"paper": "paper mode", "released": "released mode", "strict": "strict folds"}

_WIDTH = 7.1  # inches, 18 cm
_DOTS = 200  # per inch
_STAMP_STRIP = 0.28  # inches above the figure
_INK, _GREY, _PALE = "#222222", "#767676", "#d9d9d9"
_BLUE, _ORANGE, _GREEN = "#0072b2", "#d55e00", "#009e73"  # told apart with every common colour blindness
_BLUES = LinearSegmentedColormap.from_list("rating", ["#e3eef9", "#3a84c1"])
_BROWNS = LinearSegmentedColormap.from_list("extremity", ["#f8ecd6", "#b0712a"])
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,
}


# --------------------------------------------------------------------------- what is drawn


def marked(values: pd.DataFrame, p_values: pd.DataFrame, *, digits: int = 2) -> pd.DataFrame:
    """Statistics as text, with an asterisk where the p value is below the Bonferroni threshold (Section 6.1).

    A dash stands where there was nothing to test (NaN), as with an emotion that nobody felt.

    Parameters
    ----------
    values, p_values : pandas.DataFrame, both of one shape
        Statistics, and their p values at the same places; names are taken from ``values``.
    digits : int
        Digits after the point.
    """
    threshold = bonferroni_threshold()
    text = [
        [
            "–" if np.isnan(value) else f"{value:.{digits}f}{' *' if p < threshold else ''}"
            for value, p in zip(*row, strict=True)
        ]
        for row in zip(values.to_numpy(float), p_values.to_numpy(float), strict=True)
    ]
    return pd.DataFrame(text, index=values.index, columns=values.columns)


def rating_units(correlations: pd.DataFrame) -> pd.DataFrame:
    """The AUs of Figure 3 in its order, with the correlations that are drawn: those that are significant.

    First the AUs significant for the rating only, then those for its extremity only, then those for both; each
    group by AU number. If none is significant, the AU with the smallest p for the rating and the one with the
    smallest for its extremity take their place.

    Parameters
    ----------
    correlations : pandas.DataFrame
        From ``statistics.rating_correlations``.

    Returns
    -------
    pandas.DataFrame
        Index ``AU``; columns ``rating_rho`` and ``extremity_rho``, NaN where not drawn.
    """
    p_values = correlations["rating_p"], correlations["extremity_p"]
    rating, extremity = (set(significant_units(p)) for p in p_values)
    if not rating | extremity:
        rating, extremity = (set(p.dropna().nsmallest(1).index) for p in p_values)
    order = [*sorted(rating - extremity), *sorted(extremity - rating), *sorted(rating & extremity)]
    table = correlations.loc[order, ["rating_rho", "extremity_rho"]].copy()
    table.loc[[unit not in rating for unit in order], "rating_rho"] = np.nan
    table.loc[[unit not in extremity for unit in order], "extremity_rho"] = np.nan
    return table


def _named_pairs(images: pd.DataFrame) -> tuple[np.ndarray, Pairs]:
    """The participants' names in ascending order, and the pairs."""
    names, participant = np.unique(images["participant"].to_numpy(str), return_inverse=True)
    return names, pairs_within_sessions(participant, images["session_index"], images["rank_score"])


def pair_predictions(images: pd.DataFrame, results: pd.DataFrame, *, decimals: int | None = 9) -> pd.DataFrame:
    """What both scores of ``fold_scores``, which has the same parameters and refusal, say about each pair.

    Returns
    -------
    pandas.DataFrame
        One row a pair: ``participant``; ``difference``, the absolute difference of the valence scores (eq. 5),
        0–1; ``selected``, whether it reaches the fold's d; and for ``VALENCE`` and ``ENSEMBLE`` whether the
        prediction is right (a tie is not).
    """
    scores = fold_scores(images, results, decimals=decimals)
    names, pairs = _named_pairs(images)
    threshold = results.set_index(results["user_id"].astype(str)).loc[names, "diff_threshold"].to_numpy()
    difference = np.abs(pairs.difference(scores[VALENCE]))
    return pd.DataFrame(
        {
            "participant": names[pairs.participant],
            "difference": difference,
            "selected": difference >= threshold[pairs.participant],
            VALENCE: pairs.agrees(scores[VALENCE]),
            ENSEMBLE: pairs.agrees(scores[ENSEMBLE]),
        }
    )


def selection_curve(
    predictions: pd.DataFrame, *, resamples: int, seed: int, level: float = 0.95, points: int = 200
) -> pd.DataFrame:
    """Accuracy among the pairs whose valence scores differ by at least so much, for ever smaller differences.

    Pairs with equal differences come in together. The intervals are percentiles of a bootstrap that draws whole
    participants, with replacement, because pairs of one person are not independent; parameters stay as they are.

    Parameters
    ----------
    predictions : pandas.DataFrame
        From ``pair_predictions``.
    resamples, seed : int
        How many resamples, and where the generator starts.
    level : float
        Coverage of the intervals.
    points : int
        At most so many rows, evenly taken from all different differences.

    Returns
    -------
    pandas.DataFrame
        One row a difference, largest first: ``difference``, ``n_selected``, ``share`` (percent of all pairs), and
        for ``VALENCE`` and ``ENSEMBLE`` the accuracy in percent, ``<name>_lower`` and ``<name>_upper``.
    """
    ordered = predictions.sort_values("difference", ascending=False, kind="stable")
    difference = ordered["difference"].to_numpy()
    last = np.flatnonzero(np.append(difference[:-1] != difference[1:], True))  # of those with the same difference
    last = last[np.unique(np.linspace(0, len(last) - 1, min(points, len(last))).round().astype(int))]

    names, participant = np.unique(ordered["participant"].to_numpy(str), return_inverse=True)
    of_participant = participant[:, None] == np.arange(len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    drawn = np.vstack([np.ones(len(names), int), drawn]).T  # the first is the sample itself
    selected = of_participant.cumsum(axis=0)[last] @ drawn
    tail = (1 - level) / 2
    curve = {
        "difference": difference[last],
        "n_selected": selected[:, 0],
        "share": 100 * selected[:, 0] / len(ordered),
    }
    for name in (VALENCE, ENSEMBLE):
        correct = (of_participant & ordered[name].to_numpy(bool)[:, None]).cumsum(axis=0)[last] @ drawn
        accuracy = np.where(selected > 0, 100 * correct / np.maximum(selected, 1), np.nan)
        curve[name] = accuracy[:, 0]
        # A resample can lack all people who have such large differences; it then says nothing here.
        curve[f"{name}_lower"], curve[f"{name}_upper"] = np.nanquantile(accuracy[:, 1:], [tail, 1 - tail], axis=1)
    return pd.DataFrame(curve)


def objective_by_decay_and_threshold(images: pd.DataFrame, search: Search) -> pd.DataFrame:
    """The objective of the search (eq. 9) over all participants, for each (k, d) at its best w_AU4.

    Parameters
    ----------
    images : pandas.DataFrame
        As for ``pair_predictions``; the ensemble's scorers are not needed.
    search : Search
        Grids, penalty and rounding.

    Returns
    -------
    pandas.DataFrame
        Index ``k``, columns ``d``; n_correct − 2 n_incorrect with the paper's penalty. No participant is left out,
        so this is the ground on which each fold, with one participant fewer, searches.
    """
    _, pairs = _named_pairs(images)
    au4, au12 = activations(images, search.activation_decimals)
    correct, incorrect = (counts.sum(axis=0) for counts in selected_counts(pairs, au4, au12, search))
    objective = (correct - search.incorrect_penalty * incorrect).max(axis=1)
    return pd.DataFrame(
        objective,
        index=pd.Index(search.decays, name="k"),
        columns=pd.Index(search.thresholds, name="d"),
    )


# --------------------------------------------------------------------------- drawing


def save(figure: Figure, folder: Path, name: str, stamp: str | None = None) -> list[Path]:
    """Write a figure as ``<name>.pdf`` and ``<name>.png`` (200 dots per inch): both, or neither.

    The files hold no date, so the same figure gives the same files.

    Parameters
    ----------
    figure : Figure
        What to write; it stays as it is.
    folder : Path
        Where; made if need be.
    name : str
        File name without ending.
    stamp : str, optional
        A framed label at the top right, in a strip that is added above the figure, so that it covers nothing.

    Raises
    ------
    FergiError
        If the folder cannot be written.
    """
    without_date = {"pdf": {"CreationDate": None}, "png": {}}
    paths = [folder / f"{name}.{kind}" for kind in without_date]
    with contextlib.ExitStack() as stack, mpl.rc_context(_STYLE):
        area = stack.enter_context(_stamped(figure, stamp)) if stamp else None
        files = [stack.enter_context(replacing(path)) for path in paths]
        for file, (kind, metadata) in zip(files, without_date.items(), strict=True):
            figure.savefig(file, format=kind, metadata=metadata, dpi=_DOTS, bbox_inches=area)
    return paths


@contextlib.contextmanager
def _stamped(figure: Figure, stamp: str) -> Iterator[Bbox]:
    """The figure with the label above its top edge, and the area to write, in inches."""
    width, height = figure.get_size_inches()
    engine, dots = figure.get_layout_engine(), figure.dpi
    figure.dpi = _DOTS  # the room that text takes depends on it
    figure.draw_without_rendering()  # everything is in its place now and must not move up with the upper edge
    figure.dpi = dots
    figure.set_layout_engine("none")
    label = figure.text(
        width - 0.08,
        height + _STAMP_STRIP / 2,
        stamp,
        transform=figure.dpi_scale_trans,
        ha="right",
        va="center",
        fontsize=8,
        color="#7a3300",
        parse_math=False,
        bbox={"boxstyle": "square,pad=0.3", "facecolor": "#fff1dc", "edgecolor": _ORANGE, "linewidth": 0.8},
    )
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    try:
        yield Bbox.from_extents(0, 0, width, height + _STAMP_STRIP)
    finally:
        label.remove()
        for legend in figure.legends:
            legend.set_bbox_to_anchor(None)
        figure.set_layout_engine(engine)


@mpl.rc_context(_STYLE)
def rating_figure(images: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    """Figure 3: activation by overall rating, one panel an AU that is significant for the rating or its extremity.

    If no AU is, those with the smallest p are drawn, and the figure says so.

    Blue stands for the rating, brown for its extremity |rating − 4|; where both are significant, the left half of
    a box is blue and the right half brown. The shade grows with the rating (or its extremity) if ρ is positive
    and falls with it if ρ is negative: darker where more activation is to be expected.

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image with a valid reaction: ``overall_rating`` (1–7; 0 = not given, left out) and the
        activation columns, in intensity units.
    correlations : pandas.DataFrame
        From ``statistics.rating_correlations``, of the same images.
    """
    units = rating_units(correlations)
    significant = any(significant_units(correlations[f"{each}_p"]) for each in ("rating", "extremity"))
    n_columns = 4
    n_rows = len(units) // n_columns + 1  # one place for the legend
    figure = Figure(figsize=(_WIDTH, 0.5 + 2.05 * n_rows), layout="constrained")
    if not significant and len(units):
        note = "No AU is significant after the Bonferroni correction: those with the smallest p values are drawn."
        figure.suptitle(note, x=0.01, ha="left", fontsize=8)
    places = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes in places[len(units) :]:
        axes.set_axis_off()
    for place, (unit, rho) in enumerate(units.iterrows()):
        axes = places[place]
        for rating in RATINGS:
            shades = []
            if not np.isnan(rho["rating_rho"]):
                shades.append(_BLUES(_shade((rating - 1) / 6, rho["rating_rho"])))
            if not np.isnan(rho["extremity_rho"]):
                shades.append(_BROWNS(_shade(abs(rating - MIDDLE_RATING) / 3, rho["extremity_rho"])))
            values = images.loc[images["overall_rating"] == rating, f"AU{unit}_activation_value"]
            _draw_box(axes, rating, values, 0.8, shades)
        titles = [f"({chr(97 + place)}) AU{unit}"]
        titles += [f"ρ = {_signed(rho[f'{each}_rho'])} ({each})" for each in _drawn(rho)]
        axes.set_title("\n".join(titles), loc="left")
        axes.set_xticks(RATINGS)
        axes.set_xlim(0.4, 7.6)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("overall rating")
        if place % n_columns == 0:
            axes.set_ylabel("activation\n(intensity units)")
    _explain_ratings(places[len(units)], images["overall_rating"], any_unit=len(units) > 0, significant=significant)
    return figure


def _shade(height: float, rho: float) -> float:
    """Position in a colour map for a rating (or extremity) at ``height`` 0–1: 1 where most activation is expected."""
    return height if rho > 0 else 1 - height


def _drawn(rho: pd.Series) -> list[str]:
    """Which of the two correlations of one AU are drawn."""
    return [each for each in ("rating", "extremity") if not np.isnan(rho[f"{each}_rho"])]


def _explain_ratings(axes: Axes, ratings: pd.Series, *, any_unit: bool, significant: bool) -> None:
    """What the colours of Figure 3 mean, and how many images have each rating."""
    if any_unit:
        which = "significant" if significant else "smallest p"
        blue, brown = (
            tuple(Patch(facecolor=colours(step), edgecolor=_INK, linewidth=0.5) for step in (0.0, 0.33, 0.67, 1.0))
            for colours in (_BLUES, _BROWNS)
        )
        axes.legend(
            [blue, brown],
            [f"{which} for\nthe rating", f"{which} for\nthe extremity,\n|rating − 4|"],
            handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
            handlelength=3.2,
            handleheight=1.6,
            borderaxespad=0,
            loc="upper left",
        )
        axes.text(0, 0.46, "Darker: ratings that go\nwith more activation.", transform=axes.transAxes, va="top")
    else:
        axes.text(0, 0.5, "No AU is significant.", transform=axes.transAxes, va="top")
    counts = [int((ratings == rating).sum()) for rating in RATINGS]
    lines = [f"Images with rating 1–7\n({sum(counts):,} in all):"]
    lines += [", ".join(f"{count:,}" for count in some) for some in (counts[:4], counts[4:])]
    axes.text(0, 0.22, "\n".join(lines), transform=axes.transAxes, va="top")


@mpl.rc_context(_STYLE)
def emotion_figure(images: pd.DataFrame, rank_sums: pd.DataFrame) -> Figure:
    """Figure 4: activation with and without each emotion, for the AUs that are significant for it.

    Parameters
    ----------
    images : pandas.DataFrame
        One row an image with a valid reaction: the six emotions (1 or 0) and the activation columns, in
        intensity units.
    rank_sums : pandas.DataFrame
        From ``statistics.emotion_rank_sums``, of the same images.
    """
    figure = Figure(figsize=(_WIDTH, 5.0), layout="constrained")
    figure.get_layout_engine().set(hspace=0.06, wspace=0.04)
    for place, (axes, emotion) in enumerate(zip(figure.subplots(2, 3).ravel(), EMOTIONS, strict=True)):
        units = significant_units(rank_sums[f"{emotion}_p"])
        felt = images[emotion].to_numpy() == 1
        for position, unit in enumerate(units):
            activation = images[f"AU{unit}_activation_value"].to_numpy(float)
            _draw_box(axes, position - 0.2, activation[felt], 0.36, [_BLUE], median="white")
            _draw_box(axes, position + 0.2, activation[~felt], 0.36, [_PALE])
        axes.set_xticks(range(len(units)), [f"AU{unit}" for unit in units])
        axes.set_xlim(-0.6, max(len(units), 1) - 0.4)
        axes.set_ylim(bottom=0)
        if place % 3 == 0:
            axes.set_ylabel("activation (intensity units)")
        if not units:
            axes.text(0.5, 0.5, "no AU is significant", transform=axes.transAxes, ha="center")
            axes.set_yticks([])
        if place >= 3:
            axes.set_xlabel("left box: yes, right box: no")
        axes.set_title(f"({chr(97 + place)}) {emotion}", loc="left", pad=18)
        axes.legend(
            handles=[
                Patch(facecolor=_BLUE, edgecolor=_INK, linewidth=0.6, label=f"yes ({felt.sum():,})"),
                Patch(facecolor=_PALE, edgecolor=_INK, linewidth=0.6, label=f"no ({(~felt).sum():,})"),
            ],
            ncols=2,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderaxespad=0.2,
            handlelength=1.2,
            columnspacing=1.4,
        )
    return figure


@mpl.rc_context(_STYLE)
def selection_figure(predictions: pd.DataFrame, *, resamples: int, seed: int, least_pairs: int = 50) -> Figure:
    """Accuracy against the share of pairs that the valence score selects, beside Table 1 (Section 6.2.4).

    The curves take the pairs of all people in the order of their difference. The marks are Table 1, where each
    person's pairs are held against the threshold of their own fold, so that marks and curves need not meet
    exactly.

    Parameters
    ----------
    predictions : pandas.DataFrame
        From ``pair_predictions``.
    resamples, seed : int
        Of the bootstrap (see ``selection_curve``).
    least_pairs : int
        Where the curves begin, or at a tenth of all pairs if that is less: shares of fewer are too few to draw.
    """
    curve = selection_curve(predictions, resamples=resamples, seed=seed)
    curve = curve[curve["n_selected"] >= min(least_pairs, len(predictions) / 10)]
    selected = predictions[predictions["selected"]]
    lowest = min(
        [curve[list(CURVES)].min(axis=None), *(100 * selected[name].mean() for name in CURVES if len(selected))]
    )
    figure = Figure(figsize=(_WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, colour, line, marker in ((VALENCE, _BLUE, "-", "o"), (ENSEMBLE, _ORANGE, "--", "s")):
        axes.fill_between(
            curve["share"], curve[f"{name}_lower"], curve[f"{name}_upper"], color=colour, alpha=0.14, linewidth=0
        )
        axes.plot(curve["share"], curve[name], color=colour, linestyle=line, linewidth=1.6, label=CURVES[name])
        if len(selected):
            share, accuracy = 100 * len(selected) / len(predictions), 100 * selected[name].mean()
            axes.plot(
                [share],
                [accuracy],
                marker=marker,
                markersize=7,
                markerfacecolor=colour,
                markeredgecolor="white",
                linestyle="none",
                label=f"its value in Table 1: {accuracy:.2f} % of {len(selected):,} pairs",
            )
    axes.axhline(50, color=_GREY, linewidth=0.8, linestyle=":")
    axes.text(100, 50.4, "guessing", color=_GREY, ha="right", va="bottom")
    axes.set_xlim(0, 100)
    axes.set_ylim(min(40, 10 * np.floor(lowest / 10)), 100)
    axes.set_xlabel(f"pairs selected, largest valence difference first (% of {len(predictions):,})")
    axes.set_ylabel("correct predictions (%)")
    axes.grid(axis="y", color=_PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    highest = curve.loc[curve["share"] > 40, [f"{name}_upper" for name in CURVES]].max(axis=None)
    place = "upper right" if highest < 80 else "lower left"  # where the curves are not
    legend = axes.legend(loc=place, title="Bands: 95 %, bootstrap over participants", alignment="left", frameon=True)
    legend.get_frame().set(edgecolor="none", alpha=0.9)
    return figure


@mpl.rc_context(_STYLE)
def objective_figure(objective: pd.DataFrame, results: pd.DataFrame) -> Figure:
    """Heat map of the search's objective over (k, d), with the points that the folds chose (Section 6.2.4).

    Parameters
    ----------
    objective : pandas.DataFrame
        From ``objective_by_decay_and_threshold``.
    results : pandas.DataFrame
        Stage 9, one row a fold: ``exp_decay_coef`` (k) and ``diff_threshold`` (d).
    """
    decays, thresholds = objective.index.to_numpy(float), objective.columns.to_numpy(float)
    values = objective.to_numpy(float)
    figure = Figure(figsize=(_WIDTH, 3.7), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#f2f2f2")
    axes.patch.set_hatch("////")
    axes.patch.set_edgecolor("#c9c9c9")
    highest = max(float(values.max()), 1.0)
    step = next(size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if highest / size <= 15)
    levels = np.arange(0, highest + step, step)
    mesh = axes.pcolormesh(
        _edges(thresholds),
        _edges(decays),
        np.ma.masked_less_equal(values, 0),
        cmap="viridis",
        norm=BoundaryNorm(levels, 256),
        rasterized=True,
    )
    bar = figure.colorbar(mesh, ax=axes, label="objective of the search (eq. 9)", ticks=levels[::2], pad=0.01)
    bar.outline.set_linewidth(0.6)
    folds = results[["exp_decay_coef", "diff_threshold"]].round(6).value_counts()
    chosen = sorted((threshold, decay, count) for (decay, threshold), count in folds.items())
    for place, (threshold, decay, count) in enumerate(chosen):
        side = -1 if 2 * place < len(chosen) else 1  # labels of neighbours then do not meet
        axes.plot([threshold], [decay], marker="o", markersize=5, markerfacecolor="white", markeredgecolor=_INK)
        axes.annotate(
            str(count),
            (threshold, decay),
            (side * 6, 0),
            textcoords="offset points",
            ha="right" if side < 0 else "left",
            va="center",
            color=_INK,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
        )
    axes.set_xlabel("difference threshold d")
    axes.set_ylabel("decay k (per intensity unit)")
    handles = [
        Line2D([], [], marker="o", markersize=5, markerfacecolor="white", markeredgecolor=_INK, linestyle="none"),
        Patch(facecolor="#f2f2f2", edgecolor="#c9c9c9", hatch="////"),
    ]
    axes.legend(
        handles,
        ["chosen by this many folds", "0 or less: no better than predicting nothing"],
        ncols=2,
        loc="lower left",
        bbox_to_anchor=(0, 1),
    )
    return figure


@mpl.rc_context(_STYLE)
def participant_figure(
    baseline: Mapping[str, pd.DataFrame],
    reaction: Mapping[str, pd.DataFrame],
    *,
    percentile: float,
    limit: float,
    excluded: Sequence[str],
) -> Figure:
    """AU4 and AU12 activation of each participant at rest and in reaction, with the rule of exclusion (Section 6.2.1).

    Participants stand in the order of their AU4 percentile at rest, highest first.

    Parameters
    ----------
    baseline, reaction : mapping
        Participant → table of the activation values of the valid clips, in intensity units.
    percentile : float
        The percentile of the baseline AU4 activation that decides.
    limit : float
        Who reaches this is left out, in intensity units.
    excluded : sequence of str
        Who was left out.
    """
    resting = {name: np.percentile(table["AU4_activation_value"], percentile) for name, table in baseline.items()}
    order = sorted(resting, key=lambda name: (-resting[name], name))
    figure = Figure(figsize=(_WIDTH, 5.6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for axes, unit in zip(panels, (4, 12), strict=True):
        column = f"AU{unit}_activation_value"
        for position, name in enumerate(order):
            if name in excluded:
                axes.axvspan(position - 0.5, position + 0.5, color="#f3d9d3", linewidth=0, zorder=0)
                axes.text(
                    position,
                    0.98,
                    "left out",
                    rotation=90,
                    ha="center",
                    va="top",
                    fontsize=7,
                    transform=axes.get_xaxis_transform(),
                    bbox={"facecolor": "#f3d9d3", "edgecolor": "none", "alpha": 0.85, "pad": 1},
                    zorder=5,
                )
            _draw_box(axes, position - 0.2, baseline[name][column], 0.34, [_PALE])
            _draw_box(axes, position + 0.2, reaction[name][column], 0.34, [_BLUE], median="white")
        axes.set_xlim(-0.6, len(order) - 0.4)
        axes.set_ylabel(f"AU{unit} activation (intensity units)")
    panels[0].axhline(limit, color=_ORANGE, linestyle="--", linewidth=1)
    panels[0].plot(
        np.arange(len(order)) - 0.2,
        [resting[name] for name in order],
        marker="D",
        markersize=4,
        markerfacecolor=_ORANGE,
        markeredgecolor="white",
        markeredgewidth=0.5,
        linestyle="none",
        zorder=4,
    )
    for axes, unit in zip(panels, (4, 12), strict=True):
        column = f"AU{unit}_activation_value"
        highest = [table[name][column].quantile(0.75) for table in (baseline, reaction) for name in excluded]
        highest += [resting[name] for name in excluded if unit == 4]
        # Above everything of those left out there is room for these words.
        axes.set_ylim(0, max([axes.get_ylim()[1], *(1.3 * value for value in highest if value > 0)]))
    panels[1].set_xticks(range(len(order)), order, rotation=90)
    panels[1].set_xlabel("participant")
    handles = [
        Patch(facecolor=_PALE, edgecolor=_INK, linewidth=0.6, label="left: at rest, before the image"),
        Patch(facecolor=_BLUE, edgecolor=_INK, linewidth=0.6, label="right: reaction to the image"),
        Line2D(
            [],
            [],
            marker="D",
            markersize=4,
            color=_ORANGE,
            linestyle="none",
            label=f"percentile {percentile:g} of AU4 at rest",
        ),
        Line2D([], [], color=_ORANGE, linestyle="--", linewidth=1, label=f"limit, {limit:g}"),
    ]
    figure.legend(handles=handles, ncols=4, loc="outside upper left", columnspacing=1.2, handlelength=1.6)
    return figure


@mpl.rc_context(_STYLE)
def accuracy_figure(intervals: pd.DataFrame) -> Figure:
    """Tables 1 and 2 as dots with 95 % intervals, and below them the differences between models.

    Modes that agree in all three numbers share one mark, that of the first of them.

    Parameters
    ----------
    intervals : pandas.DataFrame
        ``mode`` (paper, released, strict), ``table`` ("Table 1", "Table 2"), ``figure`` (what the number is, with
        or without ", selected" or ", all" behind it), ``kind`` ("accuracy" or "difference"), and ``estimate``,
        ``lower``, ``upper`` (percent, or percentage points). Rows are drawn in the order of the table.
    """
    marks = {"paper": ("o", _BLUE), "released": ("s", _ORANGE), "strict": ("^", _GREEN)}
    tables = {"Table 1": "Table 1: selected pairs", "Table 2": "Table 2: all pairs"}
    kinds = {"accuracy": ("correct pairs (%)", 50), "difference": ("difference (percentage points)", 0)}
    ordered = intervals.assign(order=intervals["mode"].map(list(marks).index)).sort_values("order", kind="stable")
    groups = {key: part for key, part in ordered.groupby(["kind", "table"])}
    n_rows = {kind: max(groups[kind, table]["figure"].nunique() for table in tables) for kind in kinds}
    figure = Figure(figsize=(_WIDTH, 1.5 + 0.26 * sum(n_rows.values())), layout="constrained")
    panels = figure.subplots(2, 2, height_ratios=list(n_rows.values()), sharex="row")
    for line, (kind, (label, reference)) in zip(panels, kinds.items(), strict=True):
        for axes, table in zip(line, tables, strict=True):
            names = list(dict.fromkeys(groups[kind, table]["figure"]))
            for position, name in enumerate(names):
                rows = groups[kind, table][groups[kind, table]["figure"] == name]
                distinct = rows.round(9).drop_duplicates(["estimate", "lower", "upper"])
                shifts = np.linspace(-0.25, 0.25, len(distinct)) if len(distinct) > 1 else [0.0]
                for shift, row in zip(shifts, distinct.itertuples(), strict=True):
                    marker, colour = marks[row.mode]
                    axes.plot([row.lower, row.upper], [position + shift] * 2, color=colour, linewidth=1.1)
                    axes.plot([row.estimate], [position + shift], marker=marker, markersize=3.8, color=colour)
            axes.axvline(reference, color=_GREY, linewidth=0.8, linestyle=":")
            axes.set_yticks(range(len(names)), [_readable(name) for name in names])
            axes.set_ylim(n_rows[kind] - 0.4, -0.6)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color=_PALE, linewidth=0.5)
            axes.set_axisbelow(True)
            axes.set_xlabel(label)
            if kind == "accuracy":
                axes.set_title(tables[table], loc="left")
    handles = [
        Line2D([], [], marker=marker, markersize=3.8, color=colour, linewidth=1.1, label=MODES[mode])
        for mode, (marker, colour) in marks.items()
        if mode in set(intervals["mode"])
    ]
    handles.append(Line2D([], [], linestyle="none", label="(one mark where modes agree)"))
    figure.legend(handles=handles, ncols=4, loc="outside upper left", columnspacing=1.2)
    return figure


@mpl.rc_context(_STYLE)
def example_figure(examples: Sequence[Example]) -> Figure:
    """Figures 5 and 6: single reactions, one below the other, each with what its participant said.

    From left to right: the face before the image, the image, the face at the AU's highest estimate, and the AU's
    course over the reaction clip with the two windows of eq. 2 and their means. Frames that do not count (Section
    5.1) are gaps in the course.

    Parameters
    ----------
    examples : sequence of Example
        At least one, all of one AU.
    """
    captions = [_caption(chr(97 + place), example) for place, example in enumerate(examples)]
    shapes = [_shape([getattr(example, name) for example in examples]) for name in ("before", "picture", "at_peak")]
    gap, for_labels, least_course = 0.08, 0.5, 1.8  # inches, as is everything here
    height = min(1.5, (_WIDTH - 5 * gap - for_labels - least_course) / sum(shapes))
    widths = [max(shape * height, title) for shape, title in zip(shapes, (0.95, 0.65, 1.4), strict=True)]
    lines = [0.155 * (caption.count("\n") + 1) for caption in captions]
    figure = Figure(figsize=(_WIDTH, 0.3 + sum(lines) + (height + 0.75) * len(examples)))
    figure_height = figure.get_figheight()

    def place_axes(left: float, top: float, width: float) -> Axes:
        return figure.add_axes(
            (left / _WIDTH, 1 - (top + height) / figure_height, width / _WIDTH, height / figure_height)
        )

    top = 0.3
    for example, caption, text_height in zip(examples, captions, lines, strict=True):
        figure.text(gap / _WIDTH, 1 - top / figure_height, caption, va="top", parse_math=False, linespacing=1.25)
        top, left = top + text_height + 0.25, gap
        titles = (
            "before the image",
            "the image",
            f"AU{example.unit} at its highest ({example.times[example.peak]:.1f} s)",
        )
        pictures = (example.before, example.picture, example.at_peak)
        for picture, title, width in zip(pictures, titles, widths, strict=True):
            axes = place_axes(left, top, width)
            axes.imshow(picture)
            axes.set_axis_off()
            axes.set_title(title, fontsize=7.5, pad=3)
            left += width + gap
        left += for_labels
        _draw_course(place_axes(left, top, _WIDTH - gap - left), example)
        top += height + 0.5
    handles = [
        Patch(facecolor=_PALE, label="first valid window"),
        Patch(facecolor="#f6c9a8", label="highest window"),
        Line2D([], [], color=_ORANGE, linewidth=1, linestyle="--", label="their means; activation: the difference"),
        Line2D([], [], marker="o", markersize=4.5, color=_ORANGE, linestyle="none", label="frame shown"),
    ]
    figure.legend(handles=handles, ncols=4, loc="upper left", columnspacing=1.2, handlelength=1.6)
    return figure


def _shape(pictures: Sequence[np.ndarray]) -> float:
    """Width by height of the widest picture."""
    return max(picture.shape[1] / picture.shape[0] for picture in pictures)


def _caption(letter: str, example: Example) -> str:
    """The prompt, and what the participant said about the image."""
    overall, alignment, fidelity = (str(rating) if rating else "none" for rating in example.ratings)
    said = [
        f"Participant {example.participant}, session {example.session}, image {example.image}",
        f"ranked {example.place} of {example.n_images}",
        f"overall rating {overall}, alignment {alignment}, fidelity {fidelity}",
        f"felt {', '.join(example.emotions) or 'none of the emotions'}",
    ]
    if example.issues is not None:
        said.append(f"issues: {', '.join(example.issues).replace('_', ' ') or 'none'}")
    lines = [*textwrap.wrap(f"({letter}) “{example.prompt}”", 112), *textwrap.wrap("; ".join(said) + ".", 112)]
    return "\n".join(lines)


def _draw_course(axes: Axes, example: Example) -> None:
    """One AU over a reaction clip, with the windows of eq. 2, their means and the frame that is shown."""
    times, values = example.times, np.where(example.valid, example.intensities, np.nan)
    frame = (times[-1] - times[0]) / max(len(times) - 1, 1)
    for window, colour in ((example.first_window, _PALE), (example.highest_window, "#f6c9a8")):
        mean = example.intensities[window].mean()
        axes.axvspan(times[window.start], times[window.stop - 1] + frame, color=colour, linewidth=0, zorder=0)
        axes.plot([times[0], times[-1]], [mean, mean], color=_ORANGE, linewidth=0.8, linestyle="--", zorder=1)
    axes.plot(times, values, color=_BLUE, linewidth=1, zorder=2)
    axes.plot(
        [times[example.peak]],
        [values[example.peak]],
        marker="o",
        markersize=4.5,
        color=_ORANGE,
        markeredgecolor="white",
        markeredgewidth=0.5,
        zorder=3,
    )
    axes.set_title(f"AU{example.unit} activation {example.activation:.2f}", fontsize=7.5, pad=3)
    axes.set_xlabel("seconds of the reaction clip")
    axes.set_ylabel(f"AU{example.unit} intensity")
    axes.margins(x=0.02, y=0.1)


def _readable(name: str) -> str:
    """The name of a figure without the pairs that its panel names already, and with a real minus sign."""
    return name.removesuffix(", selected").removesuffix(", all").replace(" - ", " − ")


def _draw_box(
    axes: Axes, position: float, values: ArrayLike, width: float, fills: Sequence, *, median: str = _INK
) -> None:
    """A box from quartile to quartile with a line at the median; ``fills`` share its width from left to right."""
    values = np.asarray(values, float)
    if not len(values):
        return
    low, middle, high = np.percentile(values, [25, 50, 75])
    left, part = position - width / 2, width / len(fills)
    for index, fill in enumerate(fills):
        axes.add_patch(Rectangle((left + index * part, low), part, high - low, facecolor=fill, linewidth=0, zorder=2))
    axes.add_patch(
        Rectangle((left, low), width, high - low, fill=False, edgecolor=_INK, linewidth=0.6, zorder=3, gid="box")
    )
    axes.plot([left, left + width], [middle] * 2, color=median, linewidth=1.3, solid_capstyle="butt", gid="median")


def _signed(value: float) -> str:
    """A number with two digits after the point and a real minus sign."""
    return f"{value:.2f}".replace("-", "−")


def _edges(centres: np.ndarray) -> np.ndarray:
    """The borders of the cells around evenly spaced centres, one more than these."""
    half = (centres[1] - centres[0]) / 2 if len(centres) > 1 else 0.5
    return np.append(centres - half, centres[-1] + half)
