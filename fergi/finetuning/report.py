"""What a tuning has changed: accuracy on held-out pairs before and after, with intervals, and a figure."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fergi.statistics import bootstrap_accuracies

RESAMPLES = 10_000
LARGEST = 20_000_000  # of resamples times participants, in memory
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#767676"
FEW = 5  # participants; an interval over fewer says little


def before_and_after(
    units: Sequence[str], decided: np.ndarray, right: dict[str, np.ndarray], seed: int
) -> pd.DataFrame:
    """Accuracy before and after and the gain, in percent and points, with 95 % intervals over ``units``.

    Parameters
    ----------
    units : sequence of str, shape (n_pairs,)
        Whose pair each is (or of which prompt): a bootstrap draws whole units, since pairs of one are not independent.
    decided : ndarray of bool, shape (n_pairs,)
        Which pairs have a preference.
    right : dict
        "before" and "after" → whether the score agrees, bool, shape (n_pairs,).
    seed : int
        Where the generator starts.

    Returns
    -------
    pandas.DataFrame
        Index before, after, gain; columns estimate, lower, upper.
    """
    columns = {}
    for name, agrees in right.items():
        columns |= {f"{name}_n_correct": agrees & decided, f"{name}_n_incorrect": ~agrees & decided}
    counts = pd.DataFrame(columns).groupby(np.asarray(units)).sum()
    resamples = max(1000, min(RESAMPLES, LARGEST // len(counts)))
    return bootstrap_accuracies(counts, list(right), {"gain": ("after", "before")}, resamples=resamples, seed=seed)


def is_better(table: pd.DataFrame) -> bool:
    """Whether the interval of the gain lies above 0."""
    return bool(table.loc["gain", "lower"] > 0)


def sentences(table: pd.DataFrame, n_pairs: int, n_units: int, unit: str, *, name: str, kept: bool) -> list[str]:
    """The report for the terminal."""
    shown = {each: f"{row.estimate:.2f} [{row.lower:.2f}, {row.upper:.2f}]" for each, row in table.iterrows()}
    said = [
        f"Held out: {n_pairs} pairs of {n_units} {unit}s. Right before {shown['before']} %, after {shown['after']} %, "
        f"gain {shown['gain']} points (95 % intervals over {unit}s)."
    ]
    if n_units < FEW:
        said.append(f"Warning: an interval over {n_units} {unit}s says little. Hold out more.")
    if is_better(table):
        said.append(f"{name} is better than before.")
    elif kept:
        said.append("The interval of the gain includes 0; the tuned scorer is written because --accept always asks so.")
    else:
        said.append(
            "The interval of the gain does not lie above 0, so the old scorer is kept and no adapter is written. "
            "--accept always writes it (the same command again, nothing is trained twice)."
        )
    return said


@mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8, "legend.frameon": False, "pdf.fonttype": 42})
def tuning_figure(log: pd.DataFrame, table: pd.DataFrame, title: str) -> Figure:
    """Losses and accuracy by epoch, of training and held-out pairs; bars are the intervals before and after.

    ``log`` is the training's log, whose row of epoch 0 is before; ``table`` is from ``before_and_after``.
    """
    drawn = Figure(figsize=(7.1, 2.9), layout="constrained")
    drawn.suptitle(title, fontsize=8, x=0.01, ha="left")
    left, right = drawn.subplots(1, 2)
    epoch, trained = log["epoch"], log["epoch"] > 0
    left.plot(epoch, log["held_out_loss"], "o-", color=BLUE, ms=3, lw=1.2, label="held-out pairs")
    left.plot(epoch[trained], log["loss"][trained], "o--", color=ORANGE, ms=3, lw=1.2, label="training pairs")
    left.set(xlabel="epoch (0: before)", ylabel="loss of preferences")
    right.axhline(50, color=GREY, lw=0.6, ls=":")
    right.plot(epoch, log["held_out_accuracy"], "o-", color=BLUE, ms=3, lw=1.2)
    right.plot(epoch[trained], log["accuracy"][trained], "o--", color=ORANGE, ms=3, lw=1.2)
    for place, row in ((epoch.min(), table.loc["before"]), (epoch.max(), table.loc["after"])):
        away = [[row.estimate - row.lower], [row.upper - row.estimate]]
        right.errorbar([place], [row.estimate], away, color=BLUE, capsize=3, lw=0.8)
    right.set(xlabel="epoch (0: before)", ylabel="pairs right, % (bars: 95 % intervals)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(loc="best")
    return drawn
