"""The tables of ``benchmarks.faces``: each prints what rows say, with intervals, and returns which claims hold."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

import config
from benchmarks.face_readers import UNITS, correlations

RESAMPLES = 1000
LEVELS = (0, 1, 2, 3, 4, 5)
SWEPT = {1: "happy", 4: "happy", 26: "happy", 12: "angry"}  # AU → a mood without it; AU12 is not promised
PROMISED, RISING = (1, 4, 26), 0.75
SPOILT = 0.2  # share of the labels
MADE = {  # how labels of synthesised faces were corrected: the threshold
    "few and synthesised": None,
    "… corrected": config.LABEL_THRESHOLDS["intensity"],
}


def interval(n: int, statistic: Callable[[np.ndarray], float]) -> tuple[float, float, float]:
    """A statistic of n things and its 95 % interval over them (bootstrap); ``statistic`` takes places."""
    random = np.random.default_rng(0)
    values = [statistic(random.integers(n, size=n)) for _ in range(RESAMPLES)]
    return statistic(np.arange(n)), *np.percentile(values, [2.5, 97.5])


def shown(found: tuple[float, float, float], digits: int = 2) -> str:
    """A value with its interval."""
    value, low, high = found
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def wide(rows: pd.DataFrame, values: str = "value") -> np.ndarray:
    """Rows of AUs as an array (pictures of all seeds, 12)."""
    return rows.pivot(index=["seed", "picture"], columns="what", values=values)[UNITS].to_numpy()


def show_readers(rows: pd.DataFrame) -> list[str]:
    """How well judge and guide read drawn faces."""
    table = rows.pivot(index="what", columns="how", values="value").loc[["mood right", *UNITS]]
    print(table.round(2).to_string())
    return []


def show_asked(rows: pd.DataFrame) -> list[str]:
    """R and error by text alone and with AUs; the gain has an interval over pictures."""
    units = rows[rows["what"].isin(UNITS)]
    text, told = (units[units["how"] == how] for how in ("text alone", "with AUs"))
    asked, alone, read = wide(told, "asked"), wide(text), wide(told)
    print("| AU | r by text alone | r with AUs, seed by seed | gain in r (95 %, over pictures) |")
    print("|---|---|---|---|")
    by_seed = [correlations(wide(each, "asked"), wide(each)) for _, each in told.groupby("seed")]
    gains = {}
    for place, name in enumerate(UNITS):
        parts = [array[:, place] for array in (asked, alone, read)]

        def gain(at: np.ndarray, parts: Sequence[np.ndarray] = parts) -> float:
            wanted, before, after = (part[at] for part in parts)
            return np.corrcoef(wanted, after)[0, 1] - np.corrcoef(wanted, before)[0, 1]

        gains[name] = interval(len(asked), gain)
        r = np.corrcoef(parts[0], parts[1])[0, 1]
        each = " ".join(f"{values[place]:.2f}" for values in by_seed)
        print(f"| {name} | {r:.2f} | {np.corrcoef(parts[0], parts[2])[0, 1]:.2f} ({each}) | {shown(gains[name])} |")
    errors = [np.abs(each - asked).mean(axis=1) for each in (alone, read)]
    less = interval(len(asked), lambda at: (errors[0] - errors[1])[at].mean())
    print(f"Mean absolute error, of 5: {errors[0].mean():.2f} by text alone, {errors[1].mean():.2f} with AUs; ", end="")
    moods = rows[rows["what"] == "mood as asked"].groupby("how")["value"].mean()
    print(f"{shown(less)} less. Mood as asked: {moods['text alone']:.2f}, {moods['with AUs']:.2f}.")
    better = [name for name, (_, low, _) in gains.items() if low > 0]
    worse = [name for name, (_, _, high) in gains.items() if high < 0]
    return [
        verdict(all(f"AU{unit}" in better for unit in PROMISED), f"AUs raise r beside text alone for {text_of(better)}"
                f", and lower it for {text_of(worse)}"),
        verdict(less[1] > 0, "AUs lower the error"),
    ]  # fmt: skip


def show_sweeps(rows: pd.DataFrame) -> list[str]:
    """Mean readings by level, and in how many starting noises the reading rises from 0 to 5."""
    print("| AU | " + " | ".join(f"asked {level}" for level in LEVELS) + " | rises from 0 to 5 | r within a noise |")
    print("|" + "---|" * (len(LEVELS) + 3))
    shares = {}
    told = rows[rows["how"] == "λ = 1"]
    for unit in SWEPT:
        each = told[told["what"] == f"AU{unit}"].pivot(index=["seed", "picture"], columns="asked", values="value")
        values = each.to_numpy()
        rises = values[:, -1] > values[:, 0]
        shares[unit] = rises.mean()
        by_seed = " ".join(f"{part.mean():.2f}" for _, part in pd.Series(rises, each.index).groupby("seed"))
        within = np.median([np.corrcoef(LEVELS, series)[0, 1] for series in values])
        means = " | ".join(f"{mean:.2f}" for mean in values.mean(axis=0))
        print(f"| AU{unit} | {means} | {rises.sum()} of {len(rises)} ({by_seed}) | {within:.2f} |")
    flat = rows[rows["how"] == "λ = 0"].pivot(index=["seed", "what", "picture"], columns="asked", values="value")
    change = np.ptp(flat.to_numpy(), axis=1).max()
    others = ", ".join(f"AU{unit}" for unit in SWEPT if unit not in PROMISED)
    print(f"With λ = 0 readings change by at most {change:g}. Not promised: {others}.")
    return [
        verdict(min(shares[unit] for unit in PROMISED) >= RISING, "sweeps of AU1, AU4 and AU26 rise in at least three "
                "quarters of the noises"),
        verdict(change == 0, "λ = 0 is flat"),
    ]  # fmt: skip


def show_guidance(rows: pd.DataFrame) -> list[str]:
    """Share of pictures whose mood is as asked, as judge and guide see it."""
    seen = {key: part["value"].to_numpy() for key, part in rows.groupby(["what", "how"])}
    print("| text moved | judge: mood as asked | change, points (95 %, over pictures) | guide |")
    print("|---|---|---|---|")
    change = {}
    for how in ("none", "minus", "random", "plus"):
        judged, before = seen["judge", how], seen["judge", "none"]
        change[how] = interval(len(judged), lambda at, by=100 * (judged - before): by[at].mean())
        print(f"| {how} | {judged.mean():.2f} | {shown(change[how], 0)} | {seen['guide', how].mean():.2f} |")
    return [
        verdict(change["minus"][0] >= 15, "guidance raises the judged mood by at least 15 points"),
        verdict(
            change["random"][1] <= 0 <= change["random"][2] or change["random"][2] < 0, "a random direction does not"
        ),
        verdict(change["plus"][2] < 0, "the plus sign lowers it"),
    ]


def show_correction(rows: pd.DataFrame) -> list[str]:
    """Mean absolute errors of labels, before and after."""
    errors = rows.pivot(index=["seed", "picture"], columns="how", values="value")
    print(f"Error of labels of which {SPOILT:.0%} are spoilt, of 5: {errors['before'].mean():.3f}")
    found = {}
    for how in errors.columns.drop("before"):
        less = (errors["before"] - errors[how]).to_numpy()
        found[how] = interval(len(less), lambda at, less=less: less[at].mean())
        print(f"{how}: {errors[how].mean():.3f}; {shown(found[how], 3)} less (95 %, over pictures)")
    return [verdict(each[1] > 0, f"label correction lowers the error {how}") for how, each in found.items()]


def show_held_out(rows: pd.DataFrame) -> list[str]:
    """Mean r over AUs, and error, on people whom nothing knows."""
    print("| trained on | mean r over the AUs, seed by seed | mean absolute error | r more than few, seed by seed |")
    print("|---|---|---|---|")
    means = {}
    for how in ("few", *MADE, "many"):
        each = rows[rows["how"] == how]
        r = [correlations(wide(part, "asked"), wide(part)).mean() for _, part in each.groupby("seed")]
        means[how] = np.array(r)
        gain = means[how] - means["few"]
        error = np.abs(each["value"].clip(0, 5) - each["asked"]).mean()
        by_seed = " ".join(f"{value:.3f}" for value in r)
        gains = " ".join(f"{value:+.3f}" for value in gain)
        print(f"| {how} | {np.mean(r):.3f} ({by_seed}) | {error:.2f} | {gain.mean():+.3f} ({gains}) |")
    return []


def text_of(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names) or "none"


def verdict(holds: bool, claim: str) -> str:
    """A line that says whether a claim holds."""
    return f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}"


SHOWS = {
    "readers": show_readers,
    "asked": show_asked,
    "sweeps": show_sweeps,
    "guidance": show_guidance,
    "correction": show_correction,
    "held out": show_held_out,
}
