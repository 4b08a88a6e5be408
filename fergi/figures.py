"""Figures 3 to 6 of the paper, and six of ours that show what its tables rest on and what to expect of annotations.

Nothing is read or computed here. Each function takes tables (from the stages and from ``fergi.statistics``) or
examples of reactions, and returns a ``matplotlib.figure.Figure``; ``save`` writes it. No window is opened, and no
figure stays in memory.

A box in these figures reaches from the first to the third quartile, with a line at the median; there are no
whiskers and no single points (captions of Figures 3 and 4). Sizes are those of a printed page: 18 cm wide, type
of 7 points and more. Colour never stands alone: position, a label or a marker says the same.
"""

import contextlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox
from matplotlib.typing import ColorType

from fergi.dataset import EMOTIONS
from fergi.examples import Example
from fergi.files import replacing
from fergi.preference.results import ENSEMBLE, VALENCE
from fergi.statistics import MIDDLE_RATING, rating_units, significant_units

RATINGS = (1, 2, 3, 4, 5, 6, 7)

_WIDTH = 7.1  # inches, 18 cm
_DOTS = 200  # per inch
_STAMP_STRIP = 0.28  # inches above the figure
_INK, _GREY, _PALE = "#222222", "#767676", "#d9d9d9"
_BLUE, _ORANGE, _GREEN = "#0072b2", "#d55e00", "#009e73"  # told apart with every common colour blindness
_SHADES = {
    "rating": LinearSegmentedColormap.from_list("rating", ["#e3eef9", "#3a84c1"]),
    "extremity": LinearSegmentedColormap.from_list("extremity", ["#f8ecd6", "#b0712a"]),
}
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


def save(figure: Figure, folder: Path, name: str, stamp: str | None = None) -> list[Path]:
    """Write a figure as ``<name>.pdf`` and ``<name>.png`` (200 dots per inch): both, or neither.

    The files hold no date, so the same figure gives the same files.

    Parameters
    ----------
    figure : Figure
        What to write; it stays as it is.
    folder, name : Path, str
        Where (made if need be), and the file name without ending.
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
        One row an image with a valid reaction: ``overall_rating`` (1–7; images with 0, no rating, are dropped) and
        the activation columns, in intensity units.
    correlations : pandas.DataFrame
        From ``statistics.rating_correlations``, of the same images.
    """
    units = rating_units(correlations)
    significant = any(significant_units(correlations[f"{each}_p"]) for each in _SHADES)
    n_columns = 4
    n_rows = len(units) // n_columns + 1  # one place for the legend
    figure = Figure(figsize=(_WIDTH, 0.5 + 2.05 * n_rows), layout="constrained")
    if not significant and len(units):
        note = "No AU is significant after the Bonferroni correction: those with the smallest p values are drawn."
        figure.suptitle(note, x=0.01, ha="left", fontsize=8)
    places = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes in places[len(units) :]:
        axes.set_axis_off()
    rated = images[images["overall_rating"].isin(RATINGS)]
    for place, (unit, rho) in enumerate(units.iterrows()):
        axes, shown = places[place], rho.dropna()
        _draw_rated_boxes(axes, rated["overall_rating"], rated[f"AU{unit}_activation_value"], shown)
        titles = [f"ρ = {value:.2f} ({name})".replace("-", "−") for name, value in shown.items()]
        axes.set_title("\n".join([f"({chr(97 + place)}) AU{unit}", *titles]), loc="left")
        axes.set(xlabel="overall rating", ylabel="" if place % n_columns else "activation\n(intensity units)")
    _explain_ratings(places[len(units)], rated["overall_rating"], any_unit=len(units) > 0, significant=significant)
    return figure


def _draw_rated_boxes(axes: Axes, rating: pd.Series, activation: pd.Series, rho: pd.Series) -> None:
    """A box for each rating, in one shade or in two halves, for each correlation in ``rho``."""
    halves = []
    for number, (name, value) in enumerate(rho.items()):
        height = (rating - 1) / 6 if name == "rating" else abs(rating - MIDDLE_RATING) / 3
        colours = [to_hex(_SHADES[name](each if value > 0 else 1 - each)) for each in height]
        position = rating + 0.4 * (number - (len(rho) - 1) / 2)
        halves.append(pd.DataFrame({"position": position, "activation": activation, "colour": colours}))
    width = 0.8 if len(rho) == 1 else 1
    _draw_boxes(axes, pd.concat(halves), "position", "activation", "colour", width=width, native_scale=True)
    axes.set(xticks=RATINGS, xlim=(0.4, 7.6), ylim=(0, None))


def _explain_ratings(axes: Axes, ratings: pd.Series, *, any_unit: bool, significant: bool) -> None:
    """What the colours of Figure 3 mean, and how many images have each rating."""
    if any_unit:
        which = "significant" if significant else "smallest p"
        steps = (0.0, 0.33, 0.67, 1.0)
        axes.legend(
            [tuple(_patch(shade(step), linewidth=0.5) for step in steps) for shade in _SHADES.values()],
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
    counts = [f"{(ratings == rating).sum():,}" for rating in RATINGS]
    lines = [f"Images with rating 1–7\n({len(ratings):,} in all):", ", ".join(counts[:4]), ", ".join(counts[4:])]
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
    palette = {"yes": _BLUE, "no": _PALE}
    for place, (axes, emotion) in enumerate(zip(figure.subplots(2, 3).ravel(), EMOTIONS, strict=True)):
        units = significant_units(rank_sums[f"{emotion}_p"])
        felt = images[emotion].map({1: "yes", 0: "no"})
        if units:
            columns = {f"AU{unit}_activation_value": f"AU{unit}" for unit in units}
            table = images[list(columns)].rename(columns=columns).assign(felt=felt).melt("felt", var_name="AU")
            _draw_boxes(axes, table, "AU", "value", "felt", palette=palette, gap=0.08)
        else:
            axes.text(0.5, 0.5, "no AU is significant", transform=axes.transAxes, ha="center")
            axes.set(xticks=[], yticks=[])
        ylabel = "" if place % 3 else "activation (intensity units)"
        axes.set(ylim=(0, None), xlabel="left box: yes, right box: no" if place >= 3 else "", ylabel=ylabel)
        axes.set_title(f"({chr(97 + place)}) {emotion}", loc="left", pad=18)
        axes.legend(
            handles=[_patch(colour, f"{name} ({(felt == name).sum():,})") for name, colour in palette.items()],
            ncols=2,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderaxespad=0.2,
            handlelength=1.2,
            columnspacing=1.4,
        )
    return figure


def _patch(colour: ColorType, label: str = "", linewidth: float = 0.6) -> Patch:
    """A box in a legend."""
    return Patch(facecolor=colour, edgecolor=_INK, linewidth=linewidth, label=label)


@mpl.rc_context(_STYLE)
def selection_figure(curve: pd.DataFrame, table_1: pd.Series) -> Figure:
    """Accuracy against the share of pairs that the valence score selects, beside Table 1 (Section 6.2.4).

    The curves take the pairs of all people in the order of their difference. In Table 1, each person's pairs are
    compared with the threshold of their own fold, so that its marks need not lie on the curves.

    Parameters
    ----------
    curve : pandas.DataFrame
        From ``statistics.selection_curve``.
    table_1 : pandas.Series
        From ``statistics.selected_accuracy``.
    """
    styles = {
        VALENCE: ("AUcomb valence", _BLUE, "-", "o"),
        ENSEMBLE: ("ensemble of ImageReward, PickScore and HPS v2", _ORANGE, "--", "s"),
    }
    figure = Figure(figsize=(_WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, (label, colour, line, marker) in styles.items():
        band = curve[f"{name}_lower"], curve[f"{name}_upper"]
        axes.fill_between(curve["share"], *band, color=colour, alpha=0.14, linewidth=0)
        axes.plot(curve["share"], curve[name], color=colour, linestyle=line, linewidth=1.6, label=label)
        if table_1["n_selected"]:
            said = f"its value in Table 1: {table_1[name]:.2f} % of {table_1['n_selected']:,.0f} pairs"
            style = {"markersize": 7, "color": colour, "markeredgecolor": "white", "linestyle": "none"}
            axes.plot([table_1["share"]], [table_1[name]], marker=marker, label=said, **style)
    axes.axhline(50, color=_GREY, linewidth=0.8, linestyle=":")
    axes.text(100, 50.4, "guessing", color=_GREY, ha="right", va="bottom")
    lowest = np.nanmin([*curve[list(styles)].to_numpy().ravel(), *table_1[list(styles)]])
    axes.set(
        xlim=(0, 100),
        ylim=(min(40, 10 * np.floor(lowest / 10)), 100),
        xlabel=f"pairs selected, largest valence difference first (% of {table_1['n_pairs']:,.0f})",
        ylabel="correct predictions (%)",
    )
    axes.grid(axis="y", color=_PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    highest = curve.loc[curve["share"] > 40, [f"{name}_upper" for name in styles]].max(axis=None)
    place = "upper right" if highest < 80 else "lower left"  # where the curves are not
    legend = axes.legend(loc=place, title="Bands: 95 %, bootstrap over participants", alignment="left", frameon=True)
    legend.get_frame().set(edgecolor="none", alpha=0.9)
    return figure


@mpl.rc_context(_STYLE)
def objective_figure(objective: pd.DataFrame, choices: Mapping[tuple[float, float], int]) -> Figure:
    """Heat map of the search's objective over (k, d), with the points that the folds chose (Section 6.2.4).

    Parameters
    ----------
    objective : pandas.DataFrame
        From ``statistics.objective_by_decay_and_threshold``.
    choices : mapping
        (k, d) → how many folds chose it (``statistics.fold_choices``).
    """
    figure = Figure(figsize=(_WIDTH, 3.7), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#f2f2f2")
    axes.patch.set(hatch="////", edgecolor="#c9c9c9")
    highest = max(float(objective.max(axis=None)), 1.0)
    step = next(size for size in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if highest / size <= 15)
    levels = np.arange(0, highest + step, step)
    sns.heatmap(
        objective,
        mask=objective <= 0,
        cmap="viridis",
        norm=BoundaryNorm(levels, 256),
        vmin=0,
        vmax=levels[-1],
        xticklabels=5,
        yticklabels=2,
        cbar_kws={"label": "objective of the search (eq. 9)", "ticks": levels[::2], "pad": 0.01},
        rasterized=True,
        ax=axes,
    )
    axes.invert_yaxis()
    axes.tick_params(rotation=0)
    dot = {"marker": "o", "markersize": 5, "markerfacecolor": "white", "markeredgecolor": _INK, "linestyle": "none"}
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
    nearest = [(abs(objective.columns - d).argmin(), abs(objective.index - k).argmin()) for k, d in choices]
    cells = [(column + 0.5, row + 0.5, n) for (column, row), n in zip(nearest, choices.values(), strict=True)]
    for place, (x, y, n) in enumerate(sorted(cells)):
        side, shift = ("right", -6) if 2 * place < len(cells) else ("left", 6)  # labels of neighbours then do not meet
        axes.plot([x], [y], **dot)
        options = {"textcoords": "offset points", "ha": side, "va": "center", "color": _INK, "bbox": box}
        axes.annotate(str(n), (x, y), (shift, 0), **options)
    axes.set(xlabel="difference threshold d", ylabel="decay k (per intensity unit)")
    blank = Patch(facecolor="#f2f2f2", edgecolor="#c9c9c9", hatch="////")
    labels = ["chosen by this many folds", "0 or less: no better than predicting nothing"]
    axes.legend([Line2D([], [], **dot), blank], labels, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


@mpl.rc_context(_STYLE)
def participant_figure(
    baseline: Mapping[str, pd.DataFrame],
    reaction: Mapping[str, pd.DataFrame],
    resting: Mapping[str, float],
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
    resting : mapping
        Participant → the percentile of the baseline AU4 activation that decides.
    percentile : float
        Which percentile that is.
    limit : float
        Who reaches this is excluded, in intensity units.
    excluded : sequence of str
        Who is excluded.
    """
    order = sorted(resting, key=lambda name: (-resting[name], name))
    colours = {"left: at rest, before the image": _PALE, "right: reaction to the image": _BLUE}
    clips = pd.concat(
        table.assign(participant=name, kind=kind)
        for kind, tables in zip(colours, (baseline, reaction), strict=True)
        for name, table in tables.items()
    )
    figure = Figure(figsize=(_WIDTH, 6.0), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    diamond = {"marker": "D", "markersize": 4, "color": _ORANGE, "linestyle": "none"}
    for axes, unit in zip(panels, (4, 12), strict=True):
        column = f"AU{unit}_activation_value"
        _draw_boxes(axes, clips, "participant", column, "kind", palette=colours, order=order, gap=0.08)
        if unit == 4:
            axes.axhline(limit, color=_ORANGE, linestyle="--", linewidth=1)
            positions = np.arange(len(order)) - 0.2
            heights = [resting[name] for name in order]
            axes.plot(positions, heights, **diamond, markeredgecolor="white", markeredgewidth=0.5, zorder=4)
        axes.set(xlim=(-0.6, len(order) - 0.4), ylim=(0, None), ylabel=f"AU{unit} activation (intensity units)")
        for position in map(order.index, excluded):
            axes.axvspan(position - 0.5, position + 0.5, color="#f3d9d3", linewidth=0, zorder=0)
    labels = [f"{name}, excluded" if name in excluded else name for name in order]
    panels[1].set_xticks(range(len(order)), labels, rotation=90)
    panels[1].set_xlabel("participant")
    handles = [
        *(_patch(colour, kind) for kind, colour in colours.items()),
        Line2D([], [], **diamond, label=f"percentile {percentile:g} of AU4 at rest"),
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
        ``mode`` (paper, released, strict), ``table`` ("Table 1", "Table 2"), ``figure`` (the row's name in
        ``results.tables_1_and_2``, or a difference), ``kind`` ("accuracy" or "difference"), and ``estimate``,
        ``lower``, ``upper`` (percent, or percentage points). Rows are drawn in the order of the table.
    """
    marks = {"paper": ("o", _BLUE, "paper mode"), "released": ("s", _ORANGE, "released mode")}
    marks["strict"] = ("^", _GREEN, "strict folds")
    tables = {"Table 1": "Table 1: selected pairs", "Table 2": "Table 2: all pairs"}
    kinds = {"accuracy": ("correct pairs (%)", 50), "difference": ("difference (percentage points)", 0)}
    ordered = intervals.sort_values("mode", key=lambda mode: mode.map(list(marks).index), kind="stable")
    groups = {key: part for key, part in ordered.groupby(["kind", "table"])}
    n_rows = {kind: max(groups[kind, table]["figure"].nunique() for table in tables) for kind in kinds}
    figure = Figure(figsize=(_WIDTH, 1.5 + 0.26 * sum(n_rows.values())), layout="constrained")
    panels = figure.subplots(2, 2, height_ratios=list(n_rows.values()), sharex="row")
    for line, (kind, (label, reference)) in zip(panels, kinds.items(), strict=True):
        for axes, table in zip(line, tables, strict=True):
            by_name = dict(list(groups[kind, table].groupby("figure", sort=False)))
            for position, rows in enumerate(by_name.values()):
                distinct = rows.round(9).drop_duplicates(["estimate", "lower", "upper"])
                shifts = np.linspace(-0.25, 0.25, len(distinct)) if len(distinct) > 1 else [0.0]
                for shift, row in zip(shifts, distinct.itertuples(), strict=True):
                    marker, colour, _ = marks[row.mode]
                    axes.plot([row.lower, row.upper], [position + shift] * 2, color=colour, linewidth=1.1)
                    axes.plot([row.estimate], [position + shift], marker=marker, markersize=3.8, color=colour)
            axes.axvline(reference, color=_GREY, linewidth=0.8, linestyle=":")
            names = [name.rpartition(", ")[0].replace(" - ", " − ") for name in by_name]
            axes.set(yticks=range(len(names)), yticklabels=names, ylim=(n_rows[kind] - 0.4, -0.6), xlabel=label)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color=_PALE, linewidth=0.5)
            axes.set_axisbelow(True)
            if kind == "accuracy":
                axes.set_title(tables[table], loc="left")
    handles = [
        Line2D([], [], marker=marker, markersize=3.8, color=colour, linewidth=1.1, label=label)
        for mode, (marker, colour, label) in marks.items()
        if mode in set(intervals["mode"])
    ]
    handles.append(Line2D([], [], linestyle="none", label="(one mark where modes agree)"))
    figure.legend(handles=handles, ncols=4, loc="outside upper left", columnspacing=1.2)
    return figure


@mpl.rc_context(_STYLE)
def order_figure(people: pd.DataFrame, everybody: pd.Series, balanced: pd.DataFrame) -> Figure:
    """How often the earlier image of a pair is preferred, by participant, and what that does to accuracies.

    Parameters
    ----------
    people, everybody : pandas.DataFrame, pandas.Series
        From ``order_of_showing.earlier_by_participant``.
    balanced : pandas.DataFrame
        From ``order_of_showing.balanced_tables``; its rows on all pairs are drawn.
    """
    figure = Figure(figsize=(_WIDTH, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    ordered = people.sort_values("percent", ascending=False)
    places = np.arange(len(ordered))
    left.axhspan(everybody["lower"], everybody["upper"], color=_BLUE, alpha=0.14, linewidth=0)
    left.axhline(everybody["estimate"], color=_BLUE, linewidth=1)
    sizes = 10 + 50 * ordered["pairs"] / ordered["pairs"].max()
    left.scatter(places, ordered["percent"], s=sizes, color=_BLUE, edgecolor="white", linewidth=0.5, zorder=3)
    left.axhline(50, color=_GREY, linewidth=0.8, linestyle=":")
    left.set(
        xticks=places,
        xlim=(-0.8, len(places) - 0.2),
        xlabel="participant (larger: more pairs)",
        ylabel="pairs whose earlier image is preferred (%)",
    )
    left.set_xticklabels(ordered.index, rotation=90, fontsize=6)
    left.set_title(f"(a) all: {everybody['estimate']:.1f} % of {everybody['pairs']:,.0f} pairs", loc="left")
    rows = balanced[balanced.index.str.endswith(", all")].dropna()
    for place, row in enumerate(rows.itertuples()):
        right.plot([row.earlier, row.later], [place] * 2, color=_PALE, linewidth=3, solid_capstyle="round", zorder=1)
    marks = {"earlier": ("<", _BLUE, "earlier image preferred"), "later": (">", _ORANGE, "later image preferred")}
    marks |= {"accuracy": ("|", _INK, "all pairs"), "balanced": ("D", _GREEN, "order-balanced")}
    for name, (marker, colour, label) in marks.items():
        style = {"markersize": 9 if marker == "|" else 4.5, "linestyle": "none", "markeredgewidth": 1.2}
        right.plot(rows[name], range(len(rows)), marker=marker, color=colour, label=label, **style)
    right.axvline(50, color=_GREY, linewidth=0.8, linestyle=":")
    names = [name.rpartition(", ")[0] for name in rows.index]
    right.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6), xlabel="correct pairs (%)")
    right.tick_params(axis="y", length=0)
    right.set_title("(b) accuracy on all pairs", loc="left")
    figure.legend(*right.get_legend_handles_labels(), ncols=4, loc="outside lower right", columnspacing=1.2)
    for axes in (left, right):
        axes.grid(axis="y" if axes is left else "x", color=_PALE, linewidth=0.5)
        axes.set_axisbelow(True)
    return figure


@mpl.rc_context(_STYLE)
def held_out_figure(
    coverage: Mapping[str, pd.DataFrame],
    calibration: Mapping[str, pd.DataFrame],
    own_threshold: tuple[float, float, float, float] | None = None,
) -> Figure:
    """Accuracy by coverage and calibration of valence models, on people whom they never saw.

    Parameters
    ----------
    coverage, calibration : mapping
        Name of a model, at most three → its table from ``held_out.accuracy_by_coverage`` and
        ``held_out.calibration_table``.
    own_threshold : tuple of float, optional
        Share of pairs that AUcomb selects by its own thresholds, the accuracy there and the ends of its interval
        (percent).
    """
    styles = (("-", "o", _BLUE), ("--", "s", _ORANGE), ("-.", "^", _GREEN))
    figure = Figure(figsize=(_WIDTH, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    for number, (name, table) in enumerate(coverage.items()):
        line, marker, colour = styles[number]
        share = 100 * table["coverage"]
        left.fill_between(share, table["lower"], table["upper"], color=colour, alpha=0.12, linewidth=0)
        left.plot(share, table["accuracy"], line, color=colour, marker=marker, markersize=4, linewidth=1.4, label=name)
        found = calibration[name]
        said = found["said"] + 0.5 * (number - (len(coverage) - 1) / 2)  # else the bars cover one another
        ends = np.array([found["found"] - found["lower"], found["upper"] - found["found"]])
        options = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 0, "elinewidth": 1}
        right.errorbar(said, found["found"], ends, **options)
    if own_threshold:
        share, accuracy, lower, upper = own_threshold
        ends = [[accuracy - lower], [upper - accuracy]]
        style = {"marker": "*", "markersize": 9, "color": _INK, "elinewidth": 1, "linewidth": 0}
        left.errorbar([share], [accuracy], ends, **style, label="AUcomb at its own thresholds", zorder=4)
    left.axhline(50, color=_GREY, linewidth=0.8, linestyle=":")
    left.set(xlim=(0, 102), xlabel="pairs with a verdict, surest first (%)", ylabel="correct verdicts (%)")
    left.set_title("(a) accuracy by coverage", loc="left")
    left.legend(loc="upper right")
    limits = (48, max(90, *(table["said"].max() + 3 for table in calibration.values())))
    right.plot(limits, limits, color=_GREY, linewidth=0.8, linestyle=":")
    right.set(xlim=limits, ylim=(min(40, left.get_ylim()[0]), 100))
    right.set(xlabel="probability said (%), mean of a bin", ylabel="correct (%)")
    right.set_title("(b) calibration; dotted: as said", loc="left")
    for axes in (left, right):
        axes.grid(axis="y", color=_PALE, linewidth=0.5)
        axes.set_axisbelow(True)
    return figure


def _draw_boxes(
    axes: Axes, table: pd.DataFrame, x: str, y: str, hue: str, *, palette: Mapping[str, str] | None = None, **options
) -> None:
    """Boxes from quartile to quartile with a line at the median, which is white on blue.

    Without a palette the values of ``hue`` are themselves colours.
    """
    sns.boxplot(
        table,
        x=x,
        y=y,
        hue=hue,
        palette=palette or {colour: colour for colour in table[hue]},
        hue_order=palette,
        dodge=palette is not None,
        saturation=1,
        whis=0,
        showcaps=False,
        showfliers=False,
        linecolor=_INK,
        linewidth=0.6,
        whiskerprops={"linewidth": 0},
        medianprops={"linewidth": 1.3},
        legend=False,
        vert=None,  # seaborn sets it, and this Matplotlib calls it orientation
        ax=axes,
        **options,
    )
    for drawn in axes.containers:
        for box, median in zip(drawn.boxes, drawn.medians, strict=True):
            if to_hex(box.get_facecolor()) == _BLUE:
                median.set_color("white")


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
    names = ("before", "picture", "at_peak")
    widest = [max([0.9, *(np.divide(*getattr(each, name).shape[1::-1]) for each in examples)]) for name in names]
    lines = [caption.count("\n") + 1 for caption in captions]
    figure = Figure(figsize=(_WIDTH, 0.3 + 0.17 * sum(lines) + 2.1 * len(examples)), layout="constrained")
    rows = figure.subfigures(len(examples), squeeze=False, height_ratios=[0.17 * n + 2.1 for n in lines]).ravel()
    for row, example, caption in zip(rows, examples, captions, strict=True):
        row.suptitle(caption, x=0.01, ha="left", fontsize=8, parse_math=False, linespacing=1.25)
        *places, course = row.subplots(1, 4, width_ratios=[*widest, max(1.6, 0.4 * sum(widest))])
        titles = ("before the image", "the image", f"AU{example.unit} highest ({example.times[example.peak]:.1f} s)")
        for axes, name, title in zip(places, names, titles, strict=True):
            axes.imshow(getattr(example, name))
            axes.set_axis_off()
            axes.set_title(title, fontsize=7.5, pad=3)
        _draw_course(course, example)
    handles = [
        Patch(facecolor=_PALE, label="first valid window"),
        Patch(facecolor="#f6c9a8", label="highest window"),
        Line2D([], [], color=_ORANGE, linewidth=1, linestyle="--", label="their means; activation: the difference"),
        Line2D([], [], marker="o", markersize=4.5, color=_ORANGE, linestyle="none", label="frame shown"),
    ]
    figure.legend(handles=handles, ncols=4, loc="outside upper left", columnspacing=1.2, handlelength=1.6)
    return figure


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
    dot = {"marker": "o", "markersize": 4.5, "markerfacecolor": _ORANGE, "markeredgecolor": "white"}
    axes.plot(times, values, color=_BLUE, linewidth=1, zorder=2, markevery=[example.peak], markeredgewidth=0.5, **dot)
    axes.set_title(f"AU{example.unit} activation {example.activation:.2f}", fontsize=7.5, pad=3)
    axes.set_xlabel("seconds of the clip")
    axes.set_ylabel(f"AU{example.unit} intensity")
    axes.margins(x=0.02, y=0.1)
