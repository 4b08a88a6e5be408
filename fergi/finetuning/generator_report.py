"""What the tuning of a generator has changed: implicit accuracy with its interval, and figures."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from fergi.finetuning.report import BLUE, GREY, ORANGE, RESAMPLES
from fergi.statistics import bootstrap_accuracies

STYLE = {"font.family": "DejaVu Sans", "font.size": 8, "legend.frameon": False, "pdf.fonttype": 42}


def implicit_accuracy(units: Sequence[str], margin: np.ndarray, label: np.ndarray, seed: int) -> pd.Series:
    """Of the pairs with a preference that the model orders at all, the percentage that it orders as the label does.

    The model prefers the picture whose error has fallen more than the other's. A margin of 0 is a tie and counts for
    neither side.

    Parameters
    ----------
    units : sequence of str, shape (n_pairs,)
        Whose pair each is, or of which prompt; a bootstrap draws whole units.
    margin, label : ndarray, shape (n_pairs,)
        The model's logits and the labels' probabilities.
    seed : int
        Where the generator of random numbers starts.

    Returns
    -------
    pandas.Series
        estimate, lower, upper (95 % interval over units); NaN where there are ties only.
    """
    agrees = np.sign(margin) * np.sign(label - 0.5)
    counts = pd.DataFrame({"after_n_correct": agrees > 0, "after_n_incorrect": agrees < 0})
    counts = counts.groupby(np.asarray(units)).sum()
    if not counts.to_numpy().sum():
        return pd.Series({"estimate": np.nan, "lower": np.nan, "upper": np.nan}, name="after")
    return bootstrap_accuracies(counts, ["after"], {}, resamples=RESAMPLES, seed=seed).loc["after"]


@mpl.rc_context(STYLE)
def training_figure(log: pd.DataFrame, largest_error: float, title: str) -> Figure:
    """Losses, held-out implicit accuracy, and held-out error beside the reference's, by step."""
    drawn = Figure(figsize=(7.1, 2.6), layout="constrained")
    drawn.suptitle(title, fontsize=8, x=0.01, ha="left")
    losses, right, error = drawn.subplots(1, 3)
    step, trained = log["step"], log["step"] > 0
    losses.plot(step, log["held_out_loss"], "o-", color=BLUE, ms=3, lw=1.2, label="held-out pairs")
    losses.plot(step[trained], log["loss"][trained], "o--", color=ORANGE, ms=3, lw=1.2, label="training pairs")
    losses.legend(loc="best")
    right.axhline(50, color=GREY, lw=0.6, ls=":")
    right.plot(step[trained], log["held_out_right"][trained], "o-", color=BLUE, ms=3, lw=1.2)
    right.set_ylim(0, 101)
    error.axhline(largest_error, color=GREY, lw=0.8, ls="--")
    error.annotate(f"stops above {largest_error:g}", (step.min(), largest_error), (0, -9), textcoords="offset points")
    error.plot(step, log["error_ratio"], "o-", color=BLUE, ms=3, lw=1.2)
    error.set_ylim(min(0.9, log["error_ratio"].min()), max(largest_error, log["error_ratio"].max()) * 1.05)
    labels = ("loss", "held-out pairs right, %", "held-out error / reference's")
    for axes, label in zip((losses, right, error), labels, strict=True):
        axes.set(xlabel="step", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return drawn


@mpl.rc_context(STYLE)
def samples_figure(before: Path, after: Path, prompts: Sequence[str], title: str) -> Figure:
    """Two grids of samples side by side; each line is a prompt, each column a seed, the same on both sides."""
    grids = [np.asarray(Image.open(path)) for path in (before, after)]
    height = 3.2 * grids[0].shape[0] / grids[0].shape[1]
    drawn = Figure(figsize=(7.1, height + 0.5 + 0.16 * len(prompts)), layout="constrained")
    lines = "\n".join(f"{number}  {prompt[:110]}" for number, prompt in enumerate(prompts, 1))
    drawn.suptitle(f"{title}\n{lines}", fontsize=8, x=0.01, ha="left")
    for axes, grid, what in zip(drawn.subplots(1, 2), grids, ("before", "after"), strict=True):
        axes.imshow(grid)
        axes.set_title(what, fontsize=8)
        line = grid.shape[0] / len(prompts)
        axes.set_yticks([(number + 0.5) * line for number in range(len(prompts))], range(1, len(prompts) + 1))
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return drawn
