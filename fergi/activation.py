"""AU activation values of clips (Section 5.2, eqs. 1–2)."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.indexers import BaseIndexer
from tqdm import tqdm

from fergi.dataset import CLIP_KEY, Folders, find_clips, unlisted_sessions
from fergi.features import (
    ACTION_UNITS,
    SETTINGS_FILE,
    ClipFeatures,
    FrameLimits,
    estimator_of,
    read_clips,
    require_one_estimator,
    valid_frames,
)
from fergi.files import FergiError, check_writable, read_json, summarise, write_tables

MISSING = "missing_action_units"  # in the settings of activation tables
ACTIVATION_COLUMNS = tuple(f"AU{unit}_activation_value" for unit in ACTION_UNITS)


@dataclass(frozen=True)
class Activation:
    """Activation values of clips.

    Attributes
    ----------
    values : ndarray of float, shape (n_clips, 12)
        α of eq. 2 in intensity units; NaN for a clip without a complete window, and for an AU that it does not have.
    valid_share : ndarray of float, shape (n_clips,)
        Share of each clip's frames that are valid.
    first_window : ndarray of int, shape (n_clips,)
        Frame, from 0, at which the clip's first complete window begins: 0 where eq. 2 holds as printed,
        −1 for a clip without a complete window.
    """

    values: np.ndarray
    valid_share: np.ndarray
    first_window: np.ndarray


def window_lengths(features: ClipFeatures, window_seconds: float) -> np.ndarray:
    """Frames of the moving window (eq. 1: 0.1 s, 3 frames at 30 FPS) in each clip, shape (n_clips,).

    The frame rate of a clip is measured from its timestamps and rounded to whole frames per second, since
    timestamps are rounded to milliseconds. A window has at least one frame.
    """
    time = features.column("timestamp")
    first, last = features.starts[:-1], features.starts[1:] - 1
    duration = np.where(last > first, time[last] - time[first], 1.0)
    frames_per_second = np.rint((last - first) / duration)
    return np.maximum(1, np.rint(frames_per_second * window_seconds)).astype(int)


class _WindowsWithinClips(BaseIndexer):
    """Windows that end at each frame and begin ``length`` frames earlier, but never before their clip."""

    def get_window_bounds(self, num_values=0, min_periods=None, center=None, closed=None, step=None):
        """Begin and end of each frame's window."""
        end = np.arange(1, num_values + 1, dtype=np.int64)
        return np.maximum(end - self.length_of_frame, self.start_of_frame), end


def clip_activation(features: ClipFeatures, valid: np.ndarray, window_seconds: float) -> Activation:
    r"""Activation values of clips (eqs. 1–2).

    .. math::
        \bar y_i^{(k)} = \frac{1}{3} \sum_{k'=k}^{k+2} \hat y_i^{(k')}, \qquad
        \alpha_i = \max_k \bar y_i^{(k)} - \bar y_i^{(1)}

    over the windows whose frames are all valid. The first of these windows takes the place of window 1, as in the
    release; the paper does not say what holds where the first frames of a clip are not valid.

    ``valid`` says which frames may be used, bool, shape (n_frames,); ``window_seconds`` how long the window is.
    """
    first, lengths = features.starts[:-1], features.lengths
    window = window_lengths(features, window_seconds)
    start_of_frame, length_of_frame = np.repeat(first, lengths), np.repeat(window, lengths)
    # pandas' moving mean, which starts anew in every clip, gives the released values to the last bit.
    indexer = _WindowsWithinClips(start_of_frame=start_of_frame, length_of_frame=length_of_frame)
    means = pd.DataFrame(features.intensities).rolling(indexer, min_periods=1).mean().to_numpy()
    n_valid = pd.Series(valid.astype(float)).rolling(indexer, min_periods=1).sum().to_numpy()
    complete = n_valid == length_of_frame

    highest = np.maximum.reduceat(np.where(complete[:, None], means, -np.inf), first)
    ends_of_windows = np.flatnonzero(complete)
    position = np.searchsorted(ends_of_windows, first)
    has_window = np.add.reduceat(complete.astype(int), first) > 0
    earliest = np.zeros(len(first), int)
    earliest[has_window] = ends_of_windows[position[has_window]]
    return Activation(
        values=np.where(has_window[:, None], highest - means[earliest], np.nan),
        valid_share=np.add.reduceat(valid.astype(int), first) / lengths,
        first_window=np.where(has_window, earliest + 1 - window - first, -1),
    )


def clip_table(
    folders: Folders,
    kind: str,
    sessions: dict[str, list[int]],
    *,
    limits: FrameLimits,
    minimum_valid_share: float,
    window_seconds: float,
) -> pd.DataFrame:
    """Every clip of one kind with its activation values (Sections 5.1–5.2).

    ``kind`` is ``baseline`` or ``reaction``, ``sessions`` are those of ``read_valid_sessions``. ``limits`` say which
    frames are valid, ``minimum_valid_share`` (0–1) which clips, and ``window_seconds`` how long the moving window of
    eq. 1 is.

    Returns
    -------
    pandas.DataFrame
        One row a clip, by participant, session and image: ``participant``, ``CLIP_KEY``, ``n_frames``, ``valid``,
        ``first_window`` (see ``Activation``) and ``ACTIVATION_COLUMNS``.

    Raises
    ------
    FergiError
        If feature files are missing or unusable, a valid clip has no complete window, two clips have the same frames,
        or valid clips do not have the same AUs. Every file is read first, so that the message says how many there are.
    """
    clips = find_clips(folders, kind, sessions)
    tables: list[pd.DataFrame] = []
    problems: list[str] = []
    seen: dict[bytes, Path] = {}
    for participant, own in tqdm(clips.items(), f"{kind} clips", unit="participant", disable=None, leave=False):
        features, unusable = read_clips(list(own.values()))
        problems += unusable
        if unusable:
            continue
        activation = clip_activation(features, valid_frames(features, limits), window_seconds)
        valid = activation.valid_share >= minimum_valid_share
        problems += _problems(list(own.values()), features, activation, valid, seen)
        table = pd.DataFrame(list(own), columns=list(CLIP_KEY)).assign(
            participant=participant, n_frames=features.lengths, valid=valid, first_window=activation.first_window
        )
        table[list(ACTIVATION_COLUMNS)] = activation.values
        tables.append(table)
    if problems:
        n_clips = sum(len(own) for own in clips.values())
        advice = "Make them again with clips_facial_process.py, or: python -m fergi.published --replace"
        raise summarise(problems, n_clips, f"{kind} feature files", advice)
    table = pd.concat(tables, ignore_index=True)
    _require_same_units(table, kind)
    return table


def _require_same_units(clips: pd.DataFrame, kind: str) -> None:
    """Stop if an AU has values in some of the valid clips and not in others."""
    valid = clips[clips["valid"]]
    lacking = valid[list(ACTIVATION_COLUMNS)].isna()
    for unit, column in zip(ACTION_UNITS, ACTIVATION_COLUMNS, strict=True):
        if lacking[column].any() and not lacking[column].all():
            first = valid[lacking[column]].iloc[0]
            where = f"{first['participant']}, session {first['session_index']}, image {first['image_index']}"
            raise FergiError(
                f"AU{unit} is empty in {lacking[column].sum()} of {len(valid)} valid {kind} clips (first: {where}), "
                "and has values in the others. Make all of them again with one estimator."
            )


def _problems(
    paths: Sequence[Path], features: ClipFeatures, activation: Activation, valid: np.ndarray, seen: dict[bytes, Path]
) -> list[str]:
    """Why valid clips cannot be used; ``seen`` collects the frames of every participant's clips.

    No two recordings have the same frames to the last digit: one file was copied over the other.
    """
    problems = []
    for index in np.flatnonzero(valid):
        path, frames = paths[index], features.values[features.starts[index] : features.starts[index + 1]]
        if activation.first_window[index] < 0:
            problems.append(f"{path}: enough valid frames but never as many in a row as a window has")
        first = seen.setdefault(hashlib.sha256(frames.tobytes()).digest(), path)
        if first != path:
            problems.append(f"{path} has the frames of {first}, another clip")
    return problems


def write_activation_tables(
    folders: Folders,
    kind: str,
    sessions: dict[str, list[int]],
    *,
    black: dict[str, set[tuple[int, int]]] | None = None,
    **settings,
) -> None:
    """Stages 6 and 7: write one table a participant of ``CLIP_KEY`` and ``ACTIVATION_COLUMNS``, and report the counts.

    ``settings`` are those of ``clip_table``. ``black`` are participant → (session, image) pairs of black images; the
    reactions to them are not in the tables. Beside the tables stands a ``settings.json`` with the estimator and with
    the AUs that it does not give, whose columns are empty.

    Raises
    ------
    FergiError
        As ``clip_table`` does, or if a participant has no valid clip, or if the features come from several
        estimators, or would stand beside tables of another one. Nothing is written then.
    """
    output = folders.activation_tables(kind)
    check_writable(output)
    estimator = require_one_estimator(
        (folders.session(who, number) for who, numbers in sessions.items() for number in numbers), top=folders.data
    )
    _require_no_other_tables(output, sessions, estimator)
    clips = clip_table(folders, kind, sessions, **settings)
    of_black = [(participant, *image) for participant, images in (black or {}).items() for image in images]
    is_black = pd.MultiIndex.from_frame(clips[["participant", *CLIP_KEY]]).isin(of_black)
    kept = clips[clips["valid"] & ~is_black]
    n_kept = kept["participant"].value_counts().reindex(sessions, fill_value=0)
    if not n_kept.all():
        lost = [f"{who}, with {(clips['participant'] == who).sum()} clips" for who in n_kept.index[n_kept == 0]]
        advice = f"Record them again or take them out of {folders.valid_sessions}."
        raise summarise(lost, len(sessions), "participants", advice, f"have no valid {kind} clip in {folders.data}")
    columns = [*CLIP_KEY, *ACTIVATION_COLUMNS]
    missing = [unit for unit, name in zip(ACTION_UNITS, ACTIVATION_COLUMNS, strict=True) if kept[name].isna().all()]
    by_participant = kept.groupby("participant", sort=False)
    settings = estimator | {MISSING: missing}
    tables = {output / f"{who}.csv": table[columns] for who, table in by_participant}
    write_tables({output / SETTINGS_FILE: settings} | tables)  # the settings first: tables without them are published

    n_valid, n_black = clips["valid"].sum(), (clips["valid"] & is_black).sum()
    print(f"{len(clips)} {kind} clips of {len(sessions)} participants, {clips['n_frames'].sum()} frames.")
    of_them = f", {n_black} of them reactions to black images, which are not in the tables" if n_black else ""
    print(f"{n_valid} clips are valid{of_them}.")
    n_units = len(ACTION_UNITS) - len(missing)
    print(f"{len(kept)} clips x {n_units} AUs = {len(kept) * n_units} activation values.")
    if missing:
        print(f"{_named(missing)} are empty: {estimator['estimator']} does not give them.")
    late = kept.loc[kept["first_window"] > 0, "first_window"]
    if len(late):
        start = f"the first valid window starts after the first frame (at most {late.max()} frames later)"
        print(f"In {len(late)} clips {start}.")
    unlisted = unlisted_sessions(folders, sessions)
    if unlisted:
        n = len(unlisted)
        print(f"{n} session folders are not in valid_sessions.json and were not used (first: {unlisted[0]}).")
    print(f"Wrote {len(sessions)} tables to {output}.")


def _require_no_other_tables(output: Path, participants: Iterable[str], estimator: dict[str, str]) -> None:
    """Stop if tables that would stay come from another estimator: one folder has the settings of one."""
    staying = sorted({path.name for path in output.glob("*.csv")} - {f"{who}.csv" for who in participants})
    there = estimator_of(output)
    if staying and there != estimator:
        raise FergiError(
            f"{len(staying)} tables of other participants in {output} (first: {staying[0]}) come from the estimator "
            f"{there['estimator']} {there['estimator_version'][:12]}, and these features from "
            f"{estimator['estimator']} {estimator['estimator_version'][:12]}. Remove them or choose another --root."
        )


def missing_action_units(tables: Path) -> tuple[int, ...]:
    """The AUs whose columns are empty in a folder of activation tables, because its estimator does not give them.

    Raises
    ------
    FergiError
        If its settings cannot be read.
    """
    if not (tables / SETTINGS_FILE).is_file():  # the published tables have all
        return ()
    return tuple(read_json(tables / SETTINGS_FILE, "Run stages 6 and 7 again.").get(MISSING, ()))


def require_action_units(tables: Path, units: Iterable[int], what: str) -> None:
    """Stop if a folder of activation tables lacks one of the AUs that ``what`` (as in "AUcomb") needs.

    Raises
    ------
    FergiError
        Naming them, and the estimator that does not give them.
    """
    lacking = [unit for unit in units if unit in missing_action_units(tables)]
    if lacking:
        raise FergiError(
            f"{what} needs {_named(lacking)}, which the estimator of {tables}, {estimator_of(tables)['estimator']}, "
            "does not give. Make features with an estimator that does."
        )


def _named(units: Iterable[int]) -> str:
    return ", ".join(f"AU{unit}" for unit in units)
